package main

import (
	"context"
	"database/sql"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// endpoint notes which deliveries have come, and refuses some of them.
type endpoint struct {
	mu sync.Mutex
	// bodies are what has come, by webhook-id; times counts the acknowledged.
	bodies       map[string]string
	acknowledged map[string]int
	changed      []string // ids of which two different bodies have come
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // The server was killed while it sent.
	}
	id := r.Header.Get("Webhook-Id")
	e.mu.Lock()
	defer e.mu.Unlock()
	if known, ok := e.bodies[id]; ok && known != string(body) {
		e.changed = append(e.changed, id)
	}
	e.bodies[id] = string(body)
	if rand.IntN(20) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	e.acknowledged[id]++
}

// TestKillWhileDelivering kills the program at random points of a load of
// changes that four webhooks are sent. In the end each event that was committed
// has come to each webhook, under one id and with one body however often it came,
// and the program knows it.
func TestKillWhileDelivering(t *testing.T) {
	const webhooks, rounds = 4, 5
	dir := t.TempDir()
	t.Setenv("APIKEYS_WEBHOOKS_DELAYS", "50ms,100ms,200ms,1s,1s,1s,1s,1s,1s")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+crashToken)
	e := &endpoint{bodies: make(map[string]string), acknowledged: make(map[string]int)}
	receiver := httptest.NewServer(e)
	defer receiver.Close()

	p := startProcess(t, dir)
	for range webhooks {
		_, err := apikeysv1.NewWebhooksServiceClient(p.conn).CreateWebhook(ctx, &apikeysv1.CreateWebhookRequest{
			Label: "crash", Url: receiver.URL, Events: []string{"*"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range rounds {
		var writers sync.WaitGroup
		var done atomic.Int64
		most, enough := int64(10+rand.IntN(100)), make(chan struct{})
		for range 8 {
			writers.Go(func() {
				for {
					if _, err := p.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "crash"}); err != nil {
						return // It was killed.
					}
					if done.Add(1) == most {
						close(enough)
					}
					time.Sleep(5 * time.Millisecond) // Deliveries take longer than changes.
				}
			})
		}
		<-enough
		p.kill(t)
		writers.Wait()
		p = startProcess(t, dir)
	}
	// What a killed server held is tried again at once, so this is soon over.
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "apikeys.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	count := func(query string) (n int) {
		t.Helper()
		if err := db.QueryRowContext(context.Background(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const pending = `SELECT (SELECT count(*) FROM deliveries WHERE state = 'pending') +
		(SELECT count(*) FROM events e JOIN fan_out_positions f ON f.organization_id = e.organization_id WHERE e.id > f.position)`
	for deadline := time.Now().Add(30 * time.Second); count(pending) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d deliveries wait for ever", count(pending))
		}
	}
	events := count("SELECT count(*) FROM events WHERE type = 'api_key.created'")
	if n := count("SELECT count(*) FROM deliveries WHERE state = 'delivered'"); n != events*webhooks || events < 10*rounds {
		t.Errorf("%d deliveries of %d events to %d webhooks", n, events, webhooks)
	}
	p.kill(t)
	receiver.Close()
	repeats := 0
	for id := range e.bodies {
		if e.acknowledged[id] == 0 {
			t.Errorf("%s came and was never acknowledged", id)
		}
		repeats += max(e.acknowledged[id]-1, 0)
	}
	if len(e.bodies) != events*webhooks {
		t.Errorf("%d different ids came for %d events to %d webhooks", len(e.bodies), events, webhooks)
	}
	if len(e.changed) > 0 {
		t.Errorf("%d came with another body", len(e.changed))
	}
	t.Logf("%d deliveries, %d repeats", len(e.bodies), repeats)
}
