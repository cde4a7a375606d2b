package server_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// caller is a step that makes a key with every scope but *, and what else extra
// says, which begins with a comma.
func caller(name, extra string) step {
	return step{rpc: "CreateApiKey", save: name, body: `{"label": "caller", "scopes": ["api_keys.create", "api_keys.read", "api_keys.update",
		"api_keys.delete", "api_keys.verify", "products.read"]` + extra + `}`}
}

// TestCredentials plays every way to prove oneself, and to fail in it.
func TestCredentials(t *testing.T) {
	t.Parallel()
	const root = servertest.RootToken
	with := func(head string) step { return step{rpc: "ListApiKeys", as: "-", head: head} }
	refused := func(head string) step {
		return step{rpc: "ListApiKeys", as: "-", head: head, want: "UNAUTHENTICATED"}
	}
	newHarness(t).play(t, map[string]scenario{
		"operator": {
			with("Authorization: Bearer " + root), with("Authorization: " + root), with("X-API-Key: " + root),
			with("Authorization: bearer " + root), with("Authorization: Bearer   " + root),
			with("Authorization: Bearer " + root + "\nX-API-Key: " + root), with("Authorization: " + root + "\nAuthorization: Bearer " + root),
		},
		"key": {
			caller("c", ""),
			with("Authorization: Bearer $c.secret"), with("Authorization: $c.secret"), with("X-API-Key: $c.secret"),
			with("Authorization: Bearer $c.secret\nX-API-Key: $c.secret"),
		},
		"none": {
			refused(""), refused("Authorization:"), refused("X-API-Key:"), refused("X-Organization-Id: org_a"), refused("Authorization: Bearer"),
			refused("Cookie: authorization=" + root), refused("Proxy-Authorization: Bearer " + root), refused("Grpc-Metadata-Authorization: Bearer " + root),
		},
		"wrong": {
			caller("c", ""),
			refused("Authorization: Bearer " + root + "x"), refused("Authorization: Bearer " + root[1:]), refused("Authorization: Bearer " + strings.ToUpper(root)),
			refused("Authorization: Basic " + root), refused("Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("root:"+root))),
			refused("Authorization: Bearer Bearer " + root), refused("Authorization: Bearer " + root + ", Bearer " + root),
			refused("X-API-Key: Bearer " + root), refused("Authorization: Bearer *"), refused("X-API-Key: null"),
			refused("X-API-Key: $c.id"), refused("X-API-Key: $c.secretx"), refused("X-API-Key: x$c.secret"), refused("X-API-Key: sk_live_"),
			refused("X-API-Key: " + strings.Repeat("x", 513)), refused("X-API-Key: sk_live_" + strings.Repeat("x", 4000)),
		},
		"two": {
			caller("c", ""),
			refused("Authorization: Bearer $c.secret\nX-API-Key: " + root), refused("Authorization: Bearer " + root + "\nX-API-Key: $c.secret"),
			refused("Authorization: " + root + "\nAuthorization: x"), refused("X-API-Key: x\nX-API-Key: " + root),
		},
		"query": {
			{rpc: "ListApiKeys", as: "-", body: "access_token=" + root, want: "UNAUTHENTICATED", only: "rest"},
			{rpc: "ListApiKeys", as: "-", body: "api_key=" + root + "&authorization=" + root, want: "UNAUTHENTICATED", only: "rest"},
			{rpc: "ListApiKeys", body: "access_token=x", want: "INVALID_ARGUMENT", field: "access_token"},
		},
	})
}

// TestRefusedCredentials plays the five states in which a key proves nothing:
// they are one answer, in the same words, whatever the call is.
func TestRefusedCredentials(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	unknown, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []step{
		caller("revoked", ""), caller("disabled", ""), caller("expired", `, "expires_at": "$in(1h)"`), caller("deleted", ""), caller("rotated", ""),
		{rpc: "RevokeApiKey", id: "$revoked.id"}, {rpc: "UpdateApiKey", id: "$disabled.id", body: `{"enabled": false}`},
		{rpc: "DeleteApiKey", id: "$deleted.id"}, {rpc: "RotateApiKey", body: endNow, id: "$rotated.id"},
		{rpc: "ListApiKeys", after: 2 * time.Hour},
	} {
		w.take(t, s.rpc, "rest", s)
	}
	words := make(map[string]bool)
	for _, credential := range []string{"sk_live_junk", "sk_", unknown.Reveal(), "$revoked.secret", "$disabled.secret", "$expired.secret", "$deleted.secret", "$rotated.secret", "a person's token"} {
		for _, s := range []step{
			{rpc: "ListApiKeys"}, {rpc: "GetApiKey", id: "$revoked.id"}, {rpc: "CreateApiKey", body: `{"label": ""}`},
			{rpc: "VerifyApiKey", head: "X-Organization-Id: org_b"}, {rpc: "DeleteApiKey", id: "x", head: "X-Organization-Id: *"},
		} {
			s.as, s.want = credential, "UNAUTHENTICATED"
			w.play(t, map[string]scenario{credential + " " + s.rpc: {s}})
			s.as = w.fill(s.as)
			words[w.rest(t, s).text], words[w.grpc(t, s).text] = true, true
		}
	}
	if len(words) != 1 {
		t.Errorf("words: %v", words)
	}
}

// TestStoredHashes presents all that the database keeps of secrets as credentials.
func TestStoredHashes(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.take(t, "create", "rest", caller("c", ""))
	w.take(t, "rotate", "rest", step{rpc: "RotateApiKey", id: "$c.id", body: `{"overlap_seconds": 60}`})
	hashes := append(w.column(t, "SELECT secret_hash FROM api_keys UNION SELECT previous_hash FROM api_keys"),
		w.column(t, "SELECT secret_mask FROM api_keys UNION SELECT pepper_id FROM api_keys")...)
	if len(hashes) < 4 {
		t.Fatalf("%q", hashes)
	}
	for _, h := range hashes {
		for _, text := range []string{hex.EncodeToString([]byte(h)), base64.StdEncoding.EncodeToString([]byte(h)), base64.RawURLEncoding.EncodeToString([]byte(h)), "sk_live_" + hex.EncodeToString([]byte(h))} {
			w.play(t, map[string]scenario{text[:9]: {
				{rpc: "ListApiKeys", as: text, want: "UNAUTHENTICATED"},
				{rpc: "VerifyApiKey", body: `{"key": "` + text + `"}`, data: `{"valid": false, "code": "malformed", "api_key": null}`},
			}})
		}
	}
}

// TestOrganizations plays the header that picks one.
func TestOrganizations(t *testing.T) {
	t.Parallel()
	const denied, invalid, field = "WRONG_ORGANIZATION", "INVALID_ARGUMENT", "x-organization-id"
	in := func(organization string) string { return "X-Organization-Id: " + organization }
	longest := strings.Repeat("o", 128)
	newHarness(t).play(t, map[string]scenario{
		"operator": {
			{rpc: "CreateApiKey", body: `{"label": "x"}`, data: `{"organization_id": "org_default"}`},
			{rpc: "CreateApiKey", body: `{"label": "x"}`, head: in(""), data: `{"organization_id": "org_default"}`},
			{rpc: "CreateApiKey", body: `{"label": "x"}`, head: in("A.z:0_-"), data: `{"organization_id": "A.z:0_-"}`, save: "k"},
			{rpc: "CreateApiKey", body: `{"label": "x"}`, head: in(longest), data: `{"organization_id": "` + longest + `"}`},
			{rpc: "GetApiKey", id: "$k.id", head: in("A.z:0_-")},
			{rpc: "GetApiKey", id: "$k.id", head: in("A.z:0_-") + "\n" + in("A.z:0_-")},
			{rpc: "GetApiKey", id: "$k.id", want: "API_KEY_NOT_FOUND"},
			{rpc: "GetApiKey", id: "$k.id", head: in("a.z:0_-"), want: "API_KEY_NOT_FOUND"},
		},
		"invalid": {
			{rpc: "ListApiKeys", head: in("a b"), want: invalid, field: field},
			{rpc: "ListApiKeys", head: in("a/b"), want: invalid, field: field},
			{rpc: "ListApiKeys", head: in("**"), want: invalid, field: field},
			{rpc: "ListApiKeys", head: in("a,b"), want: invalid, field: field},
			{rpc: "ListApiKeys", head: in(longest + "o"), want: invalid, field: field},
			{rpc: "ListApiKeys", head: in("a") + "\n" + in("b"), want: invalid, field: field},
			{rpc: "ListApiKeys", head: in("*") + "\n" + in("b"), want: invalid, field: field},
			{rpc: "VerifyApiKey", head: in("a") + "\n" + in("*"), want: invalid, field: field},
		},
		"all": {
			{rpc: "CreateApiKey", body: `{"label": "x"}`, head: in("org_z"), save: "k"},
			{rpc: "ListApiKeys", head: in("*")},
			{rpc: "VerifyApiKey", body: `{"key": "$k.secret"}`, head: in("*"), data: `{"valid": true, "api_key": {"organization_id": "org_z"}}`},
			{rpc: "CreateApiKey", body: `{"label": "x"}`, head: in("*"), want: invalid, field: field},
			{rpc: "GetApiKey", id: "$k.id", head: in("*"), want: invalid, field: field},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "y"}`, head: in("*"), want: invalid, field: field},
			{rpc: "RotateApiKey", body: endNow, id: "$k.id", head: in("*"), want: invalid, field: field},
			{rpc: "RevokeApiKey", id: "$k.id", head: in("*"), want: invalid, field: field},
			{rpc: "DeleteApiKey", id: "$k.id", head: in("*"), want: invalid, field: field},
		},
		"key": {
			func() step { s := caller("c", ""); s.head = in("org_own"); return s }(),
			{rpc: "ListApiKeys", as: "$c.secret", data: `[{"id": "$c.id"}]`},
			{rpc: "ListApiKeys", as: "$c.secret", head: in("org_own")},
			{rpc: "CreateApiKey", as: "$c.secret", body: `{"label": "x"}`, data: `{"organization_id": "org_own"}`, save: "new"},
			{rpc: "DeleteApiKey", as: "$c.secret", id: "$new.id"},
			{rpc: "ListApiKeys", as: "$c.secret", head: in("*"), want: denied},
			{rpc: "VerifyApiKey", as: "$c.secret", head: in("*"), want: denied},
			{rpc: "ListApiKeys", as: "$c.secret", head: in("org_default"), want: denied},
			{rpc: "GetApiKey", as: "$c.secret", id: "$c.id", head: in("a b"), want: denied},
			{rpc: "DeleteApiKey", head: in("org_own"), id: "$c.id"},
		},
	})
}

// TestScopes plays every RPC with a key that has all scopes but the one it needs,
// and with one that has that scope alone.
func TestScopes(t *testing.T) {
	t.Parallel()
	scopes := map[string]string{
		"CreateApiKey": "api_keys.create", "ListApiKeys": "api_keys.read", "GetApiKey": "api_keys.read", "UpdateApiKey": "api_keys.update",
		"RotateApiKey": "api_keys.update", "RevokeApiKey": "api_keys.delete", "DeleteApiKey": "api_keys.delete", "VerifyApiKey": "api_keys.verify",
	}
	others := []string{"api_keys.create", "api_keys.read", "api_keys.update", "api_keys.delete", "api_keys.verify", "events.read", "webhooks.read"}
	scenarios := make(map[string]scenario)
	for rpc, scope := range scopes {
		var rest []string
		for _, s := range others {
			if s != scope {
				rest = append(rest, `"`+s+`"`)
			}
		}
		call := step{rpc: rpc, id: "$k.id"}
		if rpc == "CreateApiKey" {
			call.body = `{"label": "x"}`
		} else if rpc == "UpdateApiKey" {
			call.body = `{"label": "y"}`
		} else if rpc == "RotateApiKey" {
			call.body = endNow
		}
		refused, granted, all := call, call, call
		refused.as, refused.want = "$without.secret", "INSUFFICIENT_SCOPE"
		granted.as, all.as = "$only.secret", "$all.secret"
		key := step{rpc: "CreateApiKey", body: `{"label": "x"}`, save: "k"}
		scenarios[rpc] = scenario{
			key,
			{rpc: "CreateApiKey", body: `{"label": "x", "scopes": [` + strings.Join(rest, ",") + `]}`, save: "without"},
			{rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["` + scope + `"]}`, save: "only"},
			{rpc: "CreateApiKey", body: `{"label": "x", "scopes": ["*"]}`, save: "all"},
			{rpc: "CreateApiKey", body: `{"label": "x"}`, save: "none", data: `{"scopes": []}`},
			refused, granted, key, all,
			{rpc: rpc, id: "$k.id", as: "$none.secret", want: "INSUFFICIENT_SCOPE"},
		}
	}
	newHarness(t).play(t, scenarios)
}

