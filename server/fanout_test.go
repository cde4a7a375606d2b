package server

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// TestChangesWaitForTheFanOut has the fan-out of one organization stand still: its
// changes are refused with a time to wait, over gRPC and REST, and those of others, and
// reads, are not.
func TestChangesWaitForTheFanOut(t *testing.T) {
	t.Parallel()
	s, err := New(t.Context(), Config{
		RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DataDir: t.TempDir(), RootToken: masked.New(stopToken),
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nobody runs this one, so it makes no deliveries.
	still := deliver.NewFanOut(deliver.FanOutConfig{MaxBehind: 1, MaxWait: time.Millisecond})
	s.db.store.HoldWith(still.Wait)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	conn, err := grpc.NewClient(s.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keys, hooks := apikeysv1.NewApiKeysServiceClient(conn), apikeysv1.NewWebhooksServiceClient(conn)
	operator := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+stopToken)
	key, err := keys.CreateApiKey(operator, &apikeysv1.CreateApiKeyRequest{Label: "x"})
	if err != nil {
		t.Fatal(err)
	}
	hook, err := hooks.CreateWebhook(operator, &apikeysv1.CreateWebhookRequest{Label: "x", Url: "https://example.com/", Events: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	still.Notify([]string{"org_default"}, []string{"org_default"})
	// What does nothing but disable does not wait.
	for path, want := range map[string]codes.Code{"label": codes.Unavailable, "enabled": codes.OK} {
		mask := &fieldmaskpb.FieldMask{Paths: []string{path}}
		_, err := keys.UpdateApiKey(operator, &apikeysv1.UpdateApiKeyRequest{Id: key.GetApiKey().GetId(), ApiKey: &apikeysv1.ApiKey{Label: "y"}, UpdateMask: mask})
		if status.Code(err) != want {
			t.Errorf("%s of a key: %v", path, err)
		}
		_, err = hooks.UpdateWebhook(operator, &apikeysv1.UpdateWebhookRequest{Id: hook.GetWebhook().GetId(), Webhook: &apikeysv1.Webhook{Label: "y"}, UpdateMask: mask})
		if status.Code(err) != want {
			t.Errorf("%s of a webhook: %v", path, err)
		}
	}
	for organization, want := range map[string]struct {
		code codes.Code
		http int
	}{
		"org_default": {codes.Unavailable, http.StatusServiceUnavailable},
		"org_other":   {codes.OK, http.StatusOK},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+stopToken, "x-organization-id", organization)
		_, err := keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "x"})
		wait := false
		for _, detail := range status.Convert(err).Details() {
			if info, ok := detail.(*errdetails.RetryInfo); ok {
				wait = info.GetRetryDelay().AsDuration() > 0
			}
		}
		if status.Code(err) != want.code || wait != (want.code != codes.OK) {
			t.Errorf("%s over gRPC: %v", organization, err)
		}
		if _, err := keys.ListApiKeys(ctx, &apikeysv1.ListApiKeysRequest{}); err != nil {
			t.Errorf("%s reads: %v", organization, err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.RESTAddr().String()+"/developers/api_keys", strings.NewReader(`{"label": "x"}`))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Authorization": "Bearer " + stopToken, "X-Organization-Id": organization, "Content-Type": "application/json"} {
			r.Header.Set(name, value)
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != want.http || (answer.Header.Get("Retry-After") != "") != (want.code != codes.OK) {
			t.Errorf("%s over REST: %s, Retry-After %q", organization, answer.Status, answer.Header.Get("Retry-After"))
		}
	}
}
