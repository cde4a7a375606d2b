package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entlimit "github.com/apikeys-dev/apikeys/ent/apikeyratelimit"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The values of the column of a rate limit's mode.
const (
	modeLocal = "local"
	modeExact = "exact"
)

// rateLimitMode returns the value of the column of a key's mode.
func rateLimitMode(l apikey.RateLimit) string {
	if l.Exact {
		return modeExact
	}
	return modeLocal
}

// rateLimitOf returns the rate limit of a row.
func rateLimitOf(row *ent.ApiKey) apikey.RateLimit {
	return apikey.RateLimit{
		Requests: row.RateLimitRequests, WindowSeconds: row.RateLimitWindow,
		Exact: row.RateLimitRequests > 0 && row.RateLimitMode != nil && *row.RateLimitMode == modeExact,
	}
}

// ReserveRate gives requests of exact rate limits to the one who asks, durably, and
// takes back the blocks that it has. Which limit a key has, its row says: an ask of
// another one gets nothing and is stale, but its block is taken back. The grants are
// in the order of asks, of which a key has one. Where the error is not nil, nobody
// knows what was done: no block of asks may be spent or given back any more.
func (s *Store) ReserveRate(ctx context.Context, asks []apikey.RateAsk, now time.Time) ([]apikey.RateGrant, error) {
	grants := make([]apikey.RateGrant, len(asks))
	order := make([]int, len(asks))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(asks[a].KeyID, asks[b].KeyID) })
	missing, err := s.reserveRate(ctx, asks, order, grants, now)
	if err == nil && len(missing) > 0 {
		// Rows that are new are made before any is locked: else two servers that make
		// the same ones could wait for each other.
		if err = s.addRateLimits(ctx, asks, missing); err == nil {
			_, err = s.reserveRate(ctx, asks, missing, grants, now)
		}
	}
	if err != nil {
		return nil, err
	}
	return grants, nil
}

// reserveRate answers those of asks that order names, which is by the id of the key. It
// returns those whose keys have the limit that is asked for, and no row of it yet.
func (s *Store) reserveRate(
	ctx context.Context, asks []apikey.RateAsk, order []int, grants []apikey.RateGrant, now time.Time,
) (missing []int, err error) {
	ids := make([]string, len(order))
	for n, i := range order {
		ids[n] = asks[i].KeyID
	}
	err = s.transact(ctx, "reserve rate limit", func(ctx context.Context, etx *ent.Tx) error {
		missing = missing[:0]
		rows, err := s.rateLimits(ctx, etx, ids)
		if err != nil {
			return err
		}
		limits, err := s.limitsOf(ctx, etx, asks, order, rows)
		if err != nil {
			return err
		}
		for _, i := range order {
			a := asks[i]
			row, stale := rows[a.KeyID], false
			if row == nil || limitOf(row) != a.Limit {
				stale = limits[a.KeyID] != a.Limit
			}
			switch {
			case stale && (row == nil || row.Requests == 0):
				grants[i] = apikey.RateGrant{Stale: true}
				continue
			case row == nil:
				grants[i] = apikey.RateGrant{Stale: true} // should it not be made
				missing = append(missing, i)
				continue
			case stale:
				a.Limit, a.Want, a.Least, a.More = limitOf(row), 0, 0, 0
			}
			shared := sharedLimiter(row)
			grants[i] = shared.Reserve(&a, now.UnixMicro())
			grants[i].Stale = stale
			if err := saveRateLimit(ctx, etx, row, &shared); err != nil {
				return err
			}
		}
		return nil
	})
	return missing, err
}

// rateLimits reads rows by their ids and, on PostgreSQL, holds them until the end of
// the transaction. On SQLite the transaction holds the whole database.
func (s *Store) rateLimits(ctx context.Context, etx *ent.Tx, ids []string) (map[string]*ent.ApiKeyRateLimit, error) {
	query := etx.ApiKeyRateLimit.Query().Where(entlimit.IDIn(ids...)).Order(entlimit.ByID())
	if s.locksRows() {
		query.ForUpdate()
	}
	rows, err := query.All(ctx)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*ent.ApiKeyRateLimit, len(rows))
	for _, row := range rows {
		byID[row.ID] = row
	}
	return byID, nil
}

// limitsOf reads the rate limits of the keys whose rows are of another limit than asks
// are, or are not there.
func (s *Store) limitsOf(
	ctx context.Context, etx *ent.Tx, asks []apikey.RateAsk, order []int, rows map[string]*ent.ApiKeyRateLimit,
) (map[string]apikey.RateLimit, error) {
	var ids []string
	for _, i := range order {
		if row := rows[asks[i].KeyID]; row == nil || limitOf(row) != asks[i].Limit {
			ids = append(ids, asks[i].KeyID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	keys, err := etx.ApiKey.Query().Where(entkey.IDIn(ids...)).
		Select(entkey.FieldID, entkey.FieldRateLimitRequests, entkey.FieldRateLimitWindow, entkey.FieldRateLimitMode).All(ctx)
	if err != nil {
		return nil, err
	}
	limits := make(map[string]apikey.RateLimit, len(keys))
	for _, k := range keys {
		limits[k.ID] = rateLimitOf(k)
	}
	return limits, nil
}

// addRateLimits makes the rows that are missing, where no other server has.
func (s *Store) addRateLimits(ctx context.Context, asks []apikey.RateAsk, missing []int) error {
	return s.transact(ctx, "add rate limits", func(ctx context.Context, etx *ent.Tx) error {
		rows := make([]*ent.ApiKeyRateLimitCreate, len(missing))
		for n, i := range missing {
			rows[n] = etx.ApiKeyRateLimit.Create().SetID(asks[i].KeyID)
		}
		return etx.ApiKeyRateLimit.CreateBulk(rows...).
			OnConflict(entsql.ConflictColumns(entlimit.FieldID), entsql.DoNothing()).Exec(ctx)
	})
}

// limitOf returns the limit that a row is of.
func limitOf(row *ent.ApiKeyRateLimit) apikey.RateLimit {
	return apikey.RateLimit{Requests: row.Requests, WindowSeconds: row.WindowSeconds, Exact: row.Requests > 0}
}

func sharedLimiter(row *ent.ApiKeyRateLimit) apikey.SharedLimiter {
	return apikey.SharedLimiter{
		Limiter: apikey.Limiter{Limit: limitOf(row), Debt: row.Debt, At: row.At},
		Slot:    row.Slot, Reserved: row.Reserved, ReservedBefore: row.ReservedBefore,
	}
}

// saveRateLimit writes a limiter unless it is what row says. That the row is of another
// limit by now is written in any case, so that asks of the old one are known from then
// on.
func saveRateLimit(ctx context.Context, etx *ent.Tx, row *ent.ApiKeyRateLimit, l *apikey.SharedLimiter) error {
	before := sharedLimiter(row)
	before.Bring(l.Limit, l.At)
	if limitOf(row) == l.Limit && before == *l {
		return nil // time alone has passed
	}
	err := etx.ApiKeyRateLimit.Update().Where(entlimit.ID(row.ID)).
		SetRequests(l.Limit.Requests).SetWindowSeconds(l.Limit.WindowSeconds).SetDebt(l.Debt).SetAt(l.At).
		SetSlot(l.Slot).SetReserved(l.Reserved).SetReservedBefore(l.ReservedBefore).Exec(ctx)
	if err != nil {
		return fmt.Errorf("write the rate limit of %s: %w", row.ID, err)
	}
	return nil
}
