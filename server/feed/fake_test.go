package feed_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
)

// memoryLog is a log in memory.
type memoryLog struct {
	mu     sync.Mutex
	floor  int64
	events []apikey.Event // those after floor
	reads  int
	err    error
	named  bool // events have ids, which no two have had
	made   int
}

func (l *memoryLog) newest() int64 { return l.floor + int64(len(l.events)) }

// add appends an event and returns its position.
func (l *memoryLog) add(organization, resource string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	id := ""
	if l.named {
		id = fmt.Sprint("event_", l.made)
	}
	l.events = append(l.events, apikey.Event{
		ID: id, Position: l.newest() + 1, OrganizationID: organization, ResourceID: resource, Type: apikey.KeyCreated,
		Payload: []byte("payload"),
	})
	return l.newest()
}

// lose takes back the last n events.
func (l *memoryLog) lose(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = l.events[:len(l.events)-n]
}

// fail has reads fail with err, or work again.
func (l *memoryLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// retain deletes all but the last n events.
func (l *memoryLog) retain(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if drop := len(l.events) - n; drop > 0 {
		l.floor += int64(drop)
		l.events = l.events[drop:]
	}
}

func (l *memoryLog) Events(_ context.Context, f apikey.EventFilter, after int64, limit int) (apikey.EventPage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if after == apikey.OldestKept {
		after = l.floor
	}
	page := apikey.EventPage{Floor: l.floor, Newest: l.newest()}
	if l.err != nil {
		return page, l.err
	}
	if after < l.floor {
		return page, &apikey.TooOldError{Floor: l.floor}
	}
	page.Next = max(after, page.Newest)
	for i := max(after-l.floor, 0); i < int64(len(l.events)); i++ {
		if e := l.events[i]; f.Wants(&e) {
			if len(page.Events) == limit {
				page.Next, page.More = page.Events[limit-1].Position, true
				break
			}
			page.Events = append(page.Events, e)
		}
	}
	return page, nil
}

func (l *memoryLog) NextEvents(ctx context.Context, after int64, limit int) (apikey.EventPage, error) {
	page, err := l.Events(ctx, apikey.EventFilter{}, after, limit)
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := after - l.floor - 1; i >= 0 && i < int64(len(l.events)) {
		page.At = l.events[i].ID
	}
	page.Now = time.Now()
	return page, err
}

// start runs a feed over l until the bubble's test ends.
func start(t *testing.T, l *memoryLog, c feed.Config) *feed.Feed {
	t.Helper()
	c.Log = l
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := feed.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func follow(t *testing.T, f *feed.Feed, filter apikey.EventFilter, after int64) *feed.Follower {
	t.Helper()
	w, err := f.Follow(t.Context(), filter, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// read reads until there is something to wait for, and returns the positions.
func read(t *testing.T, w *feed.Follower) (positions []int64, wait <-chan struct{}) {
	t.Helper()
	for wait == nil {
		var entries []*feed.Entry
		var err error
		if entries, wait, err = w.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			positions = append(positions, e.Event.Position)
		}
	}
	return positions, wait
}

func woken(wait <-chan struct{}) bool {
	select {
	case <-wait:
		return true
	default:
		return false
	}
}
