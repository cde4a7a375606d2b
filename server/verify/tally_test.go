package verify

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Every outcome is counted in the hour in which it came, for its key, and secrets
// of no key for the one who asks; what a flush cannot store comes with the next.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	keys, clock := newFakeKeys(), newClock()
	v := newVerifier(t, keys, clock.Now)
	k, secret := keys.create(t, apikey.Key{OrganizationID: "org_a"}, 0)
	use := func() {
		for _, r := range []Request{
			{Secret: secret, Organization: "org_a", Cost: 1},
			{Secret: secret, Organization: "org_a", Scopes: []string{"x"}, Cost: 1},
			{Secret: secret, Organization: "org_b", Cost: 1}, // a key that org_b may not know of
			{Secret: "junk", Organization: "org_b", Cost: 1},
			{Secret: "junk", Cost: 1}, // of nobody in particular
			// A cost of zero counts nothing, whatever the outcome is.
			{Secret: secret, Organization: "org_a"},
			{Secret: secret, Organization: "org_b"},
			{Secret: "junk", Organization: "org_b"},
			{Secret: secret, Organization: "org_a", Scopes: []string{"x"}},
		} {
			if _, err := v.Verify(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if r.Cost == 0 {
				if _, err := v.VerifyBatch(t.Context(), []Request{r}); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Nor is what does not call with a key, or still does.
		if _, err := v.Authenticate(t.Context(), Credential{Secret: "junk", Organization: "org_b"}); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Recheck(t.Context(), Credential{Secret: secret, Organization: "org_a"}); err != nil {
			t.Fatal(err)
		}
	}
	use()
	clock.Advance(time.Hour - time.Minute)
	use()
	clock.Advance(time.Minute)
	use()
	keys.onAdd = func(context.Context, []apikey.UsageCount) (int, error) { return 0, errBroken }
	for range 2 {
		if err := v.Flush(t.Context()); err == nil {
			t.Error("a broken flush went well")
		}
	}
	use()
	got := make(map[string]int64)
	keys.onAdd = func(_ context.Context, counts []apikey.UsageCount) (int, error) {
		for _, c := range counts {
			for _, o := range c.Outcomes {
				got[c.OrganizationID+" "+map[bool]string{true: "key "}[c.KeyID == k.ID]+o.Hour.Format("15 ")+string(o.Code)] += o.Count
			}
			if (c.KeyID == "") != (c.OrganizationID == "org_b") || c.KeyID != "" && (c.Count != 4 || !c.LastUsedAt.Equal(clock.Now())) {
				t.Errorf("%+v", c)
			}
		}
		return len(counts), nil
	}
	for range 2 { // the second has nothing to store
		if err := v.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int64{
		"org_a key 12 valid": 2, "org_a key 13 valid": 2,
		"org_a key 12 insufficient_scope": 2, "org_a key 13 insufficient_scope": 2,
		"org_b 12 not_found": 2, "org_b 13 not_found": 2, "org_b 12 malformed": 2, "org_b 13 malformed": 2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
