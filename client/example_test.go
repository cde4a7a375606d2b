package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/client"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// run runs an example with a client of a server of its own and with a key that holds
// products.read.
func run(example func(ctx context.Context, keys *client.Client, secret string) error) {
	err := func() error {
		dir, err := os.MkdirTemp("", "apikeys")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		ctx := context.Background()
		s, err := servertest.New(ctx, func(c *server.Config) { c.DataDir = dir })
		if err != nil {
			return err
		}
		created, err := s.Keys.CreateApiKey(s.Context(ctx), &apikeysv1.CreateApiKeyRequest{
			Label: "Acme", OwnerId: "customer_1", Scopes: []string{"products.read"},
		})
		if err != nil {
			return err
		}
		keys, err := client.New(s.Conn.Target(), client.Options{Token: servertest.RootToken})
		if err != nil {
			return err
		}
		return errors.Join(example(ctx, keys, created.GetApiKey().GetSecret()), keys.Close(), s.Close())
	}()
	if err != nil {
		fmt.Println("failed:", err)
	}
}

// The error is nil only where the key is good.
func ExampleClient_Verify() {
	run(func(ctx context.Context, keys *client.Client, secret string) error {
		for _, scope := range []string{"products.read", "products.update"} {
			v, err := keys.Verify(ctx, client.Request{
				Key: secret, Scopes: []string{scope}, Address: netip.MustParseAddr("192.0.2.1"),
			})
			var refused *client.RefusedError
			switch {
			case errors.As(err, &refused):
				fmt.Println(refused.Status, refused.Reason, refused.Message)
			case err != nil:
				return err // There was no answer, so nobody is let in.
			default:
				fmt.Println("let in:", v.Key.GetOwnerId())
			}
		}
		return nil
	})
	// Output:
	// let in: customer_1
	// 403 INSUFFICIENT_SCOPE The credential lacks the scope products.update.
}

// Require is middleware for net/http, chi, gorilla, and every router that takes a
// func(http.Handler) http.Handler.
func ExampleMiddleware() {
	run(func(_ context.Context, keys *client.Client, secret string) error {
		api := client.Middleware{Client: keys}
		mux := http.NewServeMux()
		mux.Handle("GET /products", api.Require("products.read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "hello, ", client.FromContext(r.Context()).Key.GetOwnerId())
		})))
		for _, key := range []string{secret, "junk"} {
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/products", nil)
			r.Header.Set("Authorization", "Bearer "+key)
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			fmt.Println(w.Code, w.Body)
		}
		return nil
	})
	// Output:
	// 200 hello, customer_1
	// 401 {"status":401,"error":"The credential is not valid.","reason":"UNAUTHENTICATED"}
}

// A method that has no entry may be called by nobody. The health service stands for
// yours.
func ExampleInterceptors() {
	run(func(ctx context.Context, keys *client.Client, secret string) error {
		api := client.Interceptors{
			Client: keys,
			Scopes: map[string][]string{"/grpc.health.v1.Health/Check": {"products.read"}},
			Public: []string{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"},
		}
		s := grpc.NewServer(grpc.UnaryInterceptor(api.Unary()), grpc.StreamInterceptor(api.Stream()))
		healthpb.RegisterHealthServer(s, health.NewServer())
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		go func() { _ = s.Serve(listener) }()
		defer s.Stop()
		conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		service := healthpb.NewHealthClient(conn)

		withKey := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret)
		_, err = service.Check(withKey, &healthpb.HealthCheckRequest{})
		fmt.Println("with the key:", status.Code(err))
		_, err = service.Check(ctx, &healthpb.HealthCheckRequest{})
		fmt.Println("without a key:", status.Code(err))
		_, err = service.List(withKey, &healthpb.HealthListRequest{})
		fmt.Println("a method without an entry:", status.Code(err))
		return nil
	})
	// Output:
	// with the key: OK
	// without a key: Unauthenticated
	// a method without an entry: PermissionDenied
}

// A watcher goes on after the last event that was taken, whatever happens to the
// connection or the server.
func ExampleWatcher() {
	run(func(ctx context.Context, keys *client.Client, _ string) error {
		done := errors.New("that is enough")
		w := keys.Watcher(&apikeysv1.WatchEventsRequest{After: "start"})
		w.Lost = func(err error) { fmt.Println("connection lost:", err) }
		err := w.Run(ctx, func(m *apikeysv1.WatchEventsResponse) error {
			if m.GetEvent() == nil {
				return nil // A heartbeat: store its cursor.
			}
			fmt.Println(m.GetEvent().GetType(), m.GetEvent().GetApiKey().GetLabel())
			return done
		})
		fmt.Println(err)
		return nil
	})
	// Output:
	// api_key.created Acme
	// that is enough
}
