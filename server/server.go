package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/metrics"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/rest"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// What one connection may hold, over both protocols where they have it.
const (
	// maxHeaderBytes bounds the headers of a request. HTTP/2 counts 32 bytes for
	// each header besides its text, so that there are at most 2,048 of them.
	maxHeaderBytes = 64 << 10
	// maxStreams bounds the calls under way over gRPC, maxHTTP2Streams the requests
	// over HTTP/2.
	maxStreams      = 1024
	maxHTTP2Streams = 250
	// receiveWindow bounds what has arrived on a stream before it is read.
	receiveWindow = 64 << 10
)

// Server is a server that has its database and its listeners, and serves nobody
// until Run.
type Server struct {
	config    Config
	rules     apikey.Rules
	secrets   *apikey.SecretFinder
	db        *database
	listeners *listeners
	meter     *meter.Meter
	verifier  *verify.Verifier
	feed      *feed.Feed
	clock     *feed.Clock // likewise own
	own       *ownCommits // nil where no other server shares the database
	fanOut    *deliver.FanOut
	worker    *deliver.Worker
	operators *authn.Operators
	tokens    *authn.Tokens
	people    *identity.Issuers // nil where no issuer is set
	services  *api.API
	orphans   wakeup
	// followingChanged wakes whoever tells whether the server is ready.
	followingChanged wakeup
	leases           struct{ jobs, fanOut *store.Lease }
	readiness        *readiness
	gracefulClose    *gracefulClose
	grpc             *grpc.Server
	http             *http.Server
	// ops serves operators, and metrics is what it shows; nil without its listener.
	ops     *http.Server
	metrics *metrics.Metrics
	// gate serves gateways; nil without its listener.
	gate *gateServer
}

// New opens the database and the listeners of c, or says in one line why that
// cannot be. Run serves and closes them; Close is for a server that is never run.
func New(ctx context.Context, c Config) (_ *Server, err error) {
	clock := c.setClock()
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	root, err := c.rootToken()
	if err != nil {
		return nil, err
	}
	secrets := apikey.NewSecretFinder(c.KeyFormats, root.Reveal())
	c.Logger = slog.New(redactor{c.Logger.Handler(), secrets})
	s := &Server{config: c, clock: clock, secrets: secrets, rules: apikey.Rules{
		Catalogue:           apikey.Catalogue(c.Scopes),
		AbsentScopesMeanAll: c.AbsentScopes == AbsentScopesAll,
		ExpiringNotice:      c.ExpiringNotice,
		Formats:             c.KeyFormats,
		MaxKeys:             c.KeysMax,
	}}
	s.readiness = newReadiness(c.Logger)
	s.gracefulClose = newGracefulClose()
	s.orphans, s.followingChanged = newWakeup(), newWakeup()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// The listeners come first: a first start that fails for a port in use must
	// not have shown a token yet.
	if s.listeners, err = listen(ctx, c); err != nil {
		return nil, err
	}
	if s.db, err = openDatabase(ctx, c, clock, s.readiness.fault); err != nil {
		return nil, err
	}
	s.readiness.storage = s.db.store
	if err := s.tellStart(ctx); err != nil && s.db.store.Fault() == nil {
		return nil, err // Of a damaged file all is told already.
	}
	if err := s.assemble(ctx, root); err != nil {
		return nil, err
	}
	if !s.db.newToken.IsZero() {
		if err := c.tellFirstStart(s.db.newToken, s.db.tokenPath, s.listeners); err != nil {
			return nil, fmt.Errorf("show the first token: %w", err)
		}
	}
	s.readiness.begin()
	return s, nil
}

