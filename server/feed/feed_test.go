package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ feed.Log = (*memoryLog)(nil)

func TestFollowersOfOthersSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryLog{}
		f := start(t, l, feed.Config{Tail: 8, Poll: time.Hour})
		mine, other := follow(t, f, apikey.EventFilter{Organization: "a"}, 0), follow(t, f, apikey.EventFilter{Organization: "b"}, 0)
		all := follow(t, f, apikey.EventFilter{}, 0)
		_, waitMine := read(t, mine)
		_, waitOther := read(t, other)
		_, waitAll := read(t, all)
		for range 100 { // far more than the tail holds
			f.Notify(l.add("a", "key"))
		}
		synctest.Wait()
		if !woken(waitMine) || !woken(waitAll) || woken(waitOther) {
			t.Error("woken:", woken(waitMine), woken(waitAll), woken(waitOther))
		}
		// A follower that was not woken has nothing to read, and knows so.
		reads := l.reads
		if got, _ := read(t, other); got != nil || other.Position() != 100 || l.reads != reads {
			t.Errorf("got %v, is at %d after %d reads", got, other.Position(), l.reads-reads)
		}
		if got, _ := read(t, mine); len(got) != 100 || mine.Position() != 100 {
			t.Errorf("got %v, is at %d", got, mine.Position())
		}
		// One that slept through a tail's length finds its event in the tail.
		_, waitOther = read(t, other)
		for range 50 {
			f.Notify(l.add("a", "key"))
		}
		synctest.Wait()
		reads = l.reads
		f.Notify(l.add("b", "key"))
		<-waitOther
		if got, _ := read(t, other); len(got) != 1 || got[0] != 151 || l.reads != reads+1 {
			t.Errorf("got %v after %d reads, of which the feed made one", got, l.reads-reads)
		}
	})
}

func TestNotifiesBeforeThePoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryLog{}
		f := start(t, l, feed.Config{})
		w := follow(t, f, apikey.EventFilter{}, 0)
		for _, notified := range []bool{true, false} {
			_, wait := read(t, w)
			begin := time.Now()
			position := l.add("a", "key")
			want := 250 * time.Millisecond
			if notified {
				f.Notify(position)
				want = 0
			}
			<-wait
			if d := time.Since(begin); d > want {
				t.Errorf("notified %t: woken after %s", notified, d)
			}
			if got, _ := read(t, w); len(got) != 1 || got[0] != position {
				t.Error(got)
			}
		}
	})
}

func TestRetentionPassesAFollower(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryLog{}
		f := start(t, l, feed.Config{Tail: 10, Poll: time.Hour})
		for range 300 {
			l.add("a", "key")
		}
		slow, oldest := follow(t, f, apikey.EventFilter{Organization: "a"}, 0), follow(t, f, apikey.EventFilter{Organization: "a"}, apikey.OldestKept)
		f.Notify(300)
		synctest.Wait()
		if entries, _, err := slow.Read(t.Context()); err != nil || len(entries) == 0 {
			t.Fatal(entries, err)
		}
		l.retain(50)
		_, _, err := slow.Read(t.Context())
		if tooOld, ok := errors.AsType[*apikey.TooOldError](err); !ok || tooOld.Floor != 250 {
			t.Errorf("got %v", err)
		}
		// One from the oldest on has read its first page already: no gap before it.
		if oldest.Position() != 0 {
			t.Error(oldest.Position())
		}
		if entries, _, err := oldest.Read(t.Context()); err != nil || entries[0].Event.Position != 1 {
			t.Error(entries, err)
		}
		// One who is in the tail does not notice.
		w := follow(t, f, apikey.EventFilter{Organization: "a"}, 295)
		l.retain(1)
		if got, _ := read(t, w); len(got) != 5 {
			t.Error(got)
		}
	})
}

// Where the feed itself has missed something, followers are sent to the log.
func TestFeedBehindRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryLog{}
		f := start(t, l, feed.Config{Poll: time.Hour})
		w := follow(t, f, apikey.EventFilter{Organization: "a"}, 0)
		_, wait := read(t, w)
		for range 10 {
			l.add("a", "key")
		}
		l.retain(2)
		f.Notify(10)
		<-wait
		synctest.Wait()
		_, _, err := w.Read(t.Context())
		if _, ok := errors.AsType[*apikey.TooOldError](err); !ok {
			t.Errorf("got %v", err)
		}
		if got, _ := read(t, follow(t, f, apikey.EventFilter{}, 8)); len(got) != 2 {
			t.Error(got)
		}
	})
}

