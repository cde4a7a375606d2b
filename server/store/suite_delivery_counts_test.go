package store_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/uuid/v5"
	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

var deliveryCountTests = map[string]func(*testing.T, *fixture){
	"DeliveryCounts":          testDeliveryCounts,
	"DeliveryCountHistories":  testDeliveryCountHistories,
	"DeliveryCountURLs":       testDeliveryCountURLs,
	"DeliveryCountsRetention": testDeliveryCountsRetention,
}

// alwaysSince and alwaysUntil are a span that has everything in it.
var alwaysSince, alwaysUntil = time.UnixMicro(0), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// deliveryCounts returns the counts of all time.
func (f *fixture) deliveryCounts(tb rapid.TB, organization string) webhook.DeliveryCounts {
	tb.Helper()
	c, err := f.Store.DeliveryCounts(context.Background(), organization, alwaysSince, alwaysUntil, 1000)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// recounted counts the deliveries and attempts that are kept.
func (f *fixture) recounted(tb testing.TB, organization string) (c webhook.DeliveryCounts) {
	tb.Helper()
	hours := make(map[string]*webhook.HourOfDeliveries)
	delays, urls := make(map[time.Duration]int64), make(map[string]*webhook.URLFailures)
	type place struct {
		failed   bool
		attempts int64
	}
	places := make(map[string]place)
	for _, row := range readRows(tb, f.Reader(), "SELECT id, event, state, attempts, ended_at FROM deliveries WHERE organization_id = '"+organization+"'") {
		id, event, state, attempts := row[0].(string), row[1].(string), row[2].(string), row[3].(int64)
		u := uuid.FromStringOrNil(strings.TrimPrefix(id, webhook.DeliveryIDPrefix))
		stamp, err := uuid.TimestampFromV7(u)
		if err != nil {
			tb.Fatal(err)
		}
		at, _ := stamp.Time()
		start := apikey.Hourly.Start(at.UTC())
		h := hours[start.String()+event]
		if h == nil {
			h = &webhook.HourOfDeliveries{Start: start, Event: apikey.EventType(event)}
			hours[start.String()+event] = h
		}
		h.Made++
		switch webhook.DeliveryState(state) {
		case webhook.StateDelivered:
			h.Delivered++
			delay := max(time.UnixMicro(row[4].(int64)).Sub(at), 0)
			h.Delay += delay
			delays[countedWith(delay)]++
		case webhook.StateFailed:
			h.Failed++
		case webhook.StateCancelled:
			h.Cancelled++
		case webhook.StatePending:
		}
		if attempts > 0 {
			h.Attempted++
		}
		if attempts > 1 {
			h.Retried++
		}
		places[id] = place{state == "failed", attempts}
	}
	for _, row := range readRows(tb, f.Reader(), "SELECT delivery_id, number, url FROM delivery_attempts WHERE error_class <> ''") {
		p, ours := places[row[0].(string)]
		if !ours {
			continue
		}
		url, _, _ := strings.Cut(row[2].(string), "?")
		if urls[url] == nil {
			urls[url] = &webhook.URLFailures{URL: url}
		}
		urls[url].Attempts++
		if p.failed && p.attempts == row[1].(int64) {
			urls[url].Deliveries++
		}
	}
	for _, h := range hours {
		c.Hours = append(c.Hours, *h)
	}
	slices.SortFunc(c.Hours, func(a, b webhook.HourOfDeliveries) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Event, b.Event))
	})
	for least, n := range delays {
		c.Delays = append(c.Delays, webhook.DelayCount{Least: least, Count: n})
	}
	slices.SortFunc(c.Delays, func(a, b webhook.DelayCount) int { return cmp.Compare(a.Least, b.Least) })
	for _, u := range urls {
		c.URLs = append(c.URLs, *u)
	}
	slices.SortFunc(c.URLs, func(a, b webhook.URLFailures) int {
		return cmp.Or(cmp.Compare(b.Attempts, a.Attempts), cmp.Compare(a.URL, b.URL))
	})
	return c
}

// countedWith returns the shortest delay that is counted with a delay: its first two
// digits, the second one to the next even digit, 5 or 0 below.
func countedWith(delay time.Duration) time.Duration {
	text := []byte(strconv.FormatInt(max(delay.Microseconds(), 1000), 10))
	for i := range text[2:] {
		text[i+2] = '0'
	}
	switch second := text[1] - '0'; {
	case text[0] == '1':
		text[1] -= second % 2
	case text[0] < '5':
		text[1] -= second % 5
	default:
		text[1] = '0'
	}
	us, _ := strconv.ParseInt(string(text), 10, 64)
	return time.Duration(us) * time.Microsecond
}

