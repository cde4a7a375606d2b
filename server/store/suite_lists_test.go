package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var listTests = map[string]func(*testing.T, *fixture){
	"ListFilters":      testListFilters,
	"ListPages":        testListPages,
	"ListBound":        testListBound,
	"ListBoundOfOwner": testListBoundOfOwner,
	"ListsAtOnce":      testListsAtOnce,
}

// list follows the pages of a filter and returns the labels on each.
func (f *fixture) list(tb testing.TB, filter store.KeyFilter, limit int) (pages [][]string) {
	tb.Helper()
	for after := ""; ; {
		keys, next, err := f.Keys(tb.Context(), filter, after, limit)
		if err != nil {
			tb.Fatal(err)
		}
		page := []string{}
		for _, k := range keys {
			if k.ID <= after {
				tb.Errorf("%s after %s", k.ID, after)
			}
			after = k.ID
			page = append(page, k.Label)
		}
		pages = append(pages, page)
		if next == "" {
			return pages
		}
		if next < after {
			tb.Fatalf("the next page begins after %s, before the last key %s", next, after)
		}
		after = next
	}
}

func testListFilters(t *testing.T, f *fixture) {
	now := f.clock.stored()
	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	ids := map[string]string{}
	for _, k := range []apikey.Key{
		{Label: "plain"},
		{Label: "disabled", OwnerID: "ann"},
		{Label: "short", ExpiresAt: hour(1)},
		{Label: "long", ExpiresAt: hour(48), OwnerID: "ann"},
		{Label: "revoked", OwnerID: "bob"},
		{Label: "disabled and short", ExpiresAt: hour(1)},
		{Label: "revoked, disabled and short", ExpiresAt: hour(1)},
		{Label: `100%_\ of É`},
		{Label: "100 percent"},
		{Label: "elsewhere", OrganizationID: "org_other", OwnerID: "ann"},
	} {
		created := f.create(t, func(made *apikey.Key) {
			made.Label, made.ExpiresAt, made.OwnerID = k.Label, k.ExpiresAt, k.OwnerID
			if k.OrganizationID != "" {
				made.OrganizationID = k.OrganizationID
			}
		})
		ids[k.Label] = created.ID
	}
	for _, l := range []string{"disabled", "disabled and short", "revoked, disabled and short"} {
		if _, err := f.update(t.Context(), ids[l], func(k *apikey.Key) { k.Enabled = false }); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []string{"revoked", "revoked, disabled and short"} {
		if _, err := f.update(t.Context(), ids[l], func(k *apikey.Key) { rules.Revoke(k, apikey.RevokeSuperseded, now) }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.AddUsage(t.Context(), []apikey.UsageCount{
		{KeyID: ids["plain"], Count: 1, LastUsedAt: hour(-2)},
		{KeyID: ids["long"], Count: 1, LastUsedAt: hour(1)},
		{KeyID: ids["disabled"], Count: 1, LastUsedAt: now},
	}); err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(time.Hour) // exactly to the expiry of the short ones

	for name, c := range map[string]struct {
		filter store.KeyFilter
		want   []string
	}{
		"none": {store.KeyFilter{}, []string{
			"plain", "disabled", "short", "long", "revoked", "disabled and short", "revoked, disabled and short",
			`100%_\ of É`, "100 percent",
		}},
		"revoked":         {store.KeyFilter{State: apikey.StateRevoked}, []string{"revoked", "revoked, disabled and short"}},
		"disabled":        {store.KeyFilter{State: apikey.StateDisabled}, []string{"disabled", "disabled and short"}},
		"expired":         {store.KeyFilter{State: apikey.StateExpired}, []string{"short"}},
		"active":          {store.KeyFilter{State: apikey.StateActive}, []string{"plain", "long", `100%_\ of É`, "100 percent"}},
		"owner":           {store.KeyFilter{OwnerID: "ann"}, []string{"disabled", "long"}},
		"unknown owner":   {store.KeyFilter{OwnerID: "an"}, []string{}},
		"label":           {store.KeyFilter{Label: "SHORT"}, []string{"short", "disabled and short", "revoked, disabled and short"}},
		"label with %":    {store.KeyFilter{Label: "0%"}, []string{`100%_\ of É`}},
		"label with _":    {store.KeyFilter{Label: "_"}, []string{`100%_\ of É`}},
		`label with \`:    {store.KeyFilter{Label: `\ o`}, []string{`100%_\ of É`}},
		"label not ASCII": {store.KeyFilter{Label: "OF É"}, []string{`100%_\ of É`}},
		"expires before":  {store.KeyFilter{ExpiresBefore: hour(48)}, []string{"short", "disabled and short", "revoked, disabled and short"}},
		"expires before, at that time": {store.KeyFilter{ExpiresBefore: hour(48).Add(time.Microsecond).In(time.FixedZone("", 3600))},
			[]string{"short", "long", "disabled and short", "revoked, disabled and short"}},
		"unused since": {store.KeyFilter{UnusedSince: hour(1)}, []string{
			"plain", "disabled", "short", "revoked", "disabled and short", "revoked, disabled and short", `100%_\ of É`, "100 percent",
		}},
		"unused since they were made":        {store.KeyFilter{UnusedSince: now}, []string{}},
		"unused since before they were made": {store.KeyFilter{UnusedSince: hour(-1)}, []string{}},
		"all together": {store.KeyFilter{
			State: apikey.StateDisabled, OwnerID: "ann", Label: "dis", UnusedSince: now.Add(time.Microsecond),
		}, []string{"disabled"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.filter.Organization = org
			for _, limit := range []int{1, 2, 100} {
				var all []string
				for _, page := range f.list(t, c.filter, limit) {
					all = append(all, page...)
				}
				wantSame(t, "labels", c.want, all)
			}
		})
	}
	wantSame(t, "an owner in all organizations", [][]string{{"disabled", "long", "elsewhere"}},
		f.list(t, store.KeyFilter{OwnerID: "ann"}, 10))
	wantSame(t, "a label in all organizations", [][]string{{"100 percent", "elsewhere"}},
		f.list(t, store.KeyFilter{Label: "e", State: apikey.StateActive}, 10))
	wantSame(t, "another organization", [][]string{{}}, f.list(t, store.KeyFilter{Organization: "org_none"}, 10))

	keys, _, err := f.Keys(t.Context(), store.KeyFilter{Label: "long"}, "", 1)
	if err != nil || len(keys) != 1 {
		t.Fatal(len(keys), err)
	}
	f.wantKey(t, keys[0])
	wantSame(t, "usage", apikey.Usage{TotalRequests: 1, LastUsedAt: hour(1)}, keys[0].Usage)
}

func testListPages(t *testing.T, f *fixture) {
	for i := range 5 {
		f.create(t, label(i))
		f.create(t, func(k *apikey.Key) { k.OrganizationID, k.Label = "org_other", "other" })
	}
	filter := store.KeyFilter{Organization: org}
	wantSame(t, "pages of 2", [][]string{{"key 0", "key 1"}, {"key 2", "key 3"}, {"key 4"}}, f.list(t, filter, 2))
	wantSame(t, "one page", [][]string{{"key 0", "key 1", "key 2", "key 3", "key 4"}}, f.list(t, filter, 5))
	if pages := f.list(t, store.KeyFilter{}, 4); len(pages) != 3 || len(pages[2]) != 2 {
		t.Errorf("all organizations: %v", pages)
	}

	// What is deleted or made between two pages shifts nothing.
	keys, next, err := f.Keys(t.Context(), filter, "", 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
			t.Fatal(err)
		}
	}
	f.create(t, label(5))
	keys, _, err = f.Keys(t.Context(), filter, next, 10)
	if err != nil || len(keys) != 4 || keys[0].Label != "key 2" || keys[3].Label != "key 5" {
		t.Errorf("%d keys from %+v, %v", len(keys), keys, err)
	}
}

// testListBound lists few matches among many keys: pages come short, then empty,
// and still say where to go on.
func testListBound(t *testing.T, f *fixture) {
	const many = 2*store.MaxExamined + 1
	template := f.create(t, func(k *apikey.Key) { k.Label = "template" })
	f.copies(t, template, many)
	for i, l := range map[int]string{3: "needle 1", store.MaxExamined - 1: "needle 2", 2 * store.MaxExamined: "needle 3"} {
		if _, err := f.update(t.Context(), copyID(i), func(k *apikey.Key) { k.Label = l }); err != nil {
			t.Fatal(err)
		}
	}
	for _, filter := range []store.KeyFilter{{Organization: org, Label: "needle"}, {Label: "needle"}} {
		wantSame(t, "pages", [][]string{{"needle 1", "needle 2"}, {}, {"needle 3"}}, f.list(t, filter, 10))
		wantSame(t, "pages of 1", [][]string{{"needle 1"}, {"needle 2"}, {"needle 3"}}, f.list(t, filter, 1))
	}
	wantSame(t, "nothing", [][]string{{}, {}, {}}, f.list(t, store.KeyFilter{Organization: org, Label: "pin"}, 10))
	wantSame(t, "nothing by an index", [][]string{{}}, f.list(t, store.KeyFilter{Organization: org, State: apikey.StateRevoked}, 10))
	// A filter that the index answers looks at no row in vain, so its pages are full;
	// they end at a megabyte.
	pages, total := f.list(t, store.KeyFilter{Organization: org}, many+1), 0
	for _, p := range pages {
		if total += len(p); len(p) < 1000 && total <= many || len(p) > apikey.MaxPage/400 {
			t.Errorf("a page of %d keys", len(p))
		}
	}
	if total != many+1 {
		t.Errorf("%d keys on %d pages", total, len(pages))
	}
}

// testListBoundOfOwner lists an owner over all organizations, for which there is
// no index.
func testListBoundOfOwner(t *testing.T, f *fixture) {
	template := f.create(t, func(k *apikey.Key) { k.OwnerID = "many" })
	f.copies(t, template, store.MaxExamined)
	few := f.create(t, func(k *apikey.Key) { k.OwnerID = "few" })
	wantSame(t, "pages", [][]string{{}, {few.Label}}, f.list(t, store.KeyFilter{OwnerID: "few"}, 10))
	wantSame(t, "pages of one organization", [][]string{{few.Label}},
		f.list(t, store.KeyFilter{Organization: org, OwnerID: "few"}, 10))
}

// copies adds n keys like template before all others.
func (f *fixture) copies(tb testing.TB, template apikey.Key, n int) {
	tb.Helper()
	if err := f.CopyKeys(tb.Context(), template, n, copyID); err != nil {
		tb.Fatal(err)
	}
}

// copyID is the id of a copied key; all come before those of made keys.
func copyID(i int) string { return fmt.Sprintf("api_key_%08d", i) }

// testListsAtOnce says that few pages are read at once, of whatever list: the next
// one waits, as long as its caller does, and watchers go on.
func testListsAtOnce(t *testing.T, f *fixture) {
	f.create(t, nil)
	lists := map[string]func(context.Context) error{
		"keys": func(ctx context.Context) error { _, _, err := f.Keys(ctx, store.KeyFilter{}, "", 10); return err },
		"webhooks": func(ctx context.Context) error {
			_, _, err := f.Webhooks(ctx, store.WebhookFilter{}, "", 10)
			return err
		},
		"deliveries": func(ctx context.Context) error {
			_, _, err := f.Deliveries(ctx, store.DeliveryFilter{}, "", 10)
			return err
		},
	}
	listing := f.Listing()
	for range cap(listing) {
		listing <- struct{}{} // somebody else's
	}
	for name, list := range lists {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := list(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	if _, err := f.Events(t.Context(), apikey.EventFilter{}, apikey.OldestKept, 10); err != nil {
		t.Errorf("events: %v", err)
	}
	<-listing
	for range 2 { // and each gives its place back
		for name, list := range lists {
			if err := list(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
