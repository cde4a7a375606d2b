package json_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

func at(s string) *timestamppb.Timestamp {
	t, err := time.Parse(time.DateTime, s)
	if err != nil {
		panic(err)
	}
	return timestamppb.New(t)
}

// fullKey has every field set.
func fullKey() *apikeysv1.ApiKey {
	return &apikeysv1.ApiKey{
		Id:                      "api_key_0197c0f1-9589-7990-b421-4b806f637b0c",
		OrganizationId:          "org_0197c0f1-9589-7990-b421-4b806f637b0c",
		Label:                   "My API Key",
		Description:             "Key for accessing product APIs",
		Secret:                  "sk_live_MDE5N2MwZWMt...GdwdA",
		Scopes:                  []string{"products.create", "products.read"},
		IpAllowList:             []string{"127.0.0.1", "192.168.1.0/24"},
		ExpiresAt:               at("2026-05-30 20:23:16"),
		CreatedAt:               at("2025-06-30 15:05:47"),
		UpdatedAt:               at("2025-07-01 10:30:45"),
		Enabled:                 true,
		State:                   apikeysv1.ApiKeyState_API_KEY_STATE_REVOKED,
		Mode:                    apikeysv1.ApiKeyMode_API_KEY_MODE_LIVE,
		KeyFormat:               "sk_live",
		OwnerId:                 "user_17",
		Metadata:                map[string]string{"team": "billing", "a": "1", "Z": "\"quoted\"\n"},
		RateLimit:               &apikeysv1.RateLimit{Requests: 100, WindowSeconds: 60, Mode: apikeysv1.RateLimitMode_RATE_LIMIT_MODE_EXACT},
		RevokedAt:               at("2025-07-02 00:00:00"),
		RevokeReason:            apikeysv1.RevokeReason_REVOKE_REASON_KEY_COMPROMISE.Enum(),
		PreviousSecretExpiresAt: at("2025-07-01 11:30:45"),
		Metrics: &apikeysv1.ApiKeyMetrics{
			ApiKeyId:      "api_key_0197c0f1-9589-7990-b421-4b806f637b0c",
			TotalRequests: 9007199254740993,
			LastUsedAt:    at("2025-06-30 16:03:44"),
		},
		Etag: "3-1a",
	}
}

const fullKeyJSON = `{"id":"api_key_0197c0f1-9589-7990-b421-4b806f637b0c",` +
	`"organization_id":"org_0197c0f1-9589-7990-b421-4b806f637b0c",` +
	`"label":"My API Key","description":"Key for accessing product APIs",` +
	`"secret":"sk_live_MDE5N2MwZWMt...GdwdA",` +
	`"scopes":["products.create","products.read"],` +
	`"ip_allow_list":["127.0.0.1","192.168.1.0/24"],` +
	`"expires_at":"2026-05-30 20:23:16","created_at":"2025-06-30 15:05:47","updated_at":"2025-07-01 10:30:45","created_by":null,` +
	`"enabled":true,"state":"revoked","mode":"live","key_format":"sk_live","owner_id":"user_17",` +
	`"metadata":{"Z":"\"quoted\"\n","a":"1","team":"billing"},` +
	`"rate_limit":{"requests":100,"window_seconds":60,"mode":"exact"},"quota":null,` +
	`"revoked_at":"2025-07-02 00:00:00","revoke_reason":"key_compromise",` +
	`"previous_secret_expires_at":"2025-07-01 11:30:45","previous_secret_last_used_at":null,"previous_secret_requests":null,` +
	`"metrics":{"api_key_id":"api_key_0197c0f1-9589-7990-b421-4b806f637b0c",` +
	`"total_requests":9007199254740993,"last_used_at":"2025-06-30 16:03:44"},"last_use":null,"external_id":"","etag":"3-1a"}`

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	late := time.Date(2026, 5, 30, 22, 23, 16, 999_999_999, time.FixedZone("", 7200))
	tests := map[string]struct {
		give proto.Message
		want string
	}{
		"full": {fullKey(), fullKeyJSON},
		"empty": {&apikeysv1.ApiKey{}, `{"id":"","organization_id":"","label":"","description":"","secret":"",` +
			`"scopes":[],"ip_allow_list":[],"expires_at":null,"created_at":null,"updated_at":null,"created_by":null,"enabled":false,` +
			`"state":"unspecified","mode":"unspecified","key_format":"","owner_id":"","metadata":{},"rate_limit":null,"quota":null,"revoked_at":null,` +
			`"revoke_reason":null,"previous_secret_expires_at":null,"previous_secret_last_used_at":null,"previous_secret_requests":null,"metrics":null,"last_use":null,"external_id":"","etag":""}`},
		"nil": {(*apikeysv1.ApiKey)(nil), `null`},
		"optional unset": {&apikeysv1.VerifyApiKeyResponse{Code: apikeysv1.VerificationCode_VERIFICATION_CODE_NOT_FOUND},
			`{"valid":false,"code":"not_found","api_key":null,"rate_limit":null,"quota":null,"previous_secret":false,"retry_after_seconds":null}`},
		"optional zero": {&apikeysv1.VerifyApiKeyResponse{RetryAfterSeconds: proto.Int32(0)},
			`{"valid":false,"code":"unspecified","api_key":null,"rate_limit":null,"quota":null,"previous_secret":false,"retry_after_seconds":0}`},
		"empty message":      {&apikeysv1.GetApiKeyResponse{ApiKey: nil}, `{"api_key":null}`},
		"enum of the future": {&apikeysv1.RevokeApiKeyRequest{Reason: 99}, `{"id":"","reason":99}`},
		"zone and parts of a second": {&apikeysv1.RateLimitStatus{ResetAt: timestamppb.New(late)},
			`{"limit":0,"remaining":0,"reset_at":"2026-05-30 20:23:16"}`},
		"bytes":        {wrapperspb.Bytes([]byte{0xfb, 0xff}), `{"value":"+/8="}`},
		"uint64":       {wrapperspb.UInt64(math.MaxUint64), `{"value":18446744073709551615}`},
		"int64":        {wrapperspb.Int64(math.MinInt64), `{"value":-9223372036854775808}`},
		"float":        {wrapperspb.Float(0.1), `{"value":0.1}`},
		"no number":    {wrapperspb.Double(math.Inf(1)), `{"value":null}`},
		"escapes":      {wrapperspb.String("\"\\/\b\f\n\r\t\x00\x1f\x7f<&>é\u2028😀"), `{"value":"\"\\/\u0008\u000c\n\r\t\u0000\u001f` + "\x7f<&>é\u2028😀" + `"}`},
		"broken UTF-8": {wrapperspb.String("a\xffb\""), `{"value":"a` + "\uFFFD" + `b\""}`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := wirejson.Append([]byte("x"), tc.give)
			if diff := cmp.Diff("x"+tc.want, string(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if !json.Valid(got[1:]) {
				t.Error("not JSON")
			}
		})
	}
}

