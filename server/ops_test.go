package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// withOps gives a server a listener for operators.
func withOps(c *server.Config) { c.OpsAddr = "0" }

// askOps sends a request to the listener for operators.
func askOps(t testing.TB, s *servertest.Server, method, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.Ops+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// scrapeText returns a scrape with everything in it: what the database has to be asked
// for comes a moment after the start.
func scrapeText(t testing.TB, s *servertest.Server) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		resp, body := askOps(t, s, http.MethodGet, "/metrics") //nolint:bodyclose // askOps closes it.
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %s: %s", resp.Status, body)
		}
		if strings.Contains(body, "apikeys_deliveries_pending ") {
			return body
		}
		if time.Now().After(end) {
			t.Fatalf("the scrape has no backlog:\n%s", body)
		}
	}
}

// scrape returns the metrics of a scrape by their names.
func scrape(t testing.TB, s *servertest.Server) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(scrapeText(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value returns the sum of the samples of a metric that have all of labels, given as
// name=value; of a histogram, the count.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (sum float64) {
	for _, m := range families[name].GetMetric() {
		has := make(map[string]bool)
		for _, l := range m.GetLabel() {
			has[l.GetName()+"="+l.GetValue()] = true
		}
		all := true
		for _, l := range labels {
			all = all && has[l]
		}
		if all {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

func TestOps(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withOps)
	for _, c := range []struct {
		method, path string
		status       int
		has          string
	}{
		{"GET", "/metrics", 200, "apikeys_build_info"},
		{"HEAD", "/metrics", 200, ""},
		{"GET", "/healthz", 200, `"message":"The server is alive"`},
		{"GET", "/readyz", 200, `"message":"The server is ready"`},
		{"OPTIONS", "/metrics", 200, "GET, HEAD, OPTIONS"},
		{"POST", "/metrics", 405, "METHOD_NOT_ALLOWED"},
		{"DELETE", "/healthz", 405, "METHOD_NOT_ALLOWED"},
		{"GET", "/", 404, "ROUTE_NOT_FOUND"},
		{"GET", "/metrics/", 404, "ROUTE_NOT_FOUND"},
		{"GET", "/debug/pprof/", 404, "ROUTE_NOT_FOUND"},
		{"GET", "/developers/api_keys", 404, "ROUTE_NOT_FOUND"},
	} {
		resp, body := askOps(t, s, c.method, c.path) //nolint:bodyclose // askOps closes it.
		if resp.StatusCode != c.status || !strings.Contains(body, c.has) {
			t.Errorf("%s %s: %s %s", c.method, c.path, resp.Status, body)
		}
		if c.status == http.StatusMethodNotAllowed && resp.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("%s %s: Allow %q", c.method, c.path, resp.Header.Get("Allow"))
		}
	}
	if a := s.Call(t, http.MethodGet, "/metrics", ""); a.Status != http.StatusNotFound {
		t.Errorf("the REST listener answers /metrics with %s", a)
	}
}

// A stopping server says so to operators, who can watch it stop.
func TestOpsAtStop(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withOps, func(c *server.Config) { c.ShutdownDelay = 2 * time.Second })
	stopped := make(chan error, 1)
	go func() { stopped <- s.Close() }()
	// The REST client's connections are closed at once, so this one is of its own.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	told := false
	for !told {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Ops+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			break // It has stopped.
		}
		resp.Body.Close()
		told = resp.StatusCode == http.StatusServiceUnavailable
	}
	if !told {
		t.Error("nobody was told of the stop")
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Ops, "http://")); err == nil {
		conn.Close()
		t.Error("the listener is open after the stop")
	}
}

