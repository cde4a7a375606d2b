package verify

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A batch is judged in its order, also where one key comes in it often, and what
// it needs is read and reserved together.
func TestBatch(t *testing.T) {
	r := newQuotaRig(t)
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

// One impossible cost refuses the batch before anything is spent, and every such
// request is named.
func TestBatchIsJudgedBefore(t *testing.T) {
	r := newQuotaRig(t)
	_, secret := r.create(t, 5, apikey.RefillNone, apikey.RateLimit{})
	_, err := r.VerifyBatch(t.Context(), []Request{
		{Secret: secret, Cost: 1}, {Secret: secret, Cost: 6}, {Secret: secret, Cost: 5}, {Secret: secret, Cost: -1},
		{Secret: secret, Scopes: []string{"x"}, Cost: 6}, // refused for another reason first
	})
	known := apikey.AsError(err)
	if known == nil || known.Kind != apikey.KindInvalid {
		t.Fatalf("err = %v", err)
	}
	var fields []string
	for _, f := range known.Fields {
		fields = append(fields, f.Field)
	}
	if want := []string{"keys[1].cost", "keys[3].cost"}; !slices.Equal(fields, want) {
		t.Errorf("fields %q, want %q", fields, want)
	}
	if got := r.spend(t, secret, 9, 1); got != 5 {
		t.Errorf("%d of 5 are left", got)
	}
}

// A batch whose storage fails spends nothing.
func TestBatchStorageFails(t *testing.T) {
	r := newQuotaRig(t)
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
