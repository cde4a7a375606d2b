package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entquota "github.com/apikeys-dev/apikeys/ent/apikeyquota"
	entusage "github.com/apikeys-dev/apikeys/ent/apikeyusage"
	entrevision "github.com/apikeys-dev/apikeys/ent/revision"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// loads is the read that each verification of a key that is not in memory waits
// for. It is the one read that ent does not build and scan each time, which took
// most of its time: its texts are made once, for a few numbers of hashes, so that
// the driver finds its statements prepared, and its rows are scanned straight into
// what decodeKey takes.
type loads struct {
	driver dialect.Driver
	texts  [len(loadSizes)]string
}

// loadSizes are the numbers of hashes that there are texts for, ascending. A load
// of another number repeats its last hash up to the next of them.
var loadSizes = [...]int{1, 2, 4, 16, 64, 256}

// LoadsTogether is how many connections loads have: as many calls of KeysBySecret
// as that run at a time without waiting for each other.
const LoadsTogether = 2

func newLoads(driver dialect.Driver) *loads {
	l := &loads{driver: driver}
	for i, n := range loadSizes {
		l.texts[i] = loadText(driver.Dialect(), n)
	}
	return l
}

// loadText returns the query of the keys that have one of n hashes as their
// current or previous secret. Its arguments are the hashes, twice.
func loadText(dialect string, n int) string {
	build := entsql.Dialect(dialect)
	key, usage, quota := build.Table(entkey.Table).As("k"), build.Table(entusage.Table).As("u"), build.Table(entquota.Table).As("q")
	tables := map[string]*entsql.SelectTable{entkey.Table: key, entusage.Table: usage, entquota.Table: quota}
	query := build.Select()
	for _, c := range new(loadedRow).columns() {
		if c.table == entrevision.Table {
			query.AppendSelectExprAs(build.Select(c.name).From(build.Table(c.table)), c.name)
		} else {
			query.AppendSelect(tables[c.table].C(c.name))
		}
	}
	hashes := slices.Repeat([]any{[]byte(nil)}, n) // of which only the number counts
	text, _ := query.From(key).
		LeftJoin(usage).On(usage.C(entusage.FieldID), key.C(entkey.FieldID)).
		LeftJoin(quota).On(quota.C(entquota.FieldID), key.C(entkey.FieldID)).
		Where(entsql.Or(
			entsql.In(key.C(entkey.FieldSecretHash), hashes...),
			entsql.In(key.C(entkey.FieldPreviousHash), hashes...),
		)).Query()
	return text
}

// KeysBySecret returns the keys that have one of hashes as their current or
// previous secret, in no order, and the position of the log at which the first of
// them was read, in the same statement. Hashes that belong to no key are passed
// over.
func (s *Store) KeysBySecret(ctx context.Context, hashes []apikey.Hash) (keys []apikey.Key, position int64, err error) {
	for chunk := range slices.Chunk(hashes, loadSizes[len(loadSizes)-1]) {
		found, at, err := s.loads.load(ctx, chunk)
		if err != nil {
			return nil, 0, fmt.Errorf("look up secrets: %w", err)
		}
		if len(keys) == 0 {
			position = at
		}
		keys = append(keys, found...)
	}
	return keys, position, nil
}

// load reads the keys of at most as many hashes as the largest of loadSizes.
func (l *loads) load(ctx context.Context, hashes []apikey.Hash) (keys []apikey.Key, position int64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if l.driver.Dialect() == dialect.SQLite {
		// Watching for the end of ctx costs more than the read, which takes
		// microseconds and waits for no network.
		ctx = context.WithoutCancel(ctx)
	}
	size, _ := slices.BinarySearch(loadSizes[:], len(hashes))
	n := loadSizes[size]
	args := make([]any, 2*n)
	for i := range n {
		args[i] = hashes[min(i, len(hashes)-1)][:]
		args[n+i] = args[i]
	}
	var rows entsql.Rows
	if err := l.driver.Query(ctx, l.texts[size], args, &rows); err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	var row *loadedRow
	var into []any
	for rows.Next() {
		if row == nil {
			row = new(loadedRow)
			into = row.places()
		}
		*row = loadedRow{} // each key gets slices and maps of its own
		if err := rows.Scan(into...); err != nil {
			return nil, 0, err
		}
		k, err := decodeKey(&row.key, &row.beside)
		if err != nil {
			return nil, 0, err
		}
		if len(keys) == 0 {
			position = row.position
		}
		keys = append(keys, k)
	}
	return keys, position, rows.Err()
}

// loadedRow is a row of a load: a key, what lies beside it, and the position of
// the log at which it was read.
type loadedRow struct {
	key ent.ApiKey
	beside
	position int64
}

