package deliver

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest/logtest"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

func TestMain(m *testing.M) {
	// The transport logs what endpoints send without being asked.
	log.SetOutput(io.Discard)
	goleak.VerifyTestMain(m)
}

// The values that tests begin with.
var (
	testNow    = time.Date(2026, 11, 21, 9, 30, 0, 123_456_000, time.UTC)
	testSecret = mustSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	failed     = webhook.Outcome{Status: 500, Failure: statusFailure(500)}
)

func mustSecret(text string) hooks.Secret {
	s, err := hooks.ParseSecret(text)
	if err != nil {
		panic(err)
	}
	return s
}

func testWebhook() webhook.Webhook {
	w, err := webhook.Rules{}.Create(webhook.Webhook{
		ID:             "webhook_0197b617-b4c8-773f-bbd9-3ba84dd93d70",
		OrganizationID: "org_default",
		Label:          "Billing",
		URL:            "https://example.com/hook?token=hunter2",
		Events:         []apikey.EventType{webhook.AllEvents},
		Format:         webhook.FormatClassic,
		Headers:        webhook.NewHeaders(map[string]string{"x-tenant": "hunter3"}),
		Enabled:        true,
	}, testSecret, testNow)
	if err != nil {
		panic(err)
	}
	return w
}

// endpoints is the network: it answers for every host.
type endpoints struct {
	mu sync.Mutex
	// answer is what a host answers with: a status, or what a function says. Hosts
	// that are not in it answer 200.
	answer map[string]any
	// inFlight and most are the requests under way, now and at most, by host and, under
	// "", of all.
	inFlight, most, seen map[string]int
	retryAfter           string
}

func newEndpoints() *endpoints {
	return &endpoints{answer: make(map[string]any), inFlight: make(map[string]int), most: make(map[string]int), seen: make(map[string]int)}
}

// says sets what the endpoint of a webhook answers.
func (e *endpoints) says(id string, answer any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer[id] = answer
}

func (e *endpoints) requests(id string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[id]
}

// atMost returns how many requests were under way at a time since it was asked
// last.
func (e *endpoints) atMost(id string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	most := e.most[id]
	e.most[id] = e.inFlight[id]
	return most
}

// hang answers nothing until the caller gives up.
func hang(r *http.Request) (int, error) {
	<-r.Context().Done()
	return 0, r.Context().Err()
}

// slow answers 200 after a time.
func slow(d time.Duration) func(*http.Request) (int, error) {
	return func(r *http.Request) (int, error) {
		select {
		case <-time.After(d):
			return 200, nil
		case <-r.Context().Done():
			return 0, r.Context().Err()
		}
	}
}

func (e *endpoints) RoundTrip(r *http.Request) (*http.Response, error) {
	id, _, _ := strings.Cut(r.URL.Host, ".")
	e.mu.Lock()
	answer := e.answer[id]
	for _, of := range []string{id, ""} {
		e.seen[of]++
		e.inFlight[of]++
		e.most[of] = max(e.most[of], e.inFlight[of])
	}
	header := make(http.Header)
	if e.retryAfter != "" {
		header.Set("Retry-After", e.retryAfter)
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.inFlight[id]--
		e.inFlight[""]--
	}()
	status := 200
	switch answer := answer.(type) {
	case int:
		status = answer
	case func(*http.Request) (int, error):
		var err error
		if status, err = answer(r); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("ok")), Request: r}, nil
}

// harness is a worker between a fake queue and fake endpoints.
type harness struct {
	*fakeQueue
	*endpoints
	worker *Worker
	log    *logtest.Buffer
	stop   func()
}

// startHarness runs a worker until the bubble's test ends.
func startHarness(t *testing.T, change ...func(*WorkerConfig)) *harness {
	t.Helper()
	r := &harness{fakeQueue: newFakeQueue(), endpoints: newEndpoints(), log: new(logtest.Buffer)}
	client := NewClient(ClientConfig{})
	client.transport.RegisterProtocol("https", r.endpoints)
	c := WorkerConfig{
		Queue: r.fakeQueue, Client: client, Logger: slog.New(slog.NewTextHandler(r.log, nil)),
		Rules: webhook.Rules{DisableAfter: 5 * 24 * time.Hour}, Backoff: webhook.Backoff{Rand: func() float64 { return 0.5 }},
		PerWebhook: 8, PerHost: 64, PerOrganization: 256, Grace: 20 * time.Second,
	}
	for _, f := range change {
		f(&c)
	}
	r.worker = NewWorker(c)
	r.wake = r.worker.Wake
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.worker.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		r.wantIdle(t)
	})
	t.Cleanup(r.stop)
	return r
}

// wantIdle says that the scheduler of a worker that has ended counts nothing.
func (r *harness) wantIdle(t *testing.T) {
	t.Helper()
	s := &r.worker.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight != [healthStates]int{} {
		t.Errorf("%v attempts under way after the end", s.inFlight)
	}
	s.checkLocked(t)
}
