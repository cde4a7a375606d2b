package servertest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// run runs an example against a server of its own, as its operator.
func run(example func(ctx context.Context, s *servertest.Server) error, change ...func(*server.Config)) {
	err := func() error {
		dir, err := os.MkdirTemp("", "apikeys")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s, err := servertest.New(ctx, append(change, func(c *server.Config) { c.DataDir = dir })...)
		if err != nil {
			return err
		}
		if err := example(s.Context(ctx), s); err != nil {
			return err
		}
		return s.Close()
	}()
	if err != nil {
		fmt.Println("failed:", err)
	}
}

// In a test, Start runs a server until the test ends; an example uses New.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "apikeys")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := servertest.New(context.Background(), func(c *server.Config) { c.DataDir = dir })
	if err != nil {
		fmt.Println(err)
		return
	}
	// Context carries the operator's token.
	list, err := s.Keys.ListApiKeys(s.Context(context.Background()), &apikeysv1.ListApiKeysRequest{})
	fmt.Println(len(list.GetApiKeys()), "keys", err)
	fmt.Println("closed:", s.Close())
	// Output:
	// 0 keys <nil>
	// closed: <nil>
}

// A key is created, and verified as an API in front of which it stands would.
func Example_verify() {
	run(func(ctx context.Context, s *servertest.Server) error {
		created, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{
			Label: "Acme, production", Scopes: []string{"invoices.read"}, OwnerId: "customer_1",
		})
		if err != nil {
			return err
		}
		for _, scope := range []string{"invoices.read", "invoices.delete"} {
			v, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{
				Key: created.GetApiKey().GetSecret(), Scopes: []string{scope},
			})
			if err != nil {
				return err // The key was not checked: try again, or refuse.
			}
			fmt.Println(scope, v.GetValid(), v.GetCode(), v.GetApiKey().GetOwnerId())
		}
		return nil
	})
	// Output:
	// invoices.read true VERIFICATION_CODE_VALID customer_1
	// invoices.delete false VERIFICATION_CODE_INSUFFICIENT_SCOPE customer_1
}

// The old secret works beside the new one until its overlap is over.
func Example_rotate() {
	run(func(ctx context.Context, s *servertest.Server) error {
		created, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "Acme, production"})
		if err != nil {
			return err
		}
		rotated, err := s.Keys.RotateApiKey(ctx, &apikeysv1.RotateApiKeyRequest{
			Id: created.GetApiKey().GetId(), OverlapSeconds: proto.Int32(3600),
		})
		if err != nil {
			return err
		}
		for _, secret := range []string{created.GetApiKey().GetSecret(), rotated.GetApiKey().GetSecret()} {
			v, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secret})
			if err != nil {
				return err
			}
			fmt.Println("valid:", v.GetValid(), "previous:", v.GetPreviousSecret())
		}
		return nil
	})
	// Output:
	// valid: true previous: true
	// valid: true previous: false
}

// A revoked key is refused from the answer on: no cache remembers it.
func Example_revoke() {
	run(func(ctx context.Context, s *servertest.Server) error {
		created, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "leaked"})
		if err != nil {
			return err
		}
		if _, err := s.Keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: created.GetApiKey().GetId()}); err != nil {
			return err
		}
		v, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: created.GetApiKey().GetSecret()})
		fmt.Println(v.GetCode())
		return err
	})
	// Output:
	// VERIFICATION_CODE_REVOKED
}

// A rate limit counts what verifications cost. RetryAfterSeconds says when to come
// back.
func Example_rateLimit() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	run(func(ctx context.Context, s *servertest.Server) error {
		created, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{
			Label: "trial", RateLimit: &apikeysv1.RateLimit{Requests: 10, WindowSeconds: 60},
		})
		if err != nil {
			return err
		}
		for _, cost := range []int32{4, 6, 1} {
			v, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: created.GetApiKey().GetSecret(), Cost: &cost})
			if err != nil {
				return err
			}
			fmt.Println(v.GetCode(), "remaining:", v.GetRateLimit().GetRemaining(), "wait:", v.GetRetryAfterSeconds())
		}
		return nil
	}, func(c *server.Config) { c.Now = func() time.Time { return noon } })
	// Output:
	// VERIFICATION_CODE_VALID remaining: 6 wait: 0
	// VERIFICATION_CODE_VALID remaining: 0 wait: 0
	// VERIFICATION_CODE_RATE_LIMITED remaining: 0 wait: 6
}