// column is a column of a load and where its value goes.
type column struct {
	table, name string
	into        any
}

// columns returns the columns of a load, in their order, with their places in r.
func (r *loadedRow) columns() []column {
	k := &r.key
	return []column{
		{entkey.Table, entkey.FieldID, &k.ID},
		{entkey.Table, entkey.FieldOrganizationID, &k.OrganizationID},
		{entkey.Table, entkey.FieldLabel, &k.Label},
		{entkey.Table, entkey.FieldDescription, &k.Description},
		{entkey.Table, entkey.FieldScopes, jsonColumn[[]string]{&k.Scopes}},
		{entkey.Table, entkey.FieldIPAllowList, jsonColumn[[]string]{&k.IPAllowList}},
		{entkey.Table, entkey.FieldExpiresAt, &k.ExpiresAt},
		{entkey.Table, entkey.FieldCreatedAt, &k.CreatedAt},
		{entkey.Table, entkey.FieldUpdatedAt, &k.UpdatedAt},
		{entkey.Table, entkey.FieldCreatedByKind, &k.CreatedByKind},
		{entkey.Table, entkey.FieldCreatedByID, &k.CreatedByID},
		{entkey.Table, entkey.FieldEnabled, &k.Enabled},
		{entkey.Table, entkey.FieldMode, &k.Mode},
		{entkey.Table, entkey.FieldOwnerID, &k.OwnerID},
		{entkey.Table, entkey.FieldMetadata, jsonColumn[map[string]string]{&k.Metadata}},
		{entkey.Table, entkey.FieldRateLimitRequests, &k.RateLimitRequests},
		{entkey.Table, entkey.FieldRateLimitWindow, &k.RateLimitWindow},
		{entkey.Table, entkey.FieldQuotaLimit, &k.QuotaLimit},
		{entkey.Table, entkey.FieldQuotaRefill, &k.QuotaRefill},
		{entkey.Table, entkey.FieldQuotaRefillDay, &k.QuotaRefillDay},
		{entkey.Table, entkey.FieldRevokedAt, &k.RevokedAt},
		{entkey.Table, entkey.FieldRevokeReason, &k.RevokeReason},
		{entkey.Table, entkey.FieldSecretHash, &k.SecretHash},
		{entkey.Table, entkey.FieldPepperID, &k.PepperID},
		{entkey.Table, entkey.FieldSecretMask, &k.SecretMask},
		{entkey.Table, entkey.FieldEdgeHash, &k.EdgeHash},
		{entkey.Table, entkey.FieldPreviousHash, &k.PreviousHash},
		{entkey.Table, entkey.FieldPreviousPepperID, &k.PreviousPepperID},
		{entkey.Table, entkey.FieldPreviousMask, &k.PreviousMask},
		{entkey.Table, entkey.FieldPreviousEdgeHash, &k.PreviousEdgeHash},
		{entkey.Table, entkey.FieldPreviousExpiresAt, &k.PreviousExpiresAt},
		{entkey.Table, entkey.FieldRotations, &k.Rotations},
		{entkey.Table, entkey.FieldNoticeAt, &k.NoticeAt},
		{entkey.Table, entkey.FieldVersion, &k.Version},
		{entusage.Table, entusage.FieldTotalRequests, &r.total},
		{entusage.Table, entusage.FieldLastUsedAt, &r.lastUsed},
		{entusage.Table, entusage.FieldPreviousRotation, &r.previous.rotation},
		{entusage.Table, entusage.FieldPreviousRequests, &r.previous.total},
		{entusage.Table, entusage.FieldPreviousLastUsedAt, &r.previous.lastUsed},
		{entquota.Table, entquota.FieldRemaining, &r.remaining},
		{entquota.Table, entquota.FieldRefilledAt, &r.refilled},
		{entquota.Table, entquota.FieldEpoch, &r.epoch},
		{entrevision.Table, entrevision.FieldPosition, &r.position},
	}
}

// places returns where a scan of the columns goes.
func (r *loadedRow) places() []any {
	columns := r.columns()
	places := make([]any, len(columns))
	for i := range columns {
		places[i] = columns[i].into
	}
	return places
}

// jsonColumn reads a column of JSON as ent does: NULL and an empty text leave its
// value as it is.
type jsonColumn[T any] struct{ into *T }

var _ sql.Scanner = jsonColumn[any]{}

// Scan implements sql.Scanner.
func (c jsonColumn[T]) Scan(value any) error {
	var text []byte
	switch value := value.(type) {
	case nil:
	case []byte:
		text = value
	case string:
		text = []byte(value)
	default:
		return fmt.Errorf("JSON in a column of %T", value)
	}
	if len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, c.into)
}
