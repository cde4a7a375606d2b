package deliver

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
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
	broken  map[string]bool // organizations whose turns fail
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
	if l.broken[organization] {
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

// turnsOf returns how many turns an organization had since it was asked last.
func (l *fakeLog) turnsOf(organization string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turns = slices.DeleteFunc(l.turns, func(id string) bool {
		if id == organization {
			n++
		}
		return id == organization
	})
	return n
}

// TestFanOutPausesWhoFails has the turns of one organization fail: it alone waits,
// longer each time, and the others go on at once.
func TestFanOutPausesWhoFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines := logtest.New(slog.LevelInfo)
		l := &fakeLog{begun: time.Now(), waiting: map[string]int{"bad": 1, "good": 1}, broken: map[string]bool{"bad": true}}
		f := runFanOut(t, FanOutConfig{Log: l, Due: func([]string) {}, Logger: log})
		for _, step := range []struct {
			after time.Duration
			bad   int
		}{{100 * time.Millisecond, 1}, {time.Second, 1}, {time.Second, 0}, {time.Second, 1}, {3 * time.Second, 0}, {time.Second, 1}} {
			l.add("good", 3)
			f.Notify([]string{"good", "bad"}, nil)
			time.Sleep(50 * time.Millisecond)
			l.mu.Lock()
			if n := l.waiting["good"]; n != 0 {
				t.Errorf("after %v %d events of the other organization wait", step.after, n)
			}
			l.mu.Unlock()
			time.Sleep(step.after - 50*time.Millisecond)
			if n := l.turnsOf("bad"); n != step.bad {
				t.Errorf("after %v: %d turns, want %d", step.after, n, step.bad)
			}
		}
		l.mu.Lock()
		l.broken = nil
		l.mu.Unlock()
		time.Sleep(maxBackoff)
		l.mu.Lock()
		defer l.mu.Unlock()
		if n := l.waiting["bad"]; n != 0 {
			t.Errorf("%d events wait", n)
		}
		if told, ended := lines.Lines("cannot be made"), lines.Lines("made again"); len(told) != 1 || len(ended) != 1 {
			t.Errorf("the log has %q", lines.String())
		}
	})
}

// TestFanOutDatabaseAway has every turn fail: they are tried at the pace of one
// organization, and all go on as soon as one does.
func TestFanOutDatabaseAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const organizations = 20
		l := &fakeLog{begun: time.Now(), waiting: make(map[string]int), broken: make(map[string]bool)}
		for i := range organizations {
			id := string(rune('a' + i))
			l.waiting[id], l.broken[id] = 1, true
		}
		runFanOut(t, FanOutConfig{Log: l, Due: func([]string) {}})
		time.Sleep(time.Minute)
		l.mu.Lock()
		if n := len(l.turns); n < 30 || n > 65+manyFailures {
			t.Errorf("%d turns in a minute", n)
		}
		clear(l.broken)
		l.mu.Unlock()
		time.Sleep(2 * retryQueue)
		l.mu.Lock()
		defer l.mu.Unlock()
		for id, n := range l.waiting {
			if n != 0 {
				t.Errorf("%s waits still", id)
			}
		}
	})
}

// TestFanOutTellsWhoWaits says that the log has one line when the changes of an
// organization begin to wait, and one when they no longer do.
func TestFanOutTellsWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines := logtest.New(slog.LevelInfo)
		l := &fakeLog{begun: time.Now(), waiting: map[string]int{"a": 0}, step: make(chan struct{})}
		f := runFanOut(t, FanOutConfig{Log: l, Due: func([]string) {}, Logger: log, MaxWait: time.Second})
		l.step <- struct{}{}
		synctest.Wait()
		l.add("a", 2)
		f.Notify([]string{"a"}, nil)
		time.Sleep(time.Minute + 1)
		for range 3 {
			if err := f.Wait(t.Context(), "a"); err == nil {
				t.Error("it did not wait")
			}
		}
		if got := lines.Lines("level=WARN"); len(got) != 1 || len(lines.Lines("organization_id=a")) != 1 {
			t.Errorf("the log has %q", got)
		}
		l.step <- struct{}{} // One of two.
		synctest.Wait()
		if got := lines.Lines("no longer wait"); len(got) != 0 {
			t.Errorf("the log has %q", got)
		}
		l.step <- struct{}{}
		synctest.Wait()
		if got := lines.Lines("no longer wait"); len(got) != 1 {
			t.Errorf("the log has %q", got)
		}
	})
}
