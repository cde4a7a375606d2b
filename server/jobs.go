package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/outage"
)

// job is work that the server does again and again in the background. It runs at
// the start, and then at its times until the server stops.
type job struct {
	// name says what the job does, for the log.
	name string
	// every is how long after one run the next begins.
	every time.Duration
	// pause is how long after a run that left something over the next begins.
	pause time.Duration
	// wakeup, where there is one, begins a run before its time.
	wakeup wakeup
	// run does the work, or as much of it as one transaction may hold, and reports
	// whether something is left over.
	run func(context.Context) (more bool, err error)
}

// wakeup tells a job that there is something to do.
type wakeup chan struct{}

func newWakeup() wakeup { return make(wakeup, 1) }

// wake never blocks.
func (w wakeup) wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// How often jobs look for something to do. Notices of expiry are promised within a
// second.
const (
	noticeInterval      = 400 * time.Millisecond
	readinessInterval   = 5 * time.Second
	retentionInterval   = time.Minute
	certificateInterval = 24 * time.Hour
)

// How much one transaction of a job changes, and how long after it the database is
// left to the changes of callers.
const (
	noticeBatch    = 100
	retentionBatch = 200
	retentionPause = 20 * time.Millisecond
)

// jobs returns all periodic jobs of the server.
func (s *Server) jobs() []job {
	c, rows := s.config, s.db.store
	jobs := []job{
		{name: "tell whether the server is ready", every: readinessInterval, run: s.readiness.check},
		{name: "publish the notices of keys that expire", every: noticeInterval, run: s.publishNotices},
		s.cancelOrphans(),
		s.retention("cancel deliveries that have waited long for a webhook that is disabled", c.DeliveryRetention, rows.CancelWaiting),
		s.retention("delete old events", c.EventRetention, rows.DeleteEventsBefore),
		s.retention("delete old deliveries", c.DeliveryRetention, rows.DeleteDeliveriesBefore),
		s.retention("delete old usage by the hour", c.HourlyUsageRetention, s.deleteUsage(apikey.Hourly)),
		s.retention("delete old usage by the day", c.DailyUsageRetention, s.deleteUsage(apikey.Daily)),
	}
	if certificate := s.listeners.certificate; certificate != nil {
		jobs = append(jobs, job{name: "look at the dates of the certificate", every: certificateInterval, run: certificate.warn})
	}
	return jobs
}

// publishNotices publishes the events about the expiry of keys that are due.
func (s *Server) publishNotices(ctx context.Context) (more bool, err error) {
	published, _, err := s.db.store.PublishNotices(ctx, noticeBatch, s.rules.Notice)
	return published == noticeBatch, err
}

// removal deletes up to limit of the rows that were made, or over, before a time,
// and returns how many.
type removal func(ctx context.Context, before time.Time, limit int) (int, error)

// retention returns the job that removes rows once they were kept for a time.
func (s *Server) retention(name string, keep time.Duration, remove removal) job {
	return job{name: name, every: retentionInterval, pause: retentionPause, run: func(ctx context.Context) (bool, error) {
		removed, err := remove(ctx, s.config.Now().Add(-keep), retentionBatch)
		return removed == retentionBatch, err
	}}
}

// cancelOrphans returns the job that cancels the deliveries of webhooks once they are
// deleted. What a crash has kept it from it finds at its next time.
func (s *Server) cancelOrphans() job {
	j := s.retention("cancel the deliveries of webhooks that are gone", 0,
		func(ctx context.Context, _ time.Time, limit int) (int, error) {
			return s.db.store.CancelOrphans(ctx, limit)
		})
	j.wakeup = s.orphans
	return j
}

func (s *Server) deleteUsage(of apikey.Granularity) removal {
	return func(ctx context.Context, before time.Time, limit int) (int, error) {
		return s.db.store.DeleteUsageBefore(ctx, of, before, limit)
	}
}

// loop runs the job at its times until ctx ends. A job that fails is tried again
// at its next time. The log gets one line when it begins to fail and one when that
// is over, however often it is tried in between.
func (j job) loop(ctx context.Context, log *slog.Logger) {
	outage := outage.New(log.With("job", j.name), "A periodic job fails; it is tried again until it works.", "A periodic job works again.")
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-j.wakeup:
		}
		more, err := j.run(ctx)
		if ctx.Err() != nil {
			return
		}
		outage.Note(err)
		if err == nil && more {
			next.Reset(j.pause)
		} else {
			next.Reset(j.every)
		}
	}
}
