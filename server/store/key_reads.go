package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entusage "github.com/apikeys-dev/apikeys/ent/apikeyusage"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Key returns a key of organization, or apikey.ErrNotFound.
func (s *Store) Key(ctx context.Context, organization, id string) (apikey.Key, error) {
	return findKey(ctx, s.reader, s.dialect, organization, id)
}

func findKey(ctx context.Context, q querier, dialect, organization, id string) (apikey.Key, error) {
	rows, err := readKeys(ctx, q, dialect, entkey.ID(id), entkey.OrganizationID(organization))
	if err != nil {
		return apikey.Key{}, fmt.Errorf("read key: %w", err)
	}
	if len(rows) == 0 {
		return apikey.Key{}, apikey.ErrNotFound
	}
	return rows[0].decode()
}

// firstByID sorts a query of keys by id and ends it after n rows.
func firstByID(n int) predicate.ApiKey {
	return func(q *entsql.Selector) { q.OrderBy(q.C(entkey.FieldID)).Limit(n) }
}

// KeyFilter says which keys a list holds. Zero fields filter nothing.
type KeyFilter struct {
	// Organization is the one whose keys are listed; empty means all.
	Organization string
	State        apikey.State
	OwnerID      string
	// CreatedBy is the id of whoever made the keys.
	CreatedBy string
	// Label is a part of the label.
	Label         string
	ExpiresBefore time.Time
	// UnusedSince keeps keys without a use at or after this time, their creation
	// being the first.
	UnusedSince time.Time
}

// Keys returns a page of up to limit keys after the id after, ascending by id, and
// the id after which the next page goes on; empty when this is the last. A page
// ends at about 1 MiB too. It looks at 10,000 rows at most, so a page of a filter
// can be short, even empty, and have a next still.
func (s *Store) Keys(ctx context.Context, f KeyFilter, after string, limit int) (keys []apikey.Key, next string, err error) {
	end, err := s.beginPage(ctx)
	if err != nil {
		return nil, "", errList("keys", err)
	}
	defer end()
	indexed, filtered := f.predicates(s.timestamp())
	where := slices.Concat(indexed, filtered)
	if len(filtered) > 0 {
		next, err = lastExamined(ctx, func(ctx context.Context, skip int) ([]string, error) {
			return s.reader.ApiKey.Query().Where(append(indexed, entkey.IDGT(after))...).Order(entkey.ByID()).
				Offset(skip).Limit(1).IDs(ctx)
		})
		if err != nil {
			return nil, "", errList("keys", err)
		}
		if next != "" {
			where = append(where, entkey.IDLTE(next))
		}
	}
	keys, more, err := readPage(limit, (*apikey.Key).MessageSize, func(last *apikey.Key, n int) ([]apikey.Key, error) {
		if last != nil {
			after = last.ID
		}
		rows, err := readKeys(ctx, s.reader, s.dialect, slices.Concat(where, []predicate.ApiKey{entkey.IDGT(after), firstByID(n)})...)
		if err != nil {
			return nil, err
		}
		chunk := make([]apikey.Key, len(rows))
		for i := range rows {
			if chunk[i], err = rows[i].decode(); err != nil {
				return nil, err
			}
		}
		return chunk, nil
	})
	if err != nil {
		return nil, "", errList("keys", err)
	}
	if more {
		next = keys[len(keys)-1].ID
	}
	return keys, next, nil
}

// predicates returns the parts of the filter that an index answers in the order
// of ids, and those for which rows must be looked at.
func (f *KeyFilter) predicates(now time.Time) (indexed, filtered []predicate.ApiKey) {
	if f.Organization != "" {
		indexed = append(indexed, entkey.OrganizationID(f.Organization))
	}
	switch {
	case f.OwnerID == "":
	case f.Organization != "":
		indexed = append(indexed, entkey.OwnerID(f.OwnerID))
	default: // owners are indexed within their organization only
		filtered = append(filtered, entkey.OwnerID(f.OwnerID))
	}
	switch {
	case f.CreatedBy == "":
	case f.Organization != "" && f.OwnerID == "":
		indexed = append(indexed, entkey.CreatedByID(f.CreatedBy))
	default: // one of the indexes is used, and within their organization only
		filtered = append(filtered, entkey.CreatedByID(f.CreatedBy))
	}
	expired := entkey.ExpiresAtLTE(now.UnixMicro())
	unexpired := entkey.Or(entkey.ExpiresAtIsNil(), entkey.ExpiresAtGT(now.UnixMicro()))
	switch f.State {
	case apikey.StateRevoked:
		filtered = append(filtered, entkey.RevokedAtNotNil())
	case apikey.StateDisabled:
		filtered = append(filtered, entkey.RevokedAtIsNil(), entkey.Enabled(false))
	case apikey.StateExpired:
		filtered = append(filtered, entkey.RevokedAtIsNil(), entkey.Enabled(true), expired)
	case apikey.StateActive:
		filtered = append(filtered, entkey.RevokedAtIsNil(), entkey.Enabled(true), unexpired)
	}
	if f.Label != "" {
		// SQLite folds ASCII alone, and the pattern is folded wholly.
		filtered = append(filtered, entkey.Or(entkey.LabelContainsFold(f.Label), entkey.LabelContains(f.Label)))
	}
	if !f.ExpiresBefore.IsZero() {
		filtered = append(filtered, entkey.ExpiresAtLT(f.ExpiresBefore.UnixMicro()))
	}
	if !f.UnusedSince.IsZero() {
		filtered = append(filtered, entkey.CreatedAtLT(f.UnusedSince.UnixMicro()), func(s *entsql.Selector) {
			u := entsql.Dialect(s.Dialect()).Table(entusage.Table).As("used")
			s.Where(entsql.NotExists(entsql.Dialect(s.Dialect()).Select(u.C(entusage.FieldID)).From(u).
				Where(entsql.And(
					entsql.ColumnsEQ(u.C(entusage.FieldID), s.C(entkey.FieldID)),
					entsql.GTE(u.C(entusage.FieldLastUsedAt), f.UnusedSince.UnixMicro())))))
		})
	}
	return indexed, filtered
}
