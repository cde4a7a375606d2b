package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

var line = func(text string) string { return strings.TrimSuffix(text, "\n") }

// TestKeys drives a key through its life.
func TestKeys(t *testing.T) {
	t.Parallel()
	sh := newHarness(t)
	secret, notes, err := sh.try("keys", "create", "--label", "shop", "--owner", "anna", "--scopes", "products.read,products.update",
		"--expires-at", "90d", "--rate-limit", "100/1m", "--quota", "1000/monthly@15", "--metadata", "env=prod", "--metadata", "a,b=c;d",
		"--ip-allow-list", "10.0.0.0/8", "--description", "of the shop", "--external-id", "shop-1")
	if err != nil || !apikey.IsSecret(line(secret)) || strings.Contains(notes, line(secret)) {
		t.Fatalf("create: %q %q", secret, notes)
	}
	id := regexp.MustCompile(`api_key_[0-9a-f-]{36}`).FindString(notes)
	var key struct {
		Label, Owner_ID, Description, External_ID, Expires_At, Secret string
		Scopes, IP_Allow_List                                         []string
		Metadata                                                      map[string]string
		Rate_Limit                                                    struct{ Requests, Window_Seconds int }
		Quota                                                         struct {
			Limit, Refill_Day int
			Refill            string
		}
		Enabled bool
		State   string
	}
	get := func() {
		t.Helper()
		key.Metadata, key.Scopes = nil, nil
		if err := json.Unmarshal([]byte(sh.run("keys", "get", id, "-o", "json")), &key); err != nil {
			t.Fatal(err)
		}
	}
	get()
	if key.Label != "shop" || key.Owner_ID != "anna" || key.Rate_Limit.Requests != 100 || key.Rate_Limit.Window_Seconds != 60 || key.Quota.Limit != 1000 ||
		key.Quota.Refill != "monthly" || key.Quota.Refill_Day != 15 || key.Metadata["a,b"] != "c;d" || len(key.Scopes) != 2 || key.IP_Allow_List[0] != "10.0.0.0/8" ||
		key.Description != "of the shop" || key.External_ID != "shop-1" || key.Expires_At == "" {
		t.Errorf("the key is %+v", key)
	}

	sh.run("keys", "update", id, "--label", "shop 2", "--metadata", "env=test", "--clear", "owner_id,rate-limit,metadata.a,b", "--clear", "expires_at")
	want := `"label":"shop 2"`
	if got := sh.run("keys", "get", id, "-o", "json"); !strings.Contains(got, want) || !strings.Contains(got, `"metadata":{"env":"test"}`) || !strings.Contains(got, `"expires_at":null`) || !strings.Contains(got, `"rate_limit":null`) {
		t.Errorf("after the update: %s", got)
	}
}