// What happened shows in the next scrape.
func TestMetricsCount(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withOps)
	ctx := s.Context(t.Context())
	created, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{
		Label: "Counted", Scopes: []string{"api_keys.read"},
		Quota: &apikeysv1.Quota{Limit: 1000},
	})
	if err != nil {
		t.Fatal(err)
	}
	key := created.GetApiKey()
	for range 3 {
		if _, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: key.GetSecret()}); err != nil {
			t.Fatal(err)
		}
	}
	s.Call(t, http.MethodPost, "/developers/api_keys/verify", `{"key":"`+key.GetSecret()+`"}`)
	s.Call(t, http.MethodPost, "/developers/api_keys/verify_batch", `{"keys":[{"key":"`+key.GetSecret()+`"},{"key":"junk"}]}`)
	s.Call(t, http.MethodGet, "/developers/api_keys", "", "Authorization: Bearer "+key.GetSecret())
	s.Call(t, http.MethodGet, "/developers/api_keys", "", "Authorization: Bearer wrong-wrong-wrong-wrong-wrong")
	if _, err := s.Keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: key.GetId()}); err != nil {
		t.Fatal(err)
	}
	s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: key.GetSecret()})
	s.Conn.Invoke(ctx, "/apikeys.v1.NoService/NoMethod", &apikeysv1.ListScopesRequest{}, &apikeysv1.ListScopesResponse{})
	watch, cancel := context.WithCancel(ctx)
	stream, err := apikeysv1.NewEventsServiceClient(s.Conn).WatchEvents(watch, &apikeysv1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	open := scrape(t, s)
	cancel()
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"apikeys_verifications_total", []string{"way=grpc", "code=valid"}, 3},
		{"apikeys_verifications_total", []string{"way=grpc", "code=revoked"}, 1},
		{"apikeys_verifications_total", []string{"way=rest", "code=valid"}, 1},
		{"apikeys_verifications_total", []string{"way=batch", "code=valid"}, 1},
		{"apikeys_verifications_total", []string{"way=batch", "code=malformed"}, 1},
		{"apikeys_verifications_total", []string{"way=credential", "code=valid"}, 1},
		{"apikeys_verification_seconds", []string{"way=batch"}, 1},
		{"apikeys_changes_total", []string{"type=api_key.created"}, 1},
		{"apikeys_changes_total", []string{"type=api_key.revoked"}, 1},
		{"apikeys_changes_total", nil, 3}, // and the first use of the root token
		{"apikeys_revocation_lag_seconds", nil, 1},
		{"apikeys_database_commit_changes", nil, 3},
		{"apikeys_calls_total", []string{"method=apikeys.v1.ApiKeysService/CreateApiKey", "protocol=grpc", "code=OK"}, 1},
		{"apikeys_calls_total", []string{"method=apikeys.v1.ApiKeysService/ListApiKeys", "protocol=rest", "code=OK"}, 1},
		{"apikeys_calls_total", []string{"method=apikeys.v1.ApiKeysService/ListApiKeys", "protocol=rest", "code=Unauthenticated"}, 1},
		{"apikeys_calls_total", []string{"method=unknown", "code=Unimplemented"}, 1},
		{"apikeys_call_seconds", []string{"method=apikeys.v1.ApiKeysService/ListApiKeys"}, 2},
		{"apikeys_authentication_failures_total", []string{"reason=unauthenticated"}, 1},
		{"apikeys_streams", nil, 1},
		{"apikeys_quota_reservations_total", []string{"result=ok"}, 1},
		{"apikeys_feed_position", nil, 3},
		{"apikeys_feed_broken", nil, 0},
		{"apikeys_deliveries_pending", nil, 0},
	} {
		if got := value(open, c.name, c.labels...); got != c.want {
			t.Errorf("%s %v is %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	if value(open, "apikeys_cache_misses_total") < 1 || value(open, "apikeys_cache_drops_total") < 1 {
		t.Error("neither misses nor drops")
	}
	if value(open, "apikeys_job_runs_total", "job_name=backlog") < 1 || value(open, "apikeys_job_last_success_timestamp_seconds", "job_name=notices") == 0 {
		t.Error("the jobs did not run")
	}
	for end := time.Now().Add(time.Minute); value(scrape(t, s), "apikeys_streams_ended_total", "reason=client") != 1; {
		if time.Now().After(end) {
			t.Fatal("the end of the stream is not counted")
		}
	}
}

// Nothing that a caller chose is in a scrape: no secret, id, label, owner, organization,
// url, path or method.
func TestMetricsTellNothingOfCallers(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withOps, func(c *server.Config) {
		c.WebhooksDelays = []time.Duration{time.Hour}
	})
	const organization, label, owner, path = "org_tattle", "Tattle label", "tattle-owner", "tattle-path"
	ctx := s.Context(t.Context(), "x-organization-id", organization)
	created, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: label, OwnerId: owner, Metadata: map[string]string{"tattle-key": "tattle-value"}})
	if err != nil {
		t.Fatal(err)
	}
	key := created.GetApiKey()
	hook, err := apikeysv1.NewWebhooksServiceClient(s.Conn).CreateWebhook(ctx, &apikeysv1.CreateWebhookRequest{
		Label: label, Url: "http://127.0.0.1:1024/" + path, Events: []string{"*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, ask := range []func(){
		func() {
			s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: key.GetSecret(), Ip: "192.0.2.77"})
		},
		func() {
			s.Keys.GetApiKey(servertest.As(t.Context(), key.GetSecret()), &apikeysv1.GetApiKeyRequest{Id: key.GetId()})
		},
		func() { s.Keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: key.GetId()}) },
		func() { s.Call(t, http.MethodGet, "/"+path+"/"+key.GetSecret(), "") },
		func() { s.Call(t, "TATTLE", "/developers/api_keys", "") },
		func() {
			s.Conn.Invoke(ctx, "/tattle.Service/"+key.GetSecret(), &apikeysv1.ListScopesRequest{}, &apikeysv1.ListScopesResponse{})
		},
		func() { askOps(t, s, "TATTLE", "/"+path) }, //nolint:bodyclose // askOps closes it.
	} {
		ask()
	}
	for end := time.Now().Add(time.Minute); value(scrape(t, s), "apikeys_webhook_attempts_total") == 0; {
		if time.Now().After(end) {
			t.Fatal("no attempt is counted")
		}
	}
	text := scrapeText(t, s)
	for _, word := range []string{
		organization, label, owner, "attle", "TATTLE", key.GetId(), key.GetSecret(), key.GetSecret()[8:20], hook.GetWebhook().GetId(),
		servertest.RootToken, "127.0.0.1", "192.0.2.77", s.Dir, "sk_live_", "whsec_", "api_key_", "webhook_0", "org_",
	} {
		if strings.Contains(text, word) {
			for line := range strings.Lines(text) {
				if strings.Contains(line, word) {
					t.Errorf("%q is in %s", word, line)
				}
			}
		}
	}
	if n := strings.Count(text, "\n"); n > 5000 {
		t.Errorf("a scrape has %d lines", n)
	}
}

