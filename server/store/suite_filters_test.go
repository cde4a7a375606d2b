package store_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var filterTests = map[string]func(*testing.T, *fixture){
	"AnyFilter":  testAnyFilter,
	"TermsStay":  testTermsStay,
	"ByCreation": testByCreation,
}

// meets reports whether a key meets a filter, without a database.
func meets(f *store.KeyFilter, k *apikey.Key, now time.Time) bool {
	ok := f.Organization == "" || k.OrganizationID == f.Organization
	ok = ok && (f.State == "" || k.State(now) == f.State)
	ok = ok && (f.OwnerID == "" || k.OwnerID == f.OwnerID)
	ok = ok && (f.ExternalID == "" || k.ExternalID == f.ExternalID)
	ok = ok && (f.Label == "" || strings.Contains(strings.ToLower(k.Label), strings.ToLower(f.Label)))
	ok = ok && (f.ExpiresBefore.IsZero() || !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(f.ExpiresBefore))
	ok = ok && (f.UnusedSince.IsZero() || k.CreatedAt.Before(f.UnusedSince) && k.Usage.LastUsedAt.Before(f.UnusedSince))
	ok = ok && (!f.PreviousInUse || k.PreviousWorks(now) && k.Usage.Previous.Requests > 0)
	ok = ok && (f.Scope == "" || slices.Contains(k.Scopes, f.Scope))
	for key, value := range f.Metadata {
		has, there := k.Metadata[key]
		ok = ok && there && has == value
	}
	shows := func(mask string) bool {
		return strings.HasPrefix(mask, f.Secret.Head) && strings.HasSuffix(mask, f.Secret.Tail)
	}
	return ok && (f.Secret.IsZero() || shows(k.Secret.Mask) || shows(k.Previous.Mask))
}

