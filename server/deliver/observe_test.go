package deliver

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

func TestObservations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := NewObservations()
		r := startHarness(t, func(c *WorkerConfig) { c.Observations = o })
		r.add("good")
		r.says("good", slow(time.Second))
		r.put("good", 3)
		r.add("bad")
		r.says("bad", func(*http.Request) (int, error) { return 500, nil })
		r.put("bad", 1)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		got := make(map[webhook.ErrorClass]uint64)
		for _, outcome := range AttemptOutcomes() {
			if n := o.Attempts(outcome); n > 0 {
				got[outcome] = n
			}
		}
		if diff := cmp.Diff(map[webhook.ErrorClass]uint64{OutcomeAcknowledged: 3, webhook.ClassHTTPStatus: 1}, got); diff != "" {
			t.Error(diff)
		}
		if took := o.Took(); took.Count != 4 || took.Sum != 3*time.Second {
			t.Errorf("%d attempts took %s", took.Count, took.Sum)
		}
	})
}

func TestObservedHealth(t *testing.T) {
	t.Parallel()
	o := NewObservations()
	o.changed(&webhook.HealthChange{State: webhook.HealthFailing})
	o.changed(&webhook.HealthChange{State: webhook.HealthHealthy})
	o.changed(&webhook.HealthChange{State: webhook.HealthFailing, DisabledReason: webhook.DisabledGone})
	o.changed(&webhook.HealthChange{State: webhook.HealthFailing})
	o.end(0, &webhook.Outcome{Failure: webhook.Failure{Class: "new"}}, nil)
	for change, want := range map[string]uint64{HealthFailing: 2, HealthRecovered: 1, HealthDisabled: 1} {
		if got := o.Changes(change); got != want {
			t.Errorf("%s: %d, want %d", change, got, want)
		}
	}
	if o.Attempts(webhook.ClassInternal) != 1 {
		t.Error("a class that is not listed is lost")
	}
	var nobody *Observations // observes nothing, and breaks nothing
	nobody.changed(&webhook.HealthChange{})
	nobody.end(nobody.begin(), &webhook.Outcome{}, nil)
}
