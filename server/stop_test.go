package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest/described"
)

const stopToken = "a-root-token-for-the-tests-of-the-stop"

// runServer runs a server with c until stop is called, which returns what Run
// returned.
func runServer(t *testing.T, c Config) (s *Server, stop func() error) {
	t.Helper()
	c.RESTAddr, c.GRPCAddr = "127.0.0.1:0", "127.0.0.1:0"
	if c.RootTokenFile == "" {
		c.RootToken = masked.New(stopToken)
	}
	if c.DataDir == "" {
		c.DataDir = t.TempDir()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return s, stop
}

// busyClient makes one call after the other until it is told to connect again, and
// returns what went wrong before that, or nil.
type busyClient func(ctx context.Context, s *Server, pool *x509.CertPool, called func()) error

// A server that stops under load cuts nobody off: each client has an answer to
// every request that it has sent on a connection, and learns by the answer, or by
// GOAWAY, that the connection ends.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	cert, key, pool := certificate(t)
	cases := []struct {
		name   string
		secure bool
		client busyClient
	}{
		{"REST over HTTP/1.1", false, busyHTTP1},
		{"REST over HTTP/1.1 with TLS", true, busyHTTP1},
		{"REST over HTTP/2", true, busyHTTP2},
		{"gRPC", false, busyGRPC},
		{"gRPC with TLS", true, busyGRPC},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var config Config
			var trusted *x509.CertPool
			if c.secure {
				config.TLSCert, config.TLSKey, trusted = cert, key, pool
			}
			s, stop := runServer(t, config)
			const clients, warm = 8, 20
			var busy, all sync.WaitGroup
			busy.Add(clients)
			for i := range clients {
				calls := 0
				all.Go(func() {
					ready := sync.OnceFunc(busy.Done)
					defer ready()
					if err := c.client(t.Context(), s, trusted, func() {
						if calls++; calls == warm {
							ready()
						}
					}); err != nil {
						t.Errorf("client %d, after %d calls: %v", i, calls, err)
					}
				})
			}
			busy.Wait()
			if err := stop(); err != nil {
				t.Errorf("the server ended with %v", err)
			}
			all.Wait()
		})
	}
}

// busyHTTP1 speaks HTTP/1.1 itself, since net/http would send some requests again.
func busyHTTP1(ctx context.Context, s *Server, pool *x509.CertPool, called func()) error {
	var conn net.Conn
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.RESTAddr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if pool != nil {
		conn = tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
	}
	answers := bufio.NewReader(conn)
	for {
		body := `{"key": "sk_live_none"}`
		if _, err := fmt.Fprintf(conn, "POST /developers/api_keys/verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", stopToken, len(body), body); err != nil {
			return err
		}
		status, last, err := readResponse(answers)
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return errors.New(http.StatusText(status))
		}
		if called(); last {
			return nil
		}
	}
}

func busyHTTP2(ctx context.Context, s *Server, pool *x509.CertPool, called func()) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.RESTAddr().String()+"/developers/api_keys", nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+stopToken)
		answer, err := transport.RoundTrip(r)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil // It connected again.
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
			return fmt.Errorf("%s over %s", answer.Status, answer.Proto)
		}
		called()
	}
}

func busyGRPC(ctx context.Context, s *Server, pool *x509.CertPool, called func()) error {
	transport := insecure.NewCredentials()
	if pool != nil {
		transport = credentials.NewClientTLSFromCert(pool, "")
	}
	conn, err := grpc.NewClient(s.GRPCAddr().String(), grpc.WithTransportCredentials(transport))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+stopToken)
	for keys := apikeysv1.NewApiKeysServiceClient(conn); ; called() {
		_, err := keys.ListApiKeys(ctx, &apikeysv1.ListApiKeysRequest{})
		if status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "connection refused") {
			return nil // It connected again.
		}
		if err != nil {
			return err
		}
	}
}

// For as long as the setting says, a server that stops serves on, and says over
// both protocols that it is not ready.
func TestShutdownDelay(t *testing.T) {
	t.Parallel()
	s, stop := runServer(t, Config{ShutdownDelay: time.Second})
	conn, err := grpc.NewClient(s.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var stopped atomic.Bool
	done := make(chan error, 1)
	for {
		answer, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if answer.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING {
			break
		}
		if stopped.CompareAndSwap(false, true) {
			go func() { done <- stop() }()
		}
	}
	client := &http.Client{Transport: described.Transport(t, "http://"+s.RESTAddr().String(), http.DefaultTransport)}
	get := func(path string) (code int, reason, text string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.RESTAddr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+stopToken)
		r.Close = true
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var envelope struct {
			Error string
			Log   struct{ Reason string }
		}
		if err := json.NewDecoder(answer.Body).Decode(&envelope); err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, envelope.Log.Reason, envelope.Error
	}
	if code, reason, text := get("/readyz"); code != http.StatusServiceUnavailable || reason != "NOT_READY" || text != "The server is stopping." {
		t.Errorf("/readyz: %d, %s, %s", code, reason, text)
	}
	for _, path := range []string{"/healthz", "/developers/api_keys"} {
		if code, _, text := get(path); code != http.StatusOK {
			t.Errorf("%s: %d, %s", path, code, text)
		}
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+stopToken)
	if _, err := apikeysv1.NewApiKeysServiceClient(conn).ListApiKeys(ctx, &apikeysv1.ListApiKeysRequest{}); err != nil {
		t.Errorf("over gRPC: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
