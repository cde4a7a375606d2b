package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entquota "github.com/apikeys-dev/apikeys/ent/apikeyquota"
	entusage "github.com/apikeys-dev/apikeys/ent/apikeyusage"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// keyExtras is what other tables hold about a key: its counters, and the balance
// of its quota. A key that was never used has no counters, and one without a quota no
// balance.
type keyExtras struct {
	total, lastUsed            sql.NullInt64
	previous                   previousCounters
	remaining, refilled, epoch sql.NullInt64
	last                       lastUseColumns
}

// lastUseColumns is what the counters hold of the client of the last use.
type lastUseColumns struct {
	ip, agent      sql.NullString
	addresses, day sql.NullInt64
}

// previousCounters is what the counters hold of the previous secret of a rotation.
type previousCounters struct{ rotation, total, lastUsed sql.NullInt64 }

// keyRow is the row of a key with what other tables hold about it. All that reads
// keys reads them as keyRows, so there is one list of their columns.
type keyRow struct {
	key ent.ApiKey
	keyExtras
}

// column is a column of a keyRow and where its value goes.
type column struct {
	table, name string
	into        any
}

// rightsColumns returns the columns that tell what a key may do, with their places
// in r.
func (r *keyRow) rightsColumns() []column {
	k := &r.key
	return []column{
		{entkey.Table, entkey.FieldID, &k.ID},
		{entkey.Table, entkey.FieldOrganizationID, &k.OrganizationID},
		{entkey.Table, entkey.FieldScopes, jsonColumn[[]string]{&k.Scopes}},
		{entkey.Table, entkey.FieldIPAllowList, jsonColumn[[]string]{&k.IPAllowList}},
		{entkey.Table, entkey.FieldExpiresAt, &k.ExpiresAt},
		{entkey.Table, entkey.FieldEnabled, &k.Enabled},
		{entkey.Table, entkey.FieldMode, &k.Mode},
		{entkey.Table, entkey.FieldRevokedAt, &k.RevokedAt},
		{entkey.Table, entkey.FieldPreviousExpiresAt, &k.PreviousExpiresAt},
		{entkey.Table, entkey.FieldRotations, &k.Rotations},
	}
}

// columns returns the columns, in their order, with their places in r.
func (r *keyRow) columns() []column {
	k := &r.key
	return append(r.rightsColumns(), []column{
		{entkey.Table, entkey.FieldLabel, &k.Label},
		{entkey.Table, entkey.FieldDescription, &k.Description},
		{entkey.Table, entkey.FieldCreatedAt, &k.CreatedAt},
		{entkey.Table, entkey.FieldUpdatedAt, &k.UpdatedAt},
		{entkey.Table, entkey.FieldCreatedByKind, &k.CreatedByKind},
		{entkey.Table, entkey.FieldCreatedByID, &k.CreatedByID},
		{entkey.Table, entkey.FieldCreatedByName, &k.CreatedByName},
		{entkey.Table, entkey.FieldKeyFormat, &k.KeyFormat},
		{entkey.Table, entkey.FieldOwnerID, &k.OwnerID},
		{entkey.Table, entkey.FieldExternalID, &k.ExternalID},
		{entkey.Table, entkey.FieldMetadata, jsonColumn[map[string]string]{&k.Metadata}},
		{entkey.Table, entkey.FieldRateLimitRequests, &k.RateLimitRequests},
		{entkey.Table, entkey.FieldRateLimitWindow, &k.RateLimitWindow},
		{entkey.Table, entkey.FieldRateLimitMode, &k.RateLimitMode},
		{entkey.Table, entkey.FieldQuotaLimit, &k.QuotaLimit},
		{entkey.Table, entkey.FieldQuotaRefill, &k.QuotaRefill},
		{entkey.Table, entkey.FieldQuotaRefillDay, &k.QuotaRefillDay},
		{entkey.Table, entkey.FieldRevokeReason, &k.RevokeReason},
		{entkey.Table, entkey.FieldSecretHash, &k.SecretHash},
		{entkey.Table, entkey.FieldPepperID, &k.PepperID},
		{entkey.Table, entkey.FieldSecretMask, &k.SecretMask},
		{entkey.Table, entkey.FieldEdgeHash, &k.EdgeHash},
		{entkey.Table, entkey.FieldPreviousHash, &k.PreviousHash},
		{entkey.Table, entkey.FieldPreviousPepperID, &k.PreviousPepperID},
		{entkey.Table, entkey.FieldPreviousMask, &k.PreviousMask},
		{entkey.Table, entkey.FieldPreviousEdgeHash, &k.PreviousEdgeHash},
		{entkey.Table, entkey.FieldNoticeAt, &k.NoticeAt},
		{entkey.Table, entkey.FieldVersion, &k.Version},
		{entusage.Table, entusage.FieldTotalRequests, &r.total},
		{entusage.Table, entusage.FieldLastUsedAt, &r.lastUsed},
		{entusage.Table, entusage.FieldPreviousRotation, &r.previous.rotation},
		{entusage.Table, entusage.FieldPreviousRequests, &r.previous.total},
		{entusage.Table, entusage.FieldPreviousLastUsedAt, &r.previous.lastUsed},
		{entusage.Table, entusage.FieldLastIP, &r.last.ip},
		{entusage.Table, entusage.FieldLastUserAgent, &r.last.agent},
		{entusage.Table, entusage.FieldAddressesCount, &r.last.addresses},
		{entusage.Table, entusage.FieldAddressesDay, &r.last.day},
		{entquota.Table, entquota.FieldRemaining, &r.remaining},
		{entquota.Table, entquota.FieldRefilledAt, &r.refilled},
		{entquota.Table, entquota.FieldEpoch, &r.epoch},
	}...)
}

