package store

import (
	"database/sql"
	"fmt"
	"net/netip"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entquota "github.com/apikeys-dev/apikeys/ent/apikeyquota"
	entusage "github.com/apikeys-dev/apikeys/ent/apikeyusage"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The extra columns of a key's row: its counters, and what is left of its quota.
const (
	totalColumn    = "usage_total"
	lastUsedColumn = "usage_last"

	previousRotationColumn = "usage_previous_rotation"
	previousTotalColumn    = "usage_previous_total"
	previousLastColumn     = "usage_previous_last"

	remainingColumn = "quota_remaining"
	refilledColumn  = "quota_refilled_at"
	epochColumn     = "quota_epoch"
)

// withUsage selects the key's counters and the balance of its quota beside the
// key.
func withUsage(s *entsql.Selector) {
	const id = "id" // of both tables, which is the key's
	beside := func(table, column, as string) {
		u := entsql.Dialect(s.Dialect()).Table(table).As("u")
		s.AppendSelectExprAs(entsql.Dialect(s.Dialect()).Select(u.C(column)).From(u).
			Where(entsql.ColumnsEQ(u.C(id), s.C(entkey.FieldID))), as)
	}
	beside(entusage.Table, entusage.FieldTotalRequests, totalColumn)
	beside(entusage.Table, entusage.FieldLastUsedAt, lastUsedColumn)
	beside(entusage.Table, entusage.FieldPreviousRotation, previousRotationColumn)
	beside(entusage.Table, entusage.FieldPreviousRequests, previousTotalColumn)
	beside(entusage.Table, entusage.FieldPreviousLastUsedAt, previousLastColumn)
	beside(entquota.Table, entquota.FieldRemaining, remainingColumn)
	beside(entquota.Table, entquota.FieldRefilledAt, refilledColumn)
	beside(entquota.Table, entquota.FieldEpoch, epochColumn)
}

// beside is what other tables hold about a key: its counters, and the balance of
// its quota. A key that was never used has no counters, and one without a quota no
// balance.
type beside struct {
	total, lastUsed            sql.NullInt64
	previous                   besidePrevious
	remaining, refilled, epoch sql.NullInt64
}

// besidePrevious is what the counters hold of the previous secret of a rotation.
type besidePrevious struct{ rotation, total, lastUsed sql.NullInt64 }

// besideOf returns the number that withUsage selected as column, which is not
// valid where there is no such row, or the query did not select it.
func besideOf(row *ent.ApiKey, column string) sql.NullInt64 {
	value, err := row.Value(column)
	if err != nil {
		return sql.NullInt64{}
	}
	n, ok := value.(int64)
	return sql.NullInt64{Int64: n, Valid: ok}
}

// keyOf returns the key that a row holds, with what withUsage selected beside it.
func keyOf(row *ent.ApiKey) (apikey.Key, error) {
	return decodeKey(row, &beside{
		total: besideOf(row, totalColumn), lastUsed: besideOf(row, lastUsedColumn),
		previous: besidePrevious{
			besideOf(row, previousRotationColumn), besideOf(row, previousTotalColumn), besideOf(row, previousLastColumn),
		},
		remaining: besideOf(row, remainingColumn), refilled: besideOf(row, refilledColumn), epoch: besideOf(row, epochColumn),
	})
}

// decodeKey returns the key that a row holds. A row that does not decode is an
// error rather than a key that grants something else.
func decodeKey(row *ent.ApiKey, b *beside) (apikey.Key, error) {
	k := apikey.Key{
		ID:                row.ID,
		OrganizationID:    row.OrganizationID,
		Label:             row.Label,
		Description:       row.Description,
		Scopes:            row.Scopes,
		ExpiresAt:         fromMicros(row.ExpiresAt),
		CreatedAt:         fromMicros(&row.CreatedAt),
		UpdatedAt:         fromMicros(row.UpdatedAt),
		CreatedBy:         apikey.Actor{Kind: apikey.ActorKind(row.CreatedByKind), ID: row.CreatedByID},
		Enabled:           row.Enabled,
		Mode:              apikey.Mode(row.Mode),
		OwnerID:           row.OwnerID,
		Metadata:          row.Metadata,
		RateLimit:         apikey.RateLimit{Requests: row.RateLimitRequests, WindowSeconds: row.RateLimitWindow},
		RevokedAt:         fromMicros(row.RevokedAt),
		RevokeReason:      apikey.RevokeReason(row.RevokeReason),
		Secret:            apikey.StoredSecret{PepperID: row.PepperID, Mask: row.SecretMask},
		PreviousExpiresAt: fromMicros(row.PreviousExpiresAt),
		NoticeAt:          fromMicros(row.NoticeAt),
		Rotations:         row.Rotations,
		Version:           row.Version,
	}
	hashes := []hashColumn{{row.SecretHash, &k.Secret.Hash}, {row.EdgeHash, &k.Secret.EdgeHash}}
	if row.PreviousHash != nil {
		k.Previous = apikey.StoredSecret{PepperID: row.PreviousPepperID, Mask: row.PreviousMask}
		hashes = append(hashes, hashColumn{row.PreviousHash, &k.Previous.Hash}, hashColumn{row.PreviousEdgeHash, &k.Previous.EdgeHash})
	}
	for _, h := range hashes {
		var err error
		if *h.into, err = hashOf(h.column); err != nil {
			return apikey.Key{}, fmt.Errorf("read key %s: %w", row.ID, err)
		}
	}
	for _, text := range row.IPAllowList {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return apikey.Key{}, fmt.Errorf("read key %s: %w", row.ID, err)
		}
		k.IPAllowList = append(k.IPAllowList, p)
	}
	k.Usage.TotalRequests = b.total.Int64
	if b.lastUsed.Valid {
		k.Usage.LastUsedAt = fromMicros(&b.lastUsed.Int64)
	}
	k.Usage.Previous.Rotation = row.Rotations
	// The counters can be of a secret that a later rotation has ended.
	if p := &b.previous; p.rotation.Int64 == row.Rotations {
		k.Usage.Previous.Requests = p.total.Int64
		if p.lastUsed.Valid {
			k.Usage.Previous.LastUsedAt = fromMicros(&p.lastUsed.Int64)
		}
	}
	if row.QuotaLimit > 0 {
		k.Quota = apikey.Quota{
			Limit: row.QuotaLimit, Refill: apikey.Refill(row.QuotaRefill), RefillDay: row.QuotaRefillDay,
			Remaining: b.remaining.Int64, Epoch: b.epoch.Int64,
		}
		if b.refilled.Valid {
			k.Quota.RefilledAt = fromMicros(&b.refilled.Int64)
		}
	}
	return k, nil
}

