// Package servertest runs a whole server for tests and examples, with a client
// for each of its listeners.
package servertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest/described"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
)

// RootToken is the operator's token of every server that this package starts.
const RootToken = "servertest-root-token-of-enough-length"

// Server is a running server.
type Server struct {
	// REST is the base URL of the REST listener, without a slash at its end.
	REST string
	// Ops is the base URL of the listener for operators; empty where OpsAddr is not set.
	Ops string
	// Gate is the base URL of the listener for gateways; empty where GateAddr is not set.
	Gate string
	// Client calls REST. Its connections are of this server alone. With Start, the test
	// fails where an answer is not as the OpenAPI document says.
	Client *http.Client
	// Conn leads to the gRPC listener.
	Conn *grpc.ClientConn
	// Keys is the service of keys, as an operator calls it through Context.
	Keys apikeysv1.ApiKeysServiceClient
	// Dir is the data directory.
	Dir string
	// Log is all that the server has logged so far, at debug level.
	Log *logtest.Buffer

	database string // as it was configured
	close    func() error
}

// Start runs a server on free ports and a new data directory until the test ends.
// Each of change may alter its configuration.
func Start(t testing.TB, change ...func(*server.Config)) *Server {
	t.Helper()
	inDir := func(c *server.Config) { c.DataDir = t.TempDir() }
	s, err := New(t.Context(), slices.Concat([]func(*server.Config){inDir}, change, []func(*server.Config){onPostgres(t)})...)
	if err != nil {
		t.Fatal(err)
	}
	s.Client.Transport = described.Transport(t, s.REST, s.Client.Transport)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("the server ended with an error: %v", err)
		}
	})
	return s
}

// New runs a server as [Start] does, for an example, which has no [testing.TB]:
// one of
// change sets the data directory, and the caller closes the server.
func New(ctx context.Context, change ...func(*server.Config)) (*Server, error) {
	logger, log := logtest.New(slog.LevelDebug)
	c := server.Config{
		RESTAddr:  "127.0.0.1:0",
		GRPCAddr:  "127.0.0.1:0",
		RootToken: masked.New(RootToken),
		Logger:    logger,
	}
	for _, f := range change {
		f(&c)
	}
	s, err := server.New(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- s.Run(running) }()
	conn, err := grpc.NewClient(s.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("connect to the server: %w", err), <-done)
	}
	client := &http.Client{Transport: new(http.Transport)}
	ops := ""
	if addr := s.OpsAddr(); addr != nil {
		ops = "http://" + addr.String()
	}
	gate := ""
	if addr := s.GateAddr(); addr != nil {
		gate = "http://" + addr.String()
	}
	return &Server{
		Ops:    ops,
		Gate:   gate,
		REST:   "http://" + s.RESTAddr().String(),
		Client: client,
		Conn:   conn,
		Keys:   apikeysv1.NewApiKeysServiceClient(conn),
		Dir:    c.DataDir,
		Log:    log,

		database: c.Database,
		close: sync.OnceValue(func() error {
			// A server waits a moment for what clients with open connections may have
			// sent already.
			client.CloseIdleConnections()
			closed := conn.Close()
			cancel()
			select {
			case err := <-done:
				return errors.Join(closed, err)
			case <-time.After(30 * time.Second):
				return errors.New("the server did not stop within 30 seconds")
			}
		}),
	}, nil
}

// Close stops the server as a signal would, waits for its end and returns what it
// ended with, each time that it is called.
func (s *Server) Close() error { return s.close() }

// Stop is Close in the middle of a test. An error fails the test at its end.
func (s *Server) Stop() { _ = s.Close() }

// Context returns a context whose calls carry the operator's token and further
// pairs of metadata.
func (s *Server) Context(ctx context.Context, pairs ...string) context.Context {
	return As(ctx, RootToken, pairs...)
}

// As returns a context whose calls carry a credential and further pairs of
// metadata.
func As(ctx context.Context, credential string, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, append([]string{"authorization", "Bearer " + credential}, pairs...)...)
}

// Answer is an answer over REST.
type Answer struct {
	Status int
	Header http.Header
	// Body is what was sent, to the byte.
	Body []byte
	// Envelope is Body, decoded.
	Envelope Envelope
}

// Envelope is the frame of every REST answer.
type Envelope struct {
	Status    int               `json:"status"`
	Data      json.RawMessage   `json:"data"`
	Error     *string           `json:"error"`
	Log       map[string]string `json:"log"`
	Validator map[string]string `json:"validator"`
	SupportID *string           `json:"support_id"`
	Message   *string           `json:"message"`
	Env       string            `json:"env"`
}

// Call sends a request with the operator's token. Headers are `Name: value`; one
// for Authorization replaces the token, and an empty value leaves it out.
func (s *Server) Call(t testing.TB, method, path, body string, headers ...string) Answer {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.REST+path, reader)
	if err != nil {
		t.Fatalf("make the request: %v", err)
	}
	req.Header.Set("Authorization", "Bearer "+RootToken)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		if value = strings.TrimSpace(value); value == "" {
			req.Header.Del(name)
		} else {
			req.Header.Set(name, value)
		}
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if err := json.Unmarshal(a.Body, &a.Envelope); err != nil {
		t.Fatalf("%s %s answered outside the envelope: %v\n%s", method, path, err, a.Body)
	}
	return a
}

// Into decodes the answer's data into v, which is an error where the call failed.
func (a Answer) Into(t testing.TB, v any) {
	t.Helper()
	if a.Status != http.StatusOK {
		t.Fatalf("the call failed: %s", a.Body)
	}
	if err := json.Unmarshal(a.Envelope.Data, v); err != nil {
		t.Fatalf("decode data: %v\n%s", err, a.Body)
	}
}

// String returns the answer for a test's message.
func (a Answer) String() string { return fmt.Sprintf("%d %s", a.Status, a.Body) }
