package rest

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/authn"
)

func TestAcceptsJSON(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"": true, " , ": true, "*/*": true, "*": true, "application/json": true, "Application/JSON; charset=utf-8": true, "application/*": true,
		"text/html": false, "text/html, */*;q=0.1": true, "application/json;q=0": false, "application/json; q=0.0, */*": false,
		"application/json, */*;q=0": true, "application/*;q=0, */*": false, "application/*;q=0, application/json;q=0.5": true,
		"application/json;q=0, application/json": true, "application/jsonx": false, "application/problem+json": false, "application/json;Q=0": false,
		"*/*;q=": true, "nonsense": false,
		// Case and white space say nothing, and a quality that is none is none.
		"APPLICATION/json ; Q = 0": false, "application/json;q=NaN": true, "application/json;q=-1": true, "application/json;q=2": true,
		"application/json\t;\tq=0.000": false, "APPLICATION/*": true, "Text/HTML": false,
	} {
		if got := acceptsJSON([]string{header}); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
	if !acceptsJSON(nil) || !acceptsJSON([]string{"text/html", "application/json"}) {
		t.Error("lines")
	}
}

// TestBodyHeaders reads what describes a body: names have no case.
func TestBodyHeaders(t *testing.T) {
	t.Parallel()
	for coding, want := range map[string]bool{
		"": true, "identity": true, "Identity": true, "IDENTITY , identity": true, " ,identity": true,
		"gzip": false, "identity, gzip": false, "GZIP": false, "identit": false, "x-identity": false,
	} {
		if got := isIdentity([]string{coding}); got != want {
			t.Errorf("Content-Encoding: %q: %v", coding, got)
		}
	}
	if !isIdentity(nil) || isIdentity([]string{"identity", "br"}) {
		t.Error("lines of Content-Encoding")
	}
	for contentType, want := range map[string]bool{
		"application/json": true, "Application/JSON": true, "APPLICATION/JSON; CHARSET=Utf-8": true, `application/json;charset="UTF-8"`: true,
		"application/json ; charset=utf-8; v=1": true, "application/json; charset=latin1": false, "application/json; charset=": false,
		"text/json": false, "application/json, text/plain": false, "": false, "Application/Merge-Patch+JSON": false,
	} {
		if got := isJSON(contentType, http.MethodPost); got != want {
			t.Errorf("Content-Type: %q: %v", contentType, got)
		}
	}
	if !isJSON("Application/Merge-Patch+JSON", http.MethodPatch) {
		t.Error("a merge patch")
	}
}

func TestFormatOf(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]*format{
		"": ndjson, "*/*": ndjson, "application/json": ndjson, "application/*": ndjson, "application/x-ndjson": ndjson,
		"text/event-stream": sse, "text/*": sse, "Text/Event-Stream; charset=utf-8": sse, "text/event-stream, */*": sse,
		"text/event-stream;q=0.5, */*": ndjson, "text/event-stream, application/x-ndjson": ndjson, "text/event-stream, application/json;q=0.9": sse,
		"*/*, text/event-stream;q=0": ndjson, "application/x-ndjson;q=0, */*": sse, "application/json, application/x-ndjson;q=0": nil,
		"text/html": nil, "text/event-stream;q=0": nil, "application/json;q=0": nil,
	} {
		if got := formatOf([]string{header}); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
	if formatOf(nil) != ndjson || formatOf([]string{"text/html", "text/event-stream"}) != sse {
		t.Error("lines")
	}
}

func TestParseIfMatch(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"*": "", ` "a-1" `: "a-1", `W/"a"`: `W/"a"`, `""`: `""`, `W/""`: `W/""`, `"a,b"`: "a,b", `"*"`: "*",
	} {
		if got, problem := parseIfMatch(header); got != want || problem != "" {
			t.Errorf("%s: %q, %q", header, got, problem)
		}
	}
	for _, header := range []string{"", "a", `"`, `W/`, `w/"a"`, `"a`, `a"`, `"a" "b"`, `"a","b"`, `*, "a"`, `"a b"`, "\"\xe9\"", "\"\x7f\""} {
		if got, problem := parseIfMatch(header); problem == "" {
			t.Errorf("%s: %q", header, got)
		}
	}
}