// TestForwarded plays X-Forwarded-For through proxies that are trusted and not.
func TestForwarded(t *testing.T) {
	t.Parallel()
	const own = `, "ip_allow_list": ["192.0.2.0/24", "2001:db8::1"]`
	from := func(want string, lines ...string) step {
		s := step{rpc: "ListApiKeys", as: "$c.secret", want: want}
		for _, line := range lines {
			s.head += "X-Forwarded-For: " + line + "\n"
		}
		return s
	}
	const denied = "IP_NOT_ALLOWED"
	trusting := newHarness(t, func(c *server.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	})
	trusting.play(t, map[string]scenario{"trusted": {
		caller("c", own),
		from("", "192.0.2.7"), from("", "198.51.100.1, 192.0.2.7"), from("", "junk, 192.0.2.7 , 10.0.0.1"),
		from("", "198.51.100.1", "192.0.2.7", "10.0.0.1,fd00::1"), from("", "::ffff:192.0.2.7"), from("", "2001:DB8:0::1"),
		from("", "192.0.2.7", "::ffff:10.9.9.9"),
		from(denied), from(denied, "192.0.2.7, 198.51.100.1"), from(denied, "192.0.2.7", "198.51.100.1", "10.0.0.1"),
		from(denied, "192.0.2.7, junk"), from(denied, "192.0.2.7, junk, 10.0.0.1"), from(denied, "192.0.2.07"),
		from("", "192.0.2.7:80"), from("", "[2001:db8::1]:443"), from("", "192.0.2.7:80, 10.0.0.1:1"), from("", "192.0.2.7,"), from("", "192.0.2.7", ", ,", ""),
		from(denied, "198.51.100.1:80"), from(denied, "192.0.2.7:"), from(denied, "192.0.2.7:65536"), from(denied, "[2001:db8::1%eth0]:443"), from(denied, ","),
		from(denied, "2001:db8::1%eth0"), from(denied, "[2001:db8::1]"), from(denied, "unknown"),
		from(denied, "10.1.1.1, 10.0.0.1"), // all are trusted: the left-most
		{rpc: "ListApiKeys", as: "$c.secret", want: denied, head: "X-Real-Ip: 192.0.2.7\nForwarded: for=192.0.2.7\nX-Client-Ip: 192.0.2.7"},
		caller("inner", `, "ip_allow_list": ["10.1.1.1"]`),
		{rpc: "ListApiKeys", as: "$inner.secret", head: "X-Forwarded-For: 10.1.1.1, 10.0.0.1"},
		{rpc: "ListApiKeys", as: "$inner.secret", head: "X-Forwarded-For: 10.0.0.1, 10.1.1.1", want: denied},
		caller("open", ""),
		{rpc: "ListApiKeys", as: "$open.secret", head: "X-Forwarded-For: junk"},
	}})
	newHarness(t).play(t, map[string]scenario{"not trusted": {
		caller("c", own),
		from(denied, "192.0.2.7"), from(denied, "192.0.2.7", "127.0.0.1"),
		caller("here", `, "ip_allow_list": ["127.0.0.1"]`),
		{rpc: "ListApiKeys", as: "$here.secret"},
		{rpc: "ListApiKeys", as: "$here.secret", head: "X-Forwarded-For: 192.0.2.7"},
	}})
}
