package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestGateHuge refuses a key of a megabyte, and a thousand headers.
func TestGateHuge(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withGate)
	for name, head := range map[string]string{
		"a key of a megabyte":  "X-API-Key: " + strings.Repeat("k", 1<<20) + "\r\n",
		"too many headers":     strings.Repeat("a: b\r\n", 3000),
		"a query of megabytes": "", // in the first line
	} {
		conn := dialGate(t, s)
		query := ""
		if head == "" {
			query = "?scope=" + strings.Repeat("a", 2<<20)
		}
		go fmt.Fprintf(conn, "GET /forward_auth%s HTTP/1.1\r\nHost: a\r\n%s\r\n", query, head)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			continue // The connection was closed while it was written to.
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
}

func dialGate(t *testing.T, s *servertest.Server) net.Conn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Gate, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestGateStops stops a server with connections of gateways open, in order and in time.
func TestGateStops(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withGate)
	conn, reader := dialGate(t, s), new(bufio.Reader)
	reader.Reset(conn)
	fmt.Fprintf(conn, "GET /forward_auth HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Close {
		t.Errorf("the first answer closes the connection: %v, %v", resp.Close, err)
	}
	resp.Body.Close()
	grpcConn := dialGateGRPC(t, s)
	if got := checkOverGRPC(t, s, checkRequest(t, gateRequest{method: "GET", uri: "/"})); got.status != http.StatusUnauthorized {
		t.Errorf("over gRPC: %d", got.status)
	}
	grpcConn.Connect()
	if err := s.Close(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if _, err := reader.ReadByte(); err != io.EOF {
		t.Errorf("the connection of a gateway ends with %v", err)
	}
	var d net.Dialer
	if conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Gate, "http://")); err == nil {
		conn.Close()
		t.Error("a gateway can connect after the stop")
	}
}

// TestGateElsewhere has health where it is looked for, and nothing of the API.
func TestGateElsewhere(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withGate)
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/metrics": 404, "/": 404, "/forward_auth/": 404, "/Forward_auth": 404, "/developers/api_keys": 404,
	} {
		resp, err := s.Client.Get(s.Gate + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || !strings.Contains(string(body), `"env":"development"`) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	// Nothing of it is at the other listeners.
	if got := s.Call(t, http.MethodGet, "/forward_auth", ""); got.Status != http.StatusNotFound {
		t.Errorf("/forward_auth of REST: %d", got.Status)
	}
}

// TestGateSettings refuses settings that cannot be.
func TestGateSettings(t *testing.T) {
	t.Parallel()
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("root-token-of-enough-length-and-more"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*server.Config){
		"gate_token_file: needs gate_addr":       func(c *server.Config) { c.GateAddr, c.GateTokenFile = "", junk },
		"gate_rules: needs gate_addr":            func(c *server.Config) { c.GateAddr, c.GateRules = "", []string{"ANY /**"} },
		"gate_rules: number 1 has the path":      func(c *server.Config) { c.GateRules = []string{"ANY /../**"} },
		"credential_headers: number 1 must be":   func(c *server.Config) { c.CredentialHeaders = []string{"no header"} },
		"credential_query: must have":            func(c *server.Config) { c.CredentialQuery = "a b" },
		"gate_addr: must be host:port":           func(c *server.Config) { c.GateAddr = "9091" },
		"gate_addr: must not be that of another": func(c *server.Config) { c.GateAddr, c.RESTAddr = "127.0.0.1:9", "127.0.0.1:9" },
		"must hold an operator token":            func(c *server.Config) { c.GateTokenFile = junk },
		"gate_token_file: open":                  func(c *server.Config) { c.GateTokenFile = junk + ".missing" },
		"production needs TLS":                   func(c *server.Config) { c.Env, c.GateAddr = server.Production, "0.0.0.0:0" },
	} {
		s, err := servertest.New(t.Context(), func(c *server.Config) { c.DataDir = t.TempDir() }, withGate, change)
		if err == nil {
			s.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "root-token") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestGateWithoutProxies says at the start that no client has an address.
func TestGateWithoutProxies(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, func(c *server.Config) { c.GateAddr = "127.0.0.1:0" })
	if !strings.Contains(s.Log.String(), "trusted_proxies names no gateway") {
		t.Error("the log does not say that trusted_proxies is empty")
	}
	keys := gateKeys(t, s)
	got := askForwardAuth(t, s, gateRequest{method: "GET", uri: "/", from: "198.51.100.7", headers: []string{"X-API-Key: " + keys["near"].GetSecret()}})
	if got.status != http.StatusForbidden || got.header.Get("X-Api-Key-Error") != "ip_not_allowed" {
		t.Errorf("a list of addresses: %d %s", got.status, got.header.Get("X-Api-Key-Error"))
	}
}