// An update changes the fields that its mask names. With the etag that was read, it
// is refused where somebody else was faster.
func Example_update() {
	run(func(ctx context.Context, s *servertest.Server) error {
		created, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "Acme", Description: "trial"})
		if err != nil {
			return err
		}
		request := &apikeysv1.UpdateApiKeyRequest{
			Id:         created.GetApiKey().GetId(),
			ApiKey:     &apikeysv1.ApiKey{Label: "Acme, production"},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label"}},
			Etag:       created.GetApiKey().GetEtag(),
		}
		updated, err := s.Keys.UpdateApiKey(ctx, request)
		if err != nil {
			return err
		}
		fmt.Println(updated.GetApiKey().GetLabel(), "/", updated.GetApiKey().GetDescription())
		request.ApiKey.Label = "late"
		_, err = s.Keys.UpdateApiKey(ctx, request)
		fmt.Println(status.Code(err))
		return nil
	})
	// Output:
	// Acme, production / trial
	// Aborted
}

// Each failure has a stable reason, in an ErrorInfo, and names the faulty fields, in
// a BadRequest.
func Example_errorReason() {
	run(func(ctx context.Context, s *servertest.Server) error {
		_, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: ""})
		for _, detail := range status.Convert(err).Details() {
			switch d := detail.(type) {
			case *errdetails.ErrorInfo:
				fmt.Println(d.GetReason())
			case *errdetails.BadRequest:
				for _, v := range d.GetFieldViolations() {
					fmt.Printf("%s: %s\n", v.GetField(), v.GetDescription())
				}
			}
		}
		return nil
	})
	// Output:
	// INVALID_ARGUMENT
	// label: must not be empty
}

// A list comes in pages; next_page_token is empty on the last one.
func Example_list() {
	run(func(ctx context.Context, s *servertest.Server) error {
		for _, label := range []string{"one", "two", "three"} {
			if _, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: label, OwnerId: "customer_1"}); err != nil {
				return err
			}
		}
		request := &apikeysv1.ListApiKeysRequest{OwnerId: "customer_1", PageSize: 2}
		for {
			page, err := s.Keys.ListApiKeys(ctx, request)
			if err != nil {
				return err
			}
			for _, k := range page.GetApiKeys() {
				fmt.Println(k.GetLabel())
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return nil
			}
			fmt.Println("next page")
		}
	})
	// Output:
	// one
	// two
	// next page
	// three
}

// A watcher that keeps the last cursor goes on after it, in this connection or in
// another one, and misses nothing.
func Example_watch() {
	run(func(ctx context.Context, s *servertest.Server) error {
		events := apikeysv1.NewEventsServiceClient(s.Conn)
		watch := func(after string, n int) (cursor string, err error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := events.WatchEvents(ctx, &apikeysv1.WatchEventsRequest{After: after, Types: []string{"api_key.created", "api_key.deleted"}})
			if err != nil {
				return "", err
			}
			for n > 0 {
				m, err := stream.Recv()
				if err != nil {
					return "", err
				}
				if cursor = m.GetCursor(); m.GetEvent() != nil { // else it is a heartbeat
					fmt.Println(m.GetEvent().GetType(), m.GetEvent().GetApiKey().GetLabel())
					n--
				}
			}
			return cursor, nil
		}
		created, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "first"})
		if err != nil {
			return err
		}
		cursor, err := watch("start", 1)
		if err != nil {
			return err
		}
		fmt.Println("connection lost")
		if _, err := s.Keys.DeleteApiKey(ctx, &apikeysv1.DeleteApiKeyRequest{Id: created.GetApiKey().GetId()}); err != nil {
			return err
		}
		_, err = watch(cursor, 1)
		return err
	})
	// Output:
	// api_key.created first
	// connection lost
	// api_key.deleted first
}

// A webhook's secret verifies what its endpoint gets.
func Example_webhook() {
	type request struct {
		header http.Header
		body   []byte
	}
	received := make(chan request, 1)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // It is sent again.
		}
		received <- request{r.Header, body}
	}))
	defer endpoint.Close()
	run(func(ctx context.Context, s *servertest.Server) error {
		created, err := apikeysv1.NewWebhooksServiceClient(s.Conn).CreateWebhook(ctx, &apikeysv1.CreateWebhookRequest{
			Label: "audit", Url: endpoint.URL, Events: []string{"api_key.created"},
		})
		if err != nil {
			return err
		}
		if _, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "Acme"}); err != nil {
			return err
		}
		r := <-received
		fmt.Println(r.header.Get("X-Webhook-Event"))
		return hooks.Verify(created.GetWebhook().GetSecret(), r.header, r.body, time.Now())
	})
	// Output:
	// api_key.created
}
