package api

import (
	"context"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Config says what the services work with. All fields are required but those
// that say otherwise.
type Config struct {
	Store    *store.Store
	Verifier *verify.Verifier
	Meter    *meter.Meter
	Authn    *authn.Authenticator
	Peppers  *keyring.Peppers
	Rules    apikey.Rules
	Feed     *feed.Feed
	Cursors  *feed.Cursors
	Webhooks webhook.Rules
	Tokens   operator.Rules
	// Secrets finds secrets in texts that are not meant to hold any. Nil knows those
	// alone that have a form.
	Secrets *apikey.SecretFinder
	Logger  *slog.Logger
	Now     func() time.Time
	// Refusals takes the lines of refused calls. Defaults to one of its own, over
	// Logger.
	Refusals *authn.Refusals
	// Observations is told of each call. Defaults to nil, which is nobody.
	Observations *Observations
	// Random makes secrets. Defaults to crypto/rand.
	Random io.Reader
	// Streams is how many streams a caller may have at a time. Defaults to 100.
	Streams int
	// HourlyUsageRetention and DailyUsageRetention are how long usage is kept.
	HourlyUsageRetention, DailyUsageRetention time.Duration
	// SlowClientTimeout is how long a stream waits for a client that takes nothing.
	SlowClientTimeout time.Duration
}

// API is the services with the chain that guards them.
type API struct {
	chain   *chain
	keys    *apiKeys
	events  *events
	hooks   *webhooks
	tokens  *operatorTokens
	callers *callers
	usage   *usage
	stop    context.CancelCauseFunc
}

// New returns the services. A method whose proto does not say who may call it is
// an error.
func New(c Config) (*API, error) {
	methods, err := methodsOf(Services())
	if err != nil {
		return nil, err
	}
	idempotent, err := idempotentMethods(Services())
	if err != nil {
		return nil, err
	}
	validator, err := newValidator(c.Secrets)
	if err != nil {
		return nil, err
	}
	if c.Streams == 0 {
		c.Streams = 100
	}
	if c.Refusals == nil {
		c.Refusals = &authn.Refusals{Logger: c.Logger}
	}
	running, stop := context.WithCancelCause(context.Background())
	return &API{
		chain: &chain{
			methods: methods, idempotent: idempotent, store: c.Store, authn: c.Authn, validator: validator, log: c.Logger, refusals: c.Refusals, running: running,
			observations: c.Observations, unknownCalls: c.Observations.method(unknownMethod, true),
			rootUses: &rootUses{store: c.Store, now: c.Now, log: c.Logger},
		},
		keys: &apiKeys{
			store: c.Store, verifier: c.Verifier, meter: c.Meter, peppers: c.Peppers, rules: c.Rules, random: c.Random, now: c.Now,
			scopes: scopesOf(c.Rules.Catalogue, Services()),
		},
		events: &events{
			store: c.Store, feed: c.Feed, cursors: c.Cursors, now: c.Now, slowClientTimeout: c.SlowClientTimeout,
			streams: streams{most: c.Streams, open: make(map[apikey.Actor]int)},
		},
		hooks:   &webhooks{store: c.Store, rules: c.Webhooks, random: c.Random, countsRetention: c.HourlyUsageRetention},
		tokens:  &operatorTokens{store: c.Store, peppers: c.Peppers, rules: c.Tokens, random: c.Random, now: c.Now},
		callers: &callers{catalogue: c.Rules.Catalogue},
		usage: &usage{store: c.Store, now: c.Now, retention: map[apikey.Granularity]time.Duration{
			apikey.Hourly: c.HourlyUsageRetention, apikey.Daily: c.DailyUsageRetention,
		}},
		stop: stop,
	}, nil
}

// Services lists the services of this API.
func Services() []*grpc.ServiceDesc {
	return []*grpc.ServiceDesc{
		&apikeysv1.ApiKeysService_ServiceDesc,
		&apikeysv1.EventsService_ServiceDesc,
		&apikeysv1.WebhooksService_ServiceDesc,
		&apikeysv1.OperatorTokensService_ServiceDesc,
		&apikeysv1.CallersService_ServiceDesc,
		&apikeysv1.UsageService_ServiceDesc,
	}
}

// Guard returns a service with each call behind the chain that guards ours: who
// calls is known before a message is read. Services that are not ours need no
// credential.
func (a *API) Guard(desc *grpc.ServiceDesc) *grpc.ServiceDesc { return a.chain.guard(desc) }

// Unknown answers calls of methods that are not registered.
func (a *API) Unknown(srv any, stream grpc.ServerStream) error { return a.chain.unknown(srv, stream) }

// EndStreams ends all streams, those to come too, and tells their clients to go
// on elsewhere. A server that stops calls it first: streams end of themselves
// only when their clients go.
func (a *API) EndStreams() { a.stop(errStopping) }

// Register registers the services with the server inside the process, which hands
// messages over as they are.
func (a *API) Register(r grpc.ServiceRegistrar) {
	a.register(r, &apikeysv1.ApiKeysService_ServiceDesc)
}

// RegisterRemote registers the services with a server that listens, whose codec
// must be [Codec].
func (a *API) RegisterRemote(r grpc.ServiceRegistrar) {
	a.register(r, a.keys.encodedVerification())
}

func (a *API) register(r grpc.ServiceRegistrar, keys *grpc.ServiceDesc) {
	r.RegisterService(a.Guard(keys), a.keys)
	r.RegisterService(a.Guard(&apikeysv1.EventsService_ServiceDesc), a.events)
	r.RegisterService(a.Guard(&apikeysv1.WebhooksService_ServiceDesc), a.hooks)
	r.RegisterService(a.Guard(&apikeysv1.OperatorTokensService_ServiceDesc), a.tokens)
	r.RegisterService(a.Guard(&apikeysv1.CallersService_ServiceDesc), a.callers)
	r.RegisterService(a.Guard(&apikeysv1.UsageService_ServiceDesc), a.usage)
}
