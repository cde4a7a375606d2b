package api_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// TestRuleTexts wants a broken rule of a proto to be told in words that a person can act
// on, the same as those of the rules of the resources.
func TestRuleTexts(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		const id = "webhook_0197c0ec-a197-719f-84a9-99270a79b42a"
		ctx, hooks := r.as(""), apikeysv1.NewWebhooksServiceClient(r.conn)
		many := slices.Repeat([]string{"api_key.created"}, 101)
		create := func(req *apikeysv1.CreateApiKeyRequest) error {
			_, err := r.keys.CreateApiKey(ctx, req)
			return err
		}
		list := func(state apikeysv1.ApiKeyState) error {
			_, err := r.keys.ListApiKeys(ctx, &apikeysv1.ListApiKeysRequest{State: state})
			return err
		}
		events := func(events ...string) error {
			_, err := hooks.CreateWebhook(ctx, &apikeysv1.CreateWebhookRequest{Label: "w", Url: "https://hooks.example/", Events: events})
			return err
		}
		retry := func(states ...apikeysv1.DeliveryState) error {
			_, err := hooks.RetryDeliveries(ctx, &apikeysv1.RetryDeliveriesRequest{Id: id, States: states})
			return err
		}
		revoke := func(reason apikeysv1.RevokeReason) error {
			_, err := r.keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: "api_key_0197c0ec-a197-719f-84a9-99270a79b42a", Reason: reason})
			return err
		}
		for want, err := range map[string]error{
			"scopes must have at most 100 entries":                          create(&apikeysv1.CreateApiKeyRequest{Label: "k", Scopes: many}),
			"rate_limit.requests must be 1 to 1000000; 1 more field":        create(&apikeysv1.CreateApiKeyRequest{Label: "k", RateLimit: &apikeysv1.RateLimit{}}),
			"state must be one of active, disabled, expired, revoked":       list(99),
			"events must have 1 to 50 entries":                              events(),
			"events must have 1 to 50 entries.":                             events(many...),
			"states must have 1 to 3 entries":                               retry(),
			"states[0] must be one of pending, failed, cancelled":           retry(apikeysv1.DeliveryState_DELIVERY_STATE_DELIVERED),
			"states[0] must be one of pending, failed, cancelled.":          retry(0),
			"reason must be one of unspecified, key_compromise, superseded": revoke(99),
		} {
			if st := status.Convert(err); st.Code() != codes.InvalidArgument || !strings.HasPrefix(st.Message(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	})
}
