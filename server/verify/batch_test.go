package verify

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A batch is checked in its order, also where one key comes in it often, and what
// it needs is read and reserved together.
func TestBatch(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	_, scarce := r.create(t, 5, apikey.RefillNone, apikey.RateLimit{})
	_, limited := r.create(t, 100, apikey.RefillNone, apikey.RateLimit{Requests: 2, WindowSeconds: 60})
	requests := []Request{{Secret: "junk"}, {Secret: newSecret(t), Cost: 1}}
	want := []apikey.Code{apikey.CodeMalformed, apikey.CodeNotFound}
	for i := range 4 {
		requests = append(requests, Request{Secret: limited, Cost: 1}, Request{Secret: scarce, Cost: 2})
		want = append(want, []apikey.Code{apikey.CodeValid, apikey.CodeRateLimited}[i/2], []apikey.Code{apikey.CodeValid, apikey.CodeQuotaExceeded}[i/2])
	}
	requests = append(requests, Request{Secret: scarce, Cost: 1}, Request{Secret: limited, Scopes: []string{"x"}, Cost: 1})
	want = append(want, apikey.CodeValid, apikey.CodeInsufficientScope)
	for range 300 {
		_, secret := r.keys.create(t, apikey.Key{}, 0)
		requests, want = append(requests, Request{Secret: secret, Cost: 1}), append(want, apikey.CodeValid)
	}
	results, err := r.VerifyBatch(t.Context(), requests)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]apikey.Code, len(results))
	for i := range results {
		got[i] = results[i].Code
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if reads, asked := r.keys.readCount(), r.quotas.count(); reads != 1 || asked > 3 {
		t.Errorf("%d reads, %d reservations", reads, asked)
	}
	if results, err := r.VerifyBatch(t.Context(), nil); len(results) != 0 || err != nil {
		t.Errorf("an empty batch: %v, %v", results, err)
	}
}

// A fault of a request refuses the batch before anything is spent.
func TestBatchIsCheckedBefore(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	_, secret := r.create(t, 5, apikey.RefillNone, apikey.RateLimit{})
	_, err := r.VerifyBatch(t.Context(), []Request{{Secret: secret, Cost: 1}, {Secret: secret, Cost: -1}, {Secret: "junk", Cost: -2}})
	wantFields(t, err, "keys[1].cost", "keys[2].cost")
	if got := r.spend(t, secret, 9, 1); got != 5 {
		t.Errorf("%d of 5 are left", got)
	}
}

// wantFields fails unless err is the caller's fault and names these fields.
func wantFields(t *testing.T, err error, want ...string) {
	t.Helper()
	known := apikey.AsError(err)
	if known == nil || known.Kind != apikey.KindInvalid {
		t.Fatalf("err = %v", err)
	}
	var fields []string
	for _, f := range known.Fields {
		fields = append(fields, f.Field)
	}
	if !slices.Equal(fields, want) {
		t.Errorf("fields %q, want %q", fields, want)
	}
}

// batch verifies requests together and fails on errors.
func (r *quotaHarness) batch(t testing.TB, requests ...Request) []apikey.Verification {
	t.Helper()
	results, err := r.VerifyBatch(context.Background(), requests)
	if err != nil {
		t.Fatalf("VerifyBatch: %v", err)
	}
	return results
}

// valid counts the results that are.
func valid(results []apikey.Verification) (n int) {
	for i := range results {
		if results[i].Code == apikey.CodeValid {
			n++
		}
	}
	return n
}

// A cost that can never be met is refused by the limit that it is above, with no
// time to wait, and the others of the batch are what they are.
func TestBatchCostOutOfReach(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	_, metered := r.create(t, 5, apikey.RefillDaily, apikey.RateLimit{})
	_, both := r.create(t, 5, apikey.RefillDaily, apikey.RateLimit{Requests: 10, WindowSeconds: 60})
	got := r.batch(t, Request{Secret: metered, Cost: 1}, Request{Secret: metered, Cost: 6}, Request{Secret: both, Cost: 11}, Request{Secret: both, Cost: 6},
		Request{Secret: metered, Scopes: []string{"x"}, Cost: 6}, Request{Secret: metered, Cost: 4}, Request{Secret: metered, Cost: 1})
	for i, want := range []apikey.Code{
		apikey.CodeValid, apikey.CodeQuotaExceeded, apikey.CodeRateLimited, apikey.CodeQuotaExceeded,
		apikey.CodeInsufficientScope, apikey.CodeValid, apikey.CodeQuotaExceeded,
	} {
		if wait := i == 6; got[i].Code != want || (got[i].RetryAfter > 0) != wait {
			t.Errorf("%d: %s, retry after %v; want %s", i, got[i].Code, got[i].RetryAfter, want)
		}
	}
	if l, q := got[3].Limit, got[3].Quota; l.Remaining != 10 || q.Remaining != 5 {
		t.Errorf("a refusal tells %+v, %+v", l, q)
	}
}

// What the keys of a batch take in an answer is bounded before anything is spent;
// what the caller is not told of does not count.
func TestBatchAnswerIsBounded(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	k, secret := r.create(t, 1000, apikey.RefillNone, apikey.RateLimit{})
	k.Metadata = map[string]string{"a": strings.Repeat("x", 8<<10)}
	r.keys.put(k)
	most := maxFound / k.MessageSize()
	_, err := r.VerifyBatch(t.Context(), times(most+1, secret, 1))
	wantFields(t, err, "keys")
	otherOrganization := times(1000, secret, 1)
	for i := range otherOrganization {
		otherOrganization[i].Organization = "org_b"
	}
	if n := valid(r.batch(t, append(otherOrganization[most:], times(most, secret, 1)...)...)); n != most {
		t.Errorf("%d valid of %d", n, most)
	}
	if got := r.spend(t, secret, 1000, 1); got != 1000-most {
		t.Errorf("%d of 1000 are left after %d", got, most)
	}
}

// A batch whose storage fails spends nothing.
func TestBatchStorageFails(t *testing.T) {
	t.Parallel()
	r := newQuotaHarness(t)
	_, secret := r.create(t, 5, apikey.RefillNone, apikey.RateLimit{})
	r.keys.onRead = func(context.Context) error { return errBroken }
	if _, err := r.VerifyBatch(t.Context(), []Request{{Secret: secret, Cost: 1}}); !errors.Is(err, errBroken) {
		t.Errorf("err = %v", err)
	} else {
		wantUnavailable(t, err)
	}
	r.keys.onRead = nil
	if got := r.spend(t, secret, 9, 1); got != 5 {
		t.Errorf("%d of 5 are left", got)
	}
}
