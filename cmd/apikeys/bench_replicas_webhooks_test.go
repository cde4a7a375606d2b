package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// BenchmarkReplicasDeliver drains deliveries of 100 webhooks on one host, which are due at
// one moment: by one replica and by three of another database. Its floor is a bare net/http
// client that posts the same body as often to the same receiver, 64 at a time. The drain
// is over when all deliveries are settled. No delivery comes twice.
func BenchmarkReplicasDeliver(b *testing.B) {
	webhooks, each := sized(b, 10, 100), sized(b, 20, 100)
	var received atomic.Int64
	var sample atomic.Pointer[string]
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			b.Error(err)
			return
		}
		text := string(body)
		sample.CompareAndSwap(nil, &text)
		received.Add(1)
	}))
	b.Cleanup(receiver.Close)
	var sides [2]*replicas
	for side := range sides {
		sides[side] = newReplicas(b)
		prepareDeliveries(b, sides[side], receiver.URL, webhooks, each)
	}
	total := webhooks * each
	var drained [2]time.Duration
	var floor time.Duration
	for b.Loop() {
		for side, r := range sides {
			received.Store(0)
			drained[side] += drain(b, r, 1+2*side, total)
			if n := received.Load(); n != int64(total) {
				b.Fatalf("%d deliveries came of %d", n, total)
			}
		}
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		floor += byCallers(b, 64, total, func(int) error {
			resp, err := client.Post(receiver.URL, "application/json", strings.NewReader(*sample.Load())) //nolint:bodyclose // joinClose closes it.
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return joinClose(err, resp.Body)
		})
		client.CloseIdleConnections()
	}
	for side, name := range []string{"1", "3"} {
		b.ReportMetric(float64(b.N*total)/drained[side].Seconds(), "deliveries/s-"+name)
		b.ReportMetric(floor.Seconds()/drained[side].Seconds(), "x-of-floor-"+name)
	}
}

// joinClose closes what was read and returns the first error.
func joinClose(err error, c io.Closer) error {
	if closing := c.Close(); err == nil {
		err = closing
	}
	return err
}

// prepareDeliveries makes webhooks and keys, whose events are delivered, and stops the
// replica that did.
func prepareDeliveries(b *testing.B, r *replicas, url string, webhooks, each int) {
	b.Helper()
	r.start(b, 1)
	ctx := operatorOf(b)
	for i := range webhooks {
		_, err := apikeysv1.NewWebhooksServiceClient(r.list[0].conn).CreateWebhook(ctx, &apikeysv1.CreateWebhookRequest{
			Label: strconv.Itoa(i), Url: fmt.Sprint(url, "/", i), Events: []string{"api_key.created"},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	byCallers(b, 64, each, func(i int) error { return createOne(ctx, r.list[0]) })
	awaitSettled(b, r, webhooks*each)
	r.stop(b)
}

// drain makes all deliveries pending anew, has n replicas send them, and returns how long
// that took. They are due once all replicas serve, so that none begins before the others.
func drain(b *testing.B, r *replicas, n, total int) time.Duration {
	b.Helper()
	due := time.Now().Add(time.Duration(n) * time.Duration(sized(b, 1000, 2000)) * time.Millisecond)
	db := r.open(b)
	for _, statement := range []string{
		"DELETE FROM delivery_attempts",
		fmt.Sprintf(`UPDATE deliveries SET state = 'pending', attempts = 0, failures = 0, response_status = 0, response_body = NULL,
			first_sent_at = NULL, ended_at = NULL, lease = '', updated_at = NULL, next_attempt_at = %[1]d, due_at = %[1]d`, due.UnixMicro()),
		"VACUUM ANALYZE deliveries", "VACUUM ANALYZE delivery_attempts",
	} {
		if _, err := db.ExecContext(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	r.start(b, n)
	if late := time.Since(due); late > 0 {
		b.Logf("%d replicas were ready %v after the deliveries were due", n, late)
	}
	awaitSettled(b, r, total)
	took := time.Since(due)
	r.stop(b)
	return took
}

// awaitSettled returns once so many deliveries have been delivered.
func awaitSettled(b *testing.B, r *replicas, total int) {
	b.Helper()
	db := r.open(b)
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var n int
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM deliveries WHERE state = 'delivered'").Scan(&n); err != nil {
			b.Fatalf("%d of %d delivered: %v", n, total, err)
		}
		if n >= total {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatalf("%d of %d delivered in two minutes", n, total)
		}
	}
}
