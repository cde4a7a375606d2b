package server_test

import (
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestNoSecretIsKept issues secrets, puts them wherever a caller can put a text,
// and then searches all that the server wrote: its files and its log.
func TestNoSecretIsKept(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	issued := make(map[string]bool)
	note := func() { issued[w.saved["k.secret"]] = true }
	do := func(protocol string, s step) answer {
		s.id, s.body, s.as, s.head = w.fill(s.id), w.fill(s.body), w.fill(s.as), w.fill(s.head)
		if protocol == "rest" {
			return w.rest(t, s)
		}
		return w.grpc(t, s)
	}
	for _, protocol := range []string{"rest", "grpc"} {
		for _, mode := range []string{"live", "test"} {
			w.take(t, "create", protocol, step{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["*"], "mode": "` + mode + `", "rate_limit": {"requests": 1000, "window_seconds": 1}}`, save: "k"})
			note()
			w.take(t, "rotate", protocol, step{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 3600}`, save: "k"})
			note()
			// Texts that are kept refuse a secret, wherever in them it stands.
			for field, value := range map[string]string{
				"label": `"$k.secret"`, "description": `"see sk_live_ or sk_$k.secret, please"`, "owner_id": `"a$k.secretz"`, "metadata": `{"a": "x $k.secret"}`,
			} {
				members := `"` + field + `": ` + value
				w.take(t, field, protocol, step{rpc: "UpdateApiKey", id: "$k.id", body: "{" + members + "}", want: "INVALID_ARGUMENT", field: field})
				if field != "label" {
					members = `"label": "x", ` + members
				}
				w.take(t, field, protocol, step{rpc: "CreateApiKey", body: "{" + members + "}", want: "INVALID_ARGUMENT", field: field})
			}
			w.take(t, "key of metadata", protocol, step{rpc: "UpdateApiKey", id: "$k.id", body: `{"metadata": {"$k.secret": ""}}`, want: "INVALID_ARGUMENT", field: "metadata"})
			w.take(t, "organization", protocol, step{rpc: "CreateApiKey", body: `{"label": "x"}`, head: "X-Organization-Id: $k.secret", want: "INVALID_ARGUMENT", field: "x-organization-id"})
			for _, s := range []step{
				{rpc: "ListApiKeys", as: "$k.secret"}, {rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`}, {rpc: "VerifyApiKey", as: "$k.secret", body: `{"key": "$k.secret", "cost": 1000000}`},
				{rpc: "GetApiKey", id: "$k.secret"}, {rpc: "UpdateApiKey", id: "$k.secret", body: `{"label": "x"}`}, {rpc: "DeleteApiKey", id: "x$k.secret"}, {rpc: "RotateApiKey", body: endNow, id: "api_key_$k.secret"},
				{rpc: "ListApiKeys", body: "page_token=$k.secret"}, {rpc: "ListApiKeys", body: "q=$k.secret&owner_id=$k.secret"}, {rpc: "ListApiKeys", body: "$k.secret=1"}, {rpc: "ListApiKeys", body: "state=$k.secret"}, {rpc: "ListApiKeys", body: "expires_before=$k.secret"},
				{rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["$k.secret"]}`}, {rpc: "CreateApiKey", body: `{"label": "x", "ip_allow_list": ["$k.secret"]}`}, {rpc: "CreateApiKey", body: `{"label": "x", "mode": "$k.secret"}`},
				{rpc: "CreateApiKey", body: `{"label": "x", "$k.secret": 1}`}, {rpc: "CreateApiKey", body: `{"label": "x", "expires_at": "$k.secret"}`}, {rpc: "CreateApiKey", body: `{"label": "x", "metadata": {"$k.secret": 1}}`},
				{rpc: "CreateApiKey", body: `{"label": "x", "metadata": {"_$k.secret\n": "y"}}`}, {rpc: "CreateApiKey", body: `{"label": "x", "metadata": {"$k.secret$k.secret": "\u0000"}}`},
				{rpc: "UpdateApiKey", id: "$k.id", body: `{"etag": "$k.secret"}`}, {rpc: "UpdateApiKey", id: "$k.id", body: `{"id": "$k.secret"}`}, {rpc: "UpdateApiKey", id: "$k.id", body: `{"rate_limit": {"$k.secret": 1}}`},
				{rpc: "RevokeApiKey", id: "$k.id", body: `{"reason": "$k.secret"}`}, {rpc: "VerifyApiKey", body: `{"key": "x", "scopes": ["$k.secret", "$k.secret$k.secret$k.secret"]}`}, {rpc: "VerifyApiKey", body: `{"key": "x", "ip": "$k.secret"}`},
				{rpc: "ListApiKeys", as: "-", head: "X-Api-Key: $k.secret\nAuthorization: " + servertest.RootToken}, {rpc: "ListApiKeys", as: "-", head: "Authorization: Basic $k.secret"}, {rpc: "ListApiKeys", as: "$k.secret", head: "X-Organization-Id: $k.secret"},
				{rpc: "ListApiKeys", head: "X-Forwarded-For: $k.secret\nUser-Agent: $k.secret"},
				{rpc: "GetApiKey", id: servertest.RootToken}, {rpc: "ListApiKeys", body: "page_token=" + servertest.RootToken}, {rpc: "VerifyApiKey", body: `{"key": "` + servertest.RootToken + `"}`}, {rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["` + servertest.RootToken + `"]}`},
			} {
				a := do(protocol, s)
				for secret := range issued {
					if strings.Contains(a.text, secret) || strings.Contains(strings.Join(values(a.validator), " "), secret) {
						t.Errorf("%s tells a secret: %s %v", s.rpc, a.text, a.validator)
					}
				}
			}
			for _, line := range []string{
				"GET /$k.secret HTTP/1.1", "GET /developers/$k.secret/x HTTP/1.1\n<auth>", "DELETE /developers/api_keys/$k.secret HTTP/1.1\n<auth>", "$k.secret /developers/api_keys HTTP/1.1\n<auth>",
				"POST /developers/api_keys/verify?key=$k.secret HTTP/1.1\n<auth>\n\n{}", "GET /developers/api_keys?$k.secret HTTP/1.1\n<auth>", "POST /developers/api_keys HTTP/1.1\n<auth>\nContent-Type: $k.secret\n\n{\"$k.secret",
				"PATCH /developers/api_keys/$k.id HTTP/1.1\n<auth>\nIf-Match: \"$k.secret\"\n\n{}", "GET /developers/api_keys HTTP/1.1\n<auth>\nAccept: $k.secret", "PATCH /developers/api_keys/" + url.PathEscape("$") + "k HTTP/1.1\n\n$k.secret",
				"GET /" + servertest.RootToken + " HTTP/1.1",
			} {
				_, _, text := w.send(t, w.fill(line))
				if strings.Contains(string(text), w.saved["k.secret"]) {
					t.Errorf("%s tells a secret: %s", line, text)
				}
			}
			w.take(t, "revoke", protocol, step{rpc: "RevokeApiKey", id: "$k.id", body: `{"reason": "key_compromise"}`})
		}
	}
	w.Stop()
	all := files(t, w.Dir)
	if w.OnPostgres() { // In a row, bytes are shown in hex.
		for _, table := range w.column(t, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") {
			all[table] = strings.Join(w.column(t, "SELECT CAST(r AS text) FROM "+table+" AS r"), "\n")
		}
	}
	if all["log"] = w.Log.String(); len(issued) != 8 || len(all) < 3 || !strings.Contains(all["log"], "level=DEBUG") {
		t.Fatalf("%d secrets, %d files, or no log at debug level", len(issued), len(all))
	}
	for path, text := range all {
		for secret := range issued {
			if strings.Contains(text, secret) || strings.Contains(text, secret[8:51]) || strings.Contains(text, hex.EncodeToString([]byte(secret[8:51]))) {
				t.Errorf("%s holds a secret: %.200s", path, text[max(0, strings.Index(text, secret[8:51])-100):])
			}
		}
		if strings.Contains(text, servertest.RootToken) {
			t.Errorf("%s holds the root token", path)
		}
	}
}

func values(m map[string]string) []string {
	all := make([]string, 0, 2*len(m))
	for name, value := range m {
		all = append(all, name, value)
	}
	return all
}

// files returns everything that a server wrote, by path.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		found[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
