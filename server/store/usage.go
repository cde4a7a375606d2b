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
const usageChunk = 200

// AddUsage adds to the counters of keys: each count, of which a key has one, to
// the key's total, and the later of both times as its last use. It returns how
// many of counts, which it sorts by id, are done with: all unless err is set, and
// those that are not can be given again. A count of a key that was deleted is
// done with and kept nowhere.
func (s *Store) AddUsage(ctx context.Context, counts []apikey.UsageCount) (stored int, err error) {
	slices.SortFunc(counts, func(a, b apikey.UsageCount) int { return strings.Compare(a.KeyID, b.KeyID) })
	for chunk := range slices.Chunk(counts, usageChunk) {
		err := s.administer(ctx, "add usage", func(ctx context.Context, etx *ent.Tx) error {
			return addUsage(ctx, etx, chunk)
		})
		if err != nil {
			return stored, err
		}
		stored += len(chunk)
	}
	return stored, nil
}

func addUsage(ctx context.Context, etx *ent.Tx, counts []apikey.UsageCount) error {
	ids := make([]string, len(counts))
	for i, c := range counts {
		ids[i] = c.KeyID
	}
	// ids becomes those that are there: a key can be deleted after its last use,
	// and nobody would ever take its counter away.
	ids, err := etx.ApiKey.Query().Where(entkey.IDIn(ids...)).Order(entkey.ByID()).IDs(ctx)
	if err != nil || len(ids) == 0 {
		return err
	}
	creates := make([]*ent.ApiKeyUsageCreate, 0, len(ids))
	for _, c := range counts {
		if _, found := slices.BinarySearch(ids, c.KeyID); found {
			creates = append(creates, etx.ApiKeyUsage.Create().SetID(c.KeyID).
				SetTotalRequests(c.Count).SetLastUsedAt(c.LastUsedAt.UnixMicro()))
		}
	}
	return etx.ApiKeyUsage.CreateBulk(creates...).
		OnConflict(entsql.ConflictColumns(entusage.FieldID), entsql.ResolveWith(addCount)).Exec(ctx)
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