// hashColumn is a column that holds a hash, and where that goes.
type hashColumn struct {
	column []byte
	into   *apikey.Hash
}

// hashOf returns the hash that a column holds.
func hashOf(column []byte) (apikey.Hash, error) {
	if len(column) != len(apikey.Hash{}) {
		return apikey.Hash{}, fmt.Errorf("a hash of %d bytes", len(column))
	}
	return apikey.Hash(column), nil
}

// storable makes the times of k what a column can hold, so that a rule's finer
// or local time neither counts as a change nor differs between what is answered,
// told and read back.
func storable(k *apikey.Key) {
	for _, t := range []*time.Time{
		&k.ExpiresAt, &k.CreatedAt, &k.UpdatedAt, &k.RevokedAt, &k.PreviousExpiresAt, &k.NoticeAt,
	} {
		*t = t.UTC().Truncate(time.Microsecond)
	}
}

// setter is what ent's builders of a create and of an update have in common.
type setter[B any] interface {
	SetLabel(string) B
	SetDescription(string) B
	SetScopes([]string) B
	SetIPAllowList([]string) B
	SetNillableExpiresAt(*int64) B
	SetNillableUpdatedAt(*int64) B
	SetEnabled(bool) B
	SetOwnerID(string) B
	SetMetadata(map[string]string) B
	SetRateLimitRequests(int) B
	SetRateLimitWindow(int) B
	SetQuotaLimit(int64) B
	SetQuotaRefill(string) B
	SetQuotaRefillDay(int) B
	SetNillableRevokedAt(*int64) B
	SetRevokeReason(string) B
	SetSecretHash([]byte) B
	SetPepperID(string) B
	SetSecretMask(string) B
	SetEdgeHash([]byte) B
	SetPreviousPepperID(string) B
	SetPreviousMask(string) B
	SetNillablePreviousExpiresAt(*int64) B
	SetNillableNoticeAt(*int64) B
	SetRotations(int64) B
	SetVersion(int64) B
	SetPreviousHash([]byte) B
	SetPreviousEdgeHash([]byte) B
}

