package json_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"testing"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// FuzzReadRequest feeds one body to each kind of request. Whatever is taken
// must be JSON for others too, and must read the same after it was written.
func FuzzReadRequest(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `{"label": "x", "scopes": [], "expires_at": "2026-05-30 20:23:16"}`, fullKeyJSON,
		`{"key": "sk_live_x", "scopes": ["a"], "ip": "::1", "cost": 1.0e2}`,
		`{"expires_at": "2026-05-30T22:23:16.5+02:00", "metadata": {"a": null, "b": "\ud83d\ude00"}, "rate_limit": {"requests": 5}}`,
		"{\"metadata\": {\"`\": \"\"}, \"rate_limit\": null, \"etag\": \"e\", \"id\": \"i\", \"label\": null}",
		`{"label": 1, "label": 2}`, `{"cost": -0}`, `{"mode": "unspecified"}`, `[[[[`, `{"a": {"b": [1, {}]}}`, `{"label": "\ud800"}`, "{\"label\": \"\xff\"}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, m := range []proto.Message{&apikeysv1.CreateApiKeyRequest{}, &apikeysv1.UpdateApiKeyRequest{}, &apikeysv1.VerifyApiKeyRequest{}} {
			readStable(t, body, m, func(b []byte, m proto.Message) error {
				return wirejson.ReadRequest(b, m, wirejson.Body{Bound: []string{"id"}})
			})
		}
		readStable(t, body, &apikeysv1.ApiKey{}, wirejson.Read)
	})
}

func readStable(t *testing.T, body []byte, m proto.Message, read func([]byte, proto.Message) error) {
	t.Helper()
	err := read(body, m)
	var fields *apikey.Error
	var syntax *wirejson.SyntaxError
	switch {
	case errors.As(err, &fields):
		if len(fields.Fields) == 0 {
			t.Error("an error without problems")
		}
		return
	case errors.As(err, &syntax):
		if syntax.Offset < 0 || syntax.Offset > len(body) || syntax.Line < 1 || syntax.Column < 1 {
			t.Errorf("an error at %+v of %d bytes", syntax, len(body))
		}
		return
	case err != nil:
		t.Fatalf("an error of type %T", err)
	}
	if len(body) > 0 && !json.Valid(body) {
		t.Errorf("took %q", body)
	}
	once := wirejson.Append(nil, m)
	if !json.Valid(once) {
		t.Errorf("wrote %q", once)
	}
	again := blank(m)
	if err := wirejson.Read(once, again); err != nil {
		t.Fatalf("%s: %v", once, err)
	}
	if twice := wirejson.Append(nil, again); string(twice) != string(once) {
		t.Errorf("first\n%s\nthen\n%s", once, twice)
	}
}

func FuzzReadQuery(f *testing.F) {
	for _, q := range []string{"", "page_size=5&state=active", "q=%ff", "expires_before=2026-05-30+20:23:16", "page_size=1e9&q=a&q=b"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		query, err := url.ParseQuery(q)
		if err != nil {
			return
		}
		m := &apikeysv1.ListApiKeysRequest{}
		if err := wirejson.ReadQuery(query, m); err != nil {
			return
		}
		if _, err := proto.Marshal(m); err != nil {
			t.Errorf("%q: %v", q, err)
		}
	})
}
