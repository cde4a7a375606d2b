package store_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// TestTermsOfOlderServers brings databases of schemas without terms up to date while a
// server of that schema goes on. Keys are found by scope and metadata that were there,
// that statements of the program of that time write afterwards, and that both servers
// write, change and delete in turn.
func TestTermsOfOlderServers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, c store.Config) {
		name := map[bool]string{true: "SQLite", false: "PostgreSQL"}[c.Postgres.IsZero()]
		folder := map[string]string{"SQLite": "sqlite3", "PostgreSQL": "postgres"}[name]
		fixtures, err := filepath.Glob(filepath.Join("testdata", "upgrade", folder, "*.sql"))
		if err != nil {
			t.Fatal(err)
		}
		tested := 0
		for _, fixture := range fixtures {
			made := strings.TrimSuffix(filepath.Base(fixture), ".sql")
			for later := range 2 {
				t.Run(fmt.Sprint(made, " ", later), func(t *testing.T) {
					if upgradeTerms(t, databases[name](t), fixture, made, later) {
						tested++
					}
				})
			}
		}
		if tested == 0 {
			t.Errorf("no rows of a schema without terms in %q", fixtures)
		}
	})
}

// upgradeTerms upgrades the rows of a fixture of a schema; false where that has terms. Every
// other key is written when the schema is up to date, from the first or the second on.
func upgradeTerms(t *testing.T, c store.Config, path, made string, from int) bool {
	before, err := store.WithMigrationsUpTo(c, made)
	if err != nil {
		t.Fatal(err)
	}
	older, err := store.Open(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	defer older.Close()
	tables, _, _ := dumpQueries(!c.Postgres.IsZero())
	if slices.Contains(texts(t, openRaw(t, c), tables), "api_key_terms") {
		return false
	}
	rows, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin = `INSERT INTO "api_keys" `
	var later, first []string
	for i, statement := range strings.SplitAfter(string(rows), ");\n") {
		if strings.HasPrefix(statement, begin) && i%2 == from {
			later = append(later, statement)
		} else {
			first = append(first, statement)
		}
	}
	executeAll(t, c, strings.Join(first, ""))
	newer := openFixture(t, c, 1)
	defer newer.closeFixture(t)
	checkTerms(t, newer, 0)
	if len(later) < 3 {
		t.Fatalf("only %d keys are left for later", len(later))
	}
	executeAll(t, c, strings.Join(later, ""))
	checkTerms(t, newer, 5)

	random := rand.New(rand.NewPCG(1, 1))
	servers := []*fixture{newer, {Store: older, clock: newer.clock, log: newer.log}}
	some := func(texts ...string) (chosen []string) {
		for _, text := range texts {
			if random.IntN(2) == 0 {
				chosen = append(chosen, text)
			}
		}
		return chosen
	}
	fill := func(k *apikey.Key) {
		k.Scopes, k.Metadata = some("invoices.read", "api_keys.read", "events.read", "*"), nil
		for _, name := range some("env", "a.b", "ключ") {
			if k.Metadata == nil {
				k.Metadata = make(map[string]string)
			}
			k.Metadata[name] = []string{"prod", "", strings.Repeat("ü", 70), `"<&>`}[random.IntN(4)]
		}
	}
	var ids []string
	for i := range 60 {
		f := servers[i%2]
		switch n := random.IntN(5); {
		case n == 0 && len(ids) > 0:
			if err := f.DeleteKey(t.Context(), operator, org, ids[0]); err != nil {
				t.Fatal(err)
			}
			ids = ids[1:]
		case n <= 2 && len(ids) > 0:
			if _, err := f.update(t.Context(), ids[random.IntN(len(ids))], fill); err != nil {
				t.Fatal(err)
			}
		default:
			k, err := f.tryCreate(t, t.Context(), fill)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, k.ID)
		}
	}
	checkTerms(t, newer, 10)
	return true
}

// checkTerms says that the terms are those of the keys that there are, that lists by each
// find the keys that have it, and that there are so many at least.
func checkTerms(t *testing.T, f *fixture, least int) {
	t.Helper()
	all, _, err := f.Keys(t.Context(), store.KeyFilter{}, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	filters := make(map[string]store.KeyFilter)
	holders := make(map[string][]string)
	add := func(k *apikey.Key, term string, filter store.KeyFilter) {
		want = append(want, fmt.Sprintf("%s %s %s", k.OrganizationID, term, k.ID))
		filter.Organization = k.OrganizationID
		place := fmt.Sprint(filter)
		filters[place] = filter
		holders[place] = append(holders[place], k.ID)
	}
	for i := range all {
		k := &all[i]
		for _, scope := range k.Scopes {
			add(k, "s:"+scope, store.KeyFilter{Scope: scope})
		}
		for name, value := range k.Metadata {
			add(k, "m:"+name+"="+string([]rune(value)[:min(64, utf8.RuneCountInString(value))]), store.KeyFilter{Metadata: map[string]string{name: value}})
		}
	}
	for _, row := range f.terms(t) {
		got = append(got, fmt.Sprintf("%s %s %s", row...))
	}
	slices.Sort(want)
	slices.Sort(got)
	wantSame(t, "terms", want, got)
	if len(filters) < least {
		t.Errorf("only %d terms, want %d", len(filters), least)
	}
	for place, filter := range filters {
		keys, _, err := f.Keys(t.Context(), filter, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for i := range keys {
			ids = append(ids, keys[i].ID)
		}
		wantSame(t, place, holders[place], ids)
	}
}
