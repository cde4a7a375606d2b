package store

import (
	"context"
	"database/sql"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"
	"github.com/gofrs/uuid/v5"

	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entusage "github.com/apikeys-dev/apikeys/ent/apikeyusage"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// KeyFilter says which keys a list holds, and in which order. Zero fields filter
// nothing.
type KeyFilter struct {
	// Organization is the one whose keys are listed; empty means all, or Among.
	Organization string
	// Among confines the list to some organizations; nil does not.
	Among   []string
	State   apikey.State
	OwnerID string
	// ExternalID is the name that whoever made the key gave it.
	ExternalID string
	// CreatedBy is the id of whoever made the keys.
	CreatedBy string
	// Label is a part of the label.
	Label         string
	ExpiresBefore time.Time
	// UnusedSince keeps keys without a use at or after this time, their creation
	// being the first.
	UnusedSince time.Time
	// CreatedAfter keeps keys made at or after this time, CreatedBefore those made
	// before that one.
	CreatedAfter, CreatedBefore time.Time
	// PreviousInUse keeps keys whose previous secret works and was used since the
	// rotation.
	PreviousInUse bool
	// Secret keeps keys by what is seen of a secret, the current or the previous one.
	Secret apikey.SecretPart
	// Scope is one that the list of the key's scopes names.
	Scope string
	// Metadata are entries that the key's metadata has.
	Metadata map[string]string
	// IDs are those among which the keys are; nil means any.
	IDs []string
	// Descending lists the newest first.
	Descending bool
}

// A selection is how the keys of a filter are found. Either an index leads, which has
// them in the order of ids, or the ids are known among which they are; what else the
// filter asks for is checked row by row.
//
// Each filter of one organization has an index that can lead, but for parts of labels
// and for the time without use. In all organizations together only ids and secrets are
// indexed. Where several filters are given, the one leads that is likely to leave
// least.
type selection struct {
	descending bool
	// lead is the condition that an index answers, with the organization's.
	lead []predicate.ApiKey
	// term leads in place of a column: a scope or an entry of metadata of
	// organization.
	organization, term string
	// first and end bound the ids, end outside; empty ones do not.
	first, end string
	// checks are the conditions for which rows must be looked at.
	checks []predicate.ApiKey
	// among are the ids among which the keys are, in order; nil where they are not
	// known.
	among []string
}

// maxSorted bounds how many keys of a range of times are sorted by id. Where there are
// more, they are dense among all keys of the organization, and are found by going
// through these.
const maxSorted = 2_000

// timeSlack is how far the time in an id may be from the key's created_at.
const timeSlack = time.Hour

// selectBy returns how the keys of f are found.
func (s *Store) selectBy(ctx context.Context, q querier, f *KeyFilter, now time.Time) (sel selection, err error) {
	sel = selection{descending: f.Descending, organization: f.Organization}
	if f.Organization != "" {
		sel.lead = append(sel.lead, entkey.OrganizationID(f.Organization))
	}
	if f.Among != nil {
		sel.checks = append(sel.checks, entkey.OrganizationIDIn(f.Among...))
	}
	if err := s.know(ctx, q, f, &sel, now); err != nil {
		return selection{}, err
	}
	led := sel.among != nil || f.Organization == ""
	choose := func(p predicate.ApiKey) {
		if led {
			sel.checks = append(sel.checks, p)
			return
		}
		led, sel.lead = true, append(sel.lead, p)
	}
	if f.ExternalID != "" {
		choose(entkey.ExternalID(f.ExternalID)) // of which there is one at most
	}
	for _, key := range sortedKeys(f.Metadata) {
		if !led {
			led, sel.term = true, metadataTerm(key, f.Metadata[key])
		}
		sel.checks = append(sel.checks, hasMetadata(key, f.Metadata[key])) // a term has the beginning of a value
	}
	if f.OwnerID != "" {
		choose(entkey.OwnerID(f.OwnerID))
	}
	switch {
	case f.Scope == "":
	case led:
		sel.checks = append(sel.checks, namesScope(f.Scope))
	default:
		led, sel.term = true, scopeTerm(f.Scope)
	}
	if f.CreatedBy != "" {
		choose(entkey.CreatedByID(f.CreatedBy))
	}
	switch f.State {
	case apikey.StateRevoked:
		choose(entkey.RevokedAtNotNil())
	case apikey.StateDisabled:
		choose(func(q *entsql.Selector) {
			entkey.RevokedAtIsNil()(q)
			entkey.Enabled(false)(q)
		})
	case apikey.StateExpired:
		sel.checks = append(sel.checks, entkey.RevokedAtIsNil(), entkey.Enabled(true), entkey.ExpiresAtLTE(now.UnixMicro()))
	case apikey.StateActive:
		sel.checks = append(sel.checks, entkey.RevokedAtIsNil(), entkey.Enabled(true),
			entkey.Or(entkey.ExpiresAtIsNil(), entkey.ExpiresAtGT(now.UnixMicro())))
	}
	sel.checkTimes(f, now)
	if f.Label != "" {
		// SQLite folds ASCII alone, and the pattern is folded wholly.
		sel.checks = append(sel.checks, entkey.Or(entkey.LabelContainsFold(f.Label), entkey.LabelContains(f.Label)))
	}
	return sel, nil
}

// checkTimes adds what f asks for by times. Ids begin with the time of creation, so
// these bound what is looked at.
func (sel *selection) checkTimes(f *KeyFilter, now time.Time) {
	if t := f.CreatedAfter; !t.IsZero() {
		sel.first = firstID(apikey.IDPrefix, t.Add(-timeSlack))
		sel.checks = append(sel.checks, entkey.CreatedAtGTE(t.UnixMicro()))
	}
	if t := f.CreatedBefore; !t.IsZero() {
		sel.end = firstID(apikey.IDPrefix, t.Add(timeSlack))
		sel.checks = append(sel.checks, entkey.CreatedAtLT(t.UnixMicro()))
	}
	if !f.ExpiresBefore.IsZero() {
		sel.checks = append(sel.checks, entkey.ExpiresAtLT(f.ExpiresBefore.UnixMicro()))
	}
	if t := f.UnusedSince; !t.IsZero() {
		sel.checks = append(sel.checks, entkey.CreatedAtLT(t.UnixMicro()), func(q *entsql.Selector) {
			used := usageColumn(q, entusage.FieldLastUsedAt)
			q.Where(entsql.Or(entsql.IsNull(used), entsql.LT(used, t.UnixMicro())))
		})
	}
	if f.PreviousInUse {
		sel.checks = append(sel.checks, entkey.PreviousExpiresAtGT(now.UnixMicro()), func(q *entsql.Selector) {
			q.Where(entsql.And(
				entsql.ColumnsEQ(usageColumn(q, entusage.FieldPreviousRotation), q.C(entkey.FieldRotations)),
				entsql.GT(usageColumn(q, entusage.FieldPreviousRequests), 0)))
		})
	}
	if !f.Secret.IsZero() {
		sel.checks = append(sel.checks, hasSecret(f.Secret))
	}
}

// usageColumn returns a column of the counters that [selectKeys] joins.
func usageColumn(q *entsql.Selector, name string) string {
	return entsql.Dialect(q.Dialect()).Table(entusage.Table).As("u").C(name)
}

// firstID returns the first id with a prefix that could be given at t.
func firstID(prefix string, t time.Time) string {
	var u uuid.UUID
	ms := max(t.UnixMilli(), 0)
	for i := range 6 {
		u[i] = byte(ms >> (8 * (5 - i)))
	}
	return prefix + u.String()
}

// know sets the ids among which the keys of f are, where these can be found without
// going through all: they are given, a secret finds them, or a range of times holds few.
func (s *Store) know(ctx context.Context, q querier, f *KeyFilter, sel *selection, now time.Time) (err error) {
	switch {
	case f.IDs != nil:
		sel.among = f.IDs
	case !f.Secret.IsZero():
		sel.among, err = s.idsBySecret(ctx, q, f.Secret)
	case f.Organization == "" || f.ExternalID != "" || len(f.Metadata) > 0 || f.OwnerID != "" || f.Scope != "" || f.CreatedBy != "":
		return nil // One of these leads.
	case f.PreviousInUse:
		sel.among, err = s.idsInRange(ctx, q, f.Organization, entkey.PreviousExpiresAtGT(now.UnixMicro()))
	case !f.ExpiresBefore.IsZero():
		sel.among, err = s.idsInRange(ctx, q, f.Organization, entkey.ExpiresAtLT(f.ExpiresBefore.UnixMicro()))
	case f.State == apikey.StateExpired:
		sel.among, err = s.idsInRange(ctx, q, f.Organization, entkey.ExpiresAtLTE(now.UnixMicro()))
	}
	if sel.among == nil || err != nil {
		return err
	}
	if f.Organization != "" {
		// Written so that no index leads but that of the ids.
		sel.lead = []predicate.ApiKey{func(q *entsql.Selector) {
			q.Where(expression(q.C(entkey.FieldOrganizationID)+" || '' = ?", f.Organization))
		}}
	}
	// Never nil, which would be all keys: there may be none.
	sel.among = slices.Compact(append([]string{}, slices.Sorted(slices.Values(sel.among))...))
	if sel.descending {
		slices.Reverse(sel.among)
	}
	return nil
}

// idsInRange returns the ids of the keys in a range of an index over times; nil where
// there are more than are sorted.
func (s *Store) idsInRange(ctx context.Context, q querier, organization string, in predicate.ApiKey) ([]string, error) {
	ids, err := s.ids(ctx, q, maxSorted, entkey.OrganizationID(organization), in)
	if len(ids) == maxSorted {
		return nil, err
	}
	return ids, err
}

// ids returns up to most ids of the keys that conditions select, in no order; never
// nil.
func (s *Store) ids(ctx context.Context, q querier, most int, conditions ...predicate.ApiKey) ([]string, error) {
	query := selectIDs(s.dialect).Limit(most)
	for _, condition := range conditions {
		condition(query)
	}
	ids := []string{}
	text, args := query.Query()
	err := queryRows(ctx, q, text, args, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// selectIDs returns a query of the ids of keys, for conditions to be added.
func selectIDs(dialect string) *entsql.Selector {
	key := entsql.Dialect(dialect).Table(entkey.Table).As("k")
	return entsql.Dialect(dialect).Select(key.C(entkey.FieldID)).From(key)
}
