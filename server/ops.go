package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/metrics"
	"github.com/apikeys-dev/apikeys/server/verify"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The bounds of connections to the listener for operators, besides those of time, which
// are the same as everywhere.
const (
	opsConnections           = 64
	opsConnectionsPerAddress = 32
)

// opsAddr returns the address that the setting means: a port alone means loopback.
func opsAddr(setting string) string {
	if port, ok := strings.CutPrefix(setting, ":"); ok {
		return net.JoinHostPort("127.0.0.1", port)
	}
	if !strings.Contains(setting, ":") {
		return net.JoinHostPort("127.0.0.1", setting)
	}
	return setting
}

// listenOps opens the listener for operators, where there is one.
func (l *listeners) listenOps(ctx context.Context, c Config, secured *tls.Config) error {
	if c.OpsAddr == "" {
		return nil
	}
	ops, err := listenOn(ctx, c, opsAddr(c.OpsAddr), "ops_addr")
	if err != nil {
		return err
	}
	bounds := c.connections()
	bounds.Max, bounds.MaxPerAddress = opsConnections, opsConnectionsPerAddress
	l.opsConns = connection.New(bounds)
	l.ops = l.opsConns.Listener(ops)
	if secured != nil {
		l.ops = tls.NewListener(l.ops, secured)
	}
	return nil
}

// OpsAddr returns the address that operators are served at, nil where they are not.
func (s *Server) OpsAddr() net.Addr {
	if s.listeners.ops == nil {
		return nil
	}
	return s.listeners.ops.Addr()
}

// newMetrics makes the metrics, where there is a listener for them, and returns what the
// packages below are to tell what they do; its fields are nil where nobody wants to know.
func (s *Server) newMetrics() metrics.Sources {
	if s.listeners.ops == nil {
		return metrics.Sources{}
	}
	c := metrics.Config{Version: s.config.Version, Logger: slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelWarn)}
	for _, t := range webhook.EventTypes() {
		c.EventTypes = append(c.EventTypes, string(t.Type))
	}
	s.metrics = metrics.New(c)
	return metrics.Sources{
		Verifications: verify.NewObservations(), Calls: api.NewObservations(), Attempts: deliver.NewObservations(),
	}
}

// watch has the metrics show what the assembled server does.
func (s *Server) watch(sources metrics.Sources) {
	sources.Cache = s.verifier.CacheStats
	sources.FanOut, sources.Endpoints = s.fanOut.Lag, s.worker.Endpoints
	sources.Meter = s.meter.Stats
	sources.Identity = s.people.Stats
	sources.Feed = func() metrics.FeedStatus {
		f := s.feed.Status()
		return metrics.FeedStatus{Position: f.Position, Behind: f.Behind, Broken: f.Broken}
	}
	sources.Listeners = func() metrics.Listeners {
		conns := s.listeners.conns
		l := metrics.Listeners{Connections: conns.Len(), Calls: conns.Calls(), AnswerBytes: conns.AnswerBytes()}
		if s.listeners.gate != nil {
			conns = s.listeners.gate.conns
			l.Connections, l.Calls, l.AnswerBytes = l.Connections+conns.Len(), l.Calls+conns.Calls(), l.AnswerBytes+conns.AnswerBytes()
		}
		return l
	}
	sources.Pools, sources.FileSizes = s.db.store.Pools, s.db.store.FileSizes
	sources.Ready = s.readiness.last
	sources.Leases = s.Leases
	var jobs []string
	for _, j := range s.jobs() {
		jobs = append(jobs, j.id)
	}
	s.metrics.Watch(sources, jobs)
}

// countBacklog asks the database what waits, for metrics. It is a periodic job.
func (s *Server) countBacklog(ctx context.Context) (more bool, _ error) {
	backlog, err := s.db.store.Backlog(ctx, s.fanOut.Lag().Furthest)
	if err != nil {
		return false, err
	}
	s.metrics.SetBacklog(metrics.Backlog{Backlog: backlog, At: s.config.Now()})
	return false, nil
}

// serveOps serves operators until drainOps.
func (s *Server) serveOps(background context.Context, workers, serving *errgroup.Group) {
	if s.ops == nil {
		return
	}
	workers.Go(func() error { return s.listeners.opsConns.Run(background) })
	serving.Go(func() error {
		if err := s.ops.Serve(s.listeners.ops); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	s.config.Logger.Info("serving operators", "ops", s.OpsAddr().String())
}

// opsDrainTimeout is how long scrapes under way may take to finish at a stop.
const opsDrainTimeout = time.Second

// drainOps stops serving operators. It comes after the other listeners, so that how they
// stop can be watched.
func (s *Server) drainOps() {
	if s.ops == nil {
		return
	}
	s.listeners.opsConns.Drain()
	limit, cancel := context.WithTimeout(context.Background(), opsDrainTimeout)
	defer cancel()
	if s.ops.Shutdown(limit) != nil {
		_ = s.ops.Close() // What is cut off is a scrape.
	}
}