// selectKeys returns a query of the columns of keys, for conditions to be added.
func selectKeys(dialect string) *entsql.Selector {
	build := entsql.Dialect(dialect)
	key, usage, quota := build.Table(entkey.Table).As("k"), build.Table(entusage.Table).As("u"), build.Table(entquota.Table).As("q")
	tables := map[string]*entsql.SelectTable{entkey.Table: key, entusage.Table: usage, entquota.Table: quota}
	query := build.Select()
	for _, c := range new(keyRow).columns() {
		query.AppendSelect(tables[c.table].C(c.name))
	}
	return query.From(key).
		LeftJoin(usage).On(usage.C(entusage.FieldID), key.C(entkey.FieldID)).
		LeftJoin(quota).On(quota.C(entquota.FieldID), key.C(entkey.FieldID))
}

// readKeys reads the rows that conditions select, sort and bound.
func readKeys(ctx context.Context, q querier, dialect string, conditions ...predicate.ApiKey) (all []keyRow, err error) {
	query := selectKeys(dialect)
	for _, condition := range conditions {
		condition(query)
	}
	text, args := query.Query()
	rows, err := q.QueryContext(ctx, text, args...) //nolint:rowserrcheck // The scan checks it.
	if err != nil {
		return nil, err
	}
	err = scanKeys(rows, nil, func(row *keyRow) error {
		all = append(all, *row)
		return nil
	})
	return all, err
}

// scanKeys calls each for every row of a query of [selectKeys], and closes rows.
// The row is good during the call. also is where one more column goes, or nil.
func scanKeys(rows entsql.ColumnScanner, also any, each func(*keyRow) error) error {
	return scanRows(rows, (*keyRow).columns, also, each)
}

