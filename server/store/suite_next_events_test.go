package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

var nextEventTests = map[string]func(*testing.T, *fixture){
	"NextEvents":         testNextEvents,
	"NextEventsTooOld":   testNextEventsTooOld,
	"NextEventsManyRows": testNextEventsManyRows,
}

// What is followed is what is listed, with the event at the position before.
func testNextEvents(t *testing.T, f *fixture) {
	if page, err := f.NextEvents(t.Context(), 0, 10); err != nil || page.Events != nil || page.Next != 0 || page.Newest != 0 || page.Floor != 0 || page.More || page.At != "" {
		t.Errorf("an empty log: %+v, %v", page, err)
	}
	k := f.create(t, nil)
	if _, err := f.update(t.Context(), k.ID, func(k *apikey.Key) { k.Label, k.Description = "Another", "changed" }); err != nil {
		t.Fatal(err)
	}
	f.hook(t, nil)
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
		t.Fatal(err)
	}
	for after := range int64(6) {
		for _, limit := range []int{1, 2, 10} {
			want, err := f.Events(t.Context(), apikey.EventFilter{}, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.NextEvents(t.Context(), after, limit)
			if err != nil {
				t.Fatal(err)
			}
			at := ""
			if known, err := f.Events(t.Context(), apikey.EventFilter{}, max(after-1, 0), 1); err != nil {
				t.Fatal(err)
			} else if after > 0 && len(known.Events) > 0 {
				at = known.Events[0].ID
			}
			if f.OnPostgres() {
				want.At = at
			}
			got.Now = time.Time{}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%d after %d: %s", limit, after, diff)
			}
		}
	}
	began := time.Now()
	page, err := f.NextEvents(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	// The database of the tests has the clock of this machine.
	if on := f.OnPostgres(); on == page.Now.IsZero() {
		t.Errorf("the time is %v", page.Now)
	} else if on && (page.Now.Before(began.Add(-time.Millisecond)) || page.Now.After(time.Now().Add(time.Millisecond))) {
		t.Errorf("the time is %v, not between %v and %v", page.Now, began, time.Now())
	}
}

func testNextEventsTooOld(t *testing.T, f *fixture) {
	for range 4 {
		f.create(t, nil)
	}
	if n, err := f.DeleteEventsBefore(t.Context(), f.clock.Now().Add(time.Hour), 3); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	page, err := f.NextEvents(t.Context(), 2, 10)
	if tooOld, ok := errors.AsType[*apikey.TooOldError](err); !ok || tooOld.Floor != 3 || page.Events != nil {
		t.Errorf("got %+v, %v", page, err)
	}
	if page, err = f.NextEvents(t.Context(), 3, 10); err != nil || len(page.Events) != 1 || page.At != "" {
		t.Errorf("got %+v, %v", page, err)
	}
}

// A page ends somewhere, and the next goes on from there.
func testNextEventsManyRows(t *testing.T, f *fixture) {
	const events = 700
	f.create(t, nil)
	if err := f.CopyEvents(t.Context(), events-1); err != nil {
		t.Fatal(err)
	}
	var at int64
	for more := true; more; {
		page, err := f.NextEvents(t.Context(), at, 512)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if at++; e.Position != at {
				t.Fatal(fmt.Sprint(e.Position, " after ", at-1))
			}
		}
		if more = page.More; at != page.Next {
			t.Fatalf("next is %d at %d", page.Next, at)
		}
	}
	if at != events {
		t.Errorf("read up to %d", at)
	}
}
