package deliver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// fakeBacklog is a fan-out that runs elsewhere.
type fakeBacklog struct {
	mu     sync.Mutex
	oldest map[string]time.Time
	reads  int
	fails  error
}

func (b *fakeBacklog) FanOutOldest(_ context.Context, organization string) (time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads++
	return b.oldest[organization], b.fails
}

func (b *fakeBacklog) set(organization string, oldest time.Time, fails error) (reads int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.oldest[organization], b.fails = oldest, fails
	reads, b.reads = b.reads, 0
	return reads
}

// TestFanOutElsewhere has changes wait for a fan-out that another server does: for that
// of their organization alone, until it is near enough or for so long, with few reads.
func TestFanOutElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		backlog := &fakeBacklog{oldest: make(map[string]time.Time)}
		f := NewFanOut(FanOutConfig{Backlog: backlog, MaxBehind: time.Minute, MaxWait: 5 * time.Second})
		free := func(organization string) {
			t.Helper()
			if err := f.Wait(t.Context(), organization); err != nil {
				t.Errorf("%s is held: %v", organization, err)
			}
		}
		backlog.set("a", time.Now().Add(-59*time.Second), nil)
		for range 100 {
			free("a")
		}
		time.Sleep(2 * time.Second)
		if reads := backlog.set("a", time.Now().Add(-61*time.Second), nil); reads != 1 {
			t.Errorf("%d reads for the changes of one moment", reads)
		}
		err := f.Wait(t.Context(), "a")
		if known := apikey.AsError(err); known == nil || known.Kind != apikey.KindUnavailable || known.Reason != webhook.ReasonFanOutBehind || known.RetryAfter <= 0 {
			t.Errorf("held until %v", err)
		}
		free("b")
		// Many wait: they read together, and go on once it is near enough.
		backlog.set("a", time.Now().Add(-time.Hour), nil)
		var waiting sync.WaitGroup
		for range 100 {
			waiting.Go(func() { free("a") })
		}
		time.Sleep(2 * time.Second)
		if reads := backlog.set("a", time.Time{}, nil); reads > 20 {
			t.Errorf("%d reads in two seconds", reads)
		}
		waiting.Wait()
		// A database that cannot be asked says nothing of the fan-out.
		backlog.set("a", time.Now().Add(-time.Hour), errors.New("no"))
		time.Sleep(2 * time.Second)
		free("a")
	})
}

// TestFanOutRunsAgain runs one fan-out in two terms: what it is told of between them
// costs nothing, and the second term finds it.
func TestFanOutRunsAgain(t *testing.T) {
	t.Parallel()
	l := &fakeLog{begun: testNow, waiting: map[string]int{"a": 1}}
	due := make(chan string, 10)
	f := NewFanOut(FanOutConfig{Log: l, Backlog: &fakeBacklog{}, MaxBehind: time.Minute, Due: func(ids []string) {
		for _, id := range ids {
			due <- id
		}
	}})
	for _, organizations := range [][]string{{"a"}, {"a", "b"}} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		for range organizations {
			<-due
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.add("a", 1)
		l.add("b", 1)
		f.Notify([]string{"a", "b"}, []string{"b"})
		f.mu.Lock()
		if len(f.known)+len(f.queue) > 0 || f.running {
			t.Errorf("knows %d organizations between its terms", len(f.known))
		}
		f.mu.Unlock()
	}
}
