package rest_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/reference"
	"github.com/apikeys-dev/apikeys/server/rest"
)

// TestFiles asks for the document and the page, which need no credential.
func TestFiles(t *testing.T) {
	t.Parallel()
	h, err := rest.New(rest.Config{
		Conn: (&fakeAPI{}).conn(), AnswerTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler),
		Document: []byte(`{"openapi":"3.1.0"}`), Page: reference.Page(false),
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(line string, header ...string) (int, http.Header, []byte) {
		r := request(line, "", append([]string{"Authorization:"}, header...)...)
		w := do(h, r)
		checkDescribed(t, r, w)
		return w.Code, w.Header(), w.Body.Bytes()
	}
	for path, mediaType := range map[string]string{
		"/openapi.json": "application/json", "/docs": "text/html; charset=utf-8", "/docs/init.js": "text/javascript; charset=utf-8",
		"/docs/swagger-ui.css": "text/css; charset=utf-8", "/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
	} {
		t.Run(path, func(t *testing.T) {
			status, header, plain := ask("GET " + path)
			for name, want := range map[string]string{
				"Content-Type": mediaType, "Content-Encoding": "", "Vary": "Accept-Encoding", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
			} {
				if got := header.Get(name); status != http.StatusOK || got != want {
					t.Errorf("%d, %s: got %q, want %q", status, name, got, want)
				}
			}
			if strings.HasPrefix(path, "/docs") && (header.Get("Content-Security-Policy") != reference.Policy || header.Get("Referrer-Policy") != "no-referrer") {
				t.Errorf("the page may do more than it should: %v", header)
			}
			_, packedHeader, packed := ask("GET "+path, "Accept-Encoding: br, gzip;q=0.5")
			r, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil || packedHeader.Get("Content-Encoding") != "gzip" {
				t.Fatalf("not in gzip: %v %v", packedHeader, err)
			}
			if unpacked, err := io.ReadAll(r); err != nil || !bytes.Equal(unpacked, plain) {
				t.Errorf("in gzip it is something else: %v", err)
			}
			etag, packedTag := header.Get("ETag"), packedHeader.Get("ETag")
			if len(etag) < 20 || etag == packedTag || !strings.HasPrefix(etag, `"`) {
				t.Errorf("etags %s and %s", etag, packedTag)
			}
			for none, want := range map[string]int{
				etag: 304, "W/" + etag: 304, `"a", ` + etag: 304, "*": 304, `"a"`: 200, packedTag: 200, strings.Trim(etag, `"`): 200,
			} {
				status, header, body := ask("GET "+path, "If-None-Match: "+none)
				if status != want || (status == 304) != (len(body) == 0) || header.Get("ETag") != etag {
					t.Errorf("If-None-Match %s: %d with %d bytes", none, status, len(body))
				}
			}
			if status, header, body := ask("HEAD " + path); status != http.StatusOK || header.Get("ETag") != etag || header.Get("Content-Length") == "" || len(body) > 0 {
				t.Errorf("HEAD: %d, %v, %d bytes", status, header, len(body))
			}
			if status, header, _ := ask("POST " + path); status != http.StatusMethodNotAllowed || header.Get("Allow") != "GET, HEAD, OPTIONS" {
				t.Errorf("POST: %d, Allow %s", status, header.Get("Allow"))
			}
			if status, header, _ := ask("OPTIONS " + path); status != http.StatusOK || header.Get("Allow") != "GET, HEAD, OPTIONS" {
				t.Errorf("OPTIONS: %d, Allow %s", status, header.Get("Allow"))
			}
		})
	}
	for _, path := range []string{"/docs/", "/docs/LICENSE", "/docs/init.js/x", "/openapi.json/", "/docs/index.html"} {
		if status, _, body := ask("GET " + path); status != http.StatusNotFound || !bytes.Contains(body, []byte("ROUTE_NOT_FOUND")) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for coding, packed := range map[string]bool{"": false, "gzip;q=0": false, "*": true, "identity": false, "*;q=0, GZIP": true, "deflate": false} {
		if _, header, _ := ask("GET /openapi.json", "Accept-Encoding: "+coding); (header.Get("Content-Encoding") == "gzip") != packed {
			t.Errorf("Accept-Encoding %q: %v", coding, header)
		}
	}
}

// TestNoFiles leaves out what a server is not to serve.
func TestNoFiles(t *testing.T) {
	t.Parallel()
	h := newHandler(t, (&fakeAPI{}).conn(), io.Discard)
	for _, line := range []string{"GET /docs", "GET /docs/init.js", "GET /openapi.json", "OPTIONS /docs"} {
		if w := do(h, request(line, "")); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", line, w.Code)
		}
	}
	_, err := rest.New(rest.Config{Conn: (&fakeAPI{}).conn(), AnswerTimeout: time.Minute, Page: []reference.File{{Gzip: []byte("junk")}}})
	if err == nil {
		t.Error("a file that is not in gzip is served")
	}
}
