package metrics

import (
	"database/sql"
	"io"
	"log"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/measure"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// Config says what a Metrics shows of the program.
type Config struct {
	// Version is the version of the program. Required.
	Version string
	// EventTypes are the types of changes that there can be. Required.
	EventTypes []string
	// Logger takes what the library of Prometheus complains of. Defaults to nowhere.
	Logger *log.Logger
}

// Sources are what a scrape reads. All are required; each must be safe for concurrent
// use and cheap.
type Sources struct {
	Verifications *verify.Observations
	Cache         func() verify.CacheStats
	Calls         *api.Observations
	Attempts      *deliver.Observations
	FanOut        func() deliver.FanOutLag
	Endpoints     func() deliver.Endpoints
	Meter         func() meter.Stats
	Feed          func() FeedStatus
	Identity      func() identity.Stats
	Listeners     func() Listeners
	Pools         func() map[string]sql.DBStats
	FileSizes     func() (database, wal int64, err error)
	// Ready reports whether the server was ready when it was last looked at.
	Ready func() bool
	// Leases reports by its name whether this replica has a lease now: on work that one
	// replica does at a time.
	Leases func() map[string]bool
}

// FeedStatus is how far this replica has read the log.
type FeedStatus struct {
	// Position is the position up to which it has been read.
	Position int64
	// Behind is how many positions it is known to be behind.
	Behind int64
	// Lag is how long ago the newest read of the log began that has completed; zero
	// where every change is told by its own commit.
	Lag time.Duration
	// Broken reports that the log cannot be read.
	Broken bool
}

// Listeners is what clients make the listeners hold.
type Listeners struct {
	Connections int
	Calls       int64
	AnswerBytes int64
}

// Metrics is the metrics of one server. Its methods are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	changes  map[string]prometheus.Counter
	commits  struct{ took, durable, lag *measure.Histogram }
	groups   prometheus.Histogram
	jobs     map[string]*Job
	errors   *log.Logger

	mu      sync.Mutex
	backlog *Backlog
}

// New returns the metrics of a server. What is shown besides what it is told itself is
// given to Watch.
func New(c Config) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		changes:  make(map[string]prometheus.Counter),
		jobs:     make(map[string]*Job),
		errors:   c.Logger,
	}
	if m.errors == nil {
		m.errors = log.New(io.Discard, "", 0)
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apikeys_build_info", Help: "1, labelled with the version of the program and of Go. Compare the replicas while you upgrade.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(c.Version, runtime.Version()).Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.newChanges(c.EventTypes)
	return m
}

// Watch shows sources from now on, and periodic jobs by their names. It is called once,
// before Job.
func (m *Metrics) Watch(s Sources, jobs []string) {
	m.newJobs(jobs)
	m.registry.MustRegister(&collector{sources: s, metrics: m})
}

// maxScrapes bounds the scrapes under way; more are answered 503.
const maxScrapes = 4

// Handler answers a scrape, in the text format or another that the client asks for.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:            m.errors,
		ErrorHandling:       promhttp.ContinueOnError, // What can be read is worth more than nothing.
		MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics:   true,
	})
}

// Gather returns what a scrape would get, for tests and for whoever embeds a server.
func (m *Metrics) Gather() prometheus.Gatherer { return m.registry }

// otherEvents stands for types of events that Config does not list.
const otherEvents = "other"

