package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// hookCalls are the webhooks of a server, as an operator calls them.
type hookCalls struct {
	s   *servertest.Server
	rpc apikeysv1.WebhooksServiceClient
}

func (h *hookCalls) create(t *testing.T, url string, format apikeysv1.WebhookFormat) *apikeysv1.Webhook {
	t.Helper()
	created, err := h.rpc.CreateWebhook(h.s.Context(t.Context()), &apikeysv1.CreateWebhookRequest{
		Label: "billing", Url: url, Events: []string{"*"}, Format: format, Headers: map[string]string{"X-Tenant": "blue"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return created.GetWebhook()
}

// move gives a webhook another url.
func (h *hookCalls) move(t *testing.T, id, url string) {
	t.Helper()
	h.s.Call(t, http.MethodPatch, "/developers/webhooks/"+id, fmt.Sprintf(`{"url": %q, "headers": {"X-Tenant": "blue"}}`, url)).Into(t, new(any))
}

func (h *hookCalls) rotate(t *testing.T, id string, overlap int32) {
	t.Helper()
	if _, err := h.rpc.RotateWebhookSecret(h.s.Context(t.Context()), &apikeysv1.RotateWebhookSecretRequest{Id: id, OverlapSeconds: &overlap}); err != nil {
		t.Fatal(err)
	}
}

func (h *hookCalls) remove(t *testing.T, id string) {
	t.Helper()
	if _, err := h.rpc.DeleteWebhook(h.s.Context(t.Context()), &apikeysv1.DeleteWebhookRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
}

// test has a test event sent and returns the id of its delivery.
func (h *hookCalls) test(t *testing.T, id string) string {
	t.Helper()
	sent, err := h.rpc.TestWebhook(h.s.Context(t.Context()), &apikeysv1.TestWebhookRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	return sent.GetDelivery().GetId()
}

// wait returns when the server knows that a delivery was acknowledged.
func (h *hookCalls) wait(t *testing.T, id string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		found, err := h.rpc.GetDelivery(h.s.Context(t.Context()), &apikeysv1.GetDeliveryRequest{Id: id})
		if err != nil {
			t.Fatal(err)
		}
		if found.GetDelivery().GetState() == apikeysv1.DeliveryState_DELIVERY_STATE_DELIVERED {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not delivered: %v", found.GetDelivery())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// arrival is a delivery as a receiver gets it.
type arrival struct {
	header http.Header
	body   []byte
}

// capture takes every delivery and hands it on.
func capture(t *testing.T) (url string, arrived chan arrival) {
	t.Helper()
	arrived = make(chan arrival, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		arrived <- arrival{r.Header, body}
	}))
	t.Cleanup(s.Close)
	return s.URL, arrived
}

// startReceiver runs a receiver on a free port and returns its address, and what
// it says after that.
func startReceiver(t *testing.T, command []string, secret string) (address string, says chan string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "PORT=0", "WEBHOOK_SECRET="+secret)
	cmd.Stderr = io.Discard // a line for each request
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	says = make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(says)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			says <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		cmd.Wait()
	})
	line := <-says
	address, ok := strings.CutPrefix(line, "listening on ")
	if !ok {
		t.Fatalf("it began with %q", line)
	}
	return address, says
}
