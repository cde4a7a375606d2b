package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/gate"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/rest"
)

// gateListener is the listener for gateways while it is served: one socket, and a server
// for each of the two protocols that are spoken there.
type gateListener struct {
	splitter    gate.Splitter
	http1, grpc net.Listener
	conns       *connection.Table
}

// listenGate opens the listener for gateways, where there is one.
func (l *listeners) listenGate(ctx context.Context, c Config, secured *tls.Config) error {
	if c.GateAddr == "" {
		return nil
	}
	raw, err := listenOn(ctx, c, c.GateAddr, "gate_addr")
	if err != nil {
		return err
	}
	// They are counted apart, so that clients without a credential that flood the other listeners do not keep
	// a gateway out.
	g := &gateListener{conns: connection.New(c.connections())}
	g.splitter.Listener, g.splitter.Timeout = g.conns.Listener(raw), c.HeaderTimeout
	if secured != nil {
		g.splitter.TLS = secured.Clone()
		// Who speaks both asks over HTTP. A client of gRPC speaks HTTP/2 alone.
		g.splitter.TLS.NextProtos = []string{"http/1.1", "h2"}
	}
	g.http1, g.grpc = g.splitter.Split()
	l.gate = g
	return nil
}

// GateAddr returns the address that gateways are served at, nil where they are not.
func (s *Server) GateAddr() net.Addr {
	if s.listeners.gate == nil {
		return nil
	}
	return s.listeners.gate.splitter.Listener.Addr()
}

// gateServer is what serves gateways.
type gateServer struct {
	gate  *gate.Gate
	http  *http.Server
	grpc  *grpc.Server
	close *gracefulClose
}

// newGate assembles what serves gateways, where there is a listener for them.
func (s *Server) newGate(caller *authn.Authenticator, handler *rest.Handler, refusals *authn.Refusals) error {
	c := s.config
	if s.listeners.gate == nil {
		return nil
	}
	sources, rules, err := c.gateRules()
	if err != nil {
		return err
	}
	token, err := c.gateToken()
	if err != nil {
		return err
	}
	g := &gateServer{close: newGracefulClose()}
	g.gate = gate.New(gate.Config{
		Verifier: s.verifier, Authn: caller, Sources: sources, Rules: rules, TrustedProxies: c.TrustedProxies,
		Otherwise: handler.Operations(nil), Env: c.Env, Logger: c.Logger, Refusals: refusals, Secrets: s.secrets,
	})
	if !token.IsZero() {
		g.gate.SetToken(token)
	}
	g.http = s.newHTTPServer(g.close.handler(g.gate))
	g.http.ConnState = g.close.count
	// The Splitter has spoken TLS already.
	g.grpc = grpc.NewServer(append(s.boundsOfGRPC(),
		grpc.Creds(connection.Credentials(insecure.NewCredentials())), grpc.ForceServerCodecV2(gate.NewCodec()))...)
	g.grpc.RegisterService(g.gate.Service(), nil)
	s.readiness.further = []string{gate.ServiceName}
	open := s.listeners.gate.conns.OpenServices(g.grpc)
	healthpb.RegisterHealthServer(open, s.readiness.health)
	reflection.Register(open)
	s.gate = g
	if len(c.TrustedProxies) == 0 {
		c.Logger.Warn("No client of a gateway has an address: trusted_proxies names no gateway, so keys with an ip_allow_list are refused there.",
			"remedy", "set trusted_proxies to the addresses of the gateways that ask at gate_addr")
	}
	return nil
}

// serveGate serves gateways until drainGate.
func (s *Server) serveGate(background context.Context, workers, serving *errgroup.Group) {
	if s.gate == nil {
		return
	}
	l := s.listeners.gate
	workers.Go(func() error { return l.conns.Run(background) })
	serving.Go(l.splitter.Run)
	serving.Go(func() error { return ended(s.gate.http.Serve(l.http1)) })
	serving.Go(func() error { return ended(s.gate.grpc.Serve(l.grpc)) })
	s.config.Logger.Info("serving gateways", "gate", s.GateAddr().String())
}

// ended returns the error that a server ended with, nil where that was asked for.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// drainGate closes the listener for gateways in order, as the others are.
func (s *Server) drainGate(limit context.Context) error {
	if s.gate == nil {
		return nil
	}
	s.listeners.gate.conns.Drain()
	var both errgroup.Group
	both.Go(func() error { return s.gate.close.drain(limit, s.listeners.gate.splitter.Listener, s.gate.http) })
	both.Go(func() error { stopGRPC(limit, s.gate.grpc); return nil })
	return both.Wait()
}

// defaultCredentialHeaders are where requests carry their keys unless the settings say
// otherwise.
var defaultCredentialHeaders = []string{"Authorization", "X-API-Key"}

// gateRules returns what the settings of the gate say of requests.
func (c Config) gateRules() (gate.Sources, gate.Rules, error) {
	var faults []error
	sources, err := gate.ParseSources(c.CredentialHeaders, c.CredentialQuery)
	if err != nil {
		faults = append(faults, fmt.Errorf("credential_headers: %w", err))
	}
	rules, err := gate.ParseRules(c.GateRules)
	if err != nil {
		faults = append(faults, fmt.Errorf("gate_rules: %w", err))
	}
	return sources, rules, errors.Join(faults...)
}

// checkGate tells fault what is wrong with the settings of the listener for gateways.
func (c Config) checkGate(fault func(setting, format string, args ...any)) {
	if c.GateAddr == "" {
		for setting, set := range map[string]bool{
			"gate_token_file": c.GateTokenFile != "", "gate_rules": len(c.GateRules) > 0, "credential_query": c.CredentialQuery != "",
		} {
			if set {
				fault(setting, "needs gate_addr, the listener that it is for")
			}
		}
		return
	}
	if err := checkAddr(c.GateAddr); err != nil {
		fault("gate_addr", "%w", err)
	}
	for _, other := range []string{c.RESTAddr, c.GRPCAddr, opsAddr(c.OpsAddr)} {
		if c.GateAddr == other && !strings.HasSuffix(other, ":0") {
			fault("gate_addr", "must not be that of another listener, %s", other)
		}
	}
	if len(c.CredentialQuery) > 64 || strings.ContainsFunc(c.CredentialQuery, notInScope) {
		fault("credential_query", "must have up to 64 letters, digits and _ . : - /")
	}
}

// gateToken returns the access token in gate_token_file, the zero Text where there is no
// such file.
func (c Config) gateToken() (masked.Text, error) {
	if c.GateTokenFile == "" {
		return masked.Text{}, nil
	}
	f, err := os.Open(c.GateTokenFile)
	if err != nil {
		return masked.Text{}, fmt.Errorf("gate_token_file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return masked.Text{}, fmt.Errorf("gate_token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if !apikey.IsToken(token) {
		return masked.Text{}, fmt.Errorf("gate_token_file: %s must hold an operator token, opt_ and 49 characters, and nothing else", c.GateTokenFile)
	}
	return masked.New(token), nil
}
