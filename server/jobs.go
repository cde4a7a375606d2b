package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/metrics"
	"github.com/apikeys-dev/apikeys/server/outage"
	"github.com/apikeys-dev/apikeys/server/store"
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
	// id names the job in metrics: one word that stays. seen counts its runs there; nil
	// where nobody wants to know.
	id   string
	seen *metrics.Job
	// wakeup, where there is one, begins a run before its time.
	wakeup wakeup
	// everywhere says that the job is of each server by itself. Any other runs on one of
	// the servers of a database at a time.
	everywhere bool
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
	backlogInterval     = 10 * time.Second
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
		{name: "tell whether the server is ready", id: "readiness", every: readinessInterval, wakeup: s.followingChanged, run: s.readiness.check, everywhere: true},
		{name: "publish the notices of keys that expire", id: "notices", every: noticeInterval, run: s.publishNotices},
		s.cancelOrphans(),
		s.retention("cancel_waiting", "cancel deliveries that have waited long for a webhook that is disabled", c.DeliveryRetention, rows.CancelWaiting),
		s.retention("delete_answers", "delete old answers of idempotent calls", 0, rows.DeleteAnswersBefore),
		s.retention("delete_events", "delete old events", c.EventRetention, rows.DeleteEventsBefore),
		s.retention("delete_deliveries", "delete old deliveries", c.DeliveryRetention, rows.DeleteDeliveriesBefore),
		s.retention("delete_hourly_usage", "delete old usage by the hour", c.HourlyUsageRetention, s.deleteUsage(apikey.Hourly)),
		s.retention("delete_delivery_counts", "delete old counts of deliveries by the hour", c.HourlyUsageRetention, rows.DeleteDeliveryCountsBefore),
		s.retention("delete_daily_usage", "delete old usage by the day", c.DailyUsageRetention, s.deleteUsage(apikey.Daily)),
	}
	jobs = append(jobs, s.retention("delete_refusals", "delete old refused uses of keys", c.RefusalRetention, rows.DeleteRefusalsBefore),
		job{name: "bound the refused uses of keys", id: "bound_refusals", every: retentionInterval, pause: retentionPause, run: s.boundRefusals},
		job{name: "delete the refused uses of keys that are gone", id: "delete_orphan_refusals", every: time.Hour, pause: retentionPause, run: s.deleteOrphanRefusals})
	if certificate := s.listeners.certificate; certificate != nil {
		jobs = append(jobs, job{name: "look at the dates of the certificate", id: "certificate", every: certificateInterval, run: certificate.warn, everywhere: true})
	}
	if s.metrics != nil {
		jobs = append(jobs, job{name: "count what waits, for metrics", id: "backlog", every: backlogInterval, run: s.countBacklog, everywhere: true})
	}
	return jobs
}

// runJobs runs the jobs that are of each server by itself until ctx ends, and the others
// while this server holds their lease.
func (s *Server) runJobs(ctx context.Context) {
	var here, leased []job
	for _, j := range s.jobs() {
		j.seen = s.metrics.Job(j.id)
		if j.everywhere {
			here = append(here, j)
		} else {
			leased = append(leased, j)
		}
	}
	var running sync.WaitGroup
	running.Go(func() { s.runAll(ctx, here) })
	running.Go(func() {
		s.leases.jobs.Run(ctx, func(ctx context.Context) { s.runAll(ctx, leased) })
	})
	running.Wait()
}

// runAll runs jobs until ctx ends.
func (s *Server) runAll(ctx context.Context, jobs []job) {
	var running sync.WaitGroup
	for _, j := range jobs {
		running.Go(func() { j.loop(ctx, s.config.Logger) })
	}
	running.Wait()
}

// Leases tells of each kind of work that one server of a database does at a time, by its
// name, whether this server does it now: "jobs" and "fan_out". On SQLite the server that
// runs does all of it.
func (s *Server) Leases() map[string]bool {
	held := make(map[string]bool)
	for _, lease := range []*store.Lease{s.leases.jobs, s.leases.fanOut} {
		held[string(lease.Name())] = lease.Held()
	}
	return held
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
func (s *Server) retention(id, name string, keep time.Duration, remove removal) job {
	return job{name: name, id: id, every: retentionInterval, pause: retentionPause, run: func(ctx context.Context) (bool, error) {
		removed, err := remove(ctx, s.config.Now().Add(-keep), retentionBatch)
		return removed == retentionBatch, err
	}}
}

// cancelOrphans returns the job that cancels the deliveries of webhooks once they are
// deleted. What a crash has kept it from it finds at its next time.
func (s *Server) cancelOrphans() job {
	j := s.retention("cancel_orphans", "cancel the deliveries of webhooks that are gone", 0,
		func(ctx context.Context, _ time.Time, limit int) (int, error) {
			return s.db.store.CancelOrphans(ctx, limit)
		})
	j.wakeup = s.orphans
	return j
}

// boundRefusals deletes the oldest refused uses where there are too many. More at a time
// than retention does, since each run counts them all.
func (s *Server) boundRefusals(ctx context.Context) (more bool, err error) {
	const batch = 10 * retentionBatch
	deleted, err := s.db.store.DeleteRefusalsOver(ctx, s.config.RefusalsMax, batch)
	return deleted == batch, err
}

func (s *Server) deleteOrphanRefusals(ctx context.Context) (more bool, err error) {
	deleted, err := s.db.store.DeleteOrphanRefusals(ctx, retentionBatch)
	return deleted == retentionBatch, err
}

func (s *Server) deleteUsage(of apikey.Granularity) removal {
	return func(ctx context.Context, before time.Time, limit int) (int, error) {
		n, err := s.db.store.DeleteUsageBefore(ctx, of, before, limit)
		if err != nil || n == limit {
			return n, err
		}
		units, err := s.db.store.DeleteUnitsBefore(ctx, of, before, limit-n)
		return n + units, err
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
		began := time.Now()
		more, err := j.run(ctx)
		if ctx.Err() != nil {
			return
		}
		j.seen.Ran(time.Since(began), err)
		outage.Note(err)
		if err == nil && more {
			next.Reset(j.pause)
		} else {
			next.Reset(j.every)
		}
	}
}
