package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
)

// TestWebhooksAnalyticsOfDeliveries asks for what deliveries came to over both protocols:
// while they are kept, and when only their counts are.
func TestWebhooksAnalyticsOfDeliveries(t *testing.T) {
	t.Parallel()
	now, dir := clock.At(start), t.TempDir()
	clocked := func(c *server.Config) { c.DataDir, c.Now, c.DeliveryRetention = dir, now.Now, time.Hour }
	r := newHookHarness(t, clocked)
	well, _ := r.hook("/well?token=secret", "")
	ill, _ := r.hook("/ill?token=secret", "")
	gone, _ := r.hook("/gone?token=secret", "")
	r.say("/ill", http.StatusInternalServerError)
	r.say("/gone", http.StatusInternalServerError)
	key := r.key()
	r.await(well, inState("delivered"))
	failedOnce := func(d shownDelivery) bool { return d.State == "pending" && d.UpdatedAt != nil }
	r.await(ill, failedOnce)
	first := r.await(gone, failedOnce)
	r.Call(t, http.MethodPost, queuePath+"/"+first.ID+"/retry", "").Into(t, new(any))
	second := r.await(gone, func(d shownDelivery) bool { return d.Retries == 1 })
	r.Call(t, http.MethodPost, queuePath+"/"+second.ID+"/cancel", "").Into(t, new(any))

	type counts struct{ Total, Pending, Delivered, Failed, Cancelled int }
	type analytics struct {
		IncompleteBefore *string `json:"incomplete_before"`
		Totals           counts
		RetryRate        *float64 `json:"retry_rate"`
		MeanDelay        *float64 `json:"mean_delay_ms"`
		P99Delay         *float64 `json:"p99_delay_ms"`
		Events           []struct {
			Event      string
			Deliveries int
		}
		FailingURLs []struct {
			URL              string
			FailedAttempts   int `json:"failed_attempts"`
			FailedDeliveries int `json:"failed_deliveries"`
		} `json:"failing_urls"`
		Newest []shownDelivery
		Series []struct {
			Start  string
			Counts counts
		}
	}
	client := apikeysv1.NewWebhooksServiceClient(r.Conn)
	get := func(query string) (a analytics) {
		t.Helper()
		r.Call(t, http.MethodGet, "/analytics/webhooks?"+query, "").Into(t, &a)
		return a
	}
	a := get("")
	if want := (counts{Total: 3, Pending: 1, Delivered: 1, Cancelled: 1}); a.Totals != want || len(a.Series) != 24 || a.Series[23].Counts != want || a.Series[22].Counts != (counts{}) {
		t.Errorf("totals %+v, by hour %+v", a.Totals, a.Series)
	}
	if a.IncompleteBefore != nil || a.RetryRate == nil || *a.RetryRate != 1.0/3 || a.MeanDelay == nil || *a.MeanDelay != 0 || a.P99Delay == nil || *a.P99Delay > 1.2 {
		t.Errorf("got %s", asText(a))
	}
	if got := fmt.Sprint(a.Events); got != "[{api_key.created 3}]" {
		t.Errorf("events %s", got)
	}
	if got, want := fmt.Sprint(a.FailingURLs), fmt.Sprintf("[{%s/gone 2 0} {%s/ill 1 0}]", r.url, r.url); got != want {
		t.Errorf("failing urls %s, want %s", got, want)
	}
	for _, d := range a.Newest {
		if d.ResourceID != key {
			t.Errorf("newest %+v", d)
		}
	}
	if len(a.Newest) != 3 {
		t.Errorf("%d are shown", len(a.Newest))
	}
	same, err := client.GetWebhooksAnalytics(r.Context(t.Context()), &apikeysv1.GetWebhooksAnalyticsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	total := &apikeysv1.DeliveryCounts{Total: 3, Pending: 1, Delivered: 1, Cancelled: 1}
	if !proto.Equal(same.GetTotals(), total) || !proto.Equal(same.GetSeries()[23].GetCounts(), total) || same.GetFailingUrls()[0].GetFailedAttempts() != 2 || len(same.GetNewest()) != 3 {
		t.Errorf("over gRPC %v", same)
	}
	if a := get("until=2025-06-30T15:00:00Z"); a.Totals != (counts{}) || a.RetryRate != nil || a.MeanDelay != nil || len(a.Newest)+len(a.Events)+len(a.FailingURLs) > 0 {
		t.Errorf("before all of it: %s", asText(a))
	}

	// What is no longer kept still counts. A server looks for that when it starts.
	r.Stop()
	now.Advance(3 * time.Hour)
	r.Server = servertest.Start(t, clocked)
	eventually(t, func() bool { return len(r.list(nil)) == 1 }, func() string { return fmt.Sprint(r.list(nil)) })
	if a := get(""); a.Totals.Total != 3 || a.Totals.Delivered != 1 || a.Totals.Cancelled != 1 || len(a.Newest) != 1 {
		t.Errorf("when deliveries are deleted: %s", asText(a))
	}
}

func asText(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
