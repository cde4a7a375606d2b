package store

import (
	"context"
	"slices"
	"strings"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entusage "github.com/apikeys-dev/apikeys/ent/apikeyusage"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// usageChunk is how many counters one transaction of a flush writes: a few
// milliseconds' worth, so that changes never wait long behind a flush.
const usageChunk = 100

// AddUsage adds to the counters of keys: each count, of which a key has one, to
// the key's total, the later of both times as its last use, and its outcomes to
// the buckets of the key and of its organization. It returns how many of counts,
// which it sorts by id, are done with: all unless err is set, and those that are
// not can be given again. Of a key that was deleted only the organization's
// buckets are counted on.
func (s *Store) AddUsage(ctx context.Context, counts []apikey.UsageCount) (stored int, err error) {
	slices.SortFunc(counts, func(a, b apikey.UsageCount) int { return strings.Compare(a.KeyID, b.KeyID) })
	for chunk := range slices.Chunk(counts, usageChunk) {
		err := s.administer(ctx, "add usage", func(ctx context.Context, etx *ent.Tx) error {
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
	ids := make([]string, len(counts))
	for i, c := range counts {
		ids[i] = c.KeyID
	}
	// ids becomes those that are there: a key can be deleted after its last use,
	// and nobody would ever take its counters away.
	ids, err := etx.ApiKey.Query().Where(entkey.IDIn(ids...)).Order(entkey.ByID()).IDs(ctx)
	if err != nil {
		return err
	}
	b := make(buckets)
	totals := entsql.Dialect(s.dialect).Insert(entusage.Table).
		Columns(entusage.FieldID, entusage.FieldTotalRequests, entusage.FieldLastUsedAt)
	used := false
	for i := range counts {
		c := &counts[i]
		_, found := slices.BinarySearch(ids, c.KeyID)
		if found && !c.LastUsedAt.IsZero() {
			totals.Values(c.KeyID, c.Count, c.LastUsedAt.UnixMicro())
			used = true
		}
		if found {
			b.add(c.OrganizationID, c.KeyID, c.Outcomes)
		}
		b.add(c.OrganizationID, "", c.Outcomes)
	}
	if used {
		query, args := totals.OnConflict(entsql.ConflictColumns(entusage.FieldID), entsql.ResolveWith(addCount)).Query()
		if _, err := etx.ExecContext(ctx, query, args...); err != nil {
			return err
		}
	}
	return b.write(ctx, etx, s.dialect)
}

// addCount is what becomes of a counter that is there already.
func addCount(u *entsql.UpdateSet) {
	last := entusage.Table + "." + entusage.FieldLastUsedAt
	u.Set(entusage.FieldTotalRequests, entsql.Expr(
		entusage.Table+"."+entusage.FieldTotalRequests+" + excluded."+entusage.FieldTotalRequests))
	u.Set(entusage.FieldLastUsedAt, entsql.Expr(
		"CASE WHEN excluded."+entusage.FieldLastUsedAt+" > "+last+
			" THEN excluded."+entusage.FieldLastUsedAt+" ELSE "+last+" END"))
}
