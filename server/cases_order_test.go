package server_test

import (
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
)

// TestOrderOfChecks takes a request in which everything is wrong and mends one thing
// after the other: what is answered is the order of the checks. The body is only
// announced until the credential and the headers are good, and nobody waits for it.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	eachRESTProtocol(t, testOrderOfChecks)
}

func testOrderOfChecks(t *testing.T, w *harness) {
	for _, s := range []step{
		{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["api_keys.read"]}`, save: "reader"},
		{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["api_keys.create"], "rate_limit": {"requests": 1, "window_seconds": 86400}}`, save: "limited"},
		{rpc: "CreateApiKey", as: "$limited.secret", body: `{"label": "k"}`},
	} {
		w.take(t, s.rpc, "rest", s)
	}
	const large, junk = "\nContent-Length: 1048577", "\nContent-Length: 20"
	for _, c := range []struct {
		name, head string
		body       string // sent behind the head; else it is announced and never sent
		want       raw
	}{
		{"path", "/developers/api_key?x=1", "", raw{status: 404, reason: "ROUTE_NOT_FOUND"}},
		{"method", "/developers/api_keys/verify/?x=1", "", raw{status: 404, reason: "ROUTE_NOT_FOUND"}},
		{"no credential", "/developers/api_keys?x=1", "", raw{status: 401, reason: "UNAUTHENTICATED"}},
		{"bad credential", "/developers/api_keys?x=1\nAuthorization: Bearer junk", "", raw{status: 401, reason: "UNAUTHENTICATED"}},
		{"two credentials", "/developers/api_keys?x=1\n<auth>\nX-API-Key: $reader.secret", "", raw{status: 401, reason: "UNAUTHENTICATED"}},
		{"scope", "/developers/api_keys?x=1\nX-API-Key: $reader.secret", "", raw{status: 403, reason: "INSUFFICIENT_SCOPE"}},
		{"organization", "/developers/api_keys?x=1\nX-API-Key: $reader.secret\nX-Organization-Id: *", "", raw{status: 403, reason: "WRONG_ORGANIZATION"}},
		{"limit", "/developers/api_keys?x=1\nX-API-Key: $limited.secret", "", raw{status: 429, reason: "RATE_LIMITED"}},
		{"accept", "/developers/api_keys?x=1\n<auth>", "", raw{status: 406, reason: "NOT_ACCEPTABLE"}},
		{"coding", "/developers/api_keys?x=1\n<auth>\nAccept: */*", "", raw{status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"}},
		{"type", "/developers/api_keys?x=1\n<auth>\nAccept: */*\nContent-Encoding: Identity", "", raw{status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"}},
		{"size", "/developers/api_keys?x=1\n<auth>\nAccept: */*\nContent-Encoding: Identity\nContent-Type: application/json", "", raw{status: 413, reason: "REQUEST_TOO_LARGE"}},
		{"query", "/developers/api_keys?x=%zz\n<auth>\nAccept: */*\nContent-Encoding: Identity\nContent-Type: application/json", "not JSON", raw{status: 400, reason: "MALFORMED_QUERY"}},
		{"body", "/developers/api_keys?x=1\n<auth>\nAccept: */*\nContent-Encoding: IDENTITY\nContent-Type: Application/JSON;Charset=\"UTF-8\"", "not JSON", raw{status: 400, reason: "MALFORMED_JSON"}},
		{"fields", "/developers/api_keys?x=1\n<auth>\nAccept: */*\nContent-Type: application/json\nIf-Match: x", `{"label": 1, "y": 2}`, raw{status: 400, reason: "INVALID_ARGUMENT"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, head, _ := strings.Cut(w.fill(c.head), "\n")
			for name, value := range map[string]string{"Accept": "text/html", "Content-Encoding": "gzip", "Content-Type": "text/plain"} {
				if !strings.Contains(head, name) && (name == "Accept" || c.body == "") {
					head += "\n" + name + ": " + value
				}
			}
			if c.body == "" {
				head += large + "\nExpect: 100-continue"
			}
			status, header, text := w.send(t, "POST "+target+" HTTP/1.1\n"+strings.TrimPrefix(head, "\n")+"\n\n"+c.body)
			a := w.envelope(t, status, header, text)
			if a.status != c.want.status || a.reason != c.want.reason {
				t.Errorf("got %d %s, want %d %s: %s", a.status, a.reason, c.want.status, c.want.reason, text)
			}
			if closes := header.Get("Connection") == "close"; closes != (!w.http2 && (c.body == "" || c.want.reason == "MALFORMED_QUERY")) {
				t.Errorf("Connection: %q", header.Get("Connection"))
			}
			if want := map[string]bool{"x": true, "y": true, "label": true, "If-Match": true}; c.name == "fields" {
				for name := range a.validator {
					delete(want, name)
				}
				if len(want) > 0 {
					t.Errorf("validator %v lacks %v", a.validator, want)
				}
			}
		})
	}
	// A call that is refused for its form has been counted all the same: the key's
	// one request is spent.
	w.take(t, "create", "rest", step{rpc: "CreateApiKey", save: "once", body: `{"label": "k", "scopes": ["api_keys.create"], "rate_limit": {"requests": 1, "window_seconds": 86400}}`})
	for _, want := range []int{406, 429} {
		status, header, text := w.send(t, w.fill("POST /developers/api_keys HTTP/1.1\nX-API-Key: $once.secret\nAccept: text/html"+junk+"\nExpect: 100-continue"))
		if a := w.envelope(t, status, header, text); a.status != want {
			t.Errorf("got %d, want %d: %s", a.status, want, text)
		}
	}
}

// TestOrderOfWatch is TestOrderOfChecks for the stream of events.
func TestOrderOfWatch(t *testing.T) {
	t.Parallel()
	eachRESTProtocol(t, testOrderOfWatch)
}

func testOrderOfWatch(t *testing.T, w *harness) {
	w.take(t, "create", "rest", step{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["api_keys.read"]}`, save: "reader"})
	for head, want := range map[string]raw{
		"?x=1\nAccept: text/html":                                        {status: 401, reason: "UNAUTHENTICATED"},
		"?x=1\nAccept: text/html\nX-API-Key: $reader.secret":             {status: 403, reason: "INSUFFICIENT_SCOPE"},
		"?x=1\nAccept: text/html\n<auth>":                                {status: 406, reason: "NOT_ACCEPTABLE"},
		"?x=1\nAccept: TEXT/Event-Stream\n<auth>":                        {status: 400, reason: "INVALID_ARGUMENT"},
		"?x=1;\nAccept: text/event-stream\n<auth>\nLast-Event-ID: none":  {status: 400, reason: "MALFORMED_QUERY"},
		"?after=none\nAccept: text/event-stream\nAuthorization: sk_live": {status: 401, reason: "UNAUTHENTICATED"},
	} {
		query, head, _ := strings.Cut(w.fill(head), "\n")
		status, header, text := w.send(t, "GET /developers/events/watch"+query+" HTTP/1.1\n"+head)
		if a := w.envelope(t, status, header, text); a.status != want.status || a.reason != want.reason {
			t.Errorf("%s: got %d %s, want %d %s", head, a.status, a.reason, want.status, want.reason)
		}
	}
	status, header, text := w.send(t, w.fill("GET /developers/events/watch?x=1&types=y&types=$reader.secret&heartbeat_seconds=0x&after=z HTTP/1.1\n<auth>"))
	a := w.envelope(t, status, header, text)
	if diff := cmp.Diff([]string{"after", "heartbeat_seconds", "types[0]", "types[1]", "x"}, slices.Sorted(maps.Keys(a.validator))); diff != "" {
		t.Errorf("faulty fields of a stream (-want +got)\n%s", diff)
	}
}

// TestRefusedBeforeBody has a body announced and not sent: a refusal comes without
// 100 Continue, and a request that is taken with it.
func TestRefusedBeforeBody(t *testing.T) {
	t.Parallel()
	eachRESTProtocol(t, func(t *testing.T, w *harness) {
		for credential, want := range map[string]int{"junk": http.StatusUnauthorized, servertest.RootToken: http.StatusContinue} {
			got := w.firstStatus(t, "POST /developers/api_keys HTTP/1.1\nAuthorization: Bearer "+credential+
				"\nContent-Type: application/json\nContent-Length: 1000\nExpect: 100-continue")
			if got != want {
				t.Errorf("%s: %d, want %d", credential, got, want)
			}
		}
	})
}

// TestMethodsOfPaths asks every path, the words that stand in an id's place too, for
// what it takes: OPTIONS says it, and every other method is refused with the same.
func TestMethodsOfPaths(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	const id = "/api_key_0197c0ec-a197-719f-84a9-99270a79b42a"
	for path, allow := range map[string]string{
		keysPath:                                    "GET, HEAD, POST, OPTIONS",
		keysPath + id:                               "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
		keysPath + "/verify":                        "POST, OPTIONS",
		keysPath + "/%76erify":                      "POST, OPTIONS",
		keysPath + "/verify_batch":                  "POST, OPTIONS",
		keysPath + "/revoke_batch":                  "POST, OPTIONS",
		keysPath + "/Verify":                        "GET, HEAD, PUT, PATCH, DELETE, OPTIONS", // an id like any other
		keysPath + "/verify/rotate":                 "POST, OPTIONS",
		keysPath + id + "/rotate":                   "POST, OPTIONS",
		keysPath + id + "/usage":                    "GET, HEAD, OPTIONS",
		"/analytics/api_keys":                       "GET, HEAD, OPTIONS",
		"/developers/events":                        "GET, HEAD, OPTIONS",
		"/developers/events/watch":                  "GET, HEAD, OPTIONS",
		hooksPath:                                   "GET, HEAD, POST, OPTIONS",
		hooksPath + "/events":                       "GET, HEAD, OPTIONS",
		hooksPath + id:                              "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
		hooksPath + id + "/rotate_secret":           "POST, OPTIONS",
		hooksPath + "/events/test":                  "POST, OPTIONS",
		queuePath:                                   "GET, HEAD, OPTIONS",
		queuePath + id:                              "GET, HEAD, OPTIONS",
		queuePath + id + "/cancel":                  "POST, OPTIONS",
		"/api/v1/webhooks/subscriptions":            "GET, HEAD, POST, OPTIONS",
		"/api/v1/webhooks/subscriptions" + id:       "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
		"/api/v1/webhooks/subscriptions/events":     "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
		"/healthz":                                  "GET, HEAD, OPTIONS",
		"/readyz":                                   "GET, HEAD, OPTIONS",
		keysPath + "/verify/":                       "",
		keysPath + "/":                              "",
		"/api/v1/webhooks/other":                    "",
		"/api/v1/webhooks":                          "",
		queuePath + id + "/cancel/now":              "",
		"/developers//api_keys":                     "",
		"/developers/events/watch/":                 "",
		"/developers/events" + id:                   "",
		"/developers/api_keys/verify%2f" + "rotate": "",
	} {
		for _, method := range []string{"OPTIONS", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "get", "QUERY"} {
			status, header, text := w.send(t, method+" "+path+" HTTP/1.1")
			if method == "HEAD" {
				if takes := strings.Contains(allow, "HEAD"); allow != "" && takes == (status == http.StatusMethodNotAllowed) || !takes && header.Get("Allow") != allow {
					t.Errorf("HEAD %s: %d, Allow %q", path, status, header.Get("Allow"))
				}
				continue
			}
			got := header.Get("Allow")
			if method == "OPTIONS" {
				header.Del("Allow")
			}
			a := w.envelope(t, status, header, text)
			switch {
			case allow == "":
				if a.reason != "ROUTE_NOT_FOUND" || got != "" {
					t.Errorf("%s %s: %d %s, Allow %q", method, path, a.status, a.reason, got)
				}
			case method == "OPTIONS":
				if a.status != http.StatusOK || got != allow {
					t.Errorf("OPTIONS %s: %d, Allow %q, want %q", path, a.status, got, allow)
				}
			case strings.Contains(", "+allow+",", ", "+method+","):
				if a.reason != "UNAUTHENTICATED" && !strings.HasSuffix(path, "z") {
					t.Errorf("%s %s: %d %s", method, path, a.status, a.reason)
				}
			case a.reason != "METHOD_NOT_ALLOWED" || got != allow:
				t.Errorf("%s %s: %d %s, Allow %q, want %q", method, path, a.status, a.reason, got, allow)
			}
		}
	}
}

// TestFloodOfRefusals calls without a good credential as fast as it can, over both
// protocols: the log has a line a second for each reason, with address and count.
func TestFloodOfRefusals(t *testing.T) {
	t.Parallel()
	logger, log := logtest.New(slog.LevelInfo)
	w := newHarness(t, func(c *server.Config) { c.Logger = logger })
	began := time.Now()
	for range 100 {
		w.send(t, "GET /developers/api_keys HTTP/1.1\nAuthorization: Bearer junk")
		w.send(t, "GET /nowhere HTTP/1.1")
		err := w.Conn.Invoke(t.Context(), "/apikeys.v1.ApiKeysService/GetApiKey", &apikeysv1.GetApiKeyRequest{}, new(apikeysv1.GetApiKeyResponse))
		if status.Code(err) != codes.Unauthenticated {
			t.Fatal(err)
		}
	}
	most := int(time.Since(began)/time.Second) + 2
	for _, reason := range []string{"UNAUTHENTICATED", "ROUTE_NOT_FOUND"} {
		lines := 0
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "reason="+reason) {
				lines++
				if !strings.Contains(line, "address=127.0.0.1") || !strings.Contains(line, "count=") {
					t.Errorf("a line without address or count: %s", line)
				}
			}
		}
		if lines == 0 || lines > most {
			t.Errorf("%d lines of %s, want 1 to %d", lines, reason, most)
		}
	}
}
