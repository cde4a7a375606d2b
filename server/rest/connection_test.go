package rest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

func TestNoCopy(t *testing.T) {
	t.Parallel()
	sent := &apikeysv1.VerifyApiKeyResponse{
		Valid: true, RetryAfterSeconds: proto.Int32(0), PreviousSecret: true,
		ApiKey: &apikeysv1.ApiKey{
			Id: "api_key_1", Scopes: []string{"a", "b"}, Metadata: map[string]string{"team": "billing"},
			CreatedAt: timestamppb.Now(), Metrics: &apikeysv1.ApiKeyMetrics{TotalRequests: 3},
		},
	}
	received := &apikeysv1.VerifyApiKeyResponse{Quota: &apikeysv1.QuotaStatus{Limit: 3}}
	if err := (noCopy{}).Copy(received, sent); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, received, protocmp.Transform()); diff != "" {
		t.Errorf("what was received (-sent +received):\n%s", diff)
	}
	if received.GetApiKey() != sent.GetApiKey() {
		t.Error("the key was copied")
	}
	if err := (noCopy{}).Copy(&emptypb.Empty{}, sent); err == nil {
		t.Error("a message was received as another one")
	}
	if err := (noCopy{}).Copy(received, "text"); err == nil {
		t.Error("a text was received as a message")
	}
}
