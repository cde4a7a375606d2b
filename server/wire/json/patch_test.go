package json_test

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

func TestReadRequestPatch(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		want *apikeysv1.UpdateApiKeyRequest
	}{
		"fields": {`{"label": "new", "enabled": false, "scopes": ["a", "a"], "expires_at": "2026-05-30 20:23:16"}`, &apikeysv1.UpdateApiKeyRequest{
			ApiKey:     &apikeysv1.ApiKey{Label: "new", Scopes: []string{"a", "a"}, ExpiresAt: at("2026-05-30 20:23:16")},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label", "enabled", "scopes", "expires_at"}},
		}},
		"null": {`{"expires_at": null, "scopes": null, "metadata": null, "rate_limit": null, "label": null}`, &apikeysv1.UpdateApiKeyRequest{
			ApiKey:     &apikeysv1.ApiKey{},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"expires_at", "scopes", "metadata", "rate_limit", "label"}},
		}},
		"nested": {`{"rate_limit": {"window_seconds": null, "requests": 5}}`, &apikeysv1.UpdateApiKeyRequest{
			ApiKey:     &apikeysv1.ApiKey{RateLimit: &apikeysv1.RateLimit{Requests: 5}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"rate_limit.window_seconds", "rate_limit.requests"}},
		}},
		"map": {"{\"metadata\": {\"a\": \"1\", \"b\": null, \"c.`d\": \"\"}}", &apikeysv1.UpdateApiKeyRequest{
			ApiKey:     &apikeysv1.ApiKey{Metadata: map[string]string{"a": "1", "c.`d": ""}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"metadata.`a`", "metadata.`b`", "metadata.`c.``d`"}},
		}},
		"empty objects": {`{"metadata": {}, "rate_limit": {}, "quota": {}}`, &apikeysv1.UpdateApiKeyRequest{
			ApiKey: &apikeysv1.ApiKey{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"rate_limit.*", "quota.*"}},
		}},
		"nothing": {`{}`, &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{}, UpdateMask: &fieldmaskpb.FieldMask{}}},
		"no body": {``, &apikeysv1.UpdateApiKeyRequest{ApiKey: &apikeysv1.ApiKey{}, UpdateMask: &fieldmaskpb.FieldMask{}}},
		"id and etag": {`{"id": "api_key_1", "etag": "e", "scopes": []}`, &apikeysv1.UpdateApiKeyRequest{
			ApiKey: &apikeysv1.ApiKey{Id: "api_key_1"}, Etag: "e", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"scopes"}},
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := &apikeysv1.UpdateApiKeyRequest{}
			if err := wirejson.ReadRequest([]byte(tc.body), got, wirejson.Body{Bound: []string{"id"}}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestReadQuery(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		query string
		want  proto.Message
		text  string
	}{
		"all": {"page_size=50&page_token=t&state=active&owner_id=o&q=a%20b&expires_before=2026-05-30+20:23:16&unused_since=2025-06-30T15:05:47Z",
			&apikeysv1.ListApiKeysRequest{
				PageSize: 50, PageToken: "t", State: apikeysv1.ApiKeyState_API_KEY_STATE_ACTIVE, OwnerId: "o", Q: "a b",
				ExpiresBefore: at("2026-05-30 20:23:16"), UnusedSince: at("2025-06-30 15:05:47"),
			}, ""},
		"none":        {"", &apikeysv1.ListApiKeysRequest{}, ""},
		"empty texts": {"q=&page_token=", &apikeysv1.ListApiKeysRequest{}, ""},
		"list":        {"scopes=a&scopes=b,c", &apikeysv1.VerifyApiKeyRequest{Scopes: []string{"a", "b", "c"}}, ""},
		"empty list":  {"scopes=", &apikeysv1.VerifyApiKeyRequest{}, ""},
		"bool":        {"enabled=false", &apikeysv1.CreateApiKeyRequest{Enabled: proto.Bool(false)}, ""},
		"problems": {"page_size=x&state=ACTIVE&expires_before=soon&token=1&q=a&q=b", &apikeysv1.ListApiKeysRequest{},
			"expires_before must be a time such as 2026-05-30 20:23:16 or 2026-05-30T20:23:16Z; page_size must be a whole number; " +
				"q must be given once; state must be one of active, disabled, expired, revoked; token is not a known parameter"},
		"range":          {"page_size=9999999999", &apikeysv1.ListApiKeysRequest{}, "page_size must be from -2147483648 to 2147483647"},
		"not UTF-8":      {"q=%ff", &apikeysv1.ListApiKeysRequest{}, "q must be UTF-8"},
		"empty element":  {"scopes=a,,b", &apikeysv1.VerifyApiKeyRequest{}, "scopes must not have an empty element"},
		"objects":        {"metadata=1&rate_limit=1&empty_scopes=true", &apikeysv1.CreateApiKeyRequest{}, "empty_scopes is not a known parameter; metadata is not a known parameter; rate_limit is not a known parameter"},
		"bool words":     {"enabled=1", &apikeysv1.CreateApiKeyRequest{}, "enabled must be true or false"},
		"an empty name":  {"=1", &apikeysv1.GetApiKeyRequest{}, `"" is not a known parameter`},
		"bound":          {"id=1", &apikeysv1.GetApiKeyRequest{}, "id is not a known parameter"},
		"number grammar": {"page_size=0x10", &apikeysv1.ListApiKeysRequest{}, "page_size must be a whole number"},
		"no number":      {"page_size=", &apikeysv1.ListApiKeysRequest{}, "page_size must be a whole number"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			query, err := url.ParseQuery(tc.query)
			if err != nil {
				t.Fatal(err)
			}
			got := blank(tc.want)
			err = wirejson.ReadQuery(query, got, "id")
			if diff := cmp.Diff(tc.text, errString(err)); diff != "" {
				t.Fatalf("(-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, got, protocmp.Transform()); err == nil && diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
