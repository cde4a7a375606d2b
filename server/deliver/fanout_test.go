package deliver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// fakeLog is a log in which each turn fans out one event of an organization. A turn
// waits for step, where there is one.
type fakeLog struct {
	step chan struct{}

	mu      sync.Mutex
	begun   time.Time
	waiting map[string]int // events by organization; those without an entry have no terms
	turns   []string
	fails   int
}

func (l *fakeLog) FanOutOrganizations(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id := range l.waiting {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

func (l *fakeLog) FanOut(ctx context.Context, organization string, _ time.Duration) (webhook.FannedOut, error) {
	if l.step != nil {
		select {
		case <-l.step:
		case <-ctx.Done():
			return webhook.FannedOut{}, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turns = append(l.turns, organization)
	if l.fails > 0 {
		l.fails--
		return webhook.FannedOut{}, errors.New("no")
	}
	n, ok := l.waiting[organization]
	if !ok {
		return webhook.FannedOut{Idle: true}, nil
	}
	if n == 0 {
		return webhook.FannedOut{}, nil
	}
	l.waiting[organization]--
	return webhook.FannedOut{Due: []string{"webhook of " + organization}, More: n > 1, Oldest: l.begun}, nil
}

func (l *fakeLog) add(organization string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting[organization] += n
}

// runFanOut runs a fan-out until the end of the test.
func runFanOut(t *testing.T, c FanOutConfig) *FanOut {
	t.Helper()
	c.MaxBehind = cmp.Or(c.MaxBehind, time.Minute)
	f := NewFanOut(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// TestFanOutTakesTurns has one organization with many events and others with one: each
// has its turn before the first has its second.
func TestFanOutTakesTurns(t *testing.T) {
	l := &fakeLog{begun: testNow, waiting: map[string]int{"a": 4, "b": 1, "c": 1}}
	due := make(chan string, 100)
	f := runFanOut(t, FanOutConfig{Log: l, Due: func(ids []string) {
		for _, id := range ids {
			due <- id
		}
	}})
	var got []string
	for range 6 {
		got = append(got, <-due)
	}
	if want := []string{"webhook of a", "webhook of b", "webhook of c", "webhook of a", "webhook of a", "webhook of a"}; !slices.Equal(got, want) {
		t.Errorf("due %v", got)
	}
	// Who has no webhooks costs no turn, and who gets the first one has them.
	l.mu.Lock()
	l.turns = nil
	l.mu.Unlock()
	f.Notify([]string{"none"}, nil)
	l.add("new", 1)
	f.Notify([]string{"none", "new"}, []string{"new"})
	if id := <-due; id != "webhook of new" {
		t.Errorf("due %s", id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.turns, "none") {
		t.Errorf("turns %v", l.turns)
	}
}

// TestFanOutWait has changes of an organization that is behind wait: until it is not,
// until their callers go, or for so long.
func TestFanOutWait(t *testing.T) {
	clock := testNow
	l := &fakeLog{begun: testNow, waiting: map[string]int{"a": 0, "b": 0}, step: make(chan struct{})}
	f := runFanOut(t, FanOutConfig{Log: l, Due: func([]string) {}, MaxWait: time.Hour, Now: func() time.Time { return clock }})
	for range 2 { // Both are looked at once at the start.
		l.step <- struct{}{}
	}
	l.add("a", 3)
	f.Notify([]string{"a"}, nil)
	for _, organization := range []string{"a", "b", "none"} {
		if err := f.Wait(t.Context(), organization); err != nil {
			t.Errorf("%s waits: %v", organization, err)
		}
	}
	f.mu.Lock()
	clock = clock.Add(time.Minute + 1)
	f.mu.Unlock()
	for _, organization := range []string{"b", "none"} {
		if err := f.Wait(t.Context(), organization); err != nil {
			t.Errorf("%s waits: %v", organization, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Wait(gone, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that is gone: %v", err)
	}
	f.MaxWait = time.Nanosecond
	var refusal *apikey.Error
	if err := f.Wait(t.Context(), "a"); !errors.As(err, &refusal) || refusal.Kind != apikey.KindUnavailable ||
		refusal.Reason != webhook.ReasonFanOutBehind || refusal.RetryAfter <= 0 {
		t.Errorf("one that waited long: %v", err)
	}
	f.MaxWait = time.Hour
	answer := make(chan error)
	go func() { answer <- f.Wait(t.Context(), "a") }()
	for range 3 {
		select {
		case err := <-answer:
			t.Fatalf("it did not wait: %v", err)
		case l.step <- struct{}{}:
		}
	}
	if err := <-answer; err != nil {
		t.Error(err)
	}
}
