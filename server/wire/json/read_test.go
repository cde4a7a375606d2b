package json_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// blank makes an empty message of the type of m.
func blank(m proto.Message) proto.Message { return m.ProtoReflect().New().Interface() }

func TestReadRequest(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		want proto.Message
	}{
		"seed": {`{
			"label": "My API Key", "description": "Key for accessing product APIs",
			"scopes": ["invoices.create"], "ip_allow_list": ["127.0.0.1"], "expires_at": "2026-05-30 20:23:16" }`,
			&apikeysv1.CreateApiKeyRequest{
				Label: "My API Key", Description: "Key for accessing product APIs", Scopes: []string{"invoices.create"},
				IpAllowList: []string{"127.0.0.1"}, ExpiresAt: at("2026-05-30 20:23:16"),
			}},
		"everything": {`{"enabled": false, "mode": "test", "owner_id": "o", "metadata": {"a": "1", "": ""}, "rate_limit": {"requests": 5, "window_seconds": 1e1}}`,
			&apikeysv1.CreateApiKeyRequest{
				Enabled: proto.Bool(false), Mode: apikeysv1.ApiKeyMode_API_KEY_MODE_TEST, OwnerId: "o",
				Metadata: map[string]string{"a": "1", "": ""}, RateLimit: &apikeysv1.RateLimit{Requests: 5, WindowSeconds: 10},
			}},
		"no body":          {``, &apikeysv1.CreateApiKeyRequest{}},
		"empty":            {" {\t\r\n} ", &apikeysv1.CreateApiKeyRequest{}},
		"null is absent":   {`{"label": null, "scopes": null, "enabled": null, "metadata": null, "rate_limit": null, "expires_at": null}`, &apikeysv1.CreateApiKeyRequest{EmptyScopes: true}},
		"null in a map":    {`{"metadata": {"a": null, "b": "2"}}`, &apikeysv1.CreateApiKeyRequest{Metadata: map[string]string{"b": "2"}}},
		"explicit empty":   {`{"scopes": [], "ip_allow_list": []}`, &apikeysv1.CreateApiKeyRequest{EmptyScopes: true}},
		"unspecified":      {`{"reason": "unspecified"}`, &apikeysv1.RevokeApiKeyRequest{}},
		"escapes":          {`{"\u006cabel": "\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é"}`, &apikeysv1.CreateApiKeyRequest{Label: "\"\\/\b\f\n\r\té😀é"}},
		"zone":             {`{"expires_at": "2026-05-30T22:23:16.5+02:00"}`, &apikeysv1.CreateApiKeyRequest{ExpiresAt: &timestamppb.Timestamp{Seconds: 1780172596, Nanos: 500_000_000}}},
		"zero is not null": {`{"cost": 0}`, &apikeysv1.VerifyApiKeyRequest{Cost: proto.Int32(0)}},
		"whole numbers":    {`{"value": -12.50e1}`, wrapperspb.Int64(-125)},
		"a long zero":      {`{"value": 0.000e99999999999999999999}`, wrapperspb.Int64(0)},
		"a negative zero":  {`{"value": -0}`, wrapperspb.UInt64(0)},
		"the last int64":   {`{"value": 9223372036854775807}`, wrapperspb.Int64(9223372036854775807)},
		"bytes":            {`{"value": "+/8="}`, wrapperspb.Bytes([]byte{0xfb, 0xff})},
		"float":            {`{"value": 1.5e-3}`, wrapperspb.Double(0.0015)},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := blank(tc.want)
			if err := wirejson.ReadRequest([]byte(tc.body), got, wirejson.Body{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestReadRequestProblems(t *testing.T) {
	t.Parallel()
	const (
		wantTime  = "must be a time such as 2026-05-30 20:23:16 or 2026-05-30T20:23:16Z"
		wantWhole = "must be a whole number"
		notNull   = "must not be null: leave it out, or send the one of the resource"
		int32s    = "must be from -2147483648 to 2147483647"
	)
	create, rotate, update, long := &apikeysv1.CreateApiKeyRequest{}, &apikeysv1.RotateApiKeyRequest{}, &apikeysv1.UpdateApiKeyRequest{}, strings.Repeat("x", 90)
	tests := map[string]struct {
		m    proto.Message
		body string
		want []problem
	}{
		"all at once": {create, `{"label": 1, "scopes": ["a", 2, null], "nope": {"x": [1]}, "expires_at": "tomorrow", "enabled": "true",
			"mode": "LIVE", "metadata": {"a": 1, "b": {}}, "rate_limit": {"requests": "5", "window_seconds": 1.5, "burst": 1}, "ip_allow_list": "10.0.0.1"}`,
			[]problem{
				{"label", "must be a string"}, {"scopes[1]", "must be a string"}, {"scopes[2]", "must be a string"}, {"nope", "is not a known field"},
				{"expires_at", wantTime}, {"enabled", "must be true or false"}, {"mode", "must be one of live, test"}, {"metadata.a", "must be a string"},
				{"metadata.b", "must be a string"}, {"rate_limit.requests", wantWhole}, {"rate_limit.window_seconds", wantWhole},
				{"rate_limit.burst", "is not a known field"}, {"ip_allow_list", "must be a list"},
			}},
		"objects":           {create, `{"metadata": [], "rate_limit": 5}`, []problem{{"metadata", "must be an object"}, {"rate_limit", "must be an object"}}},
		"other spelling":    {create, `{"Label": "x", "ipAllowList": []}`, []problem{{"Label", "is not a known field"}, {"ipAllowList", "is not a known field"}}},
		"the marker":        {create, `{"empty_scopes": true}`, []problem{{"empty_scopes", "is not a known field"}}},
		"long names":        {create, `{"` + long + `": 1, "metadata": {"` + long + `": 1}}`, []problem{{long[:20] + "...", "is not a known field"}, {"metadata." + long[:11] + "...", "must be a string"}}},
		"empty names":       {create, `{"": 1, "metadata": {"": 1}, "rate_limit": {"": 1}}`, []problem{{`""`, "is not a known field"}, {`metadata.""`, "must be a string"}, {`rate_limit.""`, "is not a known field"}}},
		"given by the path": {rotate, `{"id": "x"}`, []problem{{"id", "is not a known field"}}},
		"out of range":      {rotate, `{"overlap_seconds": 2147483648}`, []problem{{"overlap_seconds", int32s}}},
		"far out of range":  {rotate, `{"overlap_seconds": -1e400000000000}`, []problem{{"overlap_seconds", int32s}}},
		"a fraction":        {rotate, `{"overlap_seconds": 1e-1}`, []problem{{"overlap_seconds", wantWhole}}},
		"a number as text":  {rotate, `{"overlap_seconds": "1"}`, []problem{{"overlap_seconds", wantWhole}}},
		"negative unsigned": {&wrapperspb.UInt32Value{}, `{"value": -1}`, []problem{{"value", "must be from 0 to 4294967295"}}},
		"base64":            {&wrapperspb.BytesValue{}, `{"value": "!"}`, []problem{{"value", "must be a string of base64"}}},
		"a wild float":      {&wrapperspb.DoubleValue{}, `{"value": 1e999}`, []problem{{"value", "is out of range"}}},
		"read-only":         {update, `{"id": "x", "secret": "s", "created_at": null, "mode": "live"}`, []problem{{"secret", "is read-only"}, {"created_at", "is read-only"}, {"mode", "is read-only"}}},
		"an empty etag":     {update, `{"etag": ""}`, []problem{{"etag", "must not be empty"}}},
		"a null etag":       {update, `{"etag": null, "id": null}`, []problem{{"etag", notNull}, {"id", notNull}}},
		"an empty id":       {update, `{"id": ""}`, []problem{{"id", "must not be empty"}}},
		"an id of numbers":  {update, `{"id": 1}`, []problem{{"id", "must be a string"}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			err := wirejson.ReadRequest([]byte(tc.body), blank(tc.m), wirejson.Body{Bound: []string{"id"}})
			var fields *apikey.Error
			if !errors.As(err, &fields) {
				t.Fatalf("got %v", err)
			}
			var got []problem
			for _, f := range fields.Fields {
				got = append(got, problem(f))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// problem is an [apikey.FieldProblem] in fewer words.
type problem struct{ Field, Problem string }

func TestReadRequestTimes(t *testing.T) {
	t.Parallel()
	for s, ok := range map[string]bool{
		"2026-05-30 20:23:16": true, "2026-05-30T20:23:16Z": true, "2026-05-30T20:23:16.123456789-11:30": true,
		"0001-01-01 00:00:00": true, "9999-12-31 23:59:59": true,
		"9999-12-31T23:59:59-01:00": false, "0001-01-01T00:00:00+00:01": false,
		"": false, "2026-05-30": false, "2026-05-30 20:23": false, "2026-05-30T20:23:16": false, "2026-05-30 20:23:16Z": false,
		"2026-05-30 1:23:16.": false, "2026-05-30T1:23:16Z": false, "2026-05-30T01:23:16.Z": false, "2026-05-30T20:23:16-00:00": true,
		"2026-05-30T20:23:16+24:00": false, "2026-05-30T20:23:16+23:60": false, "2026-05-30T20:23:16+23:59": true, "2026-05-30T20:23:16+1:00": false,
		"2026-05-30T20:23:16+0100": false, "2026-05-30 2:23:16.5": false, "2026-05-30T20:23Z": false, "2026-05-30T20:23:60Z": false, "2026-02-29 00:00:00": false, "2026-05-30 24:00:00": false, "2026-05-30 23:59:60": false,
		"2026-05-30T20:23:16+25:00": false, "2026-05-30T20:23:16,5Z": false, "10000-01-01 00:00:00": false, "2026-05-30t20:23:16z": false,
		" 026-05-30 20:23:16": false, "1780172596": false,
	} {
		err := wirejson.ReadRequest([]byte(`{"expires_at": "`+s+`"}`), &apikeysv1.CreateApiKeyRequest{}, wirejson.Body{})
		if (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestReadRequestRequired(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{}`: "label is required", ``: "label is required", `{"label": null}`: "label is required",
		`{"label": 1}`: "label must be a string", `{"scopes": 1}`: "scopes must be a list; label is required", `{"label": ""}`: "",
	} {
		err := wirejson.ReadRequest([]byte(body), &apikeysv1.UpdateApiKeyRequest{}, wirejson.Body{Required: []string{"label"}})
		if got := errString(err); got != want {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
}

func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestReadRequestSyntax(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		" ":                                    "unexpected end at line 1, column 2",
		"[]":                                   "expected an object at line 1, column 1",
		"null":                                 "expected an object at line 1, column 1",
		"\ufeff{}":                             "expected an object at line 1, column 1",
		"{":                                    "unexpected end at line 1, column 2",
		"{} {}":                                "something after the object at line 1, column 4",
		"{},":                                  "something after the object at line 1, column 3",
		"{\n\"label\": \"x\"\n \"q\": 1}":      "expected a comma or } at line 3, column 2",
		`{"label": "x",}`:                      "a comma without an element beside it at line 1, column 14",
		`{"scopes": ["x",]}`:                   "a comma without an element beside it at line 1, column 16",
		`{,}`:                                  "a comma without an element beside it at line 1, column 2",
		`{label: "x"}`:                         "expected a name in double quotes at line 1, column 2",
		`{'label': "x"}`:                       "expected a name in double quotes at line 1, column 2",
		`{"label" "x"}`:                        "expected a colon at line 1, column 10",
		`{"label": }`:                          "expected a value at line 1, column 11",
		`{"label": 'x'}`:                       "expected a value at line 1, column 11",
		`{"label": nul}`:                       "expected a value at line 1, column 14",
		`{"label": nullx}`:                     "expected a comma or } at line 1, column 15",
		`{"label": "x`:                         "unexpected end at line 1, column 13",
		`{"label": "\`:                         "unexpected end at line 1, column 13",
		`{"label": "\x"}`:                      "an invalid escape in a string at line 1, column 12",
		`{"label": "\ud800"}`:                  "an invalid escape in a string at line 1, column 12",
		`{"label": "\ud800\u0041"}`:            "an invalid escape in a string at line 1, column 12",
		`{"label": "\udc00\ud800"}`:            "an invalid escape in a string at line 1, column 12",
		`{"label": "\u12g4"}`:                  "an invalid escape in a string at line 1, column 12",
		"{\"label\": \"a\nb\"}":                "a control character in a string at line 1, column 13",
		"{\"label\": \"a\xffb\"}":              "a byte that is not UTF-8 at line 1, column 13",
		"{\"label\": \"a\xe2\x82":              "unexpected end at line 1, column 15",
		`{"label": 01}`:                        "expected a comma or } at line 1, column 12",
		`{"label": 1.}`:                        "a number without a digit where one must be at line 1, column 13",
		`{"label": 1e}`:                        "a number without a digit where one must be at line 1, column 13",
		`{"label": -}`:                         "a number without a digit where one must be at line 1, column 12",
		`{"label": +1}`:                        "expected a value at line 1, column 11",
		`{"label": .5}`:                        "expected a value at line 1, column 11",
		`{"label": NaN}`:                       "expected a value at line 1, column 11",
		`{"label": 1, "label": 1}`:             "a name that was there before at line 1, column 14",
		`{"label": 1, "l\u0061bel": 1}`:        "a name that was there before at line 1, column 14",
		`{"x": 1, "x": 1}`:                     "a name that was there before at line 1, column 10",
		`{"x": {"y": 1, "y": 1}}`:              "a name that was there before at line 1, column 16",
		`{"metadata": {"a": null, "a": ""}}`:   "a name that was there before at line 1, column 26",
		`{"x": ` + strings.Repeat("[", 40):     "nested too deep at line 1, column 38",
		`{"x": ` + strings.Repeat(`{"x":`, 40): "nested too deep at line 1, column 162",
		`{"label": 1]`:                         "expected a comma or } at line 1, column 12",
		`{"scopes": []]`:                       "expected a comma or } at line 1, column 14",
		`{"scopes": [}`:                        "expected a value at line 1, column 13",
		`{"label"}`:                            "expected a colon at line 1, column 9",
		`{"label":`:                            "unexpected end at line 1, column 10",
		`{"label": {1: 2}}`:                    "expected a name in double quotes at line 1, column 12",
		`{"metadata": {[1]: 2}}`:               "expected a name in double quotes at line 1, column 15",
		`{null: 2}`:                            "expected a name in double quotes at line 1, column 2",
		"{\xff}":                               "expected a name in double quotes at line 1, column 2",
		"{} \xff":                              "something after the object at line 1, column 4",
		`{"label": // comment` + "\n" + `1}`:   "expected a value at line 1, column 11",
		`{"nope": 1, "label": 2, "scopes": [1, "x", "mode": 1}`: "expected a comma or ] at line 1, column 50",
	}
	for body, want := range tests {
		err := wirejson.ReadRequest([]byte(body), &apikeysv1.CreateApiKeyRequest{}, wirejson.Body{})
		var syntax *wirejson.SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%s: got %v", body, err)
		} else if got := strings.TrimPrefix(err.Error(), "the body is not valid JSON: "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
	}
}

func TestReadJSON(t *testing.T) {
	t.Parallel()
	var got apikeysv1.ApiKey
	if err := wirejson.Read([]byte(fullKeyJSON), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullKey(), &got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