// What is taken is an etag that we could have given, or one that never
// matches.
func FuzzParseIfMatch(f *testing.F) {
	for _, header := range []string{"*", `"a"`, `W/"a"`, `""`, `"a", "b"`, "a"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		etag, problem := parseIfMatch(header)
		switch {
		case problem != "" && etag != "":
			t.Errorf("%q: %q and %q", header, etag, problem)
		case problem != "" || strings.Trim(header, " \t") == "*":
		case etag == "":
			t.Errorf("%q: any etag", header)
		case strings.Contains(etag, `"`): // never matches
		default:
			if again, problem := parseIfMatch(`"` + etag + `"`); again != etag || problem != "" {
				t.Errorf("%q: %q, then %q, %q", header, etag, again, problem)
			}
		}
	})
}

// The next page has the same query but for its token, and the header is one
// well-formed link whatever the query and the token are.
func FuzzNextLink(f *testing.F) {
	f.Add("/developers/api_keys", "page_size=2&q=a%20b", "token")
	f.Add("/a>b", "q=%3E%0d%0a", "\r\n>; rel=\"x\"")
	f.Fuzz(func(t *testing.T, path, raw, token string) {
		u := &url.URL{Scheme: "http", Host: "h", Path: "/" + path, RawQuery: raw}
		query, err := url.ParseQuery(raw)
		if err != nil || !canonicalPath(u) {
			return
		}
		link := nextLink(u, token)
		target, ok := strings.CutSuffix(link, `>; rel="next"`)
		if !ok || strings.Count(link, ">") != 1 || strings.Count(link, "<") != 1 || strings.ContainsAny(link, "\r\n") {
			t.Fatalf("%q", link)
		}
		ref, err := u.Parse(target[1:])
		if err != nil {
			t.Fatal(err)
		}
		query.Set("page_token", token)
		if diff := cmp.Diff(query, ref.Query()); diff != "" || ref.Path != u.Path || ref.Host != "h" {
			t.Errorf("%s (-want +got)\n%s", ref, diff)
		}
	})
}

func TestClientOf(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header = map[string][]string{"X-Forwarded-For": {"198.51.100.1", "203.0.113.9, 10.0.0.1"}}
	for remote, want := range map[string]netip.Addr{
		"192.0.2.1:1234": netip.MustParseAddr("192.0.2.1"), "[::ffff:192.0.2.1]:1": netip.MustParseAddr("192.0.2.1"),
		"[fe80::1%eth0]:1": netip.MustParseAddr("fe80::1"), "@": {}, "": {},
	} {
		r.RemoteAddr = remote
		got := clientOf(r)
		if diff := cmp.Diff(authn.Client{Addr: want, ForwardedFor: r.Header["X-Forwarded-For"]}, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got)\n%s", remote, diff)
		}
	}
}

func TestLoggedPath(t *testing.T) {
	t.Parallel()
	const id = "api_key_0197c0ec-a197-719f-84a9-99270a79b42a"
	for path, want := range map[string]string{
		"/developers/api_keys/" + id + "/rotate": "/developers/api_keys/" + id + "/rotate",
		"/a/" + strings.ToUpper(id):              "/a/API_KEY_0197C0EC-A19...",
		"/x_" + strings.Repeat("a", 39):          "/x_" + strings.Repeat("a", 18) + "...",
		"/a/b/c/d/e/f/g/h/i":                     "/a/b/c/d/e/f/g/...",
		"/\xff\n":                                `/\ufffd\u000a`,
	} {
		c := &exchange{h: &Handler{}, r: &http.Request{URL: &url.URL{Path: path}}}
		if got := c.loggedPath(); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestNoCopy(t *testing.T) {
	t.Parallel()
	sent := &apikeysv1.VerifyApiKeyResponse{
		Valid: true, RetryAfterSeconds: proto.Int32(0), PreviousSecret: true,
		ApiKey: &apikeysv1.ApiKey{
			Id: "api_key_1", Scopes: []string{"a", "b"}, Metadata: map[string]string{"team": "billing"},
			CreatedAt: timestamppb.Now(), Metrics: &apikeysv1.ApiKeyMetrics{TotalRequests: 3},
		},
	}
	received := &apikeysv1.VerifyApiKeyResponse{Quota: &apikeysv1.QuotaStatus{Limit: 3}}
	if err := (noCopy{}).Copy(received, sent); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, received, protocmp.Transform()); diff != "" {
		t.Errorf("what was received (-sent +received):\n%s", diff)
	}
	if received.GetApiKey() != sent.GetApiKey() {
		t.Error("the key was copied")
	}
	if err := (noCopy{}).Copy(&emptypb.Empty{}, sent); err == nil {
		t.Error("a message was received as another one")
	}
	if err := (noCopy{}).Copy(received, "text"); err == nil {
		t.Error("a text was received as a message")
	}
}
