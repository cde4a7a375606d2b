package server_test

import (
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// secretOf returns a new secret of a prefix, which no server knows.
func secretOf(t *testing.T, prefix string) string {
	t.Helper()
	secret, err := apikey.NewSecret(prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	return secret.Reveal()
}

// TestKeyFormats plays keys of formats of one's own.
func TestKeyFormats(t *testing.T) {
	w := newHarness(t, func(c *server.Config) {
		c.KeyFormats = apikey.KeyFormats{{Name: "acme", Prefix: "acme_live_", Mode: "live"}, {Name: "try", Prefix: "acme_test_", Mode: "test"}, {Name: "ci", Prefix: "ci_", Mode: "live"}}
	})
	created := func(members, data string) step {
		return step{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["*"]` + members + `}`, save: "k", data: data}
	}
	refused := func(members, fields string) step {
		return step{rpc: "CreateApiKey", body: `{"label": "k"` + members + `}`, want: "INVALID_ARGUMENT", field: fields}
	}
	valid := step{rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`, data: `{"code": "valid", "api_key": {"id": "$k.id"}}`}
	verified := func(key, code string) step {
		return step{rpc: "VerifyApiKey", body: `{"key": "` + key + `"}`, data: `{"code": "` + code + `", "api_key": null}`}
	}
	used := step{rpc: "GetApiKey", as: "$k.secret", id: "$k.id"}
	w.play(t, map[string]scenario{
		"the first of the mode": {
			created(``, `{"key_format": "acme", "mode": "live"}`), valid, used,
			created(`, "mode": "test"`, `{"key_format": "try", "mode": "test"}`), valid, used,
			created(`, "key_format": ""`, `{"key_format": "acme"}`), created(`, "key_format": null`, `{"key_format": "acme"}`),
		},
		"by its name": {
			created(`, "key_format": "ci"`, `{"key_format": "ci", "mode": "live"}`), valid, used,
			{rpc: "BatchVerifyApiKeys", body: `{"keys": [{"key": "$k.secret"}]}`, data: `[{"code": "valid"}]`},
			created(`, "key_format": "try", "mode": "test"`, `{"key_format": "try", "mode": "test"}`), valid,
			{rpc: "GetApiKey", id: "$k.id", data: `{"key_format": "try"}`},
		},
		"refused": {
			refused(`, "key_format": "sk_live"`, "key_format"), refused(`, "key_format": "acme_live_"`, "key_format"), refused(`, "key_format": "ACME"`, "key_format"),
			refused(`, "key_format": "`+strings.Repeat("a", 33)+`"`, "key_format"), refused(`, "key_format": "`+secretOf(t, "ci_")+`"`, "key_format"),
			refused(`, "key_format": "try"`, "key_format"), refused(`, "key_format": "ci", "mode": "test"`, "key_format"),
			refused(`, "key_format": "x", "mode": "test", "scopes": ["x"], "quota": {"limit": 0}`, "key_format scopes[0] quota.limit"),
			step{rpc: "CreateApiKey", body: `{"key_format": 1, "label": "k"}`, want: "INVALID_ARGUMENT", field: "key_format", only: "rest"},
		},
		"fixed": {
			created(`, "key_format": "ci"`, ``),
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"key_format": "acme"}`, want: "INVALID_ARGUMENT", field: "key_format"},
			{rpc: "UpdateApiKey", id: "$k.id", verb: "PUT", body: `{"label": "l", "key_format": "acme"}`, data: `{"key_format": "ci"}`, only: "rest"},
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`, save: "k", data: `{"key_format": "ci"}`}, valid, used,
		},
		"recognised by their end": {
			verified(secretOf(t, "ci_"), "not_found"), verified(secretOf(t, "other_vendor_"), "not_found"), verified(secretOf(t, "sk_live_"), "not_found"), verified(secretOf(t, "a_"), "not_found"),
			verified(secretOf(t, "root_"), "malformed"), verified(secretOf(t, "opt_"), "malformed"), verified(secretOf(t, "whsec_"), "malformed"),
			verified(secretOf(t, "A_"), "malformed"), verified(secretOf(t, "_"), "malformed"), verified(secretOf(t, ""), "malformed"), verified(secretOf(t, "a__"), "malformed"),
			verified(secretOf(t, "abcdefghij_abcdefghij_ab_"), "malformed"), verified("ci_"+secretOf(t, "acme_live_")[len("acme_live_"):], "malformed"),
			created(``, ``), verified("x$k.secret", "malformed"), verified("x_$k.secret", "malformed"), verified("$k.secret0", "malformed"),
		},
		"as credentials": {
			{rpc: "ListApiKeys", as: secretOf(t, "ci_"), want: "UNAUTHENTICATED"}, {rpc: "ListApiKeys", as: secretOf(t, "other_vendor_"), want: "UNAUTHENTICATED"},
			{rpc: "ListApiKeys", as: secretOf(t, "root_"), want: "UNAUTHENTICATED"}, {rpc: "ListApiKeys", as: secretOf(t, "opt_"), want: "UNAUTHENTICATED"}, {rpc: "ListApiKeys", as: "ci_", want: "UNAUTHENTICATED"},
			{rpc: "ListApiKeys", as: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.a_" + strings.Repeat("0", 49), want: "UNAUTHENTICATED"},
			{rpc: "CreateApiKey", body: `{"label": "k", "key_format": "ci"}`, save: "k"}, {rpc: "ListApiKeys", as: "$k.secret", want: "INSUFFICIENT_SCOPE"}, {rpc: "ListApiKeys", as: "$k.secret", head: "X-Organization-Id: org_other", want: "WRONG_ORGANIZATION"},
		},
		"pasted": {
			created(`, "key_format": "ci"`, ``), {rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "see $k.secret"}`, want: "INVALID_ARGUMENT", field: "label"},
			refused(`, "owner_id": "`+secretOf(t, "other_vendor_")+`"`, "owner_id"),
		},
	})
	// The masks are of the prefix and 12 characters, and the events tell the format.
	for prefix, format := range map[string]string{"acme_live_": "acme", "ci_": "ci"} {
		w.take(t, format, "rest", created(`, "key_format": "`+format+`"`, ``))
		secret := w.saved["k.secret"]
		if !strings.HasPrefix(secret, prefix) || len(secret) != len(prefix)+49 {
			t.Errorf("the secret of the format %s is %s", format, secret)
		}
		mask := secret[:len(prefix)+12] + "..." + secret[len(secret)-5:]
		w.take(t, format, "rest", step{rpc: "GetApiKey", id: "$k.id", data: `{"secret": "` + mask + `", "key_format": "` + format + `"}`})
		events := string(w.Call(t, "GET", "/developers/events?resource_ids="+w.saved["k.id"], "").Body)
		if !strings.Contains(events, `"key_format":"`+format+`"`) || !strings.Contains(events, mask) {
			t.Errorf("the event of a key of the format %s is %s", format, events)
		}
	}
	// A part of a secret is no secret, and yet the log does not show it.
	_, _, _ = w.send(t, w.fill("GET /developers/"+w.saved["k.secret"][:30]+" HTTP/1.1"))
	w.Stop()
	if log := w.Log.String(); strings.Contains(log, w.saved["k.secret"][:24]) || !strings.Contains(log, apikey.Redacted) {
		t.Error("the log shows a part of a secret")
	}
}

// TestFormatsOfBefore plays keys whose formats the server has no longer: they work,
// and the next secret has a format that the server has.
func TestFormatsOfBefore(t *testing.T) {
	formats := func(text ...string) func(*server.Config) {
		return func(c *server.Config) {
			for _, part := range text {
				format, err := apikey.ParseKeyFormat(part)
				if err != nil {
					t.Fatal(err)
				}
				c.KeyFormats = append(c.KeyFormats, format)
			}
		}
	}
	before := newHarness(t, formats("old=old_:live", "new=new_:live", "try=oldtest_:test"))
	protocols := []string{"rest", "grpc"}
	for _, protocol := range protocols {
		for _, key := range []string{"old", "new", "try", "end"} {
			format, mode := key, "live"
			if key == "try" || key == "end" {
				format, mode = "try", "test"
			}
			before.take(t, key, protocol, step{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["*"], "key_format": "` + format + `", "mode": "` + mode + `"}`, save: key + protocol})
		}
	}
	before.Stop()
	w := newHarness(t, formats("next=next_:live", "new=newer_:live"), func(c *server.Config) { c.DataDir = before.Dir })
	for _, protocol := range protocols {
		for name, value := range before.saved {
			if key, ok := strings.CutSuffix(name, protocol+".id"); ok {
				w.saved[key+".id"] = value
			}
			if key, ok := strings.CutSuffix(name, protocol+".secret"); ok {
				w.saved[key+".secret"] = value
			}
		}
		for i, s := range []step{
			{rpc: "VerifyApiKey", body: `{"key": "$old.secret"}`, data: `{"code": "valid", "api_key": {"key_format": "old"}}`},
			{rpc: "GetApiKey", id: "$old.id", as: "$old.secret", data: `{"key_format": "old"}`},
			{rpc: "UpdateApiKey", id: "$old.id", body: `{"label": "x"}`, data: `{"key_format": "old"}`},
			{rpc: "UpdateApiKey", id: "$old.id", body: `{"label": "see $old.secret"}`, want: "INVALID_ARGUMENT", field: "label"},
			{rpc: "CreateApiKey", body: `{"label": "k", "key_format": "old"}`, want: "INVALID_ARGUMENT", field: "key_format"},
			{rpc: "RotateApiKey", id: "$old.id", body: `{"overlap_seconds": 60}`, save: "k", data: `{"key_format": "next"}`},
			{rpc: "VerifyApiKey", body: `{"key": "$old.secret"}`, data: `{"code": "valid", "previous_secret": true, "api_key": {"key_format": "next"}}`},
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`, data: `{"code": "valid", "previous_secret": false}`},
			// A format that has kept its name.
			{rpc: "VerifyApiKey", body: `{"key": "$new.secret"}`, data: `{"code": "valid", "api_key": {"key_format": "new"}}`},
			{rpc: "RotateApiKey", id: "$new.id", body: endNow, save: "k", data: `{"key_format": "new"}`},
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`, data: `{"code": "valid"}`},
			// A mode that has no format any more.
			{rpc: "VerifyApiKey", body: `{"key": "$try.secret"}`, data: `{"code": "valid", "api_key": {"key_format": "try", "mode": "test"}}`},
			{rpc: "RotateApiKey", id: "$try.id", body: endNow, want: "NO_KEY_FORMAT"},
			{rpc: "VerifyApiKey", body: `{"key": "$try.secret"}`, data: `{"code": "valid"}`},
			{rpc: "CreateApiKey", body: `{"label": "k", "mode": "test"}`, want: "INVALID_ARGUMENT", field: "mode"},
			{rpc: "CreateApiKey", body: `{"label": "k", "mode": "test", "scopes": ["x"]}`, want: "INVALID_ARGUMENT", field: "mode scopes[0]"},
			{rpc: "CreateApiKey", body: `{"label": "k", "mode": "test", "key_format": "next"}`, want: "INVALID_ARGUMENT", field: "key_format"},
			{rpc: "RevokeApiKey", id: "$end.id"}, {rpc: "RotateApiKey", id: "$end.id", body: endNow, want: "API_KEY_REVOKED"},
		} {
			if !w.take(t, s.rpc, protocol, s) {
				t.Fatalf("step %d over %s", i+1, protocol)
			}
		}
		if !strings.HasPrefix(w.saved["k.secret"], "newer_") {
			t.Error("the new secret has not the prefix that the format has now")
		}
	}
}

// TestSharedPrefixesAreTold has one line in the log of a production server whose
// keys scanners take for another vendor's.
func TestSharedPrefixesAreTold(t *testing.T) {
	const line = "Secret scanners take the keys of this server for another vendor's"
	own := apikey.KeyFormats{{Name: "a", Prefix: "acme_", Mode: "live"}}
	for name, c := range map[string]struct {
		env     string
		formats apikey.KeyFormats
		want    int
	}{
		"in production":      {server.Production, nil, 1},
		"one of them":        {server.Production, append(own, apikey.DefaultKeyFormats()[1]), 1},
		"with one's own":     {server.Production, own, 0},
		"while one develops": {server.Development, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHarness(t, func(c2 *server.Config) { c2.Env, c2.KeyFormats = c.env, c.formats })
			if got := strings.Count(w.Log.String(), line); got != c.want {
				t.Errorf("the log has %d such lines, want %d", got, c.want)
			}
		})
	}
}
