package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// fakeQueue is a queue in memory, by the rules of Queue. Its clock is the bubble's.
type fakeQueue struct {
	mu       sync.Mutex
	webhooks map[string]*webhook.Webhook
	rows     map[string]*fakeRow
	events   []apikey.EventType // about webhooks, in their order
	away     map[string]error   // by the method's name
	calls    map[string]int
	wake     func([]string)
	// claimTakes is how long the next claim takes.
	claimTakes time.Duration
}

type fakeRow struct {
	webhook.Delivery
	due      time.Time // zero: none
	lease    string
	attempts []webhook.Attempt
}

var _ Queue = (*fakeQueue)(nil)

var errAway = errors.New("the database is away")

func newFakeQueue() *fakeQueue {
	return &fakeQueue{
		webhooks: make(map[string]*webhook.Webhook), rows: make(map[string]*fakeRow),
		away: make(map[string]error), calls: make(map[string]int), wake: func([]string) {},
	}
}

// enter begins a call of a method. The caller unlocks.
func (q *fakeQueue) enter(method string) error {
	q.mu.Lock()
	q.calls[method]++
	return q.away[method]
}

// setAway makes calls of methods fail, or work again.
func (q *fakeQueue) setAway(err error, methods ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range methods {
		q.away[m] = err
	}
}

// add makes a webhook.
func (q *fakeQueue) add(id string) *webhook.Webhook {
	w := testWebhook()
	w.ID, w.URL, w.CreatedAt = id, "https://"+id+".example.com/", time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.webhooks[id] = &w
	return &w
}

// change changes a webhook as a caller would.
func (q *fakeQueue) change(id string, rule func(w *webhook.Webhook)) {
	q.mu.Lock()
	w := *q.webhooks[id]
	rule(&w)
	w.UpdatedAt = time.Now()
	q.webhooks[id] = &w
	q.mu.Unlock()
	q.wake([]string{id})
}

// keyPayload returns the payload of an event about a key.
func keyPayload() []byte {
	k := testKey()
	payload, _ := wire.KeyPayload(&k, testNow)
	return payload
}

// put queues n deliveries for a webhook and wakes the worker, in the order of a
// commit.
func (q *fakeQueue) put(id string, n int) {
	q.mu.Lock()
	for range n {
		e := apikey.Event{ID: "event_1", Type: apikey.KeyCreated, OrganizationID: "org_default", ResourceID: "api_key_1", CreatedAt: time.Now(), Payload: keyPayload()}
		d := webhook.NewDelivery(q.webhooks[id], &e, webhook.TriggerSchedule, time.Now())
		d.ID = fmt.Sprintf("delivery_%06d", len(q.rows))
		q.rows[d.ID] = &fakeRow{Delivery: d, due: time.Now()}
	}
	q.mu.Unlock()
	q.wake([]string{id})
}

func (q *fakeQueue) Due(context.Context) (map[string]time.Time, error) {
	err := q.enter("Due")
	defer q.mu.Unlock()
	due := make(map[string]time.Time)
	for _, r := range q.rows {
		w := q.webhooks[r.WebhookID]
		if r.due.IsZero() || w == nil || !w.Enabled {
			continue
		}
		if known, ok := due[r.WebhookID]; !ok || r.due.Before(known) {
			due[r.WebhookID] = r.due
		}
	}
	return due, err
}

func (q *fakeQueue) Endpoints(_ context.Context, ids []string) ([]webhook.Endpoint, error) {
	err := q.enter("Endpoints")
	defer q.mu.Unlock()
	var endpoints []webhook.Endpoint
	for _, id := range ids {
		if w := q.webhooks[id]; w != nil {
			endpoints = append(endpoints, webhook.Endpoint{WebhookID: id, OrganizationID: w.OrganizationID, URL: w.URL})
		}
	}
	return endpoints, err
}

func (q *fakeQueue) Claim(_ context.Context, picks []webhook.Pick, lease string, length time.Duration) ([]webhook.Claim, map[string]time.Time, error) {
	q.mu.Lock()
	takes := q.claimTakes
	q.claimTakes = 0
	q.mu.Unlock()
	time.Sleep(takes)
	err := q.enter("Claim")
	defer q.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	var claims []webhook.Claim
	next := make(map[string]time.Time)
	for _, pick := range picks {
		w := q.webhooks[pick.WebhookID]
		if w == nil || !w.Enabled {
			continue
		}
		var rows []*fakeRow
		for _, r := range q.rows {
			if r.WebhookID == pick.WebhookID && !r.due.IsZero() {
				rows = append(rows, r)
			}
		}
		slices.SortFunc(rows, func(a, b *fakeRow) int { return cmp.Or(a.due.Compare(b.due), strings.Compare(a.ID, b.ID)) })
		for i, r := range rows {
			if i == pick.Max || r.due.After(time.Now()) {
				next[pick.WebhookID] = r.due
				break
			}
			r.lease, r.due = lease, time.Now().Add(length)
			e := &apikey.Event{ID: r.EventID, Type: r.Event, OrganizationID: r.OrganizationID, ResourceID: r.ResourceID, CreatedAt: r.CreatedAt, Payload: keyPayload()}
			if r.EventID == "" {
				e = nil
			}
			claims = append(claims, webhook.Claim{Lease: lease, Delivery: r.Delivery, Webhook: w, Event: e})
		}
	}
	return claims, next, nil
}