// newChanges makes what Commit counts.
func (m *Metrics) newChanges(types []string) {
	changes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikeys_changes_total", Help: "Changes that this replica has committed, by the type of their event. Where they stop while callers make changes, look at apikeys_database_commit_seconds and at the log.",
	}, []string{"type"})
	for _, t := range append(types, otherEvents) {
		m.changes[t] = changes.WithLabelValues(t)
	}
	m.groups = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "apikeys_database_commit_changes", Help: "Changes that shared a transaction. Many mean that changes wait for the disk; that is what groups are for.",
		Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128},
	})
	m.commits.took, m.commits.durable, m.commits.lag = measure.NewHistogram(), measure.NewHistogram(), measure.NewHistogram()
	m.registry.MustRegister(changes, m.groups,
		&timing{desc("apikeys_database_transaction_seconds", "How long transactions of changes took, from their begin to their commit. Long ones are a busy disk or, on PostgreSQL, other replicas' changes."), m.commits.took},
		&timing{desc("apikeys_database_commit_seconds", "How long the commit itself took, which is mostly the disk. More than a few milliseconds bounds how many changes a second there can be."), m.commits.durable},
		&timing{desc("apikeys_revocation_lag_seconds", "How long after the commit of a change this replica had dropped the changed keys from memory, so that no later verification passes by what they were. Above one second a promise is broken: look at apikeys_feed_broken."), m.commits.lag},
	)
}

// Committed counts a commit of this replica, whose keys have been dropped from memory.
func (m *Metrics) Committed(c *store.Commit) {
	if m == nil {
		return
	}
	now := time.Now()
	for _, t := range c.Events {
		counter := m.changes[string(t)]
		if counter == nil {
			counter = m.changes[otherEvents]
		}
		counter.Inc()
	}
	if c.Changes > 0 {
		m.groups.Observe(float64(c.Changes))
	}
	m.commits.took.Observe(now.Sub(c.Began), 1)
	m.commits.durable.Observe(now.Sub(c.Committing), 1)
	if len(c.ChangedKeys) > 0 {
		m.commits.lag.Observe(now.Sub(c.Committing), 1)
	}
}

// Followed counts a change of keys that another replica committed and this one has
// read in the log: lag is how long after its commit the keys were dropped here.
func (m *Metrics) Followed(lag time.Duration) {
	if m != nil {
		m.commits.lag.Observe(lag, 1)
	}
}

// Job is a periodic job.
type Job struct {
	runs, failures prometheus.Counter
	succeeded      prometheus.Gauge
	took           prometheus.Counter
}

// newJobs makes what Job counts.
func (m *Metrics) newJobs(names []string) {
	labels := []string{"job_name"} // Prometheus itself adds a label job.
	runs := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikeys_job_runs_total", Help: "Runs of periodic jobs on this replica. A job that never runs anywhere is a fault.",
	}, labels)
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikeys_job_failures_total", Help: "Runs of periodic jobs that failed and are tried again. The log says why, in one line.",
	}, labels)
	succeeded := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apikeys_job_last_success_timestamp_seconds", Help: "When a periodic job last succeeded on this replica, in Unix time; 0 for never. Take the maximum over the replicas.",
	}, labels)
	took := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikeys_job_seconds_total", Help: "How long periodic jobs have run in all. A job that takes most of the time has more to do than it can.",
	}, labels)
	for _, name := range names {
		m.jobs[name] = &Job{runs.WithLabelValues(name), failures.WithLabelValues(name), succeeded.WithLabelValues(name), took.WithLabelValues(name)}
	}
	m.registry.MustRegister(runs, failures, succeeded, took)
}

// Job returns the counts of a job that Watch was told of. A nil Metrics, and a job that is not
// there, have none.
func (m *Metrics) Job(name string) *Job {
	if m == nil {
		return nil
	}
	return m.jobs[name]
}

// Ran counts a run that took a time and came to err.
func (j *Job) Ran(took time.Duration, err error) {
	if j == nil {
		return
	}
	j.runs.Inc()
	j.took.Add(took.Seconds())
	if err != nil {
		j.failures.Inc()
		return
	}
	j.succeeded.SetToCurrentTime()
}

// Backlog is what waits, as it was when the database was last asked.
type Backlog struct {
	store.Backlog
	// At is when that was.
	At time.Time
}

// SetBacklog is told what waits, every few seconds.
func (m *Metrics) SetBacklog(b Backlog) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.backlog = &b
}
