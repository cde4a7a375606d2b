package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
)

// parseServe returns what `apikeys serve` would tell the server.
func parseServe(t *testing.T, args, env []string) (server.Config, error) {
	t.Helper()
	var commands commandLine
	out := streams{stdout: io.Discard, stderr: io.Discard}
	parsed, err := commands.parse(t.Context(), append([]string{"serve"}, args...), env, out)
	if err != nil {
		return server.Config{}, err
	}
	var config server.Config
	var fault error
	if _, err := parsed.Call(func(s *sources) {
		config = commands.Serve.config(s, out)
		fault = commands.Serve.apply(&config, s)
	}); err != nil {
		t.Fatal(err)
	}
	return config, fault
}

// writeConfig returns the path of a file with text.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	t.Parallel()
	const token = "a-root-token-of-24-characters"
	cases := []struct {
		name string
		args []string
		env  []string
		file string
		get  func(server.Config) any
		want any
	}{
		{name: "default", get: restAddr, want: "127.0.0.1:8080"},
		{name: "file", file: "rest_addr: :1", get: restAddr, want: ":1"},
		{name: "environment", file: "rest_addr: :1", env: []string{"APIKEYS_REST_ADDR=:2"}, get: restAddr, want: ":2"},
		{name: "flag", file: "rest_addr: :1", env: []string{"APIKEYS_REST_ADDR=:2"}, args: []string{"--rest-addr", ":3"}, get: restAddr, want: ":3"},
		{name: "a flag set to the default still wins", file: "rest_addr: :1", args: []string{"--rest-addr", "127.0.0.1:8080"}, get: restAddr, want: "127.0.0.1:8080"},
		{name: "an empty variable is unset", file: "rest_addr: :1", env: []string{"APIKEYS_REST_ADDR="}, get: restAddr, want: ":1"},
		{name: "a null in the file is unset", file: "rest_addr:", get: restAddr, want: "127.0.0.1:8080"},
		{name: "an empty file", file: "# nothing yet\n", get: restAddr, want: "127.0.0.1:8080"},
		{name: "a number where a text is due", file: "data_dir: 2026", get: func(c server.Config) any { return c.DataDir }, want: "2026"},

		{name: "no list", get: scopes, want: []string(nil)},
		{name: "list in the file", file: "scopes: [a, b]", get: scopes, want: []string{"a", "b"}},
		{name: "list in the environment", file: "scopes: [a, b]", env: []string{"APIKEYS_SCOPES=c, d"}, get: scopes, want: []string{"c", "d"}},
		{name: "list by flags", env: []string{"APIKEYS_SCOPES=c,d"}, args: []string{"--scopes=e", "--scopes=f,g"}, get: scopes, want: []string{"e", "f", "g"}},

		{name: "switch in the file", file: "plaintext: true", get: plaintext, want: true},
		{name: "switch in the environment", env: []string{"APIKEYS_PLAINTEXT=true"}, get: plaintext, want: true},
		{name: "switch off in the environment", file: "plaintext: true", env: []string{"APIKEYS_PLAINTEXT=false"}, get: plaintext, want: false},
		{name: "switch off by flag", file: "plaintext: true", args: []string{"--plaintext=false"}, get: plaintext, want: false},

		{name: "days", get: notice, want: 7 * 24 * time.Hour},
		{name: "hours", file: "expiring_notice: 12h", get: notice, want: 12 * time.Hour},
		{name: "never", args: []string{"--expiring-notice=0"}, get: notice, want: time.Duration(-1)},
		{name: "retention", args: []string{"--event-retention=36h"}, get: retention, want: 36 * time.Hour},

		{name: "networks", file: "webhooks_allow_networks: [10.1.0.0/16, 'fd00::/8']", get: networks, want: nets},
		{name: "networks in a group", file: "webhooks:\n  allow_networks: [10.1.0.0/16, 'fd00::/8']\n  max: 7", get: networks, want: nets},
		{name: "networks in the environment", env: []string{"APIKEYS_WEBHOOKS_ALLOW_NETWORKS=10.1.0.0/16, fd00::/8"}, get: networks, want: nets},
		{name: "delays", args: []string{"--webhooks-delays=5s,1d"}, get: delays, want: []time.Duration{5 * time.Second, 24 * time.Hour}},
		{name: "delays in the file", file: "webhooks: {delays: [5s, 1d]}", get: delays, want: []time.Duration{5 * time.Second, 24 * time.Hour}},
		{name: "no delays", get: delays, want: []time.Duration(nil)},
		{name: "webhooks", get: webhookLimits, want: [4]any{5 * 24 * time.Hour, 100, 8, time.Duration(0)}},
		{
			name: "webhooks by flags", args: []string{"--webhooks-disable-after=2d", "--webhooks-max=3", "--webhooks-in-flight=4", "--delivery-retention=6h"},
			get: webhookLimits, want: [4]any{48 * time.Hour, 3, 4, 6 * time.Hour},
		},
		{name: "webhooks of none", args: []string{"--webhooks-disable-after=0", "--webhooks-max=0", "--webhooks-in-flight=0"}, get: webhookLimits, want: [4]any{time.Duration(-1), -1, -1, time.Duration(0)}},

		{
			name: "proxies", file: "trusted_proxies: [10.0.0.0/8, '::1']",
			get:  func(c server.Config) any { return c.TrustedProxies },
			want: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		},

		{name: "key formats", get: formats, want: apikey.DefaultKeyFormats()},
		{name: "key formats in the file", file: "key_formats: [{name: a, prefix: acme_, mode: live}, {mode: test, prefix: try_, name: b}, c=c_:live]", get: formats,
			want: apikey.KeyFormats{{Name: "a", Prefix: "acme_", Mode: "live"}, {Name: "b", Prefix: "try_", Mode: "test"}, {Name: "c", Prefix: "c_", Mode: "live"}}},
		{name: "key formats in a group", file: "key: {formats: [{name: a, prefix: acme_, mode: live}]}", get: formats, want: apikey.KeyFormats{{Name: "a", Prefix: "acme_", Mode: "live"}}},
		{name: "key formats in the environment", file: "key_formats: [{name: a, prefix: acme_, mode: live}]", env: []string{"APIKEYS_KEY_FORMATS=b=b_:live, c=c_:test"}, get: formats,
			want: apikey.KeyFormats{{Name: "b", Prefix: "b_", Mode: "live"}, {Name: "c", Prefix: "c_", Mode: "test"}}},
		{name: "key formats by flags", env: []string{"APIKEYS_KEY_FORMATS=b=b_:live"}, args: []string{"--key-formats=d=d_:live", "--key-formats=e=e_:test,f=f_:live"}, get: formats,
			want: apikey.KeyFormats{{Name: "d", Prefix: "d_", Mode: "live"}, {Name: "e", Prefix: "e_", Mode: "test"}, {Name: "f", Prefix: "f_", Mode: "live"}}},
		{name: "rules of the gate", file: "gate_rules:\n- GET /a scope=b\n- {methods: [GET, POST], path: /b/**, scopes: [c, d], cost: 2}\n- {path: /e, organization: o}",
			get:  func(c server.Config) any { return c.GateRules },
			want: []string{"GET /a scope=b", "GET|POST /b/** cost=2&scope=c&scope=d", "ANY /e organization=o"}},
		{name: "rules of the gate in the environment", env: []string{"APIKEYS_GATE_RULES=GET /a scope=b&cost=2, ANY /**"},
			get: func(c server.Config) any { return c.GateRules }, want: []string{"GET /a scope=b&cost=2", "ANY /**"}},
		{name: "no key formats", file: "key_formats:", env: []string{"APIKEYS_KEY_FORMATS="}, get: formats, want: apikey.DefaultKeyFormats()},

		{name: "no issuers", file: "oidc:", get: issuers, want: []identity.Issuer(nil)},
		{name: "issuers in the file", file: `
oidc:
- issuer: https://login.example.com
  audience: apikeys
  algorithms: [ES256]
  typ: [at+jwt]
  organization_claim: org_id
  scopes_claim: scope
  roles_claim: realm_access.roles
  roles: {admins: admin, gate: [api_keys.verify, "app:*"]}
  name_claim: email
  clock_skew: 30s
  jwks_file: keys.json
- {issuer: https://two.example.com, audience: [a, b], organizations: ["*"], scopes_claim: scp, clock_skew: 0}
`, get: issuers, want: []identity.Issuer{
			{
				URL: "https://login.example.com", Audience: []string{"apikeys"}, Algorithms: []string{"ES256"}, Types: []string{"at+jwt"}, OrganizationClaim: "org_id", ScopesClaim: "scope",
				RolesClaim: "realm_access.roles", Roles: map[string]identity.Grant{"admins": {Role: "admin"}, "gate": {Scopes: []string{"api_keys.verify", "app:*"}}},
				NameClaim: "email", ClockSkew: 30 * time.Second, JWKSFile: "keys.json",
			},
			{URL: "https://two.example.com", Audience: []string{"a", "b"}, Organizations: []string{"*"}, ScopesClaim: "scp", ClockSkew: -1},
		}},
		{name: "issuers in the environment", file: "oidc: [{issuer: x}]", env: []string{`APIKEYS_OIDC=[{"issuer": "https://a", "audience": ["b"]}]`}, get: issuers,
			want: []identity.Issuer{{URL: "https://a", Audience: []string{"b"}}}},

		{name: "root token in the file", file: "root_token: " + token, get: rootToken, want: [2]string{token, ""}},
		{name: "root token in the environment", file: "root_token: other", env: []string{"APIKEYS_ROOT_TOKEN=" + token}, get: rootToken, want: [2]string{token, ""}},
		{name: "its file in the environment hides the token in the file", file: "root_token: other", env: []string{"APIKEYS_ROOT_TOKEN_FILE=f"}, get: rootToken, want: [2]string{"", "f"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			args := c.args
			if c.file != "" {
				args = append(args, "--config", writeConfig(t, c.file))
			}
			config, err := parseServe(t, args, c.env)
			if err != nil {
				t.Fatal(err)
			}
			same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
			if diff := cmp.Diff(c.want, c.get(config), same); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// nets are two networks.
var nets = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")}

func networks(c server.Config) any { return c.WebhooksAllowNetworks }
func delays(c server.Config) any   { return c.WebhooksDelays }

func webhookLimits(c server.Config) any {
	return [4]any{c.WebhooksDisableAfter, c.WebhooksMax, c.WebhooksInFlight, c.DeliveryRetention}
}

func restAddr(c server.Config) any  { return c.RESTAddr }
func scopes(c server.Config) any    { return c.Scopes }
func plaintext(c server.Config) any { return c.Plaintext }
func retention(c server.Config) any { return c.EventRetention }
func formats(c server.Config) any   { return c.KeyFormats }
func notice(c server.Config) any    { return c.ExpiringNotice }
func issuers(c server.Config) any   { return c.OIDC }
func rootToken(c server.Config) any { return [2]string{c.RootToken.Reveal(), c.RootTokenFile} }

func TestConfigFileByEnvironment(t *testing.T) {
	t.Parallel()
	byEnv, byFlag := writeConfig(t, "rest_addr: :1"), writeConfig(t, "rest_addr: :2")
	config, err := parseServe(t, nil, []string{"APIKEYS_CONFIG=" + byEnv})
	if err != nil || config.RESTAddr != ":1" {
		t.Errorf("got %q, %v", config.RESTAddr, err)
	}
	config, err = parseServe(t, []string{"--config", byFlag}, []string{"APIKEYS_CONFIG=" + byEnv})
	if err != nil || config.RESTAddr != ":2" {
		t.Errorf("with a flag too: got %q, %v", config.RESTAddr, err)
	}
}

// A faulty setting is one line that names where it stands.
func TestFaultySettings(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		args []string
		env  []string
		file string
		want string // FILE stands for the file's path
	}{
		{name: "unknown in the file", file: "env: production\nfoo: 1", want: `FILE: unknown setting "foo" on line 2`},
		{name: "mistyped in the file", file: "rest_adr: :1", want: `FILE: unknown setting "rest_adr" on line 1; did you mean "rest_addr"?`},
		{name: "a flag's spelling in the file", file: "rest-addr: :1", want: `FILE: unknown setting "rest-addr" on line 1; did you mean "rest_addr"?`},
		{name: "the file in the file", file: "config: x", want: `FILE: unknown setting "config" on line 1`},
		{name: "twice in the file", file: "env: a\nenv: b", want: `FILE: setting "env" stands on line 2 a second time`},
		{name: "a list for a text", file: "env: [a]", want: `FILE: env must be one value, not a list`},
		{name: "a list for the token", file: "root_token: [a]", want: `FILE: root_token must be one value, not a list`},
		{name: "a text for a list", file: "scopes: a,b", want: `FILE: scopes must be a list`},
		{name: "a mapping in a list", file: "scopes: [{name: a}]", want: `FILE: scopes must be a list of texts`},
		{name: "a key format", args: []string{"--key-formats=acme_live_"}, want: `key_formats: "acme_live_" must be name=prefix:mode, such as acme=acme_live_:live`},
		{name: "a rule without a path", file: "gate_rules:\n- {methods: GET}", want: `FILE: gate_rules needs a path on line 2`},
		{name: "a rule with another key", file: "gate_rules:\n- {path: /a, scope: b}", want: `FILE: gate_rules must be a list of texts, or of mappings of methods, path, scopes, organization and cost, each once; not so on line 2`},
		{name: "a rule with a list for a path", file: "gate_rules:\n- {path: [/a]}", want: `FILE: gate_rules must be a list of texts, or of mappings of methods, path, scopes, organization and cost, each once; not so on line 2`},
		{name: "a rule with two texts in one", file: "gate_rules:\n- {path: /a, scopes: b c}", want: `FILE: gate_rules must not hold spaces, & or , in its texts, as on line 2`},
		{name: "a text for key formats", file: "key_formats: a=a_:live", want: `FILE: key_formats must be a list`},
		{name: "a mapping for key formats", file: "key_formats: {name: a, prefix: a_, mode: live}", want: `FILE: key_formats must be one value or a list`},
		{name: "a key format that lacks a key", file: "key_formats:\n- {name: a, prefix: a_}", want: `FILE: key_formats must be a list of mappings of name, prefix, mode, all of them; one is missing on line 2`},
		{name: "a key format with another", file: "key_formats:\n- {name: a, prefix: a_, mode: live, x: y}", want: `FILE: key_formats must be a list of mappings of name, prefix, mode, each once and a text; not so on line 2`},
		{name: "a key format with one twice", file: "key_formats:\n- {name: a, prefix: a_, mode: live, mode: test}", want: `FILE: key_formats must be a list of mappings of name, prefix, mode, each once and a text; not so on line 2`},
		{name: "a key format with a list", file: "key_formats:\n- {name: a, prefix: [a_], mode: live}", want: `FILE: key_formats must be a list of mappings of name, prefix, mode, each once and a text; not so on line 2`},
		{name: "a key format with two in one", file: "key_formats:\n- {name: a, prefix: 'a_:live,b=b_', mode: live}", want: `FILE: key_formats must not hold = : or , in its texts, as on line 2`},
		{name: "a key format with nothing", file: "key_formats:\n- {name: a, prefix: a_, mode: }", want: `FILE: key_formats must be a list of mappings of name, prefix, mode, each once and a text; not so on line 2`},
		{name: "a mapping for a text", file: "env: {a: b}", want: `FILE: env must be one value or a list`},
		{name: "a text for a switch", file: "plaintext: maybe", want: `FILE: plaintext must be true or false`},
		{name: "a quoted switch", file: "plaintext: 'true'", want: `FILE: plaintext must be true or false`},
		{name: "a time span", file: "expiring_notice: soon", want: `FILE: expiring_notice: must be a time span such as 7d, 12h or 30m, not "soon"`},
		{name: "mistyped in a group", file: "webhooks:\n  maxx: 1", want: `FILE: unknown setting "webhooks_maxx" on line 2; did you mean "webhooks_max"?`},
		{name: "in a group and alone", file: "webhooks_max: 1\nwebhooks: {max: 1}", want: `FILE: setting "webhooks_max" stands on line 2 a second time`},
		{name: "a group that is none", file: "webhooks: 1", want: `FILE: unknown setting "webhooks" on line 1`},
		{name: "a network", args: []string{"--webhooks-allow-networks=10.1.0.1/16"}, want: `webhooks_allow_networks: "10.1.0.1/16" must not have bits set behind the prefix; the range is 10.1.0.0/16`},
		{name: "a delay", args: []string{"--webhooks-delays=5s,soon"}, want: `--webhooks-delays: must be a time span such as 7d, 12h or 30m, not "soon"; see apikeys serve --help`},
		{name: "a list as the file", file: "- a", want: `FILE: must be settings such as rest_addr: 127.0.0.1:8080`},
		{name: "two documents", file: "env: a\n---\nenv: b", want: `FILE: must be one YAML document`},
		{name: "no file", args: []string{"--config", "/nowhere/c.yaml"}, want: `/nowhere/c.yaml: no such file or directory`},
		{name: "a switch in the environment", env: []string{"APIKEYS_PLAINTEXT=maybe"}, want: `APIKEYS_PLAINTEXT: bool value must be true, 1, yes, false, 0 or no but got "maybe"`},
		{name: "issuers that are no list", file: "oidc: {issuer: x}", want: `FILE: oidc must be a list of issuers, such as [{issuer: https://login.example.com, audience: apikeys, ...}]`},
		{name: "an issuer that is a text", file: "oidc: [x]", want: `FILE: oidc[0] must be an issuer with its fields, such as {issuer: https://login.example.com, audience: apikeys, ...}`},
		{name: "an issuer's unknown field", file: "oidc:\n- {issuer: x}\n- audiense: a", want: `FILE: oidc[1]: unknown field "audiense" on line 3; did you mean "audience"?`},
		{name: "an issuer's field twice", file: "oidc:\n- issuer: x\n  issuer: y", want: `FILE: oidc[0].issuer stands on line 3 a second time`},
		{name: "a list as issuer", file: "oidc: [{issuer: [x]}]", want: `FILE: oidc[0].issuer must be one text`},
		{name: "a mapping as audience", file: "oidc: [{audience: {a: b}}]", want: `FILE: oidc[0].audience must be a list of texts`},
		{name: "a list in organizations", file: "oidc: [{organizations: [a, [b]]}]", want: `FILE: oidc[0].organizations[1] must be one text`},
		{name: "roles in a list", file: "oidc: [{roles: [admin]}]", want: `FILE: oidc[0].roles must map values of the claim to roles, such as {admins: admin}`},
		{name: "a role that is a mapping", file: "oidc: [{roles: {a: {b: c}}}]", want: `FILE: oidc[0].roles.a must be the name of a role or a list of scopes`},
		{name: "a role that is nothing", file: "oidc: [{roles: {a: }}]", want: `FILE: oidc[0].roles.a must be the name of a role or a list of scopes`},
		{name: "a role twice", file: "oidc: [{roles: {a: admin, a: viewer}}]", want: `FILE: oidc[0].roles.a stands on line 1 a second time`},
		{name: "a skew", file: "oidc: [{clock_skew: soon}]", want: `FILE: oidc[0].clock_skew must be a time span such as 7d, 12h or 30m, not "soon"`},
		{name: "issuers in the environment", env: []string{"APIKEYS_OIDC={"}, want: `APIKEYS_OIDC is not YAML: line 1: did not find expected node content`},
		{name: "an issuer in the environment", env: []string{`APIKEYS_OIDC=[{"x": 1}]`}, want: `APIKEYS_OIDC: oidc[0]: unknown field "x" on line 1; the fields are issuer, audience, algorithms, typ, organization_claim, organizations, scopes_claim, roles_claim, roles, name_claim, clock_skew, jwks_file`},
		{name: "unknown flag", args: []string{"--rest-adr", ":1"}, want: `unknown flag --rest-adr, did you mean "--rest-addr"?`},
		{name: "the token as a flag", args: []string{"--root-token", "x"}, want: `unknown flag --root-token; see apikeys serve --help`},
		{name: "log format", args: []string{"--log-format", "xml"}, want: `--log-format: must be text or json, not "xml"; see apikeys serve --help`},
		{name: "proxy", args: []string{"--trusted-proxies", "10.0.0.1/8"}, want: `trusted_proxies: "10.0.0.1/8" must not have bits set behind the prefix; the range is 10.0.0.0/8`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			args, path := c.args, ""
			if c.file != "" {
				path = writeConfig(t, c.file)
				args = append(args, "--config", path)
			}
			_, err := parseServe(t, args, c.env)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(strings.ReplaceAll(c.want, "FILE", path), err.Error()); diff != "" {
				t.Error(diff)
			}
			if code := exitCode(err); code != 2 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestUnknownVariablesAreWarnedOf(t *testing.T) {
	t.Parallel()
	var commands commandLine
	var log bytes.Buffer
	out := streams{stdout: io.Discard, stderr: &log}
	env := []string{
		"APIKEYS_REST_ADR=:1", "APIKEYS_PORT_8080_TCP=tcp://10.0.0.1:8080", "APIKEYS_ENV=development", "PATH=/bin",
		"APIKEYS_TOKEN=t", "APIKEYS_CONFIG=", "APIKEYS_ROOT_TOKEN=a-secret-that-stays-out-of-it",
	}
	parsed, err := commands.parse(t.Context(), []string{"serve"}, env, out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsed.Call(func(s *sources) { s.warnUnknown(commands.Serve.logger(&log, slog.LevelInfo)) }); err != nil {
		t.Fatal(err)
	}
	want := `variables="[APIKEYS_PORT_8080_TCP APIKEYS_REST_ADR (did you mean APIKEYS_REST_ADDR?)]"`
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, want) {
		t.Errorf("log: %s", got)
	}
}

func TestPeriod(t *testing.T) {
	t.Parallel()
	cases := map[string]time.Duration{"7d": 168 * time.Hour, "12h": 12 * time.Hour, "0": 0, "90s": 90 * time.Second}
	for text, want := range cases {
		var p period
		if err := p.UnmarshalText([]byte(text)); err != nil || time.Duration(p) != want {
			t.Errorf("%s: got %v, %v", text, time.Duration(p), err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-1h", "1.5d", "7 d", "99999999999d", "1000000d", "x"} {
		var p period
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %v", text, time.Duration(p))
		}
	}
}