// assemble puts the layers together: storage, verification, the services with
// their chain, and the two listeners.
func (s *Server) assemble(ctx context.Context, root masked.Text) error {
	c := s.config
	var err error
	watch := s.newMetrics()
	s.meter = meter.New(meter.Config{Usage: s.db.store, Quotas: s.db.store, Rates: s.db.store, Secrets: s.secrets, Now: c.Now, Logger: c.Logger})
	s.verifier, err = verify.New(verify.Config{
		Keys: s.db.store, Meter: s.meter, Encode: wire.EncodeKey, Peppers: s.db.peppers, Loads: store.LoadsTogether,
		Clock: s.clock, Now: c.Now, Observations: watch.Verifications,
	})
	if err != nil {
		return err
	}
	following := feed.Config{Log: s.db.store, Clock: s.clock, Changed: s.followingChanged.wake, Logger: c.Logger}
	if s.clock != nil {
		s.own, following.Apply = &ownCommits{}, s.followed
	}
	if s.feed, err = feed.New(ctx, following); err != nil {
		return err
	}
	s.readiness.feed = s.feed
	hooks := webhook.Rules{
		Guard: webhook.Guard{
			AllowNetworks: c.WebhooksAllowNetworks,
			Loopback:      c.Env == Development && s.listeners.onLoopback(),
		},
		DisableAfter: c.WebhooksDisableAfter,
		MaxWebhooks:  c.WebhooksMax,
	}
	s.worker = deliver.NewWorker(deliver.WorkerConfig{
		Queue:           s.db.store,
		Client:          deliver.NewClient(deliver.ClientConfig{Guard: hooks.Guard, IdlePerHost: c.WebhooksInFlightHost, Now: c.Now}),
		Rules:           hooks,
		Backoff:         webhook.Backoff{Delays: c.WebhooksDelays},
		PerWebhook:      c.WebhooksInFlight,
		PerHost:         c.WebhooksInFlightHost,
		PerOrganization: c.WebhooksInFlightOrganization,
		Grace:           c.ShutdownTimeout,
		Observations:    watch.Attempts,
		Rescan:          c.rescan(),
		Now:             c.Now,
		Logger:          c.Logger,
	})
	fanOut := deliver.FanOutConfig{Log: s.db.store, Due: s.due, MaxBehind: c.WebhooksMaxBehind, Now: c.Now, Logger: c.Logger}
	if s.db.store.Shared() {
		fanOut.Backlog = s.db.store
	}
	s.fanOut = deliver.NewFanOut(fanOut)
	s.leases.jobs, s.leases.fanOut = s.db.store.Lease(store.LeaseJobs), s.db.store.Lease(store.LeaseFanOut)
	s.tokens = authn.NewTokens(authn.TokensConfig{Store: s.db.store, Peppers: s.db.peppers, Now: c.Now, Logger: c.Logger})
	if len(c.OIDC) > 0 {
		s.people, err = identity.New(identity.Config{Issuers: c.OIDC, Catalogue: s.rules.Catalogue, Secrets: s.secrets, Now: c.Now, Logger: c.Logger})
		if err != nil {
			return err
		}
		s.secrets.AddIdentityTokens(s.people.Meant)
	}
	s.db.store.HoldWith(s.fanOut.Wait)
	s.db.store.OnCommit(s.committed)

	refusals := &authn.Refusals{Logger: c.Logger}
	s.operators = &authn.Operators{Peppers: s.db.peppers, Stored: s.db.store.RootTokens, Now: c.Now}
	s.operators.SetRoot(root)
	callers := authn.New(authn.Config{
		Verifier:       s.verifier,
		Operators:      s.operators,
		Tokens:         s.tokens,
		People:         s.people,
		Secrets:        s.secrets,
		TrustedProxies: c.TrustedProxies,
	})
	s.services, err = api.New(api.Config{
		Refusals:          refusals,
		Store:             s.db.store,
		Verifier:          s.verifier,
		Meter:             s.meter,
		Authn:             callers,
		Peppers:           s.db.peppers,
		Rules:             s.rules,
		Feed:              s.feed,
		Cursors:           s.db.cursors,
		Webhooks:          hooks,
		Tokens:            operator.Rules{Catalogue: s.rules.Catalogue, MaxTokens: c.OperatorTokensMax},
		Secrets:           s.secrets,
		Logger:            c.Logger,
		Now:               c.Now,
		SlowClientTimeout: c.AnswerTimeout,
		Observations:      watch.Calls,

		HourlyUsageRetention: c.HourlyUsageRetention, DailyUsageRetention: c.DailyUsageRetention,
	})
	if err != nil {
		return err
	}
	s.grpc = grpc.NewServer(s.grpcOptions()...)
	s.services.RegisterRemote(s.grpc)
	open := s.listeners.conns.OpenServices(guarded{s.grpc, s.services})
	healthpb.RegisterHealthServer(open, s.readiness.health)
	reflection.Register(open)

	local := rest.NewConnection()
	s.services.Register(local)
	handler, err := rest.New(rest.Config{
		Conn: local, Env: c.Env, AnswerTimeout: c.AnswerTimeout, Logger: c.Logger, Secrets: s.secrets, Refusals: refusals, Ready: s.readiness.ready, Warnings: s.readiness.warnings,
		Document: apiDocument(c.Version), Page: referencePage(&c),
	})
	if err != nil {
		return err
	}
	s.http = s.newHTTPServer(s.gracefulClose.handler(handler))
	s.http.ConnState = s.gracefulClose.count
	if s.metrics != nil {
		s.watch(watch)
		s.ops = s.newHTTPServer(handler.Operations(s.metrics.Handler()))
	}
	return s.newGate(callers, handler, refusals)
}

// newHTTPServer returns a server with the bounds that all have that speak HTTP.
func (s *Server) newHTTPServer(handler http.Handler) *http.Server {
	c := s.config
	return &http.Server{
		Handler:           handler,
		ConnContext:       connection.WithConn,
		ReadHeaderTimeout: c.HeaderTimeout,
		ReadTimeout:       c.MessageTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		// What net/http complains of is the clients' doing.
		ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
		// Over HTTP/2 one connection has many streams, so a write's own deadline
		// says nothing of a client that has stopped reading.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:      maxHTTP2Streams,
			MaxReceiveBufferPerStream: receiveWindow,
			WriteByteTimeout:          c.AnswerTimeout,
			SendPingTimeout:           c.MessageTimeout,
			PingTimeout:               c.HeaderTimeout,
		},
		// The envelope is the answer to OPTIONS * too.
		DisableGeneralOptionsHandler: true,
	}
}