// A log that cannot be read for a while is read on after it, and the server's own log
// has a line of its beginning and one of its end, however often it was tried.
func TestLogFailsForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryLog{}
		logger, log := logtest.New(slog.LevelInfo)
		f := start(t, l, feed.Config{Logger: logger})
		w := follow(t, f, apikey.EventFilter{}, 0)
		_, wait := read(t, w)
		l.mu.Lock()
		l.err = errors.New("disk")
		l.mu.Unlock()
		f.Notify(l.add("a", "key"))
		time.Sleep(time.Minute)
		l.mu.Lock()
		l.err = nil
		l.mu.Unlock()
		<-wait
		if got, _ := read(t, w); len(got) != 1 {
			t.Error(got)
		}
		synctest.Wait()
		if len(log.Lines("")) != 2 || len(log.Lines("could not be read")) != 1 || len(log.Lines("failed_for=1m0s")) != 1 {
			t.Errorf("the log: %s", log)
		}
	})
}

func TestFormIsMadeOnce(t *testing.T) {
	t.Parallel()
	e := &feed.Entry{}
	made := 0
	encode := func(*apikey.Event) any { made++; return made }
	for range 3 {
		if a, b := e.Form(feed.ViewOrganization, encode), e.Form(feed.ViewAll, encode); a == b || made != 2 {
			t.Error(a, b, made)
		}
	}
}

// Whatever happens in whatever order, a follower gets what its filter wants, each
// event once and in order, and its position is true.
func TestFollowModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, followModel)
}

func followModel(rt *rapid.T) {
	type reader struct {
		*feed.Follower
		filter apikey.EventFilter
		at     int64
	}
	ctx := context.Background()
	l := &memoryLog{}
	f, err := feed.New(ctx, feed.Config{
		Log: l, Tail: rapid.IntRange(1, 40).Draw(rt, "tail"), Bytes: rapid.IntRange(7, 400).Draw(rt, "bytes"),
	})
	if err != nil {
		rt.Fatal(err)
	}
	organizations := rapid.SampledFrom([]string{"a", "b", "c"})
	resources := rapid.SampledFrom([]string{"k1", "k2", "k3"})
	var readers []*reader
	step := func(r *reader) {
		entries, wait, err := r.Read(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		if wait != nil && !woken(wait) && r.Position() < f.Newest() {
			rt.Fatalf("waits at %d, the feed is at %d", r.Position(), f.Newest())
		}
		var want []int64
		for _, e := range l.events {
			if e.Position > r.at && e.Position <= r.Position() && r.filter.Wants(&e) {
				want = append(want, e.Position)
			}
		}
		var got []int64
		for _, e := range entries {
			got = append(got, e.Event.Position)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			rt.Fatalf("%+v from %d to %d: got %v, want %v", r.filter, r.at, r.Position(), got, want)
		}
		r.at = r.Position()
	}
	rt.Repeat(map[string]func(*rapid.T){
		"add": func(rt *rapid.T) {
			for range rapid.IntRange(1, 60).Draw(rt, "n") {
				l.add(organizations.Draw(rt, "organization"), resources.Draw(rt, "resource"))
			}
		},
		"fill": func(*rapid.T) {
			if err := f.Fill(ctx); err != nil {
				rt.Fatal(err)
			}
		},
		"follow": func(rt *rapid.T) {
			r := &reader{at: rapid.Int64Range(0, l.newest()).Draw(rt, "after")}
			if rapid.Bool().Draw(rt, "one") {
				r.filter.Organization = organizations.Draw(rt, "organization")
			}
			if rapid.Bool().Draw(rt, "filtered") {
				r.filter.ResourceIDs = []string{resources.Draw(rt, "resource")}
			}
			var err error
			if r.Follower, err = f.Follow(ctx, r.filter, r.at); err != nil {
				rt.Fatal(err)
			}
			readers = append(readers, r)
		},
		"read": func(rt *rapid.T) {
			if len(readers) > 0 {
				step(rapid.SampledFrom(readers).Draw(rt, "reader"))
			}
		},
		"leave": func(rt *rapid.T) {
			if len(readers) > 0 {
				i := rapid.IntRange(0, len(readers)-1).Draw(rt, "reader")
				readers[i].Close()
				readers = append(readers[:i], readers[i+1:]...)
			}
		},
	})
	if err := f.Fill(ctx); err != nil {
		rt.Fatal(err)
	}
	for _, r := range readers {
		for r.at < l.newest() {
			step(r)
		}
		r.Close()
	}
	if n := f.Notifiers(); n > 0 {
		rt.Errorf("%d notifiers are held still", n)
	}
}
