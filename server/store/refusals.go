package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"
	"github.com/gofrs/uuid/v5"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entrefusal "github.com/apikeys-dev/apikeys/ent/apikeyrefusal"
	enttotal "github.com/apikeys-dev/apikeys/ent/apikeyrefusaltotal"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// refusedUses is what one transaction of a flush adds to the records of keys.
type refusedUses struct {
	totals, rows []any
}

// addRefused adds what c has of refusals.
func (s *Store) addRefused(to *refusedUses, c *apikey.UsageCount) {
	if c.Refused > 0 || len(c.Refusals) > 0 {
		to.totals = append(to.totals, c.KeyID, c.Refused)
	}
	for i := range c.Refusals {
		u := &c.Refusals[i]
		to.rows = append(to.rows, refusalID(u.At, s.refusals.Add(1)), c.KeyID, u.At.UnixMicro(), string(u.Code), string(u.Via),
			u.IP, u.UserAgent, string(u.Caller.Kind), u.Caller.ID, u.Caller.Name)
	}
}

// refusalID returns an id that ascends with the time of its refusal, to the
// microsecond, and among those of one microsecond with n.
func refusalID(at time.Time, n uint64) string {
	id, err := uuid.NewV7AtTime(at)
	if err != nil {
		panic(err) // There is no randomness.
	}
	fraction := uint16(at.UnixMicro() % 1000 << 2) // 12 bits that are random otherwise
	binary.BigEndian.PutUint16(id[6:], 0x7000|fraction)
	binary.BigEndian.PutUint16(id[8:], 0x8000|uint16(n&0x3fff))
	return apikey.RefusalIDPrefix + id.String()
}

// refusalsBefore is before the id of every refusal of a time, and after those of earlier
// milliseconds.
func refusalsBefore(t time.Time) string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:], uint64(max(t.UnixMilli(), 0))<<16)
	return apikey.RefusalIDPrefix + id.String()
}

var (
	addRefusalTotals = bulk{
		head:    "INSERT INTO " + enttotal.Table + " (" + enttotal.FieldID + ", " + enttotal.FieldTotal + ") VALUES ",
		columns: 2,
		tail: " ON CONFLICT (" + enttotal.FieldID + ") DO UPDATE SET " +
			enttotal.FieldTotal + " = " + enttotal.Table + "." + enttotal.FieldTotal + " + excluded." + enttotal.FieldTotal,
	}
	addRefusals = bulk{
		head: "INSERT INTO " + entrefusal.Table + " (" + entrefusal.FieldID + ", " + entrefusal.FieldKeyID + ", " + entrefusal.FieldAt + ", " +
			entrefusal.FieldCode + ", " + entrefusal.FieldVia + ", " + entrefusal.FieldIP + ", " + entrefusal.FieldUserAgent + ", " +
			entrefusal.FieldActorKind + ", " + entrefusal.FieldActorID + ", " + entrefusal.FieldActorName + ") VALUES ",
		columns: 10,
	}
	// trimRefusals deletes all but the newest of each key.
	trimRefusals = bulk{
		head: "DELETE FROM " + entrefusal.Table + " WHERE " + entrefusal.FieldID + " IN (SELECT " + entrefusal.FieldID + " FROM (SELECT " +
			entrefusal.FieldID + ", ROW_NUMBER() OVER (PARTITION BY " + entrefusal.FieldKeyID + " ORDER BY " + entrefusal.FieldID + " DESC) AS place" +
			" FROM " + entrefusal.Table + " WHERE " + entrefusal.FieldKeyID + " IN (VALUES ",
		columns: 1,
		tail:    fmt.Sprintf(")) AS ranked WHERE place > %d)", apikey.MaxRefusals),
	}
	manyRefusals = bulk{
		head:    "SELECT " + enttotal.FieldID + " FROM " + enttotal.Table + " WHERE " + enttotal.FieldID + " IN (VALUES ",
		columns: 1,
		tail:    fmt.Sprintf(") AND %s > %d", enttotal.FieldTotal, apikey.MaxRefusals),
	}
)

// write adds to the records. The totals come first: on PostgreSQL they keep two servers
// from writing the record of one key at the same time.
func (r *refusedUses) write(ctx context.Context, etx *ent.Tx, dialect string) error {
	if len(r.totals) == 0 {
		return nil
	}
	if err := addRefusalTotals.exec(ctx, etx, dialect, r.totals); err != nil {
		return err
	}
	if err := addRefusals.exec(ctx, etx, dialect, r.rows); err != nil {
		return err
	}
	var ids, many []any
	for i := 0; i < len(r.totals); i += addRefusalTotals.columns {
		ids = append(ids, r.totals[i])
	}
	found, err := manyRefusals.texts(ctx, etx, dialect, ids)
	if err != nil {
		return err
	}
	for id := range found {
		many = append(many, id)
	}
	return trimRefusals.exec(ctx, etx, dialect, many)
}