func (q *fakeQueue) Settle(_ context.Context, results []webhook.Result, rules webhook.Rules, b webhook.Backoff) (webhook.Settlement, error) {
	err := q.enter("Settle")
	defer q.mu.Unlock()
	if err != nil {
		return webhook.Settlement{}, err
	}
	var settled webhook.Settlement
	for _, result := range results {
		r := q.rows[result.Delivery.ID]
		if r.lease == "" || r.lease != result.Lease {
			continue
		}
		a := r.Settle(&result, b)
		r.attempts = append(r.attempts, a)
		r.lease, r.due = "", r.NextAttemptAt
		settled.Deliveries = append(settled.Deliveries, r.Delivery)
		known := q.webhooks[result.Delivery.WebhookID]
		if known == nil {
			continue
		}
		w := *known
		events := rules.RecordAttempt(&w, &a, r.State, result.EndedAt)
		q.events = append(q.events, events...)
		if len(webhook.Changes(known, &w)) > 0 {
			w.UpdatedAt = time.Now()
		}
		if w.Health.FailingSince.IsZero() != known.Health.FailingSince.IsZero() || len(events) > 0 {
			settled.Changed = append(settled.Changed, webhook.HealthChange{
				WebhookID: w.ID, State: w.Health.State(), DisabledReason: w.DisabledReason, FailingSince: w.Health.FailingSince,
			})
		}
		q.webhooks[w.ID] = &w
	}
	return settled, nil
}

func (q *fakeQueue) Release(_ context.Context, lease string, ids []string) error {
	err := q.enter("Release")
	defer q.mu.Unlock()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if r := q.rows[id]; r.lease == lease {
			r.lease, r.due = "", r.NextAttemptAt
		}
	}
	return nil
}

// row returns a copy of a delivery's row.
func (q *fakeQueue) row(id string) fakeRow {
	q.mu.Lock()
	defer q.mu.Unlock()
	return *q.rows[id]
}

// called, webhook and told return what the queue has seen so far.
func (q *fakeQueue) called(method string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.calls[method]
}

func (q *fakeQueue) webhook(id string) webhook.Webhook {
	q.mu.Lock()
	defer q.mu.Unlock()
	return *q.webhooks[id]
}

func (q *fakeQueue) told() []apikey.EventType {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.events)
}

// count returns how many of a webhook's deliveries, "" for all, are in a state.
func (q *fakeQueue) count(id string, state webhook.DeliveryState) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.rows {
		if (id == "" || r.WebhookID == id) && r.State == state {
			n++
		}
	}
	return n
}

// checkLocked says what is always true of a scheduler.
func (s *scheduler) checkLocked(t interface {
	Errorf(string, ...any)
	Helper()
},
) {
	t.Helper()
	var inFlight [healthStates]int
	for id, k := range s.byID {
		inFlight[k.health] += k.inFlight
		waits := !k.due.IsZero() && (k.inFlight < k.window || k.health == healthy && k.quick && k.organization != "" && k.prefetched <= k.window/2)
		if waits != (k.later >= 0 || k.ready != nil) || k.later >= 0 && k.ready != nil {
			t.Errorf("endpoint %s: due %v, %d of %d under way, and its places are %d and %v", id, k.due, k.inFlight, k.window, k.later, k.ready)
		}
		if k.later >= 0 && s.later[k.later] != k {
			t.Errorf("endpoint %s is not where it says", id)
		}
		if k.inFlight < 0 || k.window < 1 || k.window > s.perWebhook {
			t.Errorf("endpoint %s: %d of %d under way", id, k.inFlight, k.window)
		}
	}
	shares := make(map[string]share)
	for _, k := range s.byID {
		for _, key := range []string{k.organization, k.host} {
			if key != "" && k.inFlight > 0 {
				u := shares[key]
				u[k.health] += k.inFlight
				shares[key] = u
			}
		}
	}
	prefetched, prefetchedOf := make(map[string]int), make(map[string]int)
	for place := s.prefetched.Front(); place != nil; place = place.Next() {
		p := place.Value.(*prefetchedClaim)
		prefetched[p.to.id]++
		prefetchedOf[p.organization]++
		prefetchedOf[p.host]++
	}
	for id, k := range s.byID {
		if k.prefetched != prefetched[id] {
			t.Errorf("endpoint %s: %d prefetched of %d", id, prefetched[id], k.prefetched)
		}
	}
	if !maps.Equal(prefetchedOf, s.prefetchedOf) && len(prefetchedOf)+len(s.prefetchedOf) > 0 {
		t.Errorf("%v prefetched of organizations and hosts, and the scheduler says %v", prefetchedOf, s.prefetchedOf)
	}
	if !maps.Equal(shares, s.shares) {
		t.Errorf("%v under way of organizations and hosts, and the scheduler says %v", shares, s.shares)
	}
	if inFlight != s.inFlight {
		t.Errorf("%v under way, and the scheduler says %v", s.inFlight, inFlight)
	}
	if n := len(s.later) + s.ready[healthy].Len() + s.ready[unknown].Len() + s.ready[failing].Len(); n > len(s.byID) {
		t.Errorf("%d places of %d endpoints", n, len(s.byID))
	}
	for i, k := range s.later {
		if i > 0 && k.due.Before(s.later[(i-1)/2].due) {
			t.Errorf("endpoint %s is due before its parent", k.id)
		}
	}
}