// testDeliveryCounts follows deliveries through their states.
func testDeliveryCounts(t *testing.T, f *fixture) {
	f.SetNewID(apikey.NewIDAt(f.clock.Now))
	begin := f.clock.stored().Truncate(time.Millisecond)
	w := f.hook(t, func(w *webhook.Webhook) { w.URL = "https://example.com/hook?token=secret" })
	f.create(t, nil)
	f.create(t, nil)
	hour := apikey.Hourly.Start(begin)
	want := webhook.HourOfDeliveries{Start: hour, Event: apikey.KeyCreated}
	check := func(what string, delays []webhook.DelayCount, urls ...webhook.URLFailures) {
		t.Helper()
		wantSame(t, what, webhook.DeliveryCounts{Hours: []webhook.HourOfDeliveries{want}, Delays: delays, URLs: urls}, f.deliveryCounts(t, org))
	}
	want.Made = 2
	check("made", nil)
	f.clock.Advance(time.Second)
	f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	late := f.deliveries(t, store.DeliveryFilter{State: webhook.StateDelivered})[0]
	want.Delivered, want.Attempted, want.Delay = 1, 1, late.EndedAt.Sub(begin)
	delays := []webhook.DelayCount{{Least: countedWith(want.Delay), Count: 1}}
	check("delivered", delays)
	failures := webhook.URLFailures{URL: "https://example.com/hook"}
	for range 3 {
		f.settleOne(t, w.ID, failed)
		f.clock.Advance(2 * time.Hour)
		failures.Attempts++
	}
	failures.Deliveries, want.Failed, want.Attempted, want.Retried = 1, 1, 2, 1
	check("failed", delays, failures)
	retry := func(state webhook.DeliveryState) {
		t.Helper()
		if _, _, err := f.RetryDeliveries(t.Context(), operator, org, w.ID, []webhook.DeliveryState{state}, 0, 10); err != nil {
			t.Fatal(err)
		}
	}
	retry(webhook.StateFailed)
	failures.Deliveries, want.Failed = 0, 0
	check("failed, again", delays, failures)
	retry(webhook.StateDelivered)
	want.Delivered, want.Delay = 0, 0
	check("delivered, again", nil, failures)
	if err := f.DeleteWebhook(t.Context(), operator, org, w.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.CancelOrphans(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	want.Cancelled = 2
	check("cancelled", nil, failures)
	f.clock.Advance(time.Hour)
	if n, err := f.DeleteDeliveriesBefore(t.Context(), f.clock.Now(), 10); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	check("deleted", nil, failures)
	if got, err := f.Store.DeliveryCounts(t.Context(), org, hour.Add(time.Hour), alwaysUntil, 10); err != nil || len(got.Hours)+len(got.URLs) > 0 {
		t.Errorf("after the hour: %+v, %v", got, err)
	}
	if got := f.deliveryCounts(t, "org_other"); len(got.Hours) > 0 {
		t.Errorf("of others: %+v", got)
	}
	if from, err := f.DeliveryCountsFrom(t.Context()); err != nil || !from.IsZero() {
		t.Errorf("a new database has counts from %v, %v", from, err)
	}
}

// mostHistories bounds the histories of a run, which take long on PostgreSQL.
const mostHistories = 40

// testDeliveryCountHistories has random things happen to deliveries: after each, the
// counts are those of the rows.
func testDeliveryCountHistories(t *testing.T, f *fixture) {
	f.SetNewID(apikey.NewIDAt(f.clock.Now))
	histories := 0
	rapid.Check(t, func(rt *rapid.T) {
		if histories++; histories > mostHistories {
			return
		}
		h := &history{t: t, f: f, org: fmt.Sprint("org_", histories), replayed: make(map[string]bool)}
		by := *operator
		by.Organization = h.org
		var held []webhook.Claim
		claimed := 0
		one := func(rt *rapid.T, rule func(*webhook.Delivery, *webhook.Webhook, time.Time) error) {
			all := h.deliveries(rt)
			if len(all) == 0 {
				return
			}
			// What the rule refuses changes nothing.
			_, err := f.ChangeDelivery(context.Background(), &by, h.org, rapid.SampledFrom(all).Draw(rt, "delivery").ID, rule)
			if err != nil && apikey.AsError(err) == nil {
				rt.Fatal(err)
			}
		}
		no := func(rt *rapid.T, err error) {
			if err != nil && apikey.AsError(err) == nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create a webhook": func(rt *rapid.T) { no(rt, h.createHook(rt)()) },
			"change a webhook": func(rt *rapid.T) { no(rt, h.changeHook(rt)()) },
			"change keys":      h.together,
			"replay":           h.replay,
			"fan out":          func(rt *rapid.T) { f.turn(rt, h.org, time.Second) },
			"later": func(rt *rapid.T) {
				f.clock.Advance(time.Duration(rapid.IntRange(1, 4000).Draw(rt, "seconds")) * time.Second)
			},
			"test": func(rt *rapid.T) {
				if len(h.hooks) > 0 {
					_, err := f.TestWebhook(context.Background(), &by, h.org, rapid.SampledFrom(h.hooks).Draw(rt, "webhook"))
					no(rt, err)
				}
			},
			"claim": func(rt *rapid.T) {
				picks := make([]webhook.Pick, len(h.hooks))
				for i, id := range h.hooks {
					picks[i] = webhook.Pick{WebhookID: id, Max: rapid.IntRange(1, 5).Draw(rt, "most")}
				}
				claimed++ // Each claim has a lease of its own, also where it is of the same delivery.
				claims, _, err := f.Claim(context.Background(), picks, fmt.Sprint("lease_", histories, "_", claimed), time.Minute)
				no(rt, err)
				held = append(held, claims...)
			},
			"settle": func(rt *rapid.T) {
				n := rapid.IntRange(0, len(held)).Draw(rt, "settled")
				var results []webhook.Result
				for i := range held[:n] {
					r := held[i].Result()
					r.StartedAt, r.EndedAt = f.clock.stored(), f.clock.stored().Add(time.Duration(rapid.IntRange(0, 5_000_000).Draw(rt, "took"))*time.Microsecond)
					r.Outcome = rapid.SampledFrom([]webhook.Outcome{{Status: 200}, failed, {Failure: webhook.Failure{Class: webhook.ClassEventGone}}}).Draw(rt, "outcome")
					results = append(results, r)
				}
				held = held[n:]
				_, err := f.Settle(context.Background(), results, hookRules, steady)
				no(rt, err)
			},
			"crash": func(rt *rapid.T) {
				held = nil
				no(rt, f.VoidLeases(context.Background()))
			},
			"retry one": func(rt *rapid.T) {
				one(rt, func(d *webhook.Delivery, w *webhook.Webhook, now time.Time) error {
					if w == nil {
						return webhook.ErrDeliveryNotFound
					}
					return d.Retry(w, webhook.TriggerRetry, now)
				})
			},
			"cancel one": func(rt *rapid.T) {
				one(rt, func(d *webhook.Delivery, _ *webhook.Webhook, now time.Time) error {
					_, err := d.Cancel(now)
					return err
				})
			},
			"retry many": func(rt *rapid.T) {
				if len(h.hooks) > 0 {
					_, _, err := f.RetryDeliveries(context.Background(), &by, h.org, rapid.SampledFrom(h.hooks).Draw(rt, "webhook"),
						[]webhook.DeliveryState{webhook.StateFailed, webhook.StateCancelled}, 0, 100)
					no(rt, err)
				}
			},
			"cancel orphans": func(rt *rapid.T) {
				_, err := f.CancelOrphans(context.Background(), 100)
				no(rt, err)
			},
			"cancel what waits": func(rt *rapid.T) {
				_, err := f.CancelWaiting(context.Background(), f.clock.Now(), 100)
				no(rt, err)
			},
			"": func(rt *rapid.T) {
				wantSame(t, "counts", f.recounted(t, h.org), f.deliveryCounts(rt, h.org))
				if t.Failed() {
					rt.FailNow()
				}
			},
		})
	})
}

// testDeliveryCountURLs fails at more urls than are told apart.
func testDeliveryCountURLs(t *testing.T, f *fixture) {
	f.SetNewID(apikey.NewIDAt(f.clock.Now))
	w := f.hook(t, nil)
	f.create(t, nil)
	const urls = 103
	for i := range urls {
		claims, _ := f.claim(t, fmt.Sprint("lease_", i), 1, w.ID)
		r := claims[0].Result()
		r.StartedAt, r.EndedAt, r.Outcome, r.URL = f.clock.stored(), f.clock.stored(), failed, fmt.Sprint("https://example.com/", i, "?token=secret")
		if _, err := f.Settle(t.Context(), []webhook.Result{r}, hookRules, webhook.Backoff{Delays: slices.Repeat([]time.Duration{time.Second}, urls), Rand: steady.Rand}); err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(2 * time.Second)
	}
	if got := f.deliveryCounts(t, org).URLs; len(got) != 100 {
		t.Errorf("%d urls", len(got))
	}
	if rows := readRows(t, f.Reader(), "SELECT sum(attempts) FROM delivery_failures WHERE url = ''"); fmt.Sprint(rows[0][0]) != "3" {
		t.Errorf("the other urls have failed %v times", rows[0][0])
	}
}

// testDeliveryCountsRetention deletes counts of hours that have ended.
func testDeliveryCountsRetention(t *testing.T, f *fixture) {
	f.SetNewID(apikey.NewIDAt(f.clock.Now))
	w := f.hook(t, nil)
	for range 3 {
		f.create(t, nil)
		f.settleOne(t, w.ID, failed)
		f.clock.Advance(time.Minute)
		f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
		f.clock.Advance(time.Hour)
	}
	before := apikey.Hourly.Start(f.clock.stored()).Add(-time.Hour)
	deleted := 0
	for n := 2; n == 2; {
		var err error
		if n, err = f.DeleteDeliveryCountsBefore(t.Context(), before.Add(time.Hour), 2); err != nil {
			t.Fatal(err)
		}
		deleted += n
	}
	if deleted != 6 {
		t.Errorf("%d rows are deleted", deleted)
	}
	c := f.deliveryCounts(t, org)
	if len(c.Hours) != 1 || !c.Hours[0].Start.Equal(before) || len(c.Delays) != 1 || len(c.URLs) != 1 {
		t.Errorf("left are %+v", c)
	}
}
