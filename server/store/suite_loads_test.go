package store_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var loadTests = map[string]func(*testing.T, *fixture){
	"KeysBySecret":         testKeysBySecret,
	"LoadsOfAnyNumber":     testLoadsOfAnyNumber,
	"LoadsAreAsOtherReads": testLoadsAreAsOtherReads,
	"LoadsOfBrokenRows":    testLoadsOfBrokenRows,
	"LoadsBesideReaders":   testLoadsBesideReaders,
	"LoadsGivenUp":         testLoadsGivenUp,
}

func testKeysBySecret(t *testing.T, f *fixture) {
	const n = 600
	template := f.create(t, nil)
	f.copies(t, template, n)
	rotated, err := f.update(t.Context(), template.ID, func(k *apikey.Key) {
		_, fresh := newSecret(t)
		k.Previous, k.PreviousExpiresAt, k.Secret = k.Secret, f.clock.Now().Add(time.Hour), fresh
	})
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := f.Keys(t.Context(), store.KeyFilter{Organization: org}, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	var hashes []apikey.Hash
	for i := range all {
		hashes = append(hashes, all[i].Hashes()...)
		hashes = append(hashes, apikey.Hash{byte(i), byte(i >> 8), 1})
	}
	keys, position, err := f.KeysBySecret(t.Context(), hashes)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, k := range keys {
		found[k.ID] = true
	}
	if newest, err := f.Position(t.Context()); err != nil || position != newest || len(found) != n+1 || !found[rotated.ID] {
		t.Errorf("%d keys at %d of %d, %v", len(found), position, newest, err)
	}
	if keys, _, err := f.KeysBySecret(t.Context(), nil); len(keys) != 0 || err != nil {
		t.Errorf("of no hashes: %v, %v", keys, err)
	}
}

// testLoadsOfAnyNumber says that a load finds each key once, however many secrets
// it looks up and however often a key has them.
func testLoadsOfAnyNumber(t *testing.T, f *fixture) {
	f.copies(t, f.create(t, nil), 2*store.LoadSizes[len(store.LoadSizes)-1])
	all, _, err := f.Keys(t.Context(), store.KeyFilter{}, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range all {
		all[i], err = f.update(t.Context(), k.ID, rotate(t))
		if err != nil {
			t.Fatal(err)
		}
		if i == 20 {
			break
		}
	}
	for _, size := range store.LoadSizes {
		for n := size - 1; n <= size+1; n++ {
			var hashes []apikey.Hash
			var want, got []string
			for _, k := range all {
				if h := k.Hashes(); len(hashes)+len(h) <= n {
					hashes = append(hashes, h...)
					want = append(want, k.ID)
				}
			}
			keys, _, err := f.KeysBySecret(t.Context(), hashes)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				got = append(got, k.ID)
			}
			slices.Sort(got)
			slices.Sort(want)
			wantSame(t, strconv.Itoa(n)+" secrets", want, got)
		}
	}
}

// rotate returns a rule that gives a key another secret.
func rotate(t *testing.T) func(k *apikey.Key) {
	return func(k *apikey.Key) {
		_, fresh := newSecret(t)
		k.Previous, k.PreviousExpiresAt, k.Secret = k.Secret, k.CreatedAt.Add(time.Hour), fresh
	}
}

// testLoadsAreAsOtherReads compares what a load decodes with what ent decodes, of
// keys that have some of what keys can have.
func testLoadsAreAsOtherReads(t *testing.T, f *fixture) {
	seed := rand.Uint64()
	t.Logf("The seed is %d.", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	sometimes := func() bool { return chance.IntN(2) == 0 }
	for range 100 {
		k := f.create(t, func(k *apikey.Key) {
			if sometimes() {
				fullKey(k)
			}
			if sometimes() {
				k.Quota = apikey.Quota{Limit: 100, Remaining: 40, Refill: apikey.RefillNone}
			}
			if sometimes() && k.Quota.Limit > 0 {
				k.Quota.Refill, k.Quota.RefillDay = apikey.RefillMonthly, 31
			}
		})
		if sometimes() {
			if _, err := f.update(t.Context(), k.ID, rotate(t)); err != nil {
				t.Fatal(err)
			}
		}
		if sometimes() {
			_, err := f.update(t.Context(), k.ID, func(k *apikey.Key) {
				rules.Revoke(k, apikey.RevokeSuperseded, f.clock.Now())
				k.Enabled = sometimes()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if sometimes() {
			used := apikey.UsageCount{KeyID: k.ID, OrganizationID: org, Count: 3, LastUsedAt: f.clock.stored()}
			if _, err := f.AddUsage(t.Context(), []apikey.UsageCount{used}); err != nil {
				t.Fatal(err)
			}
		}
		for _, column := range []string{"scopes", "ip_allow_list", "metadata"} {
			if sometimes() {
				f.execute(t, "UPDATE api_keys SET "+column+" = NULL WHERE id = '"+k.ID+"'")
			}
		}
		want, err := f.Key(t.Context(), org, k.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range want.Hashes() {
			got, _, err := f.KeyBySecret(t.Context(), []apikey.Hash{h})
			if err != nil {
				t.Fatal(err)
			}
			wantSame(t, "loaded key", want, got)
		}
	}
	all, _, err := f.Keys(t.Context(), store.KeyFilter{}, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	var hashes []apikey.Hash
	for _, k := range all {
		hashes = append(hashes, k.Secret.Hash)
	}
	keys, _, err := f.KeysBySecret(t.Context(), hashes)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(keys, func(a, b apikey.Key) int { return strings.Compare(a.ID, b.ID) })
	wantSame(t, "keys loaded together", all, keys)
}

// testLoadsOfBrokenRows says that a row that does not decode is an error.
func testLoadsOfBrokenRows(t *testing.T, f *fixture) {
	k := f.create(t, fullKey)
	for column, values := range map[string][2]string{
		"scopes":        {"'{}'", "NULL"},
		"ip_allow_list": {`'["192.0.2.1"]'`, "NULL"},
		"metadata":      {"'[]'", "NULL"},
		"previous_hash": {"'short'", "NULL"},
		"created_at":    {"'yesterday'", "0"},
	} {
		if column == "created_at" && f.Dialect() == dialect.Postgres {
			continue // It keeps text out of its numbers.
		}
		set := func(value string) {
			f.execute(t, "UPDATE api_keys SET "+column+" = "+value+" WHERE id = '"+k.ID+"'")
		}
		set(values[0])
		if _, _, err := f.KeysBySecret(t.Context(), k.Hashes()); err == nil {
			t.Errorf("%s: no error", column)
		}
		set(values[1])
		if _, _, err := f.KeysBySecret(t.Context(), k.Hashes()); err != nil {
			t.Errorf("%s: %v", column, err)
		}
	}
	f.execute(t, "DELETE FROM revisions")
	if _, _, err := f.KeysBySecret(t.Context(), k.Hashes()); err == nil {
		t.Error("a log without a position: no error")
	}
}

// testLoadsBesideReaders loads a key while every reader is busy with something
// else.
func testLoadsBesideReaders(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	for range f.Reader().Stats().MaxOpenConnections {
		busy, err := f.Reader().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer busy.Close()
	}
	if _, _, err := f.KeyBySecret(t.Context(), k.Hashes()); err != nil {
		t.Error(err)
	}
}

// testLoadsGivenUp says that nothing is read for a caller that has gone.
func testLoadsGivenUp(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if keys, _, err := f.KeysBySecret(ctx, k.Hashes()); !errors.Is(err, context.Canceled) {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// TestLoadedColumns says that a load reads all that there is of a key, so that
// what is added to keys is not forgotten in their verification.
func TestLoadedColumns(t *testing.T) {
	loaded, all := store.LoadedColumns()
	if diff := cmp.Diff(all, loaded); diff != "" {
		t.Errorf("columns (-all +loaded):\n%s", diff)
	}
}

// TestLoadText says that the query of a load is written for the database that is
// to run it.
func TestLoadText(t *testing.T) {
	for dialect, want := range map[string]string{
		"sqlite3":  "WHERE `k`.`secret_hash` IN (?, ?) OR `k`.`previous_hash` IN (?, ?)",
		"postgres": `WHERE "k"."secret_hash" IN ($1, $2) OR "k"."previous_hash" IN ($3, $4)`,
	} {
		if text := store.LoadText(dialect, 2); !strings.HasSuffix(text, want) {
			t.Errorf("%s: %s", dialect, text)
		}
	}
}
