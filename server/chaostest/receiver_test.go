package chaostest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// receipt is one attempt of a delivery, as its receiver saw it.
type receipt struct {
	delivery, webhook string
	at                time.Duration
	status            int
}

// subscribed is a webhook of a run.
type subscribed struct {
	id, organization, secret, path string
	types                          []string
}

// receiver is the endpoint of all webhooks of a run.
type receiver struct {
	load     *load
	listener net.Listener
	server   *http.Server
	webhooks []*subscribed

	mu       sync.Mutex
	receipts []receipt
	random   *rand.Rand
}

func newReceiver(l *load) (*receiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{load: l, listener: listener, random: rand.New(rand.NewPCG(l.seed, 2))}
	r.server = &http.Server{Handler: r}
	go r.server.Serve(listener) // It ends with the listener.
	return r, nil
}

func (r *receiver) close() { _ = r.server.Close() }

// subscribe makes the webhooks: one that always acknowledges, one that often fails,
// one that is slow, and one that is disabled and enabled again and again.
func (r *receiver) subscribe() error {
	r.webhooks = []*subscribed{
		{organization: organizations[0], path: "good", types: []string{"*"}},
		{organization: organizations[0], path: "flaky", types: []string{"api_key.revoked", "api_key.created"}},
		{organization: organizations[1], path: "slow", types: []string{"api_key.updated"}},
		{organization: organizations[1], path: "toggled", types: []string{"*"}},
	}
	for i, w := range r.webhooks {
		ctx := as(r.load.ctx, w.organization)
		resp, err := r.load.replicas[i%len(r.load.replicas)].hooks.CreateWebhook(ctx, &apikeysv1.CreateWebhookRequest{
			Label: w.path, Url: fmt.Sprintf("http://%s/%d", r.listener.Addr(), i), Events: w.types,
		})
		if err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		w.id, w.secret = resp.GetWebhook().GetId(), resp.GetWebhook().GetSecret()
	}
	return nil
}

// toggle disables or enables the webhook that is there for it.
func (r *receiver) toggle(random *rand.Rand) {
	w := r.webhooks[3]
	ctx, cancel := context.WithTimeout(as(r.load.ctx, w.organization), changeTimeout)
	defer cancel()
	// What comes of it the log says.
	_, _ = r.load.any(random).hooks.UpdateWebhook(ctx, &apikeysv1.UpdateWebhookRequest{
		Id: w.id, Webhook: &apikeysv1.Webhook{Enabled: random.IntN(2) == 0}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"enabled"}},
	})
}

// ServeHTTP takes an attempt.
func (r *receiver) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		return // Its sender is gone.
	}
	w := r.webhooks[0]
	for i := range r.webhooks {
		if in.URL.Path == fmt.Sprint("/", i) {
			w = r.webhooks[i]
		}
	}
	if err := hooks.Verify(w.secret, in.Header, body, time.Now()); err != nil {
		r.load.violation("an attempt at webhook %q does not verify: %v", w.path, err)
	}
	r.mu.Lock()
	chance := r.random.IntN(100)
	r.mu.Unlock()
	answer := http.StatusOK
	switch {
	case w.path == "flaky" && chance < 30:
		answer = http.StatusInternalServerError
	case w.path == "slow":
		select {
		case <-time.After(time.Duration(chance) * 5 * time.Millisecond):
		case <-in.Context().Done():
		}
	}
	r.mu.Lock()
	r.receipts = append(r.receipts, receipt{in.Header.Get("webhook-id"), w.id, r.load.history.now(), answer})
	r.mu.Unlock()
	out.WriteHeader(answer)
}

// received returns what has come so far, by delivery.
func (r *receiver) received() map[string][]receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	by := make(map[string][]receipt)
	for _, got := range r.receipts {
		by[got.delivery] = append(by[got.delivery], got)
	}
	return by
}
