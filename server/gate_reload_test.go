package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// TestGateReloads reads the token of the gate and the certificates anew, again and again,
// while gateways ask: with every token the first key passes, and with none the second,
// whose organization no token is for. What a file holds that is no token, and a
// certificate without its key, changes nothing of that.
func TestGateReloads(t *testing.T) {
	t.Parallel()
	cert, key, pool := certificate(t)
	otherCert, otherKey, _ := certificate(t)
	other, err := os.ReadFile(otherCert)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(other)
	tokenFile := filepath.Join(t.TempDir(), "gate-token")
	write := func(path string, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Error(err)
		}
	}
	// The first token is made by a server without a gate.
	dir := t.TempDir()
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	var s *Server
	create := func(path, organization, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.RESTAddr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + stopToken}, "Content-Type": {"application/json"}, "X-Organization-Id": {organization}}
		resp, err := secure.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var made struct{ Data struct{ Secret string } }
		if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || made.Data.Secret == "" {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
		return made.Data.Secret
	}
	s, stop := runServer(t, Config{DataDir: dir, TLSCert: cert, TLSKey: key})
	tokens := [2]string{}
	for i, organizations := range []string{`"org_a", "org_b"`, `"org_a"`} {
		tokens[i] = create("/developers/operator_tokens", "org_a", fmt.Sprintf(`{"name": "gate %d", "role": "verifier", "organizations": [%s]}`, i, organizations))
	}
	passes := create("/developers/api_keys", "org_a", `{"label": "passes"}`)
	others := create("/developers/api_keys", "org_c", `{"label": "does not"}`)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	write(tokenFile, []byte(tokens[0]))
	s, _ = runServer(t, Config{DataDir: dir, TLSCert: cert, TLSKey: key, GateAddr: "127.0.0.1:0", GateTokenFile: tokenFile, Logger: slog.New(slog.DiscardHandler)})
	gate := s.GateAddr().String()

	forwardAuth := func(ctx context.Context, secret string) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+gate+"/forward_auth", nil)
		if err != nil {
			return false, err
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		resp, err := secure.Do(req)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return false, err
		}
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
			return false, fmt.Errorf("status %s", resp.Status)
		}
		return resp.StatusCode == http.StatusOK, nil
	}
	conn, err := grpc.NewClient(gate, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	extAuthz := func(ctx context.Context, secret string) (bool, error) {
		resp, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: http.MethodGet, Path: "/", Headers: map[string]string{"authorization": "Bearer " + secret},
			}},
		}})
		if denied := resp.GetDeniedResponse(); err == nil && denied != nil && denied.GetStatus().GetCode() != http.StatusUnauthorized {
			return false, fmt.Errorf("denied with %v", denied.GetStatus())
		}
		return resp.GetOkResponse() != nil, err
	}

	var stopped atomic.Bool
	var answered [2]atomic.Int64
	var gateways sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for way, ask := range []func(context.Context, string) (bool, error){forwardAuth, extAuthz} {
		for want, secret := range map[bool]string{true: passes, false: others} {
			gateways.Go(func() {
				for !stopped.Load() {
					if got, err := ask(ctx, secret); err != nil || got != want {
						t.Errorf("way %d: the key passes: %t, want %t; %v", way, got, want, err)
						return
					}
					answered[way].Add(1)
				}
			})
		}
	}
	pairs := [2][2][]byte{}
	for i, names := range [2][2]string{{cert, key}, {otherCert, otherKey}} {
		for j, name := range names {
			if pairs[i][j], err = os.ReadFile(name); err != nil {
				t.Error(err)
			}
		}
	}
	faulty := 0
	for n := 0; n < 100 || answered[0].Load() < 50 || answered[1].Load() < 50; n++ {
		token := []byte(tokens[n%2])
		if n%5 == 4 {
			token = token[:10] // as an editor leaves it that is not done
		}
		write(tokenFile, token)
		write(cert, pairs[n%2][0])
		if n%7 != 6 {
			write(key, pairs[n%2][1])
		}
		if s.Reload() != nil {
			faulty++
		}
		if t.Failed() || ctx.Err() != nil {
			break
		}
	}
	stopped.Store(true)
	gateways.Wait()
	if faulty == 0 || bytes.Equal(pairs[0][0], pairs[1][0]) {
		t.Errorf("%d reloads met files that are no good", faulty)
	}
	t.Logf("%d and %d questions", answered[0].Load(), answered[1].Load())
}
