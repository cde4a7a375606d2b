package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// rareKey is benchmarkKey for another owner, with what filters find keys by.
func rareKey(now time.Time) (apikey.Key, error) {
	k, err := benchmarkKey(now)
	k.OwnerID, k.Scopes, k.Metadata = "user_2", apikey.Scopes{"users.update"}, map[string]string{"plan": "gold"}
	return k, err
}

// benchmarkID returns the i-th id of the form of all ids.
func benchmarkID(i int) string {
	return fmt.Sprintf("%s01a1fd04-9f5f-7797-863c-%012d", apikey.IDPrefix, i)
}

// amongMany returns a store of 100,000 keys, and 5,000 of another owner between them.
func amongMany(b *testing.B) *store.Store {
	s := openSQLite(b, store.Config{})
	for _, c := range []struct {
		make func(time.Time) (apikey.Key, error)
		n    int
		id   func(i int) string
	}{
		{benchmarkKey, 100_000, func(i int) string { return benchmarkID(2 * i) }},
		{rareKey, 5000, func(i int) string { return benchmarkID(40*i + 1) }},
	} {
		template, err := s.CreateKey(b.Context(), operator, c.make)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.CopyKeys(b.Context(), template, c.n, c.id); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// BenchmarkListBy measures a page of the 5,000 keys that a filter finds among 105,000
// against a page without a filter.
func BenchmarkListBy(b *testing.B) {
	s := amongMany(b)
	for name, filter := range map[string]store.KeyFilter{
		"owner":              {OwnerID: "user_2"},
		"scope":              {Scope: "users.update"},
		"metadata":           {Metadata: map[string]string{"plan": "gold"}},
		"owner_and_metadata": {OwnerID: "user_2", Metadata: map[string]string{"plan": "gold"}},
		"newest_of_scope":    {Scope: "users.update", Descending: true},
		"state":              {OwnerID: "user_2", State: apikey.StateActive},
		"creator":            {CreatedBy: operator.Actor.ID},
		"newest":             {Descending: true},
	} {
		b.Run(name, func(b *testing.B) {
			filter.Organization = org
			page := func(filter store.KeyFilter) time.Duration {
				begin := time.Now()
				keys, next, err := s.Keys(b.Context(), filter, "", 100)
				if err != nil || len(keys) != 100 || next == "" {
					b.Fatal(len(keys), next, err)
				}
				return time.Since(begin)
			}
			var least, filtered time.Duration
			for b.Loop() {
				least += page(store.KeyFilter{Organization: org})
				filtered += page(filter)
			}
			b.ReportMetric(float64(least)/float64(filtered), "x-of-floor")
		})
	}
}

// BenchmarkChangeMany disables and enables the 5,000 keys of one owner among 105,000, as
// many in a transaction as a call makes.
func BenchmarkChangeMany(b *testing.B) {
	s := amongMany(b)
	var ids []string
	for after := ""; ; {
		keys, next, err := s.Keys(b.Context(), store.KeyFilter{Organization: org, OwnerID: "user_2"}, after, 1000)
		if err != nil {
			b.Fatal(err)
		}
		for i := range keys {
			ids = append(ids, keys[i].ID)
		}
		if after = next; next == "" {
			break
		}
	}
	enabled := true
	for b.Loop() {
		enabled = !enabled
		for some := range slices.Chunk(ids, 50) {
			results, err := s.ChangeKeys(b.Context(), operator, &store.KeysChange{
				Filter: store.KeyFilter{Organization: org, OwnerID: "user_2", IDs: some}, Event: apikey.KeyUpdated,
				Rule: func(k *apikey.Key, _ time.Time) error {
					k.Enabled = enabled
					return nil
				},
			})
			if err != nil || len(results.Results) != len(some) {
				b.Fatal(len(results.Results), err)
			}
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/5000-keys")
}