// The listener has the bounds of the others, and connections of its own.
func TestOpsBounds(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, withOps, func(c *server.Config) {
		c.HeaderTimeout, c.CredentialTimeout, c.ConnectionsMax, c.ConnectionsPerAddress = 300*time.Millisecond, time.Second, 4, 4
	})
	addr := strings.TrimPrefix(s.Ops, "http://")
	dial := func() net.Conn {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	closes := func(conn net.Conn, what string) {
		t.Helper()
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: the connection stays open", what)
		}
	}
	slow := dial()
	fmt.Fprint(slow, "GET /metrics HTTP/1.1\r\nHost: a\r\n")
	closes(slow, "headers that do not end")
	closes(dial(), "no word")
	large := dial()
	fmt.Fprintf(large, "GET /metrics HTTP/1.1\r\nHost: a\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 80<<10))
	resp := make([]byte, 12)
	if _, err := io.ReadFull(large, resp); err == nil && string(resp) != "HTTP/1.1 431" {
		t.Errorf("80 KiB of headers: %s", resp)
	}
	// Unauthenticated connections make room for newer ones, so a scrape always finds some.
	for range 40 {
		dial()
	}
	if resp, _ := askOps(t, s, http.MethodGet, "/healthz"); resp.StatusCode != http.StatusOK { //nolint:bodyclose // askOps closes it.
		t.Errorf("beside 40 other connections: %s", resp.Status)
	}
}
