package feed_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/feed"
)

func TestSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryLog{}
		f := start(t, l, feed.Config{})
		key := f.Subscribe("key")
		defer key.Close()
		changed := key.Changed()
		f.Notify(l.add("a", "other"))
		synctest.Wait()
		if woken(changed) {
			t.Error("heard of another resource")
		}
		f.Notify(l.add("a", "key"))
		<-changed
		if woken(key.Changed()) {
			t.Error("heard twice")
		}
	})
}

// Whoever forgets what it remembers of a resource does so after the commit and before
// Notify. The feed may read the event in between; then it wakes a subscription once
// more.
func TestSubscriptionToWhatWasReadEarly(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		events int // read before Notify
		tail   int
		again  bool
	}{
		"read early":                    {1, 10, true},
		"with others":                   {5, 10, true},
		"with more than the tail keeps": {50, 10, true},
		"nothing of the resource":       {0, 10, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &memoryLog{}
				f := start(t, l, feed.Config{Tail: c.tail, Poll: time.Minute})
				key := f.Subscribe("key")
				defer key.Close()
				changed := key.Changed()
				position := l.add("a", "other")
				for range c.events {
					position = l.add("a", "key")
				}
				time.Sleep(time.Minute) // The poll finds them.
				if woken(changed) != c.again {
					t.Errorf("woken by the poll: %t", woken(changed))
				}
				changed = key.Changed()
				f.Notify(position)
				if woken(changed) != c.again {
					t.Errorf("woken by Notify: %t, want %t", woken(changed), c.again)
				}
				f.Notify(l.add("a", "other"))
				changed = key.Changed()
				synctest.Wait()
				if woken(changed) {
					t.Error("heard of another resource")
				}
			})
		})
	}
}
