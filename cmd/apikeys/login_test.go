package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/contexts"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// A script answers as a person would.
type script struct {
	asked   []string
	answers []string
}

func (s *script) ask(_ context.Context, question string) (string, error) {
	s.asked = append(s.asked, question)
	if len(s.answers) == 0 {
		return "", errors.New("nobody answers")
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	return answer, nil
}

func (s *script) askSecret(ctx context.Context, question string) (string, error) {
	return s.ask(ctx, question)
}

// A safe is a keyring in memory.
type safe struct {
	mu      sync.Mutex
	secrets map[string]string
	broken  error
}

func (s *safe) Get(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, ok := s.secrets[name]
	if !ok {
		return "", contexts.ErrNoCredential
	}
	return secret, s.broken
}

func (s *safe) Set(name, secret string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	s.secrets[name] = secret
	return nil
}

func (s *safe) Delete(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.secrets, name)
	return s.broken
}

// fresh returns a harness of a person who has not logged in.
func (h *harness) fresh() *harness {
	again := *h
	again.env = []string{"XDG_CONFIG_HOME=" + filepath.Join(h.dir, "config"), "XDG_STATE_HOME=" + filepath.Join(h.dir, "state")}
	return &again
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for name, keyring := range map[string]*safe{"keyring": {secrets: map[string]string{}}, "file": {broken: errors.New("no \x1b[1mD-Bus")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sh := newHarness(t).fresh()
			sh.keyring = keyring
			person := &script{answers: []string{servertest.RootToken}}
			sh.person = person
			address := sh.s.Conn.Target()
			if got := sh.fail(2, "me", "--address", address); !strings.Contains(got, "run apikeys login") {
				t.Errorf("before: %s", got)
			}
			stdout, stderr, err := sh.try("login", "--address", address, "--organization", "org_a")
			if err != nil || !strings.Contains(stdout, "Logged in to "+address+" as root (operator), context default.") || len(person.asked) != 1 || !strings.Contains(person.asked[0], address) {
				t.Fatalf("login: %q %q %q", stdout, stderr, person.asked)
			}
			if told := strings.Contains(stderr, "the keyring of the system cannot be used (no \\u001b[1mD-Bus)"); told != (name == "file") {
				t.Errorf("told %q", stderr)
			}
			config, err := os.ReadFile(filepath.Join(sh.dir, "config", "apikeys", "config.yaml"))
			if err != nil || strings.Contains(string(config), servertest.RootToken) || !strings.Contains(string(config), "credential: "+name) {
				t.Errorf("the file: %s %v", config, err)
			}
			if got := line(sh.run("me", "-o", "jsonpath=$.organization_id")); got != "org_a" {
				t.Errorf("as %s", got)
			}
			// The token goes to no other server.
			if got := sh.fail(2, "me", "--address", "127.0.0.1:1"); !strings.Contains(got, "a token is needed") {
				t.Errorf("another server: %s", got)
			}
			if got := sh.fail(2, "login", "--address", "127.0.0.1:1"); !strings.Contains(got, "name the context of 127.0.0.1:1 with --context NAME") {
				t.Errorf("another login: %s", got)
			}
			// A bad token is not stored.
			person.answers = []string{"wrong"}
			if got := sh.fail(1, "login", "--context", "other", "--address", address); !strings.Contains(got, "UNAUTHENTICATED") {
				t.Errorf("a bad token: %s", got)
			}
			person.answers = []string{servertest.RootToken}
			sh.run("login", "--context", "other", "--address", address)
			list := sh.run("context", "list")
			if !strings.Contains(list, "*  other") || !strings.Contains(list, "   default") || strings.Count(list, name) != 2 {
				t.Errorf("contexts:\n%s", list)
			}
			sh.run("context", "use", "default")
			if got := sh.run("context", "list", "-o", "jsonpath=$[?@.current==true].name"); got != "default\n" {
				t.Errorf("current: %s", got)
			}
			sh.run("logout")
			if got := sh.fail(1, "logout"); !strings.Contains(got, "has no stored token") {
				t.Errorf("twice: %s", got)
			}
			sh.fail(2, "me")
			sh.run("me", "--context", "other")
			sh.run("context", "delete", "other")
			if got := sh.fail(2, "me", "--context", "other"); !strings.Contains(got, "there is no context other; there are default") {
				t.Errorf("deleted: %s", got)
			}
			if name == "keyring" && len(keyring.secrets) > 0 {
				t.Errorf("the keyring has %d secrets", len(keyring.secrets))
			}
		})
	}
}

