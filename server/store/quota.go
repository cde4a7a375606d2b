package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	entquota "github.com/apikeys-dev/apikeys/ent/apikeyquota"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/broken"
)

// setQuota writes what is left of the quota of k, which a change has set. What
// servers had reserved is void with the epoch that the change begins.
func (t *tx) setQuota(ctx context.Context, k *apikey.Key) error {
	if k.Quota == (apikey.Quota{Epoch: k.Quota.Epoch}) {
		k.Quota = apikey.Quota{}
		if _, err := t.ApiKeyQuota.Delete().Where(entquota.ID(k.ID)).Exec(ctx); err != nil {
			return fmt.Errorf("delete the key's quota: %w", err)
		}
		return nil
	}
	refilledAt := micros(k.Quota.RefilledAt)
	upsert := t.ApiKeyQuota.Create().SetID(k.ID).SetRemaining(k.Quota.Remaining).
		SetNillableRefilledAt(refilledAt).SetEpoch(k.Quota.Epoch).
		OnConflictColumns(entquota.FieldID).UpdateNewValues()
	if refilledAt == nil {
		upsert.ClearRefilledAt()
	}
	if err := upsert.Exec(ctx); err != nil {
		return fmt.Errorf("set the key's quota: %w", err)
	}
	return nil
}

// ReserveQuota gives units of quotas to the one who picks, durably: a grant is
// taken off what is left before anyone can spend it, and one that is never spent
// is lost, not granted again. A quota whose refill is due at now is refilled
// first. The grants are in the order of picks, of which a key has one.
func (s *Store) ReserveQuota(ctx context.Context, picks []apikey.QuotaAsk, now time.Time) ([]apikey.QuotaGrant, error) {
	grants := make([]apikey.QuotaGrant, len(picks))
	order := make([]int, len(picks))
	ids := make([]string, len(picks))
	for i := range picks {
		order[i], ids[i] = i, picks[i].KeyID
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(ids[a], ids[b]) })
	err := s.transact(ctx, "reserve quota", func(ctx context.Context, etx *ent.Tx) error {
		rows, err := s.quotas(ctx, etx, ids)
		if err != nil {
			return err
		}
		for _, i := range order {
			row := rows[ids[i]]
			if row == nil || row.Epoch != picks[i].Quota.Epoch {
				continue
			}
			q := picks[i].Quota
			q.Remaining, q.RefilledAt = row.Remaining, fromMicros(row.RefilledAt)
			q = q.At(now)
			units := apikey.Block(picks[i].Want, q.Remaining)
			q.Remaining -= units
			grants[i] = apikey.QuotaGrant{Units: units, Quota: q}
			if err := spendQuota(ctx, etx, row, &q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return grants, nil
}

// spendQuota writes what is left of a quota unless it is what row says. The
// condition fails only where the row was not locked.
func spendQuota(ctx context.Context, etx *ent.Tx, row *ent.ApiKeyQuota, q *apikey.Quota) error {
	if broken.Is(broken.GrantUnreserved) {
		return nil
	}
	if broken.Is(broken.RefillTwice) {
		q.RefilledAt = fromMicros(row.RefilledAt)
	}
	if q.Remaining == row.Remaining && q.RefilledAt.Equal(fromMicros(row.RefilledAt)) {
		return nil
	}
	n, err := etx.ApiKeyQuota.Update().
		Where(entquota.ID(row.ID), entquota.Epoch(row.Epoch), entquota.Remaining(row.Remaining)).
		SetRemaining(q.Remaining).SetNillableRefilledAt(micros(q.RefilledAt)).Save(ctx)
	if err == nil && n != 1 {
		err = fmt.Errorf("the quota of %s has changed meanwhile", row.ID)
	}
	return err
}

// quotas reads rows by their ids and, on PostgreSQL, holds them until the end of
// the transaction. On SQLite the transaction holds the whole database.
func (s *Store) quotas(ctx context.Context, etx *ent.Tx, ids []string) (map[string]*ent.ApiKeyQuota, error) {
	query := etx.ApiKeyQuota.Query().Where(entquota.IDIn(ids...)).Order(entquota.ByID())
	if s.locksRows() {
		query.ForUpdate()
	}
	rows, err := query.All(ctx)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*ent.ApiKeyQuota, len(rows))
	for _, row := range rows {
		byID[row.ID] = row
	}
	return byID, nil
}

// ReturnQuota gives units of grants back that will not be spent. Those of an
// epoch or a period that has ended are void, and passed over.
func (s *Store) ReturnQuota(ctx context.Context, returns []apikey.QuotaReturn) error {
	slices.SortFunc(returns, func(a, b apikey.QuotaReturn) int { return strings.Compare(a.KeyID, b.KeyID) })
	for chunk := range slices.Chunk(returns, usageChunk) {
		err := s.transact(ctx, "return quota", func(ctx context.Context, etx *ent.Tx) error {
			for _, r := range chunk {
				period := entquota.RefilledAtIsNil()
				if at := micros(r.RefilledAt); at != nil {
					period = entquota.RefilledAt(*at)
				}
				err := etx.ApiKeyQuota.Update().Where(entquota.ID(r.KeyID), entquota.Epoch(r.Epoch), period).
					AddRemaining(r.Units).Exec(ctx)
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
