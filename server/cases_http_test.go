package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/servertest"
)

// A raw case is the bytes of one request and what has to come back.
type raw struct {
	request string // with \n for the ends of lines, and <auth> for the operator's header
	status  int
	reason  string
	allow   string
}

// send writes the bytes of a request on a connection of its own and reads the
// answer to it.
func (w *harness) send(t *testing.T, request string) (status int, header http.Header, text []byte) {
	t.Helper()
	if w.http2 {
		return w.sendHTTP2(t, request)
	}
	conn := w.dial(t)
	defer conn.Close()
	head, body, _ := strings.Cut(request, "\n\n")
	head = strings.ReplaceAll(strings.ReplaceAll(head, "<auth>", "Authorization: Bearer "+servertest.RootToken), "\n", "\r\n")
	if body != "" && !strings.Contains(head, "Content-Length") {
		head += fmt.Sprintf("\r\nContent-Length: %d", len(body))
	}
	if _, err := io.WriteString(conn, head+"\r\nHost: h\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(head, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.Close {
		resp.Header.Set("Connection", "close") // which the reader takes away
	}
	return resp.StatusCode, resp.Header, text
}

// TestRaw sends bytes that no client library would.
func TestRaw(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.take(t, "create", "rest", step{rpc: "CreateApiKey", body: `{"label": "k"}`, save: "k"})
	const post = "POST /developers/api_keys HTTP/1.1\n<auth>\nContent-Type: application/json\n\n"
	const patch = "PATCH /developers/api_keys/$k.id HTTP/1.1\n<auth>\nContent-Type: application/json\n\n"
	const routes, malformed, invalid = "ROUTE_NOT_FOUND", "MALFORMED_JSON", "INVALID_ARGUMENT"
	for name, c := range map[string]raw{
		"unknown path":           {"GET /nowhere HTTP/1.1", 404, routes, ""},
		"root":                   {"GET / HTTP/1.0", 404, routes, ""},
		"slash at the end":       {"GET /developers/api_keys/ HTTP/1.1\n<auth>", 404, routes, ""},
		"upper case":             {"GET /Developers/api_keys HTTP/1.1\n<auth>", 404, routes, ""},
		"absolute":               {"GET http://elsewhere/developers/api_keys HTTP/1.1\n<auth>", 200, "", ""},
		"HTTP/1.0":               {"GET /developers/api_keys HTTP/1.0\n<auth>", 200, "", ""},
		"star":                   {"GET * HTTP/1.1", 404, routes, ""},
		"options star":           {"OPTIONS * HTTP/1.1", 404, routes, ""},
		"options":                {"OPTIONS /developers/api_keys HTTP/1.1", 200, "", "GET, HEAD, POST, OPTIONS"},
		"connect":                {"CONNECT h:80 HTTP/1.1", 404, routes, ""},
		"trace":                  {"TRACE /developers/api_keys HTTP/1.1\n<auth>", 405, "METHOD_NOT_ALLOWED", "GET, HEAD, POST, OPTIONS"},
		"h2 preface":             {"PRI * HTTP/2.0\n\nSM\r\n\r\n", 404, routes, ""},
		"delete all":             {"DELETE /developers/api_keys HTTP/1.1\n<auth>", 405, "METHOD_NOT_ALLOWED", "GET, HEAD, POST, OPTIONS"},
		"own method":             {"get /developers/api_keys HTTP/1.1\n<auth>", 405, "METHOD_NOT_ALLOWED", "GET, HEAD, POST, OPTIONS"},
		"rotate by get":          {"GET /developers/api_keys/$k.id/rotate HTTP/1.1\n<auth>", 405, "METHOD_NOT_ALLOWED", "POST, OPTIONS"},
		"post to a key":          {"POST /developers/api_keys/$k.id HTTP/1.1\n<auth>\n\n{}", 405, "METHOD_NOT_ALLOWED", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"},
		"override":               {"POST /developers/api_keys/$k.id HTTP/1.1\n<auth>\nX-HTTP-Method-Override: DELETE\n\n{}", 405, "METHOD_NOT_ALLOWED", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"},
		"accept":                 {"GET /developers/api_keys HTTP/1.1\n<auth>\nAccept: text/html", 406, "NOT_ACCEPTABLE", ""},
		"accept xml or all":      {"GET /developers/api_keys HTTP/1.1\n<auth>\nAccept: text/xml, */*;q=0.1", 200, "", ""},
		"accept nothing json":    {"GET /developers/api_keys HTTP/1.1\n<auth>\nAccept: */*, application/json;q=0", 406, "NOT_ACCEPTABLE", ""},
		"form":                   {"POST /developers/api_keys HTTP/1.1\n<auth>\nContent-Type: application/x-www-form-urlencoded\n\nlabel=x", 415, "UNSUPPORTED_MEDIA_TYPE", ""},
		"two types":              {"POST /developers/api_keys HTTP/1.1\n<auth>\nContent-Type: application/json\nContent-Type: text/plain\n\n{}", 415, "UNSUPPORTED_MEDIA_TYPE", ""},
		"gzip":                   {"POST /developers/api_keys HTTP/1.1\n<auth>\nContent-Type: application/json\nContent-Encoding: gzip\n\n{}", 415, "UNSUPPORTED_MEDIA_TYPE", ""},
		"latin1":                 {"POST /developers/api_keys HTTP/1.1\n<auth>\nContent-Type: application/json; charset=iso-8859-1\n\n{}", 415, "UNSUPPORTED_MEDIA_TYPE", ""},
		"patch type":             {"PATCH /developers/api_keys/$k.id HTTP/1.1\n<auth>\nContent-Type: application/merge-patch+json; charset=utf-8\n\n{}", 200, "", ""},
		"too large, announced":   {post[:len(post)-2] + "\nContent-Length: 1048577\n\n", 413, "REQUEST_TOO_LARGE", ""},
		"too large":              {post + `{"label": "` + strings.Repeat("x", 1<<20) + `"}`, 413, "REQUEST_TOO_LARGE", ""},
		"too large, in chunks":   {post[:len(post)-2] + "\nTransfer-Encoding: chunked\nContent-Length: 5\n\n" + "100001\r\n" + strings.Repeat(" ", 1<<20+1) + "\r\n0\r\n\r\n", 413, "REQUEST_TOO_LARGE", ""},
		"just large enough":      {post + `{"label": "x"` + strings.Repeat(" ", 1<<20-14) + `}`, 200, "", ""},
		"no credential, large":   {"POST /developers/api_keys HTTP/1.1\nContent-Length: 99999999\n\n", 401, "UNAUTHENTICATED", ""},
		"no credential, no JSON": {"POST /developers/api_keys HTTP/1.1\nContent-Type: text/plain\n\n{{{", 401, "UNAUTHENTICATED", ""},
		"null":                   {post + "null", 400, malformed, ""},
		"list":                   {post + `[{"label": "x"}]`, 400, malformed, ""},
		"text":                   {post + `"label"`, 400, malformed, ""},
		"two objects":            {post + `{"label": "x"}{}`, 400, malformed, ""},
		"cut off":                {post + `{"label": "x"`, 400, malformed, ""},
		"comma":                  {post + `{"label": "x",}`, 400, malformed, ""},
		"single quotes":          {post + `{'label': 'x'}`, 400, malformed, ""},
		"comment":                {post + `{"label": "x" /* y */}`, 400, malformed, ""},
		"byte order mark":        {post + "\xef\xbb\xbf" + `{"label": "x"}`, 400, malformed, ""},
		"spaces":                 {post + "  ", 400, malformed, ""},
		"twice":                  {post + `{"label": "x", "label": "x"}`, 400, malformed, ""},
		"twice, escaped":         {post + `{"label": "x", "\u006cabel": "y"}`, 400, malformed, ""},
		"twice, deeper":          {post + `{"label": "x", "metadata": {"a": "1", "a": "2"}}`, 400, malformed, ""},
		"twice, unknown":         {post + `{"label": "x", "z": {"a": 1, "a": 2}}`, 400, malformed, ""},
		"deep":                   {post + `{"label": "x", "z": ` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`, 400, malformed, ""},
		"not UTF-8":              {post + "{\"label\": \"\xff\"}", 400, malformed, ""},
		"half a surrogate":       {post + `{"label": "\ud800"}`, 400, malformed, ""},
		"raw control character":  {post + "{\"label\": \"a\tb\"}", 400, malformed, ""},
		"NUL":                    {post + `{"label": "a\u0000"}`, 400, invalid, ""},
		"NUL outside":            {post + "{\"label\": \"a\"}\x00", 400, malformed, ""},
		"huge number":            {post + `{"label": "x", "rate_limit": {"requests": ` + strings.Repeat("9", 1000) + `, "window_seconds": 1e400}}`, 400, invalid, ""},
		"NaN":                    {post + `{"label": "x", "rate_limit": {"requests": NaN}}`, 400, malformed, ""},
		"leading zero":           {post + `{"label": "x", "rate_limit": {"requests": 01}}`, 400, malformed, ""},
		"patch null":             {patch + "null", 400, malformed, ""},
		"patch list":             {patch + `[{"op": "remove", "path": "/label"}]`, 400, malformed, ""},
		"query of a body":        {"POST /developers/api_keys?label=x HTTP/1.1\n<auth>\n\n{}", 400, invalid, ""},
		"broken query":           {"GET /developers/api_keys?q=%zz HTTP/1.1\n<auth>", 400, "MALFORMED_QUERY", ""},
		"semicolon":              {"GET /developers/api_keys?page_size=1;q=x HTTP/1.1\n<auth>", 400, "MALFORMED_QUERY", ""},
		"If-Match":               {"PATCH /developers/api_keys/$k.id HTTP/1.1\n<auth>\nIf-Match: 1\n\n{}", 400, invalid, ""},
		"stale":                  {"PATCH /developers/api_keys/$k.id HTTP/1.1\n<auth>\nIf-Match: \"\"\n\n{}", 409, "ETAG_MISMATCH", ""},
		"grpc-timeout":           {"GET /developers/api_keys HTTP/1.1\n<auth>\nGrpc-Timeout: 1n", 200, "", ""},
		"smuggled credential":    {"GET /developers/api_keys HTTP/1.1\nGrpc-Metadata-Authorization: Bearer " + servertest.RootToken + "\nGrpc-Metadata-X-Api-Key: " + servertest.RootToken, 401, "UNAUTHENTICATED", ""},
		"smuggled organization":  {"GET /developers/api_keys/$k.id HTTP/1.1\n<auth>\nGrpc-Metadata-X-Organization-Id: org_x\nX-Forwarded-Host: h\nX-Forwarded-Proto: gopher", 200, "", ""},
		"healthz":                {"GET /healthz HTTP/1.1", 200, "", ""},
		"readyz":                 {"GET /readyz HTTP/1.1", 200, "", ""},
		"healthz by post":        {"POST /healthz HTTP/1.1\n\n{}", 405, "METHOD_NOT_ALLOWED", "GET, HEAD, OPTIONS"},
	} {
		t.Run(name, func(t *testing.T) {
			status, header, text := w.send(t, w.fill(c.request))
			allow := header.Get("Allow")
			if status == http.StatusOK {
				header.Del("Allow") // of OPTIONS
			}
			a := w.envelope(t, status, header, text)
			if a.status != c.status || a.reason != c.reason || allow != c.allow {
				t.Errorf("got %d %s, Allow %q: %s", a.status, a.reason, allow, text)
			}
			if strings.Contains(string(text), "label is required") || a.reason == invalid && len(a.validator) == 0 {
				t.Errorf("validator: %s", text)
			}
		})
	}
}

// TestHead compares HEAD with GET: all of the headers, none of the body.
func TestHead(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	for _, path := range []string{"/healthz", keysPath, keysPath + "/none", "/nowhere", keysPath + "?page_size=0x1"} {
		get, _, body := w.send(t, "GET "+path+" HTTP/1.1\n<auth>")
		head, header, none := w.send(t, "HEAD "+path+" HTTP/1.1\n<auth>")
		if head != get || header.Get("Content-Length") != fmt.Sprint(len(body)) || len(none) > 0 || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: GET %d with %d bytes, HEAD %d with %v: %q", path, get, len(body), head, header, none)
		}
	}
}
