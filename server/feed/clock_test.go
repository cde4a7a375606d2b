package feed_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
)

// noon is when the machine of these tests starts, by its own time of day.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// machine is clocks that tests move.
type machine struct {
	mu              sync.Mutex
	wall            time.Time
	monotonic, boot time.Duration
}

func (m *machine) clocks() feed.Machine {
	return feed.Machine{
		Now: func() (time.Time, time.Duration) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.wall, m.monotonic
		},
		Boot: func() time.Duration {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.boot
		},
	}
}

func (m *machine) move(wall, monotonic, boot time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall, m.monotonic, m.boot = m.wall.Add(wall), m.monotonic+monotonic, m.boot+boot
}

// run lets time pass, suspend while the machine is suspended, and set is somebody who
// sets its time of day.
func (m *machine) run(d time.Duration)     { m.move(d, d, d) }
func (m *machine) suspend(d time.Duration) { m.move(d, 0, d) }
func (m *machine) set(d time.Duration)     { m.move(d, 0, 0) }

// database is a database with a clock of its own, which takes a time to be read.
type database struct {
	machine       *machine
	off           time.Duration // how far the database is ahead of noon at the start
	before, after time.Duration // that a read takes before and after it looks at the clock
}

func (l *database) now() time.Time {
	l.machine.mu.Lock()
	defer l.machine.mu.Unlock()
	return noon.Add(l.machine.boot + l.off)
}

func (l *database) time(context.Context) (time.Time, error) {
	l.machine.run(l.before)
	now := l.now()
	l.machine.run(l.after)
	return now, nil
}

// A step of TestClock is what happens, and what the clock then says.
type clockStep struct {
	name    string
	happens func(l *database)
	// read says that the log is read after that.
	read bool
	// off is what the clock's time may be off the database's.
	off   time.Duration
	fresh bool
}

// TestClock has the database's time go on, and what was read grow old, whatever happens
// to the clocks of the machine.
func TestClock(t *testing.T) {
	t.Parallel()
	run := func(d time.Duration) func(*database) { return func(l *database) { l.machine.run(d) } }
	suspend := func(d time.Duration) func(*database) { return func(l *database) { l.machine.suspend(d) } }
	set := func(d time.Duration) func(*database) { return func(l *database) { l.machine.set(d) } }
	nothing := run(0)
	cases := map[string][]clockStep{
		"ages": {
			{"read", nothing, true, 0, true},
			{"just not old", run(feed.MaxAge - 1), false, 0, true},
			{"old", run(1), false, 0, false},
			{"read again", nothing, true, 0, true},
			{"stopped for a minute", run(time.Minute), false, 0, false},
		},
		"is suspended": {
			{"read", run(time.Second), true, 0, true},
			{"for a minute", suspend(time.Minute), false, 0, false},
			{"read again", nothing, true, 0, true},
			{"for a moment", suspend(feed.MaxAge - 1), false, 0, true},
		},
		"has its time of day set": {
			{"read", nothing, true, 0, true},
			{"ahead", set(10 * time.Minute), false, 0, true},
			{"then runs", run(feed.MaxAge), false, 0, false},
			{"read", nothing, true, 0, true},
			{"back", set(-time.Hour), false, 0, true},
			{"then is suspended", suspend(time.Minute), false, 0, false},
		},
		"begins at the begin of a read": {
			{"that is slow", func(l *database) { l.before, l.after = 300*time.Millisecond, 300*time.Millisecond }, true, 0, true},
			{"so it is old soon", run(200 * time.Millisecond), false, 0, false},
			{"that is too slow", func(l *database) { l.after = time.Second }, true, 700 * time.Millisecond, false},
		},
		"keeps what quick reads told": {
			{"a quick one", func(l *database) { l.before, l.after = time.Millisecond, time.Millisecond }, true, 0, true},
			{"a slow one", func(l *database) { l.after = 500 * time.Millisecond }, true, 0, true},
			{"as slow the other way", func(l *database) { l.before, l.after = 500*time.Millisecond, time.Millisecond }, true, 0, true},
		},
		"follows a database that is set": {
			{"at first", nothing, true, 0, true},
			{"ahead", func(l *database) { l.off += time.Hour }, true, 0, true},
			{"back", func(l *database) { l.off -= 2 * time.Hour }, true, 0, true},
		},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &machine{wall: noon.Add(-10 * time.Minute)} // It is ten minutes late.
			l := &database{machine: m}
			c := feed.NewClock(feed.ClockConfig{Machine: m.clocks()})
			if !c.Now().Equal(m.wall) || c.Newest() != nil {
				t.Errorf("before a read it is %v", c.Now())
			}
			for _, step := range steps {
				if step.happens(l); step.read {
					if err := c.Read(t.Context(), l.time); err != nil {
						t.Fatal(err)
					}
				}
				now, fresh := c.Newest().Now()
				if off := now.Sub(l.now()); off.Abs() > step.off || fresh != step.fresh {
					t.Errorf("%s: %s off, fresh %t, want %s at most and %t", step.name, off, fresh, step.off, step.fresh)
				}
				if now != c.Now() {
					t.Errorf("%s: two times", step.name)
				}
			}
		})
	}
}