// testAnyFilter lists keys by filters of all kinds together, in both orders and in
// pages of any size: a list has the keys that meet its filter.
func testAnyFilter(t *testing.T, f *fixture) {
	random := rand.New(rand.NewPCG(1, 2))
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	now := f.clock.stored()
	long := strings.Repeat("ü", 64)
	values := []string{"prod", "", "a=b", `"<&>`, long + "x", long + "y"}
	secrets := []apikey.SecretPart{{}, {}, {Head: "sk_live_zzz"}}
	for i := range 60 {
		k := f.create(t, func(k *apikey.Key) {
			k.Label, k.OwnerID = one("Alpha", "beta", "ALPHABET"), one("", "ann", "bob")
			k.OrganizationID = one(org, org, org, "org_other")
			if random.IntN(3) == 0 {
				k.ExternalID = fmt.Sprint("e", i)
			}
			k.Scopes = apikey.Unique(apikey.Scopes{one("invoices.read", "*"), one("invoices.read", "api_keys.read")})
			if random.IntN(4) > 0 {
				k.Metadata = map[string]string{one("env", "a.b", "ключ", `"<&>`): one(values...), "x": one(values...)}
			}
			if random.IntN(2) == 0 {
				k.ExpiresAt = now.Add(time.Duration(1+random.IntN(4)) * time.Hour)
			}
		})
		secrets = append(secrets, apikey.SecretPart{Head: k.Secret.Mask[:11], Tail: k.Secret.Mask[26:]})
		if k.OrganizationID != org {
			continue
		}
		var err error
		switch random.IntN(5) {
		case 0:
			_, err = f.update(t.Context(), k.ID, func(k *apikey.Key) { k.Enabled = false })
		case 1:
			_, err = f.update(t.Context(), k.ID, func(k *apikey.Key) { rules.Revoke(k, apikey.RevokeSuperseded, now) })
		case 2:
			_, next := newSecret(t)
			_, err = f.ChangeKey(t.Context(), operator, org, k.ID, apikey.KeyRotated, func(k *apikey.Key, now time.Time) error {
				return rules.Rotate(k, rules.Formats[0], next, time.Duration(1+random.IntN(3))*time.Hour, now)
			})
			if err == nil && random.IntN(2) == 0 {
				_, err = f.AddUsage(t.Context(), []apikey.UsageCount{{KeyID: k.ID, Count: 1, LastUsedAt: now, Previous: apikey.PreviousUsage{Rotation: 1, Requests: 1, LastUsedAt: now}}})
			}
		}
		if err == nil && random.IntN(3) == 0 {
			_, err = f.AddUsage(t.Context(), []apikey.UsageCount{{KeyID: k.ID, Count: 1, LastUsedAt: now.Add(time.Duration(random.IntN(4)) * time.Hour)}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f.clock.Advance(2 * time.Hour)
	all, _, err := f.Keys(t.Context(), store.KeyFilter{}, "", 1000)
	if err != nil || len(all) != 60 {
		t.Fatal(len(all), err)
	}
	hour := func() time.Time { return now.Add(time.Duration(random.IntN(5)) * time.Hour) }
	found := 0
	for range 400 {
		filter := store.KeyFilter{Descending: random.IntN(2) == 0}
		if random.IntN(5) > 0 {
			filter.Organization = org
		}
		for range random.IntN(3) {
			switch random.IntN(10) {
			case 0:
				filter.State = []apikey.State{apikey.StateActive, apikey.StateDisabled, apikey.StateExpired, apikey.StateRevoked}[random.IntN(4)]
			case 1:
				filter.OwnerID = one("ann", "bob", "none")
			case 2:
				filter.ExternalID = fmt.Sprint("e", random.IntN(60))
			case 3:
				filter.Label = one("alpha", "B", "none")
			case 4:
				filter.ExpiresBefore = hour()
			case 5:
				filter.UnusedSince = hour()
			case 6:
				filter.PreviousInUse = true
			case 7:
				filter.Scope = one("invoices.read", "*", "api_keys.read")
			case 8:
				filter.Metadata = map[string]string{one("env", "a.b", "ключ", `"<&>`, "x"): one(values...)}
				if random.IntN(2) == 0 {
					filter.Metadata["x"] = one(values...)
				}
			case 9:
				filter.Secret = secrets[random.IntN(len(secrets))]
			}
		}
		var want, got []string
		for i := range all {
			if meets(&filter, &all[i], f.clock.stored()) {
				want = append(want, all[i].ID)
			}
		}
		if filter.Descending {
			slices.Reverse(want)
		}
		for after, more := "", true; more; {
			keys, next, err := f.Keys(t.Context(), filter, after, 1+random.IntN(20))
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				got = append(got, k.ID)
			}
			after, more = next, next != ""
		}
		found += len(got)
		if !slices.Equal(got, want) {
			t.Errorf("%+v: got %d keys, want %d", filter, len(got), len(want))
		}
	}
	if found < 400 {
		t.Errorf("only %d keys were found by all filters", found)
	}
}

// testTermsStay changes scopes and metadata in every way: the terms are those of the
// keys that there are.
func testTermsStay(t *testing.T, f *fixture) {
	k := f.create(t, func(k *apikey.Key) {
		k.Scopes, k.Metadata = apikey.Scopes{"invoices.read"}, map[string]string{"env": "prod", "team": "a"}
	})
	other := f.create(t, func(k *apikey.Key) { k.Scopes = apikey.Scopes{"invoices.read"} })
	list := func(filter store.KeyFilter) (ids []string) {
		filter.Organization = org
		keys, _, err := f.Keys(t.Context(), filter, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			ids = append(ids, k.ID)
		}
		return ids
	}
	wantSame(t, "at first", []string{k.ID, other.ID}, list(store.KeyFilter{Scope: "invoices.read"}))
	for _, change := range []func(k *apikey.Key){
		func(k *apikey.Key) { k.Scopes, k.Label = apikey.Scopes{"api_keys.read", "*"}, "x" },
		func(k *apikey.Key) { k.Metadata = map[string]string{"env": "test", "team": "a"} },
		func(k *apikey.Key) { k.Metadata = nil },
		func(k *apikey.Key) { k.Scopes = nil },
		func(k *apikey.Key) { k.Scopes, k.Metadata = apikey.Scopes{"*"}, map[string]string{"env": "prod"} },
	} {
		after, err := f.update(t.Context(), k.ID, change)
		if err != nil {
			t.Fatal(err)
		}
		for _, scope := range []string{"invoices.read", "api_keys.read", "*"} {
			if got := slices.Contains(list(store.KeyFilter{Scope: scope}), k.ID); got != slices.Contains(after.Scopes, scope) {
				t.Errorf("scope %s of %q: %t", scope, after.Scopes, got)
			}
		}
		for _, value := range []string{"prod", "test"} {
			if got := slices.Contains(list(store.KeyFilter{Metadata: map[string]string{"env": value}}), k.ID); got != (after.Metadata["env"] == value) {
				t.Errorf("%s of %v: %t", value, after.Metadata, got)
			}
		}
		wantSame(t, "terms", len(after.Scopes)+len(maps.Clone(after.Metadata))+1, len(f.terms(t)))
	}
	for _, id := range []string{k.ID, other.ID} {
		if err := f.DeleteKey(t.Context(), operator, org, id); err != nil {
			t.Fatal(err)
		}
	}
	wantSame(t, "terms after deletion", 0, len(f.terms(t)))
}

// terms returns the rows of the table of terms.
func (f *fixture) terms(t *testing.T) [][]any {
	t.Helper()
	return readRows(t, f.Reader(), "SELECT organization_id, term, key_id FROM api_key_terms")
}

// testByCreation lists keys by when they were made, the bounds of both ends included
// and not.
func testByCreation(t *testing.T, f *fixture) {
	start := f.clock.stored()
	for i := range 10 {
		f.SetNewID(apikey.NewIDAt(f.clock.Now))
		f.create(t, func(k *apikey.Key) { k.Label = fmt.Sprint(i) })
		f.clock.Advance(time.Hour)
	}
	hour := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	for _, filter := range []store.KeyFilter{{}, {Organization: org}} {
		filter.CreatedAfter, filter.CreatedBefore = hour(3), hour(6)
		wantSame(t, "between", [][]string{{"3", "4", "5"}}, f.list(t, filter, 10))
		filter.CreatedBefore = time.Time{}
		wantSame(t, "after", [][]string{{"3", "4"}, {"5", "6"}, {"7", "8"}, {"9"}}, f.list(t, filter, 2))
		filter.CreatedAfter, filter.CreatedBefore = time.Time{}, hour(2).Add(time.Microsecond)
		wantSame(t, "before", [][]string{{"0", "1", "2"}}, f.list(t, filter, 10))
	}
}
