package main

import (
	"strings"
	"testing"
)

// TestConfig checks settings and shows where each comes from, without a secret.
func TestConfig(t *testing.T) {
	t.Parallel()
	h := &harness{t: t}
	file := writeConfig(t, "env: production\nplaintext: true\nwebhooks_max: 7\nroot_token: of-the-file-and-long-enough")
	h.env = []string{"APIKEYS_CONFIG=" + file, "APIKEYS_WEBHOOKS_MAX=8", "APIKEYS_DATABASE=postgres://me:hunter2@db.example.com/apikeys?sslmode=require"}
	show := func(setting, member string, args ...string) string {
		t.Helper()
		args = append([]string{"config", "show", "-o", "jsonpath=$[?@.setting=='" + setting + "']." + member}, args...)
		return line(h.run(args...))
	}
	for setting, want := range map[string][2]string{
		"env": {"production", file}, "webhooks_max": {"8", "APIKEYS_WEBHOOKS_MAX"}, "rest_addr": {"127.0.0.1:8080", "default"},
		"root_token": {hiddenValue, file}, "database": {"postgres://me@db.example.com/apikeys (password hidden)", "APIKEYS_DATABASE"},
		"event_retention": {"30d", "default"}, "secrets_file": {"data/secrets", "default"}, "grpc_addr": {":1", "--grpc-addr"},
		"config": {file, "APIKEYS_CONFIG"},
	} {
		var args []string
		if setting == "grpc_addr" {
			args = []string{"--grpc-addr", ":1"}
		}
		if got := [2]string{show(setting, "value", args...), show(setting, "from", args...)}; got != want && (setting != "config" || got[1] != want[1]) {
			t.Errorf("%s: %q, want %q", setting, got, want)
		}
	}
	whole := h.run("config", "show")
	if strings.Contains(whole, "hunter2") || strings.Contains(whole, "of-the-file") || !strings.Contains(whole, "SETTING") {
		t.Errorf("shown:\n%s", whole)
	}
	if got := h.run("config", "check"); got != "The settings are good.\n" {
		t.Errorf("good: %q", got)
	}
	if got := h.fail(2, "config", "check", "--webhooks-max", "0", "--event-retention", "1s"); !strings.Contains(got, "webhooks_max") || !strings.Contains(got, "event_retention") {
		t.Errorf("faulty: %s", got)
	}
	if got := h.with("APIKEYS_PLAINTEXT=false").fail(1, "config", "check", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"); !strings.Contains(got, "tls_cert") {
		t.Errorf("no certificate: %s", got)
	}
	for setting, args := range map[string][]string{
		"root_token_file": {"check"}, "gate_token_file": {"check", "--gate-addr", "127.0.0.1:1", "--gate-token-file", "/nowhere"},
	} {
		if got := h.with("APIKEYS_CONFIG=", "APIKEYS_ROOT_TOKEN_FILE=/nowhere").fail(1, append([]string{"config"}, args...)...); !strings.Contains(got, setting+": open /nowhere") {
			t.Errorf("no file: %s", got)
		}
	}
	if got := h.with("APIKEYS_PLAINTEXT=false").fail(2, "config", "check", "--rest-addr", ":80", "--ops-addr", "[::]:81", "--gate-addr", "127.0.0.1:82"); strings.Count(got, "production needs TLS") != 2 {
		t.Errorf("off loopback without TLS: %s", got)
	}
	if got := h.run("--version"); !strings.HasPrefix(got, "apikeys ") || got != h.run("version") {
		t.Errorf("version: %q", got)
	}
}
