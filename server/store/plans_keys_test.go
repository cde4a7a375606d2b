package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// TestKeyPlans looks at the lists of keys, by each filter that has an index.
func TestKeyPlans(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, c store.Config) {
		checkPlans(t, c, []string{"api_keys", "api_key_terms"}, func(f *fixture) {
			for i := range 40 {
				k := f.create(t, func(k *apikey.Key) {
					k.OrganizationID = fmt.Sprintf("org_%d", i)
					if i == 0 {
						k.OrganizationID = org
					}
					k.OwnerID, k.Scopes, k.Metadata = "many", apikey.Scopes{"invoices.read"}, map[string]string{"team": "billing"}
				})
				if err := f.CopyKeys(t.Context(), k, 500, func(n int) string { return benchmarkID(1000*i + n) }); err != nil {
					t.Fatal(err)
				}
			}
			f.create(t, func(k *apikey.Key) {
				k.OwnerID, k.ExternalID, k.Scopes, k.Metadata = "one", "x", apikey.Scopes{"users.update"}, map[string]string{"plan": "gold"}
			})
		}, func(f *fixture) map[string]plannedRead {
			reads := make(map[string]plannedRead)
			for name, filter := range map[string]store.KeyFilter{
				"all of it":     {},
				"an owner":      {OwnerID: "one"},
				"a creator":     {CreatedBy: "nobody"},
				"a scope":       {Scope: "users.update"},
				"metadata":      {Metadata: map[string]string{"plan": "gold"}},
				"both":          {Scope: "users.update", Metadata: map[string]string{"plan": "gold"}},
				"external id":   {ExternalID: "x"},
				"revoked":       {State: apikey.StateRevoked},
				"disabled":      {State: apikey.StateDisabled},
				"expires":       {ExpiresBefore: f.clock.Now().Add(time.Hour)},
				"in rotation":   {PreviousInUse: true},
				"created after": {CreatedAfter: f.clock.Now().Add(time.Hour)},
			} {
				for _, descending := range []bool{false, true} {
					filter.Organization, filter.Descending = org, descending
					reads[fmt.Sprint(name, " descending ", descending)] = plannedRead{run: func() error {
						_, _, err := f.Keys(t.Context(), filter, "", 10)
						return err
					}}
				}
			}
			return reads
		})
	})
}