// A time of its own is a test's, whatever the database says, and reads grow old all
// the same.
func TestClockOfATest(t *testing.T) {
	t.Parallel()
	m := &machine{wall: noon}
	l := &database{machine: m, off: time.Hour}
	c := feed.NewClock(feed.ClockConfig{Machine: m.clocks(), Now: func() time.Time { return noon.AddDate(1, 0, 0) }})
	if err := c.Read(t.Context(), l.time); err != nil {
		t.Fatal(err)
	}
	m.run(feed.MaxAge)
	if now, fresh := c.Newest().Now(); !now.Equal(noon.AddDate(1, 0, 0)) || fresh {
		t.Error(now, fresh)
	}
}

// A log that others write too says when it cannot be followed, to whoever asks, to the
// log, and to those who rely on being woken; and when it can again.
func TestFollowingBreaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryLog{}
		logger, log := logtest.New(slog.LevelInfo)
		changed := make(chan struct{}, 10)
		// The clocks of the bubble stand for those of the machine.
		began := time.Now()
		boot := func() time.Duration { return time.Since(began) }
		clock := feed.NewClock(feed.ClockConfig{Machine: feed.Machine{Boot: boot}})
		if err := clock.Read(t.Context(), func(context.Context) (time.Time, error) { return time.Now(), nil }); err != nil {
			t.Fatal(err)
		}
		f := start(t, l, feed.Config{Logger: logger, Clock: clock, Changed: func() { changed <- struct{}{} }})
		if s := f.Status(); !s.Shared || s.Broken {
			t.Errorf("at first: %+v", s)
		}
		key := f.Subscribe("key")
		defer key.Close()
		wakeup := key.Changed()
		l.fail(errors.New("away"))
		<-changed
		if age := f.Status().Age; age < feed.MaxAge || age > feed.MaxAge+time.Second/4 {
			t.Errorf("told after %s", age)
		}
		if !woken(wakeup) || !f.Status().Broken {
			t.Errorf("woken %t, %+v", woken(wakeup), f.Status())
		}
		time.Sleep(time.Minute)
		l.fail(nil)
		<-changed
		if f.Broken() {
			t.Error("is broken still")
		}
		synctest.Wait()
		if len(changed) != 0 || len(log.Lines("")) != 2 || len(log.Lines("could not be read")) != 1 || len(log.Lines("is read again")) != 1 {
			t.Errorf("%d more changes; the log: %s", len(changed), log)
		}
	})
}

// What is applied is applied before anybody is told, and told in one piece or as
// missed.
func TestApply(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryLog{}
		var applied []feed.Batch
		var told []bool
		var wait <-chan struct{}
		f := start(t, l, feed.Config{Poll: time.Hour, Apply: func(b feed.Batch) {
			applied, told = append(applied, b), append(told, wait != nil && woken(wait))
		}})
		w := follow(t, f, apikey.EventFilter{}, 0)
		_, wait = read(t, w)
		f.Hear(l.add("a", "key"))
		<-wait
		l.add("a", "key")
		l.add("a", "key")
		l.retain(1)
		_, wait = read(t, w)
		f.Hear(0)
		synctest.Wait()
		if len(applied) != 3 || len(applied[0].Events) != 1 || !applied[1].Missed || len(applied[2].Events) != 1 || applied[2].Newest != 3 {
			t.Errorf("applied %+v", applied)
		}
		for i := range told[:2] {
			if told[i] {
				t.Errorf("batch %d was applied after it was told of", i)
			}
		}
	})
}

// A log that is another one, as after the loss of a database, is noticed however far
// it has come meanwhile: nothing that was remembered is good, and followers end.
func TestLogIsReplaced(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lost, added int
		noticed     bool
	}{
		"not":                    {0, 2, false},
		"shorter":                {2, 0, true},
		"of the same length":     {2, 2, true},
		"longer":                 {1, 5, true},
		"longer than the feed's": {3, 600, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &memoryLog{named: true}
				logger, log := logtest.New(slog.LevelInfo)
				missed := 0
				f := start(t, l, feed.Config{Logger: logger, Apply: func(b feed.Batch) {
					if b.Replaced && b.Missed {
						missed++
					}
				}})
				w := follow(t, f, apikey.EventFilter{}, 0)
				for range 5 {
					l.add("a", "key")
				}
				f.Notify(5)
				synctest.Wait()
				read(t, w)
				l.lose(c.lost)
				for range c.added {
					l.add("a", "key")
				}
				time.Sleep(time.Second) // The poll finds it.
				_, _, err := w.Read(t.Context())
				if errors.Is(err, feed.ErrReplaced) != c.noticed || (missed == 1) != c.noticed || len(log.Lines("has lost")) != missed {
					t.Errorf("%v, missed %d; the log: %s", err, missed, log)
				}
				if f.Newest() != l.newest() {
					t.Errorf("is at %d of %d", f.Newest(), l.newest())
				}
			})
		})
	}
}
