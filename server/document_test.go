package server

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestDocument asks a server for its document and its page.
func TestDocument(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config Config
		calls  string // of the page; "" where there is none
	}{
		"development": {Config{Version: `v1.2"3 (go1.26, linux)`}, "yes"},
		"production":  {Config{Version: `v1.2"3`, Env: Production}, "no"},
		"no page":     {Config{Version: `v1.2"3`, NoDocs: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.config.DataDir = t.TempDir()
			s, stop := runServer(t, c.config)
			get := func(path string) (int, []byte) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.RESTAddr().String()+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Close = true
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return resp.StatusCode, body
			}
			status, body := get("/openapi.json")
			var document struct {
				OpenAPI string
				Info    struct{ Version string }
				Paths   map[string]any
			}
			if err := json.Unmarshal(body, &document); err != nil || status != http.StatusOK {
				t.Fatalf("%d: %v", status, err)
			}
			if document.OpenAPI != "3.1.0" || document.Info.Version != `v1.2"3` || document.Paths["/developers/api_keys"] == nil {
				t.Errorf("the document is of %q, version %q, with %d paths", document.OpenAPI, document.Info.Version, len(document.Paths))
			}
			status, body = get("/docs")
			if (status == http.StatusOK) != (c.calls != "") {
				t.Errorf("the page: %d", status)
			}
			if c.calls != "" && !strings.Contains(string(body), `data-calls="`+c.calls+`"`) {
				t.Errorf("the page: %s", body)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
