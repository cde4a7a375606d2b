package webhook

import (
	"net/http"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// HealthState is how an endpoint fares.
type HealthState string

// The states.
const (
	HealthUnknown HealthState = "unknown" // nothing was sent yet
	HealthHealthy HealthState = "healthy"
	HealthFailing HealthState = "failing" // attempts have failed since the last success
)

// Health is how the endpoint of a webhook has fared since the webhook was made, got
// another url, or was enabled. The zero Health is that of an endpoint that was sent
// nothing.
type Health struct {
	// LastSuccessAt is when a delivery was acknowledged last. While all goes well it
	// is stored once a minute.
	LastSuccessAt time.Time
	// FailingSince is when the first attempt after the last success failed, LastError
	// why the newest did.
	FailingSince time.Time
	LastError    Failure
	// Warned reports that webhook.failing was published for these failures.
	Warned bool
}

// State returns the state of the health.
func (h *Health) State() HealthState {
	switch {
	case !h.FailingSince.IsZero():
		return HealthFailing
	case !h.LastSuccessAt.IsZero():
		return HealthHealthy
	}
	return HealthUnknown
}

// successInterval is how often the time of the last success is stored.
const successInterval = time.Minute

// NeedsRecord reports whether [Rules.RecordAttempt] of an outcome may change a
// webhook with health h.
func (h *Health) NeedsRecord(o *Outcome, now time.Time) bool {
	if o.Ours() {
		return false
	}
	return !o.Acknowledged() || h.State() != HealthHealthy || now.Sub(h.LastSuccessAt) >= successInterval
}

// failingAfter is how long attempts may fail without a success before webhook.failing
// is published, or half of [Rules.DisableAfter] where that is less.
const failingAfter = 2 * time.Minute

// RecordAttempt takes an attempt, which left its delivery in state, into the health of
// w and returns the types of the events to publish about w, in order. Health is no
// field whose change moves updated_at or etag.
//
// Failures are counted by the time since the last success, whatever the schedule of
// attempts: webhook.failing comes once, when attempts have failed for failingAfter or a
// delivery is at its end. The webhook is disabled when its endpoint answers 410, and
// when attempts have failed for DisableAfter; it was warned before.
func (r Rules) RecordAttempt(w *Webhook, a *Attempt, state DeliveryState, now time.Time) []apikey.EventType {
	// What began before a change says nothing of the webhook as it is now.
	if a.Ours() || !w.Enabled || a.StartedAt.Before(w.UpdatedAt) {
		return nil
	}
	h := &w.Health
	if a.Acknowledged() {
		if h.NeedsRecord(&a.Outcome, now) {
			*h = Health{LastSuccessAt: now}
		}
		return nil
	}
	if h.FailingSince.IsZero() {
		h.FailingSince = now
	}
	h.LastError = a.Failure
	if a.Status == http.StatusGone {
		w.Enabled, w.DisabledReason = false, DisabledGone
		return []apikey.EventType{WebhookDisabled}
	}
	var events []apikey.EventType
	failed, warnAfter, disable := now.Sub(h.FailingSince), failingAfter, false
	if r.DisableAfter > 0 {
		warnAfter, disable = min(warnAfter, r.DisableAfter/2), failed >= r.DisableAfter
	}
	if !h.Warned && (state == StateFailed || disable || failed >= warnAfter) {
		h.Warned = true
		events = append(events, WebhookFailing)
	}
	if disable {
		w.Enabled, w.DisabledReason = false, DisabledFailing
		events = append(events, WebhookDisabled)
	}
	return events
}
