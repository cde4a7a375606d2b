package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// The size of the benchmarks of verification: keys that are in use, and callers
// that wait for an answer at the same time.
const (
	benchKeys    = 10_000
	benchCallers = 64
)

// BenchmarkVerifyGRPC is VerifyApiKey over gRPC on loopback, warm. Its bound is
// an empty call on a bare server; client and server share the machine in both.
// x-of-answer is its rate as a part of a bare server's that gives every call the
// same answer without looking at anything: what lies between the two is the
// size of the request and of the answer, most of it read by the client.
func BenchmarkVerifyGRPC(b *testing.B) {
	s := servertest.Start(b, quiet)
	secrets := manyKeys(b, s, benchKeys)
	ctx := s.Context(b.Context())
	floor := serveBare(b, &emptyService)
	verify := func(client apikeysv1.ApiKeysServiceClient) func(i int) error {
		return func(i int) error {
			resp, err := client.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[i%len(secrets)]})
			if err == nil && !resp.GetValid() {
				err = fmt.Errorf("not valid: %v", resp.GetCode())
			}
			return err
		}
	}
	answer, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[0]})
	if err != nil {
		b.Fatal(err)
	}
	same := verify(apikeysv1.NewApiKeysServiceClient(serveBare(b, answerService(answer))))
	run(b, benchTurn, same)
	var least time.Duration
	spent := compare(b, func(i int) error {
		return floor.Invoke(b.Context(), "/bench.Empty/Call", &emptypb.Empty{}, &emptypb.Empty{})
	}, verify(s.Keys), func() { least += run(b, benchTurn, same) })
	b.ReportMetric(float64(least)/float64(spent), "x-of-answer")
}

// BenchmarkVerifyWithMetrics is VerifyApiKey over gRPC of a server with a listener for
// operators. Its floor is the same server without, measured in turns: x-of-floor is what
// metrics leave of its rate.
func BenchmarkVerifyWithMetrics(b *testing.B) {
	side := func(change ...func(*server.Config)) func(i int) error {
		s := servertest.Start(b, append(change, quiet)...)
		secrets, ctx := manyKeys(b, s, benchKeys/10), s.Context(b.Context())
		return func(i int) error {
			resp, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[i%len(secrets)]})
			if err == nil && !resp.GetValid() {
				err = fmt.Errorf("not valid: %v", resp.GetCode())
			}
			return err
		}
	}
	compare(b, side(), side(withOps))
}

// BenchmarkVerifyREST is the same over REST. Its floor is a bare net/http handler
// that decodes the same request and encodes the same answer with encoding/json.
func BenchmarkVerifyREST(b *testing.B) {
	s := servertest.Start(b, quiet)
	secrets := manyKeys(b, s, benchKeys)
	sample := s.Call(b, http.MethodPost, "/developers/api_keys/verify", `{"key":"`+secrets[0]+`"}`)
	floor := startEchoServer(b, sample.Body)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchCallers}}
	post := func(url string, i int) error {
		body := `{"key":"` + secrets[i%len(secrets)] + `"}`
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader([]byte(body)))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+servertest.RootToken)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s", resp.Status)
		}
		return nil
	}
	compare(b,
		func(i int) error { return post(floor, i) },
		func(i int) error { return post(s.REST+"/developers/api_keys/verify", i) })
}

// benchTurn is how many calls each side makes before it is the other's turn.
const benchTurn = 4 * benchCallers * 16

// compare runs floor and subject in turns, each by benchCallers callers, with
// whatever else is to be measured beside them, and reports the rate of subject as a
// part of the floor's. It returns the time that subject took.
func compare(b *testing.B, floor, subject func(i int) error, beside ...func()) time.Duration {
	b.Helper()
	run(b, benchTurn, floor)
	run(b, benchTurn, subject)
	var least, spent time.Duration
	var calls int
	for b.Loop() {
		least += run(b, benchTurn, floor)
		for _, f := range beside {
			f()
		}
		spent += run(b, benchTurn, subject)
		calls += benchTurn
	}
	b.ReportMetric(float64(least)/float64(spent), "x-of-floor")
	b.ReportMetric(float64(calls)/spent.Seconds(), "calls/s")
	b.ReportMetric(float64(calls)/least.Seconds(), "floor-calls/s")
	return spent
}

// run makes n calls by benchCallers callers and returns how long they took.
func run(b *testing.B, n int, call func(i int) error) time.Duration {
	b.Helper()
	var next atomic.Int64
	var callers sync.WaitGroup
	start := time.Now()
	for range benchCallers {
		callers.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				if err := call(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	return time.Since(start)
}

// manyKeys makes n keys and returns their secrets.
func manyKeys(b *testing.B, s *servertest.Server, n int) []string {
	b.Helper()
	secrets := make([]string, n)
	ctx := s.Context(b.Context())
	run(b, n, func(i int) error {
		resp, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{
			Label: fmt.Sprintf("Key %d", i), Scopes: []string{"invoices.read", "payments.read"},
			OwnerId: fmt.Sprintf("user_%d", i), Metadata: map[string]string{"team": "billing"},
		})
		secrets[i-1] = resp.GetApiKey().GetSecret()
		return err
	})
	// Once each, so that all are warm.
	run(b, n, func(i int) error {
		_, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[i-1]})
		return err
	})
	return secrets
}

// emptyService has one method, which does nothing.
var emptyService = grpc.ServiceDesc{
	ServiceName: "bench.Empty",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Call",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(emptypb.Empty)
			return in, decode(in)
		},
	}},
}

// answerService is VerifyApiKey with the same answer to everybody.
func answerService(answer *apikeysv1.VerifyApiKeyResponse) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: apikeysv1.ApiKeysService_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "VerifyApiKey",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return answer, decode(new(apikeysv1.VerifyApiKeyRequest))
			},
		}},
	}
}

// serveBare returns a connection to a server that has nothing but a service.
func serveBare(b *testing.B, service *grpc.ServiceDesc) *grpc.ClientConn {
	b.Helper()
	server := grpc.NewServer()
	server.RegisterService(service, nil)
	listener := listenLoopback(b)
	go server.Serve(listener)
	b.Cleanup(server.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

// startEchoServer returns the URL of a bare handler that decodes a request for
// verification and answers with sample, encoded anew each time.
func startEchoServer(b *testing.B, sample []byte) string {
	b.Helper()
	var answer map[string]any
	if err := json.Unmarshal(sample, &answer); err != nil {
		b.Fatal(err)
	}
	listener := listenLoopback(b)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Key string `json:"key"`
		}
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || req.Key == "" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			b.Error(err)
		}
	})}
	go server.Serve(listener)
	b.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}

func listenLoopback(b *testing.B) net.Listener {
	b.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return listener
}

// quiet keeps the server's log at its default level.
func quiet(c *server.Config) {
	c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
}
