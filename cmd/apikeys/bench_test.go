package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// runFloor makes this test binary serve the floor of a benchmark: over gRPC, or over HTTP
// where its value is JSON, the headers of the answer to everybody.
const runFloor = "TEST_RUN_FLOOR"

// floorOfGRPC is the value of runFloor for gRPC.
const floorOfGRPC = "grpc"

// serveFloor serves the floor that is asked for, and says where.
func serveFloor(asked string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	if asked == floorOfGRPC {
		return emptyServer().Serve(listener)
	}
	var headers http.Header
	if err := json.Unmarshal([]byte(asked), &headers); err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), headers)
		w.WriteHeader(http.StatusOK)
	})}
	return server.Serve(listener)
}

// emptyServer is a bare server with one method that does nothing.
func emptyServer() *grpc.Server {
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Empty",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Call",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(emptypb.Empty)
				return in, decode(in)
			},
		}},
	}, nil)
	return server
}

// startFloor starts a floor as a process of its own, and returns that and its address.
func startFloor(b *testing.B, asked string) (*os.Process, string) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), runFloor+"="+asked)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatalf("start the floor: %v", err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // It was killed, which is what this says.
	})
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return cmd.Process, strings.TrimSpace(addr)
}

// dial returns a connection by gRPC.
func dial(b *testing.B, addr string) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

// BenchmarkVerifyApart is VerifyApiKey over gRPC with the program in a process of
// its own, as it is in life, for keys of which little and more is to be told. Its
// floor is an empty call on a bare server in another one.
func BenchmarkVerifyApart(b *testing.B) {
	for _, kind := range []struct {
		name     string
		template *apikeysv1.CreateApiKeyRequest
	}{
		{"small", &apikeysv1.CreateApiKeyRequest{Label: "Key", Scopes: []string{"invoices.read"}}},
		{"larger", &apikeysv1.CreateApiKeyRequest{
			Label: "Key", Scopes: []string{"invoices.read", "payments.read"}, OwnerId: "user_1",
			Metadata: map[string]string{"team": "billing"},
		}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			const keys, turn = 10_000, 100_000
			_, addr := startFloor(b, floorOfGRPC)
			floor, p := dial(b, addr), startProcess(b, b.TempDir())
			defer p.kill(b)
			// Contexts of one parent that can end wait for each other, which callers in life
			// do not, and which would be most of an empty call.
			alone := context.WithoutCancel(b.Context())
			ctx := metadata.AppendToOutgoingContext(alone, "authorization", "Bearer "+crashToken)
			secrets := make([]string, keys)
			together(b, keys, func(i int) error {
				resp, err := p.keys.CreateApiKey(ctx, kind.template)
				secrets[i] = resp.GetApiKey().GetSecret()
				return err
			})
			verify := func(i int) error {
				resp, err := p.keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[i%keys]})
				if err == nil && !resp.GetValid() {
					err = fmt.Errorf("not valid: %v", resp.GetCode())
				}
				return err
			}
			empty := func(int) error {
				return floor.Invoke(alone, "/bench.Empty/Call", &emptypb.Empty{}, &emptypb.Empty{})
			}
			together(b, keys, verify)
			together(b, keys, empty)
			var least, spent time.Duration
			for b.Loop() {
				spent += together(b, turn, verify)
				// The program stores its counters once a second, which the floor must not
				// pay for. A turn is several seconds long, so most of it is paid there.
				time.Sleep(1200 * time.Millisecond)
				least += together(b, turn, empty)
			}
			b.ReportMetric(float64(least)/float64(spent), "x-of-floor")
			b.ReportMetric(float64(b.N*turn)/spent.Seconds(), "calls/s")
		})
	}
}

// together calls f for 0 to n-1 from 64 callers and returns how long it took.
func together(b *testing.B, n int, f func(i int) error) time.Duration {
	b.Helper()
	var next atomic.Int64
	var callers sync.WaitGroup
	start := time.Now()
	for range 64 {
		callers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	return time.Since(start)
}