func TestContexts(t *testing.T) {
	t.Parallel()
	sh := newHarness(t).fresh()
	file := filepath.Join(sh.dir, "token")
	if err := os.WriteFile(file, []byte(servertest.RootToken), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := sh.run("context", "list"); !strings.Contains(got, "NAME") {
		t.Errorf("none: %q", got)
	}
	sh.run("context", "set", "a", "--address", sh.s.Conn.Target(), "--token-file", file, "--organization", "org_a")
	if got := line(sh.run("me", "-o", "jsonpath=$.organization_id")); got != "org_a" {
		t.Errorf("as %s", got)
	}
	sh.run("context", "set", "a", "--clear", "organization")
	if got := line(sh.run("me", "-o", "jsonpath=$.organization_id")); got != "org_default" {
		t.Errorf("as %s", got)
	}
	for args, want := range map[string]string{
		"context set b":                     "--address is needed",
		"context set b --address ftp://x":   "--address: must be host:port",
		"context set a --clear address":     "--clear: must be one of",
		"context set ../x --address x":      "the name of a context",
		"context use b":                     "there is no context b; there are a",
		"context delete b":                  "there is no context b",
		"login --context a/b --address x:1": "the name of a context",
	} {
		if got := sh.fail(2, strings.Fields(args)...); !strings.Contains(got, want) {
			t.Errorf("%s: %s", args, got)
		}
	}
}

// TestDeviceLogin logs in at an issuer on loopback, and renews the token.
func TestDeviceLogin(t *testing.T) {
	t.Parallel()
	sh := newHarness(t).fresh()
	polls, refreshed := 0, 0
	mux := http.NewServeMux()
	issuer := httptest.NewServer(mux)
	defer issuer.Close()
	answer := func(w http.ResponseWriter, code int, v map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"issuer": issuer.URL, "token_endpoint": issuer.URL + "/token", "device_authorization_endpoint": issuer.URL + "/device"})
	})
	mux.HandleFunc("/device", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("client_id") != "cli" || r.FormValue("scope") != "openid offline_access" {
			answer(w, 400, map[string]any{"error": "invalid_client"})
			return
		}
		answer(w, 200, map[string]any{"device_code": "dc", "user_code": "WXYZ", "verification_uri": issuer.URL + "/page", "expires_in": 60, "interval": 1})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == "first":
			refreshed++
			answer(w, 200, map[string]any{"access_token": servertest.RootToken, "refresh_token": "second", "token_type": "Bearer", "expires_in": 3600})
		case polls == 0:
			polls++
			answer(w, 400, map[string]any{"error": "authorization_pending"})
		default:
			// It ends within a minute, so that the next command renews it.
			answer(w, 200, map[string]any{"access_token": servertest.RootToken, "refresh_token": "first", "token_type": "Bearer", "expires_in": 30})
		}
	})
	stdout, stderr, err := sh.try("login", "--address", sh.s.Conn.Target(), "--issuer", issuer.URL, "--client-id", "cli")
	if err != nil || !strings.Contains(stderr, "Open "+issuer.URL+"/page and enter the code WXYZ") || !strings.Contains(stdout, "Logged in") {
		t.Fatalf("login: %q %q", stdout, stderr)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if _, stderr, err := sh.try("me"); err != nil {
				t.Errorf("with a token that ends: %s", stderr)
			}
		})
	}
	group.Wait()
	if refreshed != 1 {
		t.Errorf("renewed %d times", refreshed)
	}
	text, err := os.ReadFile(filepath.Join(sh.dir, "config", "apikeys", "credentials"))
	if err != nil || !strings.Contains(string(text), "second") {
		t.Errorf("stored: %v", err)
	}
}