func TestAppendStable(t *testing.T) {
	t.Parallel()
	key := fullKey()
	for i := range 40 {
		key.Metadata[strings.Repeat("k", i+1)] = "v"
	}
	want := wirejson.Append(nil, key)
	for range 20 {
		if got := wirejson.Append(nil, proto.CloneOf(key)); string(got) != string(want) {
			t.Fatalf("other bytes:\n%s\n%s", want, got)
		}
	}
}

func TestAppendField(t *testing.T) {
	t.Parallel()
	m := (&apikeysv1.ListApiKeysResponse{NextPageToken: "n"}).ProtoReflect()
	fds := m.Descriptor().Fields()
	got := string(wirejson.AppendField(nil, m, fds.ByName("api_keys"))) + string(wirejson.AppendField(nil, m, fds.ByName("next_page_token")))
	if got != `[]"n"` {
		t.Errorf("got %s", got)
	}
}

func BenchmarkAppend(b *testing.B) {
	key := fullKey()
	b.Run("wire", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = wirejson.Append(buf[:0], key)
		}
	})
	b.Run("protojson", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		o := protojson.MarshalOptions{EmitUnpopulated: true, UseProtoNames: true}
		for b.Loop() {
			buf, _ = o.MarshalAppend(buf[:0], key)
		}
	})
}

func BenchmarkReadRequest(b *testing.B) {
	const verify = `{"key": "sk_live_MDE5N2MwZjEtOTU4OS03N2U0LWJiY2YtNGQ0OWQ4YTM5NzUzX2JpdGdwdA", "scopes": ["products.read"], "ip": "203.0.113.7", "cost": 2}`
	const create = `{"label": "My API Key", "description": "Key for \"accessing\" product APIs", "scopes": ["products.create", "products.read"],
		"ip_allow_list": ["127.0.0.1"], "expires_at": "2026-05-30T20:23:16Z", "metadata": {"team": "billing", "stage": "test"}, "rate_limit": {"requests": 100, "window_seconds": 60}}`
	for name, bench := range map[string]struct {
		body string
		m    proto.Message
	}{
		"verify": {verify, &apikeysv1.VerifyApiKeyRequest{}},
		"create": {create, &apikeysv1.CreateApiKeyRequest{}},
		"patch":  {create, &apikeysv1.UpdateApiKeyRequest{}},
	} {
		body := []byte(bench.body)
		b.Run(name+"/wire", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := wirejson.ReadRequest(body, blank(bench.m), wirejson.Body{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		if name == "patch" {
			continue // protojson knows none
		}
		b.Run(name+"/protojson", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := protojson.Unmarshal(body, blank(bench.m)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAppendWatchJSON(t *testing.T) {
	t.Parallel()
	heartbeat := &apikeysv1.WatchEventsResponse{Cursor: `a"`}
	if got := string(wirejson.AppendWatch(nil, heartbeat)); got != `{"cursor":"a\""}` {
		t.Errorf("heartbeat: %s", got)
	}
	event := &apikeysv1.WatchEventsResponse{Cursor: "b", Event: &apikeysv1.Event{Id: "event_1", Cursor: "b"}}
	if got, want := string(wirejson.AppendWatch(nil, event)), `{"cursor":"b","event":`+string(wirejson.Append(nil, event.GetEvent()))+`}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
