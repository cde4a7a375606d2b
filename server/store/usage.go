package store

import (
	"context"
	"slices"
	"strings"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entusage "github.com/apikeys-dev/apikeys/ent/apikeyusage"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// usageChunk is how many counters one transaction of a flush writes: a few
// milliseconds' worth, so that changes never wait long behind a flush.
const usageChunk = 400

// AddUsage adds to the counters of keys: each count, of which a key has one, to
// the key's total, the later of both times as its last use, what its previous secret
// was used likewise, unless a later rotation has ended it, and its outcomes to the
// buckets of the key and of its organization. It returns how many of counts,
// which it sorts by id, are done with: all unless err is set, and those that are
// not can be given again. Of a key that was deleted only the organization's
// buckets are counted on.
func (s *Store) AddUsage(ctx context.Context, counts []apikey.UsageCount) (stored int, err error) {
	slices.SortFunc(counts, func(a, b apikey.UsageCount) int { return strings.Compare(a.KeyID, b.KeyID) })
	for chunk := range slices.Chunk(counts, usageChunk) {
		err := s.transact(ctx, "add usage", func(ctx context.Context, etx *ent.Tx) error {
			return s.addUsage(ctx, etx, chunk)
		})
		if err != nil {
			return stored, err
		}
		stored += len(chunk)
	}
	return stored, nil
}

func (s *Store) addUsage(ctx context.Context, etx *ent.Tx, counts []apikey.UsageCount) error {
	ids := make([]any, 0, len(counts))
	for i := range counts {
		if counts[i].KeyID != "" {
			ids = append(ids, counts[i].KeyID)
		}
	}
	gone, err := s.gone(ctx, etx, ids)
	if err != nil {
		return err
	}
	totals := make([]any, 0, len(counts)*addTotals.columns)
	var previous []any
	var b buckets
	for i := range counts {
		c := &counts[i]
		b.addOrganization(c.OrganizationID, c.Outcomes)
		if c.KeyID == "" || gone[c.KeyID] {
			continue
		}
		b.addKey(c.OrganizationID, c.KeyID, c.Outcomes)
		if !c.LastUsedAt.IsZero() {
			totals = append(totals, c.KeyID, c.Count, c.LastUsedAt.UnixMicro())
		}
		if p := &c.Previous; p.Requests > 0 {
			previous = append(previous, c.KeyID, 0, 0, p.Rotation, p.Requests, p.LastUsedAt.UnixMicro())
		}
	}
	if err := addTotals.exec(ctx, etx, s.dialect, totals); err != nil {
		return err
	}
	if err := addPrevious.exec(ctx, etx, s.dialect, previous); err != nil {
		return err
	}
	return b.write(ctx, etx, s.dialect)
}

// addTotals adds to the counters of keys.
var addTotals = bulk{
	head: "INSERT INTO " + entusage.Table + " (" +
		entusage.FieldID + ", " + entusage.FieldTotalRequests + ", " + entusage.FieldLastUsedAt + ") VALUES ",
	columns: 3,
	tail: " ON CONFLICT (" + entusage.FieldID + ") DO UPDATE SET " +
		entusage.FieldTotalRequests + " = " + usageTotal + " + excluded." + entusage.FieldTotalRequests + ", " +
		entusage.FieldLastUsedAt + " = CASE WHEN excluded." + entusage.FieldLastUsedAt + " > " + usageLast +
		" THEN excluded." + entusage.FieldLastUsedAt + " ELSE " + usageLast + " END",
}

// addPrevious adds to the counters of previous secrets, whose keys have counters by
// then. Of two rotations the later one counts; of one, both counts are added.
var addPrevious = bulk{
	head: "INSERT INTO " + entusage.Table + " (" +
		entusage.FieldID + ", " + entusage.FieldTotalRequests + ", " + entusage.FieldLastUsedAt + ", " +
		entusage.FieldPreviousRotation + ", " + entusage.FieldPreviousRequests + ", " + entusage.FieldPreviousLastUsedAt + ") VALUES ",
	columns: 6,
	tail: " ON CONFLICT (" + entusage.FieldID + ") DO UPDATE SET " +
		entusage.FieldPreviousRequests + " = excluded." + entusage.FieldPreviousRequests +
		" + CASE WHEN excluded." + entusage.FieldPreviousRotation + " = " + previousRotation + " THEN " + previousRequests + " ELSE 0 END, " +
		entusage.FieldPreviousLastUsedAt + " = CASE WHEN excluded." + entusage.FieldPreviousRotation + " = " + previousRotation +
		" AND excluded." + entusage.FieldPreviousLastUsedAt + " < " + previousLast +
		" THEN " + previousLast + " ELSE excluded." + entusage.FieldPreviousLastUsedAt + " END, " +
		entusage.FieldPreviousRotation + " = excluded." + entusage.FieldPreviousRotation +
		" WHERE excluded." + entusage.FieldPreviousRotation + " >= " + previousRotation,
}

const (
	usageTotal = entusage.Table + "." + entusage.FieldTotalRequests
	usageLast  = entusage.Table + "." + entusage.FieldLastUsedAt

	previousRotation = entusage.Table + "." + entusage.FieldPreviousRotation
	previousRequests = entusage.Table + "." + entusage.FieldPreviousRequests
	previousLast     = entusage.Table + "." + entusage.FieldPreviousLastUsedAt
)

// countKeys counts those of ids that are keys.
var countKeys = bulk{
	head:    "SELECT COUNT(*) FROM " + entkey.Table + " WHERE " + entkey.FieldID + " IN (VALUES ",
	columns: 1,
	tail:    ")",
}

// gone returns those of ids, which are distinct, that are not keys: a key can be
// deleted after its last use, and nobody would ever take its counters away. That
// is rare, so they are counted first, which is cheaper than to read them.
func (s *Store) gone(ctx context.Context, etx *ent.Tx, ids []any) (map[string]bool, error) {
	if n, err := countKeys.sum(ctx, etx, s.dialect, ids); err != nil || n == len(ids) {
		return nil, err
	}
	gone := make(map[string]bool, len(ids))
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i], _ = id.(string)
		gone[texts[i]] = true
	}
	there, err := etx.ApiKey.Query().Where(entkey.IDIn(texts...)).IDs(ctx)
	for _, id := range there {
		delete(gone, id)
	}
	return gone, err
}