// scanRows is scanKeys for a query of some columns of a row.
func scanRows(rows entsql.ColumnScanner, columns func(*keyRow) []column, also any, each func(*keyRow) error) error {
	defer rows.Close()
	var row *keyRow
	var places []any
	for rows.Next() {
		if row == nil {
			row = new(keyRow)
			for _, c := range columns(row) {
				places = append(places, c.into)
			}
			if also != nil {
				places = append(places, also)
			}
		}
		*row = keyRow{} // each key gets slices and maps of its own
		if err := rows.Scan(places...); err != nil {
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
	return rows.Err()
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

// decodeRights returns the key that r holds as far as rightsColumns tell of it. A row
// that does not decode is an error rather than a key that grants something else.
func (r *keyRow) decodeRights() (apikey.Key, error) {
	row := &r.key
	k := apikey.Key{
		ID:                row.ID,
		OrganizationID:    row.OrganizationID,
		Scopes:            row.Scopes,
		ExpiresAt:         fromMicros(row.ExpiresAt),
		Enabled:           row.Enabled,
		Mode:              apikey.Mode(row.Mode),
		RevokedAt:         fromMicros(row.RevokedAt),
		PreviousExpiresAt: fromMicros(row.PreviousExpiresAt),
		Rotations:         row.Rotations,
	}
	for _, text := range row.IPAllowList {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return apikey.Key{}, fmt.Errorf("read key %s: %w", row.ID, err)
		}
		k.IPAllowList = append(k.IPAllowList, p)
	}
	return k, nil
}

// decode returns the key that r holds, or an error as decodeRights does.
func (r *keyRow) decode() (apikey.Key, error) {
	row, b := &r.key, &r.keyExtras
	k, err := r.decodeRights()
	if err != nil {
		return apikey.Key{}, err
	}
	k.Label, k.Description, k.OwnerID, k.Metadata = row.Label, row.Description, row.OwnerID, row.Metadata
	k.CreatedAt, k.UpdatedAt = fromMicros(&row.CreatedAt), fromMicros(row.UpdatedAt)
	k.CreatedBy = apikey.Actor{Kind: apikey.ActorKind(row.CreatedByKind), ID: row.CreatedByID, Name: row.CreatedByName}
	if row.ExternalID != nil {
		k.ExternalID = *row.ExternalID
	}
	k.RateLimit = rateLimitOf(row)
	k.RevokeReason, k.Format = apikey.RevokeReason(row.RevokeReason), row.KeyFormat
	k.Secret = apikey.StoredSecret{PepperID: row.PepperID, Mask: row.SecretMask}
	k.NoticeAt, k.Version = fromMicros(row.NoticeAt), row.Version
	hashes := []hashColumn{{row.SecretHash, &k.Secret.Hash}, {row.EdgeHash, &k.Secret.EdgeHash}}
	if row.PreviousHash != nil {
		k.Previous = apikey.StoredSecret{PepperID: row.PreviousPepperID, Mask: row.PreviousMask}
		hashes = append(hashes, hashColumn{row.PreviousHash, &k.Previous.Hash}, hashColumn{row.PreviousEdgeHash, &k.Previous.EdgeHash})
	}
	for _, h := range hashes {
		if *h.into, err = hashOf(h.column); err != nil {
			return apikey.Key{}, fmt.Errorf("read key %s: %w", row.ID, err)
		}
	}
	k.Usage.TotalRequests = b.total.Int64
	if b.lastUsed.Valid {
		k.Usage.LastUsedAt = fromMicros(&b.lastUsed.Int64)
		last := apikey.LastUse{
			IP: b.last.ip.String, UserAgent: b.last.agent.String, Addresses: b.last.addresses.Int64, AddressDay: b.last.day.Int64,
		}
		if last != (apikey.LastUse{}) {
			k.LastUse = &last
		}
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

// truncateTimes makes the times of k what a column can hold, so that a rule's finer
// or local time neither counts as a change nor differs between what is answered,
// told and read back.
func truncateTimes(k *apikey.Key) {
	for _, t := range []*time.Time{
		&k.ExpiresAt, &k.CreatedAt, &k.UpdatedAt, &k.RevokedAt, &k.PreviousExpiresAt, &k.NoticeAt,
	} {
		*t = apikey.StoredTime(*t)
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
	SetKeyFormat(string) B
	SetOwnerID(string) B
	SetMetadata(map[string]string) B
	SetRateLimitRequests(int) B
	SetRateLimitWindow(int) B
	SetRateLimitMode(string) B
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
	var externalID *string
	if k.ExternalID != "" {
		externalID = &k.ExternalID
	}
	return setKey(keys.Create().SetID(k.ID).SetOrganizationID(k.OrganizationID).SetNillableExternalID(externalID).
		SetCreatedAt(k.CreatedAt.UnixMicro()).SetMode(string(k.Mode)).
		SetCreatedByKind(string(k.CreatedBy.Kind)).SetCreatedByID(k.CreatedBy.ID).SetCreatedByName(k.CreatedBy.Name), k)
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
		SetEnabled(k.Enabled).SetKeyFormat(k.Format).SetOwnerID(k.OwnerID).SetMetadata(k.Metadata).
		SetRateLimitRequests(k.RateLimit.Requests).SetRateLimitWindow(k.RateLimit.WindowSeconds).SetRateLimitMode(rateLimitMode(k.RateLimit)).
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
