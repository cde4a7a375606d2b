package rest_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/rest"
)

// TestClientGone hangs up while a call is under way: while it is worked on,
// and before a stream has said anything. None of it is an
// error, since nobody could mend it.
func TestClientGone(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"call": "GET " + keyPath, "change": "POST /developers/api_keys", "stream": watchLine,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := make(chan struct{})
			wait := func(ctx context.Context) error {
				close(began)
				<-ctx.Done()
				return ctx.Err()
			}
			conn := rest.NewConnection().WithServerUnaryInterceptor(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
				return nil, wait(ctx)
			})
			apikeysv1.RegisterApiKeysServiceServer(conn, service{})
			apikeysv1.RegisterEventsServiceServer(conn, feed{watch: func(_ *apikeysv1.WatchEventsRequest, stream watchStream) error { return wait(stream.Context()) }})
			log := new(bytes.Buffer)
			h, err := rest.New(rest.Config{Conn: conn, AnswerTimeout: time.Minute, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			serving.Add(1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer serving.Done()
				h.ServeHTTP(w, r)
			}))
			defer server.Close()
			ctx, cancel := context.WithCancel(t.Context())
			method, path, _ := strings.Cut(line, " ")
			body := ""
			if method == http.MethodPost {
				body = "{}"
			}
			r := request(method+" "+server.URL+path, body).WithContext(ctx)
			r.RequestURI = ""
			go func() { <-began; cancel() }()
			if resp, err := server.Client().Do(r); !errors.Is(err, context.Canceled) {
				if err == nil {
					_ = resp.Body.Close()
				}
				t.Fatalf("the request was answered: %v", err)
			}
			serving.Wait()
			if text := log.String(); strings.Contains(text, "level=ERROR") || strings.Contains(text, "level=WARN") || strings.Contains(text, "level=INFO") {
				t.Errorf("logged %s", text)
			}
		})
	}
}