// TestUpdateKeys sets and clears each field.
func TestUpdateKeys(t *testing.T) {
	t.Parallel()
	sh := newHarness(t)
	id := line(sh.run("keys", "create", "--label", "x", "--owner", "o", "--rate-limit", "1/1s", "--quota", "5", "--metadata", "a=1", "--metadata", "b`=2", "--expires-at", "1d", "-o", "id"))
	show := func(path string) string { return line(sh.run("keys", "get", id, "-o", "jsonpath="+path)) }
	sh.run("keys", "update", id, "--metadata", "c=3", "--clear", "owner,rate-limit,quota,expires_at,metadata.b`")
	for path, want := range map[string]string{"owner_id": "", "rate_limit": "null", "quota": "null", "expires_at": "null", "metadata": `{"a":"1","c":"3"}`, "label": "x"} {
		if got := show("$." + path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	for args, want := range map[string]string{
		"":                           "nothing to change",
		"--clear label":              "--clear: must be one of description",
		"--clear owner_id --owner x": "owner_id is set and cleared in one command",
		"--rate-limit many":          "must be REQUESTS/WINDOW such as 100/1m",
		"--quota 5/hourly":           "must be LIMIT, LIMIT/daily",
		"--expires-at soon":          "must be a time span such as 90d",
	} {
		if got := sh.fail(2, append([]string{"keys", "update", id}, strings.Fields(args)...)...); !strings.Contains(got, want) {
			t.Errorf("%s: %s", args, got)
		}
	}
	if got := sh.fail(1, "keys", "update", id, "--expires-at", "2020-01-01"); !strings.Contains(got, "expires_at") {
		t.Errorf("the past: %s", got)
	}
	if got := sh.fail(1, "keys", "update", id, "--label", "y", "--etag", "old"); !strings.Contains(got, "ETAG_MISMATCH") || !strings.Contains(got, "get it again") {
		t.Errorf("an old etag: %s", got)
	}
	if state := line(sh.run("keys", "disable", id, "-o", "jsonpath=$.state")); state != "disabled" {
		t.Errorf("disabled: %s", state)
	}
	if state := line(sh.run("keys", "enable", id, "-o", "jsonpath=$.state")); state != "active" {
		t.Errorf("enabled: %s", state)
	}
	if got := line(sh.run("keys", "revoke", id, "--reason", "superseded", "-o", "jsonpath=$.revoke_reason")); got != "superseded" {
		t.Errorf("revoked: %s", got)
	}
	if got := line(sh.run("keys", "delete", id)); got != id {
		t.Errorf("deleted: %s", got)
	}
	if got := sh.fail(1, "keys", "get", id); !strings.Contains(got, "API_KEY_NOT_FOUND") || !strings.Contains(got, "apikeys keys list shows") {
		t.Errorf("gone: %s", got)
	}
}

// TestVerify tells a good key from a bad one by the exit code.
func TestVerify(t *testing.T) {
	t.Parallel()
	sh := newHarness(t)
	secret := sh.run("keys", "create", "--label", "x", "--scopes", "products.read")
	good := func() *harness { return sh.stdin(secret) }
	if got := good().run("keys", "verify"); got != "valid\n" {
		t.Errorf("valid: %q", got)
	}
	if got := good().run("keys", "verify", "--scopes", "products.read", "--ip", "10.0.0.1", "--cost", "0", "-o", "jsonpath=$.api_key.label"); got != "x\n" {
		t.Errorf("more of it: %q", got)
	}
	for want, sh := range map[string]*harness{"insufficient_scope": good(), "malformed": sh.stdin("x\n"), "not_found": sh.stdin("")} {
		args := []string{"keys", "verify", "--scopes", "products.delete"}
		if want == "not_found" {
			id := line(sh.run("keys", "create", "--label", "y", "--secret-file", filepath.Join(sh.dir, "y"), "-o", "id"))
			sh.run("keys", "delete", id)
			text, err := os.ReadFile(filepath.Join(sh.dir, "y"))
			if err != nil {
				t.Fatal(err)
			}
			sh = sh.stdin(string(text))
		}
		stdout, stderr, err := sh.try(args...)
		if exitCode(err) != codeRefused || stdout != want+"\n" || (stderr != "") != (want == "not_found") {
			t.Errorf("%s: %d %q %q", want, exitCode(err), stdout, stderr)
		}
	}
	// Who holds a leaked key need not know whose it is.
	elsewhere := sh.run("keys", "create", "--label", "z", "--organization", "org_z")
	if _, stderr, _ := sh.stdin(elsewhere).try("keys", "verify"); !strings.Contains(stderr, "--organization '*'") {
		t.Errorf("a key of another organization: %s", stderr)
	}
	if got := sh.stdin(elsewhere).run("keys", "verify", "--organization", "*", "-o", "jsonpath=$.api_key.organization_id"); got != "org_z\n" {
		t.Errorf("a key of any organization: %s", got)
	}
	if got := sh.fail(2, "keys", "verify"); !strings.Contains(got, "standard input") {
		t.Errorf("without input: %s", got)
	}
}

// TestJSONIsRESTs has each command print what REST has in data, to the byte.
func TestJSONIsRESTs(t *testing.T) {
	t.Parallel()
	sh := newHarness(t)
	id := line(sh.run("keys", "create", "--label", "a <b> \u00e9 \U0001F600", "--owner", "o", "-o", "id"))
	sh.run("keys", "create", "--label", "b")
	hook := line(sh.run("webhooks", "create", "--label", "h", "--url", "http://127.0.0.1:1111/x", "--events", "*", "-o", "id"))
	token := line(sh.run("tokens", "create", "--role", "viewer", "--organizations", "*", "-o", "id"))
	sh.try("webhooks", "test", hook, "--wait", "0s")
	sh.run("webhooks", "update", hook, "--no-enabled") // so that deliveries stay as they are
	delivery := strings.Fields(sh.run("deliveries", "list", "-o", "id"))[0]
	cases := []struct{ args, method, path, body string }{
		{"keys list", "GET", "/developers/api_keys", ""},
		{"keys list --owner o", "GET", "/developers/api_keys?owner_id=o", ""},
		{"keys list --state revoked", "GET", "/developers/api_keys?state=revoked", ""},
		{"keys get " + id, "GET", "/developers/api_keys/" + id, ""},
		{"keys update --label x " + id, "PATCH", "/developers/api_keys/" + id, `{"label": "x"}`},
		{"keys usage --since 2026-11-01 --until 2026-11-02 " + id, "GET", "/developers/api_keys/" + id + "/usage?since=2026-11-01T00:00:00Z&until=2026-11-02T00:00:00Z", ""},
		{"keys revoke " + id, "POST", "/developers/api_keys/" + id + "/revoke", "{}"},
		{"analytics --since 2026-11-01 --until 2026-11-02", "GET", "/analytics/api_keys?since=2026-11-01T00:00:00Z&until=2026-11-02T00:00:00Z", ""},
		{"usage --since 2026-11-01 --until 2026-11-03 --group-by owner_id", "GET", "/developers/usage?since=2026-11-01T00:00:00Z&until=2026-11-03T00:00:00Z&group_by=owner_id&granularity=day", ""},
		{"webhooks analytics --since 2026-11-01 --until 2026-11-02", "GET", "/analytics/webhooks?since=2026-11-01T00:00:00Z&until=2026-11-02T00:00:00Z", ""},
		{"scopes list", "GET", "/developers/scopes", ""},
		{"me", "GET", "/developers/me", ""},
		{"webhooks list", "GET", "/developers/webhooks", ""},
		{"webhooks get " + hook, "GET", "/developers/webhooks/" + hook, ""},
		{"webhooks event-types", "GET", "/developers/webhooks/events", ""},
		{"webhooks update --label y " + hook, "PATCH", "/developers/webhooks/" + hook, `{"label": "y"}`},
		{"deliveries list", "GET", "/developers/webhooks_queue", ""},
		{"deliveries get " + delivery, "GET", "/developers/webhooks_queue/" + delivery, ""},
		{"tokens list", "GET", "/developers/operator_tokens", ""},
		{"tokens get " + token, "GET", "/developers/operator_tokens/" + token, ""},
		{"tokens update --description z " + token, "PATCH", "/developers/operator_tokens/" + token, `{"description": "z"}`},
		{"events list --limit 0", "GET", "/developers/events", ""},
	}
	cursor := regexp.MustCompile(`"cursor":"[^"]*"`) // Cursors of one place differ.
	for _, c := range cases {
		got := sh.run(append(strings.Fields(c.args), "-o", "json")...)
		want := sh.rest(c.method, c.path, c.body)
		if diff := cmp.Diff(cursor.ReplaceAllString(want, ""), cursor.ReplaceAllString(got, "")); diff != "" {
			t.Errorf("apikeys %s (-REST +here)\n%s", c.args, diff)
		}
	}
}

// TestPages follows all pages of a list.
func TestPages(t *testing.T) {
	t.Parallel()
	sh := newHarness(t)
	for _, label := range []string{"a", "b", "c"} {
		sh.run("keys", "create", "--label", label)
	}
	if got := strings.Fields(sh.run("keys", "list", "-o", "jsonpath=$[*].label")); !cmp.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("all: %v", got)
	}
	if got := strings.Fields(sh.run("keys", "list", "--limit", "2", "-o", "jsonpath=$[*].label")); !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("two: %v", got)
	}
	if got := sh.run("keys", "list", "-q", "zzz"); got != "ID  LABEL  STATE  OWNER  SCOPES  CREATED  LAST USED  EXPIRES\n" {
		t.Errorf("none: %q", got)
	}
	if got := sh.run("keys", "list", "-q", "zzz", "-o", "json"); got != "[]\n" {
		t.Errorf("none as JSON: %q", got)
	}
	if got := sh.run("keys", "list", "--organization", "*"); !strings.Contains(got, "ORGANIZATION") || !strings.Contains(got, "org_default") {
		t.Errorf("all organizations: %s", got)
	}
}
