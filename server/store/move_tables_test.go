package store_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	tokens "github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/store"
)

// TestMovesKnowEveryTableOfTheDatabase fails on a table that a move would forget since it
// is made by a migration alone.
func TestMovesKnowEveryTableOfTheDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, c store.Config) {
		if err := opened(t, c); err != nil {
			t.Fatal(err)
		}
		_, known := store.MovedTables()
		all, _, _ := dumpQueries(!c.Postgres.IsZero())
		found := texts(t, openRaw(t, c), all)
		if !slices.Contains(found, "api_keys") {
			t.Fatalf("the tables are %q", found)
		}
		for _, table := range found {
			if !slices.Contains(known, table) {
				t.Errorf("%s: say in move_tables.go whether its rows are moved, or what writes them in the target", table)
			}
		}
	})
}

// populateRest adds rows to the tables that populate leaves empty.
func populateRest(t *testing.T, f *fixture) {
	t.Helper()
	f.KeepAnswers(store.AnswerLimits{Retention: 24 * time.Hour, Records: 100, Bytes: 1 << 20})
	if _, err := f.createAs(t, named("a", "request")); err != nil {
		t.Fatal(err)
	}
	limited := f.withRate(t, exact(100))
	if grant := f.reserveRate(t, apikey.RateAsk{KeyID: limited.ID, Limit: limited.RateLimit, Want: 3, Least: 3}); grant.Units != 3 {
		t.Fatalf("granted %+v", grant)
	}
	now := f.clock.stored()
	f.addUsage(t, apikey.UsageCount{
		KeyID: limited.ID, OrganizationID: org, Count: 2, LastUsedAt: now,
		Units:   []apikey.UnitCount{{Hour: now.Truncate(time.Hour), Owner: "ünn", Calls: 2, Units: 7}},
		Refused: 5, Refusals: []apikey.RefusedUse{{At: now, Code: apikey.CodeRevoked, Via: apikey.ViaVerification, IP: "10.0.0.1", UserAgent: "ü"}},
	})
	made, err := f.CreateToken(t.Context(), operator, func(int, time.Time) (tokens.Token, error) {
		_, secret := newSecret(t)
		return tokens.Token{Name: "gateway", Scopes: apikey.Scopes{"api_keys.verify"}, Organizations: []string{org}, Secret: secret, Version: 1}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.RecordTokenUses(t.Context(), map[string]tokens.Use{made.ID: {At: now, Addr: netip.MustParseAddr("192.0.2.1")}}); err != nil {
		t.Fatal(err)
	}
}

// TestMoveEveryTable moves rows of every table, each way; a table without any is one that
// the tests of moves say nothing of. The terms of keys, which are no table of a move, are
// in the target too.
func TestMoveEveryTable(t *testing.T) {
	onEachMove(t, func(t *testing.T, from, to store.Config) {
		f := openFixture(t, from, 0)
		populate(t, f)
		populateRest(t, f)
		checkTerms(t, f, 5)
		before, now := movedFacts(t, f), f.clock.stored()
		f.closeFixture(t)
		result, err := store.Move(t.Context(), store.MoveConfig{From: from, To: to})
		if err != nil {
			t.Fatal(err)
		}
		moved, _ := store.MovedTables()
		for _, table := range moved {
			if result.Rows[table] == 0 {
				t.Errorf("no row of %s was moved: add some in populateRest", table)
			}
		}
		f = openFixture(t, to, 1)
		defer f.closeFixture(t)
		f.clock.Advance(now.Sub(f.clock.stored()))
		checkTerms(t, f, 5)
		wantSame(t, "what was moved", before, movedFacts(t, f))
		k := f.create(t, func(k *apikey.Key) { k.Scopes = apikey.Scopes{"invoices.read"} })
		checkTerms(t, f, 6)
		if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
			t.Fatal(err)
		}
		checkTerms(t, f, 5)
	})
}

// facts are what a database tells of rollups, refusals and answers.
type facts struct {
	Units    []string
	Refused  int64
	Buckets  []apikey.KeyUse
	Answered bool
}

func movedFacts(t *testing.T, f *fixture) (found facts) {
	t.Helper()
	day := apikey.Daily.Start(f.clock.stored())
	period := apikey.Period{Granularity: apikey.Hourly, Since: day, Until: day.Add(48 * time.Hour)}
	found.Units = f.unitsOf(t, store.UnitFilter{Organization: org, Group: apikey.ByOwner, Period: period}, 100)
	keys, _, err := f.Keys(t.Context(), store.KeyFilter{Organization: org}, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		_, _, _, total := f.refusals(t, k.ID, "", 10)
		found.Refused += total
	}
	if found.Buckets, err = f.MostUsed(t.Context(), org, period, 10); err != nil {
		t.Fatal(err)
	}
	found.Answered = errors.As(f.Answered(t.Context(), named("a", "request")), new(*store.AnsweredError))
	if len(found.Units) != 1 || found.Refused != 5 || len(found.Buckets) == 0 || !found.Answered {
		t.Errorf("found %+v", found)
	}
	return found
}
