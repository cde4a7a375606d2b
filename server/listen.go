package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/connection"
)

// listeners are the sockets of a server, open but not yet served.
type listeners struct {
	// conns is the open connections of REST and gRPC.
	conns *connection.Table
	// rest speaks TLS already where TLS is set.
	rest net.Listener
	// grpc is bare: gRPC shakes hands itself, with grpcTLS where it is not nil.
	grpc    net.Listener
	grpcTLS *tls.Config
	// restAddr is where REST listens, by the host name of the setting.
	restAddr string
	secure   bool
	// certificate is what both speak TLS with, nil where they do not.
	certificate *servingCertificate
	// ops is where operators are served, and opsConns the connections of it: nil where
	// there is no such listener. They are counted apart, so that clients without a credential that flood the
	// other listeners do not keep a scrape out.
	ops      net.Listener
	opsConns *connection.Table
	// gate is where gateways are served, nil where they are not.
	gate *gateListener
}

// listen opens the listeners of c, or none. A production server that could
// be heard by others without TLS is refused.
func listen(ctx context.Context, c Config) (*listeners, error) {
	certificate, err := openCertificate(c)
	if err != nil {
		return nil, err
	}
	restTLS, grpcTLS := certificate.configs()
	rest, err := listenOn(ctx, c, c.RESTAddr, "rest_addr")
	if err != nil {
		return nil, err
	}
	grpc, err := listenOn(ctx, c, c.GRPCAddr, "grpc_addr")
	if err != nil {
		return nil, errors.Join(err, rest.Close())
	}
	conns := connection.New(c.connections())
	l := &listeners{conns: conns, rest: conns.Listener(rest), grpc: conns.Listener(grpc), grpcTLS: grpcTLS, secure: restTLS != nil}
	l.restAddr = reachable(c.RESTAddr, rest.Addr())
	l.certificate = certificate
	if restTLS != nil {
		l.rest = tls.NewListener(l.rest, restTLS)
	}
	if err := l.listenOps(ctx, c, restTLS); err != nil {
		return nil, errors.Join(err, l.close())
	}
	if err := l.listenGate(ctx, c, restTLS); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// close closes all listeners. Those that a server has closed already are fine.
func (l *listeners) close() error {
	var faults []error
	all := []net.Listener{l.rest, l.grpc, l.ops}
	if l.gate != nil {
		all = append(all, l.gate.splitter.Listener)
	}
	for _, listener := range all {
		if listener == nil {
			continue
		}
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// onLoopback reports whether no other machine can reach any listener.
func (l *listeners) onLoopback() bool {
	return isLoopback(l.rest.Addr()) && isLoopback(l.grpc.Addr()) && (l.ops == nil || isLoopback(l.ops.Addr())) &&
		(l.gate == nil || isLoopback(l.gate.splitter.Listener.Addr()))
}

// listenOn opens one listener. The rule about TLS looks at the address that was
// really bound: a name can stand for anything.
func listenOn(ctx context.Context, c Config, addr, setting string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		flag := "--" + strings.ReplaceAll(setting, "_", "-")
		return nil, fmt.Errorf("%s: %s is in use by another program; stop that or choose another address with %s", setting, addr, flag)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	if !c.mayBeReached() && !isLoopback(l.Addr()) {
		l.Close()
		return nil, fmt.Errorf(setting+": "+needsTLS, addr)
	}
	return l, nil
}

// needsTLS is what is wrong with an address that [Config.mayBeReached] forbids.
const needsTLS = "%s can be reached by other machines, and production needs TLS for that: set tls_cert and tls_key, or plaintext if TLS ends in front"

// mayBeReached reports whether other machines may reach the listeners.
func (c Config) mayBeReached() bool { return c.Env != Production || c.TLSCert != "" || c.Plaintext }

// offLoopback reports whether other machines can reach host, as far as that is seen
// without asking for the addresses of a name.
func offLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && !ip.IsLoopback()
}

// checkAddr reports why addr cannot be listened on.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("must be host:port, such as 127.0.0.1:8080 or [::1]:8080, not %q", apikey.Excerpt(addr))
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("must end in a port of 0 to 65535, not %q", apikey.Excerpt(port))
	}
	return nil
}

func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// reachable returns an address for a client on this machine: the host of the
// setting, which a certificate may name, with the port that was really bound.
func reachable(setting string, bound net.Addr) string {
	tcp, ok := bound.(*net.TCPAddr)
	if !ok {
		return bound.String()
	}
	host, _, err := net.SplitHostPort(setting)
	if err != nil || host == "" || tcp.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}

// checkBounds tells fault what is wrong with the bounds of connections.
func (c Config) checkBounds(fault func(setting, format string, args ...any)) {
	if c.ConnectionsMax < 1 || c.ConnectionsMax > 1_000_000 {
		fault("connections_max", "must be 1 to 1,000,000")
	}
	if c.ConnectionsPerAddress < 1 || c.ConnectionsPerAddress > 1_000_000 {
		fault("connections_per_address", "must be 1 to 1,000,000")
	}
	for setting, timeout := range map[string]time.Duration{
		"credential_timeout": c.CredentialTimeout, "header_timeout": c.HeaderTimeout,
		"message_timeout": c.MessageTimeout, "answer_timeout": c.AnswerTimeout,
	} {
		if timeout < time.Millisecond || timeout > time.Hour {
			fault(setting, "must be up to an hour")
		}
	}
	if c.AnswerBytesPerCaller < apikey.MaxRequest {
		fault("answer_bytes_per_caller", "must be at least 1048576, which is the size of one page")
	}
	if c.AnswerBytesMax < c.AnswerBytesPerCaller {
		fault("answer_bytes_max", "must not be less than answer_bytes_per_caller")
	}
	if c.CallsPerCaller < 1 || c.CallsPerCaller > 1_000_000 {
		fault("calls_per_caller", "must be 1 to 1,000,000")
	}
	if c.CallsMax < c.CallsPerCaller || c.CallsMax > 1_000_000 {
		fault("calls_max", "must be calls_per_caller to 1,000,000")
	}
	if c.FailuresPerSecond < 1 || c.FailuresPerSecond > 1_000_000 {
		fault("failures_per_second", "must be 1 to 1,000,000")
	}
}

// connections returns the bounds of connections.
func (c Config) connections() connection.Config {
	return connection.Config{
		Max:                  c.ConnectionsMax,
		MaxPerAddress:        c.ConnectionsPerAddress,
		TrustedProxies:       c.TrustedProxies,
		CredentialTimeout:    c.CredentialTimeout,
		MessageTimeout:       c.MessageTimeout,
		AnswerTimeout:        c.AnswerTimeout,
		MaxFailures:          c.FailuresPerSecond,
		MaxAnswerBytes:       c.AnswerBytesMax,
		MaxCallerAnswerBytes: c.AnswerBytesPerCaller,
		MaxCalls:             int64(c.CallsMax),
		MaxCallerCalls:       int64(c.CallsPerCaller),
		Logger:               c.Logger,
	}
}
