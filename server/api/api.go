package api

import (
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// Config says what the services work with. All fields are required but those
// that say otherwise.
type Config struct {
	Store    *store.Store
	Verifier *verify.Verifier
	Authn    *authn.Authenticator
	Peppers  *apikey.Peppers
	Rules    apikey.Rules
	Logger   *slog.Logger
	Now      func() time.Time
	// Random makes secrets. Defaults to crypto/rand.
	Random io.Reader
}

// API is the services with the chain that guards them.
type API struct {
	chain *chain
	keys  *apiKeys
}

// New returns the services. A method whose proto does not say who may call it is
// an error.
func New(c Config) (*API, error) {
	methods, err := methodsOf(Services())
	if err != nil {
		return nil, err
	}
	validator, err := newValidator()
	if err != nil {
		return nil, err
	}
	return &API{
		chain: &chain{methods: methods, authn: c.Authn, validator: validator, log: c.Logger},
		keys: &apiKeys{
			store: c.Store, verifier: c.Verifier, peppers: c.Peppers, rules: c.Rules, random: c.Random, now: c.Now,
		},
	}, nil
}

// Services lists the services of this face.
func Services() []*grpc.ServiceDesc {
	return []*grpc.ServiceDesc{&apikeysv1.ApiKeysService_ServiceDesc}
}

// Unary returns the interceptors that every unary call has to pass, outermost
// first.
func (a *API) Unary() []grpc.UnaryServerInterceptor { return a.chain.unary() }

// Register registers the services with a server: the one that listens, and the
// one inside the process.
func (a *API) Register(r grpc.ServiceRegistrar) {
	apikeysv1.RegisterApiKeysServiceServer(r, a.keys)
}