// guarded registers services that are not ours behind the chain of ours.
type guarded struct {
	*grpc.Server
	services *api.API
}

func (g guarded) RegisterService(desc *grpc.ServiceDesc, impl any) {
	g.Server.RegisterService(g.services.Guard(desc), impl)
}

func (s *Server) grpcOptions() []grpc.ServerOption {
	transport := insecure.NewCredentials()
	if s.listeners.grpcTLS != nil {
		transport = credentials.NewTLS(s.listeners.grpcTLS)
	}
	return append(s.boundsOfGRPC(),
		grpc.UnknownServiceHandler(s.services.Unknown),
		grpc.InTapHandle(s.services.RefuseNoMethod),
		grpc.ForceServerCodecV2(api.NewCodec()),
		grpc.Creds(connection.Credentials(transport)),
	)
}

// boundsOfGRPC are the bounds that all servers have that speak gRPC.
func (s *Server) boundsOfGRPC() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(apikey.MaxRequest),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		// A window that does not grow bounds what lies unread on a stream. A message
		// that is being read may be larger than it.
		grpc.StaticStreamWindowSize(receiveWindow),
		grpc.StaticConnWindowSize(apikey.MaxRequest),
		grpc.ConnectionTimeout(s.config.HeaderTimeout),
		// Goroutines that stay keep their grown stacks, which a new one for each call
		// would grow again. There are more of them than calls that arrive together on
		// a busy connection: a call that meets none gets a new one.
		grpc.NumStreamWorkers(128),
		// Clients may ping to keep their way through a NAT open, and one that has
		// gone without a word is found out.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: s.config.AnswerTimeout, Timeout: s.config.MessageTimeout}),
	}
}

// RESTAddr returns the address that REST listens on.
func (s *Server) RESTAddr() net.Addr { return s.listeners.rest.Addr() }

// GRPCAddr returns the address that gRPC listens on.
func (s *Server) GRPCAddr() net.Addr { return s.listeners.grpc.Addr() }

// Close closes the listeners and the database of a server that does not run.
func (s *Server) Close() error {
	var faults []error
	if s.listeners != nil {
		faults = append(faults, s.listeners.close())
	}
	if s.db != nil {
		faults = append(faults, s.db.close())
	}
	return errors.Join(faults...)
}

// Run serves until ctx ends or something fails that cannot be gone on without.
// Then it stops in order: it says so for ShutdownDelay, streams end, no new calls,
// those under way finish within ShutdownTimeout, the counters are stored, the
// database is closed. It returns nil after a stop that was asked for.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()

	// What works in the background ends after the listeners are closed, so that it
	// sees the last call.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	workers, background := errgroup.WithContext(background)
	workers.Go(func() error { return s.meter.Run(background) })
	workers.Go(func() error { return s.feed.Run(background) })
	workers.Go(func() error { return s.db.store.ExchangeNotices(background, s.hear) })
	// Where the database was moved while the connection to it was lost, this server ends.
	workers.Go(func() error { return s.db.store.Hold(background) })
	workers.Go(func() error { s.runJobs(background); return nil })
	workers.Go(func() error { return s.tokens.Run(background) })
	workers.Go(func() error { return s.people.Run(background) })
	// Deliveries take their time, so they stop with the listeners; what is queued later
	// waits for the next start.
	sending, stopSending := context.WithCancel(background)
	defer stopSending()
	workers.Go(func() error {
		// It has no error.
		s.leases.fanOut.Run(sending, func(ctx context.Context) { _ = s.fanOut.Run(ctx) })
		return nil
	})
	workers.Go(func() error { return s.worker.Run(sending) })

	// Connections are watched for as long as any is open, the last calls too.
	workers.Go(func() error { return s.listeners.conns.Run(background) })

	serving, open := errgroup.WithContext(ctx)
	serving.Go(func() error {
		if err := s.grpc.Serve(s.listeners.grpc); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	serving.Go(func() error {
		// drain closes the listener before it stops the server.
		if err := s.http.Serve(s.listeners.rest); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	s.serveOps(background, workers, serving)
	s.serveGate(background, workers, serving)
	s.config.Logger.Info("serving", "rest", s.RESTAddr().String(), "grpc", s.GRPCAddr().String(), "env", s.config.Env)
	select {
	case <-open.Done():
	case <-background.Done():
	}
	s.announceStop()
	s.config.Logger.Info("stopping")
	stopSending()
	s.drain()
	s.drainOps()
	err = serving.Wait()
	stopBackground()
	err = errors.Join(err, workers.Wait())
	s.config.Logger.Info("stopped")
	return err
}