// Refusals returns a page of up to limit refusals of a key of organization, the newest
// first, of those before the id before unless that is empty, and how many there were in
// all. more says that older ones follow. A key that is not there is apikey.ErrNotFound.
func (s *Store) Refusals(ctx context.Context, organization, id, before string, limit int) (page []apikey.RefusedUse, more bool, total int64, err error) {
	const doing = "refusals"
	end, err := s.beginPage(ctx)
	if err != nil {
		return nil, false, 0, errList(doing, err)
	}
	defer end()
	there, err := s.reader.ApiKey.Query().Where(entkey.ID(id), entkey.OrganizationID(organization)).Exist(ctx)
	if err != nil {
		return nil, false, 0, errList(doing, err)
	}
	if !there {
		return nil, false, 0, apikey.ErrNotFound
	}
	// The total is read last, so that it is never less than what is listed.
	page, more, err = readPage(limit, sizeOfRefusal, func(last *apikey.RefusedUse, n int) ([]apikey.RefusedUse, error) {
		if last != nil {
			before = last.ID
		}
		query := s.reader.ApiKeyRefusal.Query().Where(entrefusal.KeyID(id))
		if before != "" {
			query.Where(entrefusal.IDLT(before))
		}
		rows, err := query.Order(entrefusal.ByID(entsql.OrderDesc())).Limit(n).All(ctx)
		uses := make([]apikey.RefusedUse, len(rows))
		for i, row := range rows {
			uses[i] = apikey.RefusedUse{
				ID: row.ID, At: fromMicros(&row.At), Code: apikey.Code(row.Code), Via: apikey.RefusalVia(row.Via),
				IP: row.IP, UserAgent: row.UserAgent,
				Caller: apikey.Actor{Kind: apikey.ActorKind(row.ActorKind), ID: row.ActorID, Name: row.ActorName},
			}
		}
		return uses, err
	})
	if err != nil {
		return nil, false, 0, errList(doing, err)
	}
	row, err := s.reader.ApiKeyRefusalTotal.Get(ctx, id)
	switch {
	case err == nil:
		total = row.Total
	case !ent.IsNotFound(err):
		return nil, false, 0, errList(doing, err)
	}
	return page, more, total, nil
}

func sizeOfRefusal(u *apikey.RefusedUse) int { return rowBytes + len(u.UserAgent) + len(u.Caller.Name) }

// deleteRefusals deletes the record of a key.
func (t *tx) deleteRefusals(ctx context.Context, id string) error {
	if _, err := t.ApiKeyRefusal.Delete().Where(entrefusal.KeyID(id)).Exec(ctx); err != nil {
		return fmt.Errorf("delete the key's refusals: %w", err)
	}
	if _, err := t.ApiKeyRefusalTotal.Delete().Where(enttotal.ID(id)).Exec(ctx); err != nil {
		return fmt.Errorf("delete the key's refusals: %w", err)
	}
	return nil
}

// DeleteRefusalsBefore deletes up to limit of the oldest refusals, as far as they are of
// before the time given, and returns how many.
func (s *Store) DeleteRefusalsBefore(ctx context.Context, before time.Time, limit int) (int, error) {
	ids, err := s.reader.ApiKeyRefusal.Query().Where(entrefusal.IDLT(refusalsBefore(before))).
		Order(entrefusal.ByID()).Limit(limit).IDs(ctx)
	return s.deleteOldRefusals(ctx, ids, err)
}

// DeleteRefusalsOver deletes up to limit of the oldest refusals, as far as there are more
// than most, and returns how many.
func (s *Store) DeleteRefusalsOver(ctx context.Context, most, limit int) (int, error) {
	there, err := s.reader.ApiKeyRefusal.Query().Count(ctx)
	if err != nil || there <= most {
		return s.deleteOldRefusals(ctx, nil, err)
	}
	ids, err := s.reader.ApiKeyRefusal.Query().Order(entrefusal.ByID()).Limit(min(limit, there-most)).IDs(ctx)
	return s.deleteOldRefusals(ctx, ids, err)
}

// DeleteOrphanRefusals deletes what is left of the records of up to limit keys that are
// gone, and returns of how many. On PostgreSQL a flush that has begun before a key is
// deleted, and commits after that, leaves the refusals that it has brought.
func (s *Store) DeleteOrphanRefusals(ctx context.Context, limit int) (int, error) {
	const doing = "delete the refusals of keys that are gone"
	ids, err := s.reader.ApiKeyRefusalTotal.Query().Where(func(total *entsql.Selector) {
		key := entsql.Table(entkey.Table)
		total.Where(entsql.NotExists(entsql.Select(key.C(entkey.FieldID)).From(key).
			Where(entsql.ColumnsEQ(key.C(entkey.FieldID), total.C(enttotal.FieldID)))))
	}).Limit(limit).IDs(ctx)
	if err != nil || len(ids) == 0 {
		return 0, unexpected(doing, err)
	}
	slices.Sort(ids)
	err = s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		if _, err := etx.ApiKeyRefusalTotal.Delete().Where(enttotal.IDIn(ids...)).Exec(ctx); err != nil {
			return err
		}
		_, err := etx.ApiKeyRefusal.Delete().Where(entrefusal.KeyIDIn(ids...)).Exec(ctx)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(ids), nil
}

func (s *Store) deleteOldRefusals(ctx context.Context, ids []string, err error) (int, error) {
	const doing = "delete old refusals"
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	deleted := 0
	for chunk := range slices.Chunk(ids, 500) {
		err := s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
			_, err := etx.ApiKeyRefusal.Delete().Where(entrefusal.IDIn(chunk...)).Exec(ctx)
			return err
		})
		if err != nil {
			return deleted, err
		}
		deleted += len(chunk)
	}
	return deleted, nil
}
