package client_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/client"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// serve runs a service behind interceptors until the test ends.
func serve(t *testing.T, i client.Interceptors, told func(*client.Verification)) healthpb.HealthClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(
		grpc.ChainUnaryInterceptor(i.Unary(), func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			told(client.FromContext(ctx))
			return handler(ctx, req)
		}),
		grpc.ChainStreamInterceptor(i.Stream(), func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			told(client.FromContext(stream.Context()))
			return handler(srv, stream)
		}),
	)
	healthpb.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthpb.NewHealthClient(conn)
}

func TestInterceptors(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	keys := keysOf(t, s)
	var last *client.Verification
	service := serve(t, client.Interceptors{
		Client: newClient(t, s),
		Scopes: map[string][]string{healthpb.Health_Check_FullMethodName: {"products.read"}, healthpb.Health_Watch_FullMethodName: {"products.read"}},
		Public: []string{healthpb.Health_List_FullMethodName},
	}, func(v *client.Verification) { last = v })
	unary := func(ctx context.Context) error {
		_, err := service.Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}
	stream := func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		watch, err := service.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		return err
	}
	for _, c := range []struct {
		name   string
		pairs  []string
		want   codes.Code
		reason string
	}{
		{"good", []string{"authorization", "Bearer " + keys["good"]}, codes.OK, ""},
		{"x-api-key", []string{"x-api-key", keys["good"]}, codes.OK, ""},
		{"none", nil, codes.Unauthenticated, "UNAUTHENTICATED"},
		{"two", []string{"x-api-key", keys["good"], "authorization", keys["near"]}, codes.Unauthenticated, "UNAUTHENTICATED"},
		{"revoked", []string{"x-api-key", keys["revoked"]}, codes.Unauthenticated, "UNAUTHENTICATED"},
		{"another scope", []string{"x-api-key", keys["narrow"]}, codes.PermissionDenied, "INSUFFICIENT_SCOPE"},
		{"another address", []string{"x-api-key", keys["near"], "x-forwarded-for", "192.0.2.1"}, codes.PermissionDenied, "IP_NOT_ALLOWED"},
		{"both of two", []string{"x-api-key", keys["busy"]}, codes.OK, ""},
		{"the third and fourth of two", []string{"x-api-key", keys["busy"]}, codes.ResourceExhausted, "RATE_LIMITED"},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), c.pairs...)
		for _, call := range []func(context.Context) error{unary, stream} {
			last = nil
			st := status.Convert(call(ctx))
			if st.Code() != c.want || (st.Code() == codes.OK) != (last != nil) {
				t.Errorf("%s: %v, told %v", c.name, st, last)
			}
			var reason string
			var waits bool
			for _, detail := range st.Details() {
				switch d := detail.(type) {
				case *errdetails.ErrorInfo:
					reason = d.GetReason()
				case *errdetails.RetryInfo:
					waits = d.GetRetryDelay().AsDuration() > 0
				}
			}
			if reason != c.reason || waits != (c.want == codes.ResourceExhausted) {
				t.Errorf("%s: the reason is %q, wait %v", c.name, reason, waits)
			}
		}
	}
	if _, err := service.List(t.Context(), &healthpb.HealthListRequest{}); err != nil {
		t.Errorf("a public method: %v", err)
	}
}

// A method that nobody has thought of may be called by nobody, and where no key can be
// verified there is no permission.
func TestInterceptorsFailClosed(t *testing.T) {
	t.Parallel()
	c, err := client.New("127.0.0.1:1", client.Options{Token: "token"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	service := serve(t, client.Interceptors{
		Client: c, Scopes: map[string][]string{healthpb.Health_Check_FullMethodName: nil}, Logger: slog.New(slog.DiscardHandler),
	}, func(*client.Verification) { t.Error("it was let in") })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-api-key", "x")
	if _, err := service.Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("without an answer: %v", err)
	}
	if _, err := service.List(ctx, &healthpb.HealthListRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a method without an entry: %v", err)
	}
}
