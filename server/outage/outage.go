// Package outage tells the log of work that fails for a while. Work in the background
// is tried again and again, some of it many times a second; while the storage fails,
// a line for each try would bury everything else. So the log gets one line when the
// work begins to fail and one when it works again, however often it is tried in
// between.
//
// Whether and when the work is tried again is for others, and so is what an operator
// should do: the storage tells that by itself.
package outage

import (
	"log/slog"
	"sync"
	"time"
)

// Outage is the stretch of time in which one kind of work fails, if it does now. Its
// methods are safe for concurrent use.
type Outage struct {
	log        *slog.Logger
	begin, end string

	mu       sync.Mutex
	since    time.Time // zero while the work goes well
	failures int
}

// New returns the Outage of work that goes well so far. begin is the line of the first
// failure and end the line of the first success after it.
func New(log *slog.Logger, begin, end string) *Outage {
	return &Outage{log: log, begin: begin, end: end}
}

// Standing reports whether the work fails now.
func (o *Outage) Standing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.since.IsZero()
}

// Note takes what one try came to: its error, or nil. The first failure is told with
// attrs. Those after it are told at debug level, and counted for the last line.
func (o *Outage) Note(err error, attrs ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err != nil:
		o.failures++
		attrs = append(attrs, "error", err)
		if o.since.IsZero() {
			o.since = time.Now()
			o.log.Error(o.begin, attrs...)
			return
		}
		o.log.Debug(o.begin, attrs...)
	case !o.since.IsZero():
		o.log.Info(o.end, "failed_for", time.Since(o.since).Round(time.Second).String(), "failures", o.failures)
		o.since, o.failures = time.Time{}, 0
	}
}
