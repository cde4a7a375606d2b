package api

import (
	"context"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// mostShown is how many events, urls and deliveries the analytics of webhooks name.
const mostShown = 10

// GetWebhooksAnalytics returns what the deliveries of an organization came to.
func (s *webhooks) GetWebhooksAnalytics(ctx context.Context, req *apikeysv1.GetWebhooksAnalyticsRequest) (*apikeysv1.GetWebhooksAnalyticsResponse, error) {
	found := faultsOf(ctx)
	before := len(found)
	since, until := found.span(req)
	if len(found) > before { // there is no span
		return nil, found.err()
	}
	now := s.store.Now()
	period, err := apikey.NewPeriod(apikey.Hourly, since, until, now)
	if err := found.with(err); err != nil {
		return nil, err
	}
	organization := callerOf(ctx).Organization
	from, err := s.store.DeliveryCountsFrom(ctx)
	if err != nil {
		return nil, err
	}
	// Hours that ended before this may have been deleted, and so nothing of them counts.
	kept := apikey.Hourly.Start(now.Add(-s.countsRetention))
	if !period.Since.Before(kept) {
		kept = time.Time{}
	}
	if !period.Since.Before(from) {
		from = time.Time{}
	}
	counts, err := s.store.DeliveryCounts(ctx, organization, later(period.Since, kept), period.Until, mostShown)
	if err != nil {
		return nil, err
	}
	total, enabled, failing, err := s.store.WebhookCounts(ctx, organization)
	if err != nil {
		return nil, err
	}
	a := counts.Analyze(mostShown)
	resp := &apikeysv1.GetWebhooksAnalyticsResponse{
		Since: wire.Timestamp(period.Since), Until: wire.Timestamp(period.Until), IncompleteBefore: wire.Timestamp(later(kept, from)),
		Totals:   wire.DeliveryCounts(a.Totals),
		Webhooks: &apikeysv1.WebhookCounts{Total: int64(total), Enabled: int64(enabled), Disabled: int64(total - enabled), Failing: int64(failing)},
	}
	if a.Attempted > 0 {
		rate := float64(a.Retried) / float64(a.Attempted)
		resp.RetryRate = &rate
	}
	if a.Totals[webhook.StateDelivered] > 0 {
		mean, p99 := milliseconds(a.MeanDelay), milliseconds(a.P99Delay)
		resp.MeanDelayMs, resp.P99DelayMs = &mean, &p99
	}
	for _, e := range a.Events {
		resp.Events = append(resp.Events, &apikeysv1.EventDeliveries{Event: string(e.Event), Deliveries: e.Deliveries})
	}
	for _, u := range counts.URLs {
		resp.FailingUrls = append(resp.FailingUrls, &apikeysv1.UrlFailures{Url: u.URL, FailedAttempts: u.Attempts, FailedDeliveries: u.Deliveries})
	}
	for at := period.Since; at.Before(period.Until); at = at.Add(time.Hour) {
		resp.Series = append(resp.Series, &apikeysv1.DeliveryBucket{Start: wire.Timestamp(at), Counts: wire.DeliveryCounts(a.Hours[at])})
	}
	newest, err := s.store.NewestDeliveries(ctx, organization, period.Since, period.Until, mostShown)
	if err != nil {
		return nil, err
	}
	for i := range newest {
		m, err := wire.Delivery(&newest[i].Delivery, newest[i].Of, nil)
		if err != nil {
			return nil, err
		}
		resp.Newest = append(resp.Newest, m)
	}
	return resp, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
