package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	entsql "entgo.io/ent/dialect/sql"

	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// lastExamined returns the id of the last key after an id at which a call may look,
// and "" where it may look at all that there are.
func (s *Store) lastExamined(ctx context.Context, q querier, sel *selection, after string) (string, error) {
	if sel.among != nil || len(sel.checks) == 0 {
		return "", nil // They are few, or none is looked at in vain.
	}
	query := selectIDs(s.dialect)
	if sel.term != "" {
		query = selectTerms(s.dialect)
	}
	sel.apply(query)
	sel.from(after)(query)
	text, args := query.Offset(maxExamined - 1).Limit(1).Query()
	var last string
	err := queryRows(ctx, q, text, args, func(rows *sql.Rows) error { return rows.Scan(&last) })
	return last, err
}

// apply adds what leads to a query of keys or, where a term leads, of terms.
func (sel *selection) apply(q *entsql.Selector) {
	lead := sel.lead
	if sel.term != "" {
		joinTerm(q, sel.organization, sel.term)
		lead = nil // It is the organization, which the term has.
	}
	for _, p := range lead {
		p(q)
	}
	if id := sel.id(q); sel.first != "" {
		q.Where(entsql.GTE(id, sel.first))
	}
	if id := sel.id(q); sel.end != "" {
		q.Where(entsql.LT(id, sel.end))
	}
}

// id returns the column by which a query is sorted: where a term leads, the term's,
// since its index has the order.
func (sel *selection) id(q *entsql.Selector) string {
	if sel.term != "" {
		return terms(q.Dialect()).C(termKey)
	}
	return q.C(entkey.FieldID)
}

// from continues a query behind an id, in the order of the selection; "" is before all.
func (sel *selection) from(after string) predicate.ApiKey {
	return func(q *entsql.Selector) {
		id := sel.id(q)
		switch {
		case !sel.descending:
			q.Where(entsql.GT(id, after)).OrderBy(id)
		case after != "":
			q.Where(entsql.LT(id, after)).OrderBy(entsql.Desc(id))
		default:
			q.OrderBy(entsql.Desc(id))
		}
	}
}

// until ends a query with an id; "" does not.
func (sel *selection) until(last string) predicate.ApiKey {
	return func(q *entsql.Selector) {
		switch {
		case last == "":
		case sel.descending:
			q.Where(entsql.GTE(sel.id(q), last))
		default:
			q.Where(entsql.LTE(sel.id(q), last))
		}
	}
}

// read returns up to n keys of a selection after an id and up to another.
func (s *Store) read(ctx context.Context, q querier, sel *selection, after, last string, n int) ([]keyRow, error) {
	limit := func(q *entsql.Selector) { q.Limit(n) }
	if sel.among == nil {
		return readKeys(ctx, q, s.dialect, slices.Concat([]predicate.ApiKey{sel.apply}, sel.checks, []predicate.ApiKey{sel.from(after), sel.until(last), limit})...)
	}
	var rows []keyRow
	for ids := range slices.Chunk(sel.behind(after), pageChunk) {
		more, err := readKeys(ctx, q, s.dialect, slices.Concat([]predicate.ApiKey{sel.apply, entkey.IDIn(ids...)}, sel.checks, []predicate.ApiKey{sel.from(after), limit})...)
		if err != nil {
			return nil, err
		}
		if rows = append(rows, more...); len(rows) >= n {
			return rows[:n], nil
		}
	}
	return rows, nil
}

// behind returns the ids that are known after an id; "" is before all.
func (sel *selection) behind(after string) []string {
	if after == "" {
		return sel.among
	}
	i := slices.IndexFunc(sel.among, func(id string) bool {
		if sel.descending {
			return id < after
		}
		return id > after
	})
	if i < 0 {
		return nil
	}
	return sel.among[i:]
}

// Keys returns a page of up to limit keys after the id after, in the order of f, and
// the id after which the next page goes on; empty when this is the last. A page
// ends at about 1 MiB too. It looks at 10,000 rows at most, so a page of a filter
// can be short, even empty, and have a next still.
func (s *Store) Keys(ctx context.Context, f KeyFilter, after string, limit int) (keys []apikey.Key, next string, err error) {
	end, err := s.beginPage(ctx)
	if err != nil {
		return nil, "", errList("keys", err)
	}
	defer end()
	sel, err := s.selectBy(ctx, s.reader, &f, s.timestamp())
	if err != nil {
		return nil, "", errList("keys", err)
	}
	next, err = s.lastExamined(ctx, s.reader, &sel, after)
	if err != nil {
		return nil, "", errList("keys", err)
	}
	keys, more, err := readPage(limit, (*apikey.Key).MessageSize, func(last *apikey.Key, n int) ([]apikey.Key, error) {
		if last != nil {
			after = last.ID
		}
		rows, err := s.read(ctx, s.reader, &sel, after, next, n)
		if err != nil {
			return nil, err
		}
		return decodeKeys(rows)
	})
	if err != nil {
		return nil, "", errList("keys", err)
	}
	if more {
		next = keys[len(keys)-1].ID
	}
	return keys, next, nil
}

// decodeKeys returns the keys that rows hold.
func decodeKeys(rows []keyRow) ([]apikey.Key, error) {
	keys := make([]apikey.Key, len(rows))
	for i := range rows {
		var err error
		if keys[i], err = rows[i].decode(); err != nil {
			return nil, fmt.Errorf("decode: %w", err)
		}
	}
	return keys, nil
}
