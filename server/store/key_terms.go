package store

import (
	"context"
	"maps"
	"slices"
	"strings"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Terms are what keys hold many of: scopes, and entries of metadata. The table
// api_key_terms has a row for each of a key's, ascending by id within its term, so that
// a list by one of them reads what it shows and no more, on both databases. An index of
// PostgreSQL over JSON would have to sort all that match, and SQLite has none.
//
// Triggers of the database keep the rows: whoever writes a key writes its terms, a
// server of an earlier version too. The table is made by a migration that is written by
// hand, and is no part of ent/schema.
const (
	termTable        = "api_key_terms"
	termOrganization = "organization_id"
	termText         = "term"
	termKey          = "key_id"
)

// termValue is how many characters of a value of metadata its term has. What follows
// is checked in the row of the key.
const termValue = 64

// scopeTerm and metadataTerm return terms as the triggers write them.
func scopeTerm(scope string) string { return "s:" + scope }

func metadataTerm(key, value string) string {
	if runes := []rune(value); len(runes) > termValue {
		value = string(runes[:termValue])
	}
	return "m:" + key + "=" + value
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// selectTerms returns a query of the ids of the keys with a term, for [joinTerm].
func selectTerms(dialect string) *entsql.Selector {
	t := terms(dialect)
	return entsql.Dialect(dialect).Select(t.C(termKey)).From(t)
}

func terms(dialect string) *entsql.SelectTable {
	return entsql.Dialect(dialect).Table(termTable).As("t")
}

// joinTerm confines a query of keys to those with a term of an organization. A query of
// terms is confined likewise.
func joinTerm(q *entsql.Selector, organization, term string) {
	t := terms(q.Dialect())
	if q.TableName() != termTable {
		q.Join(t).On(t.C(termKey), q.C(entkey.FieldID))
	}
	q.Where(entsql.EQ(t.C(termOrganization), organization)).Where(entsql.EQ(t.C(termText), term))
}

// expression returns a condition with its arguments, in whose text a question mark stands
// for each.
func expression(text string, args ...any) *entsql.Predicate {
	return entsql.P(func(b *entsql.Builder) {
		parts := strings.Split(text, "?")
		for i, part := range parts {
			b.WriteString(part)
			if i < len(args) {
				b.Arg(args[i])
			}
		}
	})
}

// namesScope checks the list of a key's scopes.
func namesScope(scope string) predicate.ApiKey {
	return func(q *entsql.Selector) {
		if column := q.C(entkey.FieldScopes); q.Dialect() == dialect.Postgres {
			q.Where(expression(column+" @> jsonb_build_array(?::text)", scope))
		} else {
			q.Where(expression("EXISTS (SELECT 1 FROM json_each(CAST("+column+" AS text)) AS e WHERE e.value = ?)", scope))
		}
	}
}

// hasMetadata checks an entry of a key's metadata.
func hasMetadata(key, value string) predicate.ApiKey {
	return func(q *entsql.Selector) {
		if column := q.C(entkey.FieldMetadata); q.Dialect() == dialect.Postgres {
			q.Where(expression(column+" ->> ?::text = ?", key, value))
		} else {
			q.Where(expression("EXISTS (SELECT 1 FROM json_each(CAST("+column+" AS text)) AS e WHERE e.key = ? AND e.value = ?)", key, value))
		}
	}
}

// secretColumns are those with what is seen of a key's secrets.
var secretColumns = []string{entkey.FieldSecretMask, entkey.FieldPreviousMask}

// hasSecret checks what is seen of a key's secrets.
func hasSecret(part apikey.SecretPart) predicate.ApiKey {
	return func(q *entsql.Selector) {
		var either []*entsql.Predicate
		for _, name := range secretColumns {
			if q.Dialect() == dialect.Postgres {
				pattern := strings.ReplaceAll(part.Head, "_", `\_`) + "%" + part.Tail
				either = append(either, expression(q.C(name)+" LIKE ?", pattern))
			} else { // whose LIKE takes upper and lower case alike
				either = append(either, expression(q.C(name)+" GLOB ?", part.Head+"*"+part.Tail))
			}
		}
		q.Where(entsql.Or(either...))
	}
}

// idsBySecret returns the ids of the keys, of whatever organization, with a secret that
// looks like part; never nil. They are few: part has three characters at least of what
// is random.
func (s *Store) idsBySecret(ctx context.Context, q querier, part apikey.SecretPart) ([]string, error) {
	found := []string{}
	end := part.Head[:len(part.Head)-1] + string(part.Head[len(part.Head)-1]+1) // the first text that does not begin so
	from, to := ">=", "<"
	if s.dialect == dialect.Postgres {
		from, to = "~>=~", "~<~" // byte by byte, as the index has them
	}
	for _, name := range secretColumns {
		ids, err := s.ids(ctx, q, maxExamined, func(q *entsql.Selector) {
			column := q.C(name)
			q.Where(expression(column+" "+from+" ?", part.Head)).Where(expression(column+" "+to+" ?", end))
			if name == entkey.FieldPreviousMask {
				q.Where(expression(column + " <> ''")) // as the index has it
			}
		})
		if err != nil {
			return nil, err
		}
		found = append(found, ids...)
	}
	return found, nil
}
