package rest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
)

// A browser's own clients understand the stream. Above all, the id of a
// heartbeat is the one that an EventSource names when it connects again.
func TestWatchFromJavaScript(t *testing.T) {
	t.Parallel()
	node := testenv.Program(t, "node", "package nodejs of Debian has it")
	if out, err := exec.CommandContext(t.Context(), node, "--experimental-eventsource", "-e", "new EventSource('http://127.0.0.1:1').close()").CombinedOutput(); err != nil {
		t.Skipf("this node has no EventSource: %s", out)
	}
	stopping := gone(t)
	h := newHandler(t, feed{watch: func(req *apikeysv1.WatchEventsRequest, stream watchStream) error {
		if req.GetAfter() == "" {
			return send(stopping, heartbeat("a"), created("b"), heartbeat("c"))(req, stream)
		}
		err := send(nil, heartbeat(req.GetAfter()), created("after "+req.GetAfter()), created("last"))(req, stream)
		<-stream.Context().Done()
		return err
	}}.conn(), io.Discard)
	// An EventSource has no headers of its own; in earnest a proxy adds this.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", "Bearer token")
		if r.Header.Get("Accept") == "text/event-stream" {
			w = &impatient{ResponseWriter: w}
		}
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	out, err := exec.CommandContext(t.Context(), node, "--no-warnings", "--experimental-eventsource", "testdata/watch.mjs", server.URL+"/developers/events/watch").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []string{
		"fetch a heartbeat", "fetch b api_key.created", "fetch c heartbeat", "fetch - 503",
		"event b api_key.created", "event c 503",
		"event after c api_key.created", "event last api_key.created",
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(out)), "\n")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// An impatient asks an EventSource to connect again at once, not in 3 seconds.
type impatient struct {
	http.ResponseWriter
	asked bool
}

func (w *impatient) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *impatient) Write(data []byte) (int, error) {
	if !w.asked {
		w.asked = true
		if _, err := io.WriteString(w.ResponseWriter, "retry: 1\n\n"); err != nil {
			return 0, err
		}
	}
	return w.ResponseWriter.Write(data)
}
