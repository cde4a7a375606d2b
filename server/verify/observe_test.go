package verify

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// observed is what an Observations holds that is not zero.
func observed(o *Observations) map[string][2]uint64 {
	all := make(map[string][2]uint64)
	for _, w := range Ways() {
		for _, code := range Outcomes() {
			if memory, waited := o.Count(w, code); memory+waited > 0 {
				all[w.String()+" "+string(code)] = [2]uint64{memory, waited}
			}
		}
	}
	return all
}

func TestObservations(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	o := NewObservations()
	v := newHarness(t, keys, Config{Now: time.Now, Observations: o})
	_, good := keys.create(t, apikey.Key{OrganizationID: "org_a"}, 0)
	disabled, off := keys.create(t, apikey.Key{OrganizationID: "org_a"}, 0)
	disabled.Enabled = false
	keys.put(disabled)
	unknown := newSecret(t)

	for range 3 {
		ask(t, v, Request{Secret: good, Cost: 1})
		ask(t, v, Request{Secret: off, Way: WayREST})
		ask(t, v, Request{Secret: unknown, Way: WayREST})
		ask(t, v, Request{Secret: "junk"})
	}
	for _, organization := range []string{"", "org_b"} {
		if _, err := v.Authenticate(t.Context(), Credential{Secret: good, Organization: organization}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.VerifyBatch(t.Context(), []Request{{Secret: good}, {Secret: unknown}, {Secret: "junk"}}); err != nil {
		t.Fatal(err)
	}
	// Neither counts: it is refused as a request, and it verifies nothing anew.
	if _, err := v.Verify(t.Context(), Request{Secret: good, Cost: -1}); err == nil {
		t.Error("a negative cost passed")
	}
	if _, err := v.Recheck(t.Context(), Credential{Secret: good}); err != nil {
		t.Error(err)
	}
	want := map[string][2]uint64{
		"grpc valid":                    {2, 1},
		"grpc malformed":                {3, 0},
		"rest disabled":                 {2, 1},
		"rest not_found":                {0, 3},
		"credential valid":              {1, 0},
		"credential wrong_organization": {1, 0},
		"batch valid":                   {1, 0},
		"batch not_found":               {0, 1},
		"batch malformed":               {1, 0},
	}
	if diff := cmp.Diff(want, observed(o)); diff != "" {
		t.Error(diff)
	}
	// All that waited are timed, each once; those from memory by chance.
	if got := o.Took(WayREST).Count; got%sampled != 4 {
		t.Errorf("%d timed over REST", got)
	}
	if got := o.Took(WayBatch).Count; got != 1 {
		t.Errorf("%d batches timed", got)
	}
}

func TestObservedFailures(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	o := NewObservations()
	v := newHarness(t, keys, Config{Now: time.Now, Observations: o})
	keys.onRead = func(context.Context) error { return errors.New("no disk") }
	if _, err := v.Verify(t.Context(), Request{Secret: newSecret(t)}); err == nil {
		t.Error("no error")
	}
	if _, err := v.VerifyBatch(t.Context(), []Request{{Secret: newSecret(t)}, {Secret: newSecret(t)}}); err == nil {
		t.Error("no error of a batch")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Verify(gone, Request{Secret: newSecret(t), Way: WayREST}); err == nil {
		t.Error("no error for one who has gone")
	}
	want := map[string][2]uint64{"grpc unavailable": {0, 1}, "batch unavailable": {0, 2}, "rest canceled": {0, 1}}
	if diff := cmp.Diff(want, observed(o)); diff != "" {
		t.Error(diff)
	}
}

// What is timed from memory stands for as many as there were, about.
func TestObservedSamples(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	o := NewObservations()
	v := newHarness(t, keys, Config{Now: time.Now, Observations: o})
	_, secret := keys.create(t, apikey.Key{}, 0)
	const n = 64 * 400
	for range n {
		ask(t, v, Request{Secret: secret})
	}
	// Five standard deviations of the 400 samples are 100.
	if got := o.Took(WayGRPC).Count; got < n*3/4 || got > n*5/4 {
		t.Errorf("%d verifications are timed as %d", n, got)
	}
}

func TestCacheStats(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newHarness(t, keys, Config{Now: time.Now, CacheSize: 4})
	var last apikey.Key
	for range 10 {
		k, secret := keys.create(t, apikey.Key{}, 0)
		ask(t, v, Request{Secret: secret})
		last = k
	}
	v.cache.entries.CleanUp()
	before := v.CacheStats()
	if before.Most != 4 || before.Entries > 4 || before.Evicted < 6 || before.Dropped != 0 || before.Reads != 0 {
		t.Errorf("got %+v", before)
	}
	kept := len(v.cache.index.hashes(last.ID, 0))
	keys.change(v, last)
	if got := v.CacheStats().Dropped; got != uint64(kept) {
		t.Errorf("%d dropped, %d were kept", got, kept)
	}
}

func TestWays(t *testing.T) {
	t.Parallel()
	for i, w := range Ways() {
		if int(w) != i || w.String() == "" {
			t.Errorf("way %d is %d, %s", i, w, w)
		}
	}
	if len(Ways()) != int(ways) {
		t.Error("a way is not listed")
	}
}