// createKey returns what inserts k.
func createKey(keys *ent.ApiKeyClient, k *apikey.Key) *ent.ApiKeyCreate {
	return setKey(keys.Create().SetID(k.ID).SetOrganizationID(k.OrganizationID).
		SetCreatedAt(k.CreatedAt.UnixMicro()).SetMode(string(k.Mode)).
		SetCreatedByKind(string(k.CreatedBy.Kind)).SetCreatedByID(k.CreatedBy.ID), k)
}

// setKey sets every column that can change.
func setKey[B setter[B]](b B, k *apikey.Key) B {
	ranges := make([]string, len(k.IPAllowList))
	for i, p := range k.IPAllowList {
		ranges[i] = p.String()
	}
	b.SetLabel(k.Label).SetDescription(k.Description).
		SetScopes(k.Scopes).SetIPAllowList(ranges).
		SetNillableExpiresAt(micros(k.ExpiresAt)).SetNillableUpdatedAt(micros(k.UpdatedAt)).
		SetEnabled(k.Enabled).SetOwnerID(k.OwnerID).SetMetadata(k.Metadata).
		SetRateLimitRequests(k.RateLimit.Requests).SetRateLimitWindow(k.RateLimit.WindowSeconds).
		SetQuotaLimit(k.Quota.Limit).SetQuotaRefill(string(k.Quota.Refill)).SetQuotaRefillDay(k.Quota.RefillDay).
		SetNillableRevokedAt(micros(k.RevokedAt)).SetRevokeReason(string(k.RevokeReason)).
		SetSecretHash(k.Secret.Hash[:]).SetPepperID(k.Secret.PepperID).SetSecretMask(k.Secret.Mask).
		SetEdgeHash(k.Secret.EdgeHash[:]).
		SetPreviousPepperID(k.Previous.PepperID).SetPreviousMask(k.Previous.Mask).
		SetNillablePreviousExpiresAt(micros(k.PreviousExpiresAt)).
		SetNillableNoticeAt(micros(k.NoticeAt)).SetRotations(k.Rotations).SetVersion(k.Version)
	if k.Previous.Mask != "" {
		b.SetPreviousHash(k.Previous.Hash[:]).SetPreviousEdgeHash(k.Previous.EdgeHash[:])
	}
	return b
}

// clearKey clears the columns of an update that are absent in k; ent's builder
// leaves a column alone whose value is nil.
func clearKey(u *ent.ApiKeyUpdate, k *apikey.Key) {
	for _, c := range []struct {
		absent bool
		clear  func() *ent.ApiKeyUpdate
	}{
		{k.ExpiresAt.IsZero(), u.ClearExpiresAt},
		{k.RevokedAt.IsZero(), u.ClearRevokedAt},
		{k.Previous.Mask == "", u.ClearPreviousHash},
		{k.Previous.Mask == "", u.ClearPreviousEdgeHash},
		{k.PreviousExpiresAt.IsZero(), u.ClearPreviousExpiresAt},
		{k.NoticeAt.IsZero(), u.ClearNoticeAt},
	} {
		if c.absent {
			c.clear()
		}
	}
}
