package api

import (
	"context"
	"io"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// webhooks is the service of webhooks and their deliveries.
type webhooks struct {
	apikeysv1.UnimplementedWebhooksServiceServer

	store  *store.Store
	rules  webhook.Rules
	random io.Reader
	// countsRetention is how long it is kept what deliveries came to.
	countsRetention time.Duration
}

// CreateWebhook makes a webhook.
func (s *webhooks) CreateWebhook(ctx context.Context, req *apikeysv1.CreateWebhookRequest) (*apikeysv1.CreateWebhookResponse, error) {
	organization := callerOf(ctx).Organization
	asked := wire.RequestedWebhook(req, organization)
	if faulty(ctx) {
		_, err := s.rules.Create(asked, hooks.Secret{}, s.store.Now(), ruleFaultsOf(ctx)...)
		return nil, withRefused(ctx, err)
	}
	secret, err := hooks.NewSecret(s.random)
	if err != nil {
		return nil, err
	}
	return answer(ctx, func(w *webhook.Webhook) (*apikeysv1.CreateWebhookResponse, error) {
		m := withPending(w, 0)
		m.Secret = secret.Reveal() // create and rotate alone show it whole
		return &apikeysv1.CreateWebhookResponse{Webhook: m}, nil
	}, func() (webhook.Webhook, error) {
		return s.store.CreateWebhook(ctx, authorOf(ctx), organization, func(count int, now time.Time) (webhook.Webhook, error) {
			if err := s.rules.Admit(count); err != nil {
				return webhook.Webhook{}, err
			}
			return s.rules.Create(asked, secret, now)
		})
	})
}

// How many pending deliveries of a webhook are counted: of one that is shown alone, and
// of each in a list, of which there may be a thousand.
const (
	maxPending       = 10_000
	maxPendingInList = 100
)

// shown returns the message of w with its health.
func (s *webhooks) shown(ctx context.Context, w *webhook.Webhook) (*apikeysv1.Webhook, error) {
	return s.withHealth(ctx, w, maxPending)
}

// withHealth returns the message of w with its health, whose pending deliveries are
// counted up to most.
func (s *webhooks) withHealth(ctx context.Context, w *webhook.Webhook, most int) (*apikeysv1.Webhook, error) {
	pending, err := s.store.Pending(ctx, w.ID, most)
	if err != nil {
		return nil, err
	}
	return withPending(w, pending), nil
}

// withPending returns the message of w with its health, of which pending deliveries are
// a part. A change counts them before it is made.
func withPending(w *webhook.Webhook, pending int) *apikeysv1.Webhook {
	m := wire.Webhook(w)
	m.Health = wire.WebhookHealth(&w.Health, pending)
	return m
}

// ListWebhooks lists webhooks.
func (s *webhooks) ListWebhooks(ctx context.Context, req *apikeysv1.ListWebhooksRequest) (*apikeysv1.ListWebhooksResponse, error) {
	found := faultsOf(ctx)
	after := found.pageToken(webhook.IDPrefix, req.GetPageToken())
	if err := found.err(); err != nil {
		return nil, err
	}
	list, next, err := s.store.Webhooks(ctx, store.WebhookFilter{
		Organization: callerOf(ctx).Organization, Among: callerOf(ctx).Among(), CreatedBy: req.GetCreatedBy(), Failing: req.Failing,
	}, after, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	var page page[*apikeysv1.Webhook]
	for i := range list {
		m, err := s.withHealth(ctx, &list[i], maxPendingInList)
		if err != nil {
			return nil, err
		}
		if !page.add(m) {
			next = list[i-1].ID
			break
		}
	}
	return &apikeysv1.ListWebhooksResponse{Webhooks: page.rows, NextPageToken: encodePageToken(next)}, nil
}

// GetWebhook returns one webhook.
func (s *webhooks) GetWebhook(ctx context.Context, req *apikeysv1.GetWebhookRequest) (*apikeysv1.GetWebhookResponse, error) {
	w, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	m, err := s.shown(ctx, &w)
	if err != nil {
		return nil, err
	}
	return &apikeysv1.GetWebhookResponse{Webhook: m}, nil
}

// find returns a webhook of the caller's organization.
func (s *webhooks) find(ctx context.Context, id string) (webhook.Webhook, error) {
	if !apikey.IsID(webhook.IDPrefix, id) {
		return webhook.Webhook{}, webhook.ErrNotFound
	}
	return s.store.Webhook(ctx, callerOf(ctx).Organization, id)
}

// UpdateWebhook changes the fields that the mask names.
func (s *webhooks) UpdateWebhook(ctx context.Context, req *apikeysv1.UpdateWebhookRequest) (*apikeysv1.UpdateWebhookResponse, error) {
	found := ruleFaultsOf(ctx)
	if err := found.target(req, req.GetWebhook()); err != nil {
		return nil, withRefused(ctx, err)
	}
	patch := wire.WebhookPatch(req)
	update := func(w *webhook.Webhook, _ time.Time) error {
		etag := w.ETag()
		if err := s.rules.Update(w, patch, found...); err != nil {
			return err
		}
		return checkETag(req, req.GetWebhook(), etag)
	}
	if faulty(ctx) || len(found) > 0 {
		w, err := s.find(ctx, req.GetId())
		if err == nil {
			err = update(&w, s.store.Now())
		}
		if err := withRefused(ctx, err); err != nil {
			return nil, err
		}
	}
	pending, err := s.store.Pending(ctx, req.GetId(), maxPending)
	if err != nil {
		return nil, err
	}
	return answer(ctx, func(w *webhook.Webhook) (*apikeysv1.UpdateWebhookResponse, error) {
		return &apikeysv1.UpdateWebhookResponse{Webhook: withPending(w, pending)}, nil
	}, func() (webhook.Webhook, error) {
		if patch.Disables() && apikey.IsID(webhook.IDPrefix, req.GetId()) {
			return s.store.DisableWebhook(ctx, authorOf(ctx), callerOf(ctx).Organization, req.GetId(), update)
		}
		return s.change(ctx, req.GetId(), webhook.WebhookUpdated, update)
	})
}

// RotateWebhookSecret gives a webhook a new secret.
func (s *webhooks) RotateWebhookSecret(ctx context.Context, req *apikeysv1.RotateWebhookSecretRequest) (*apikeysv1.RotateWebhookSecretResponse, error) {
	secret, err := hooks.NewSecret(s.random)
	if err != nil {
		return nil, err
	}
	pending, err := s.store.Pending(ctx, req.GetId(), maxPending)
	if err != nil {
		return nil, err
	}
	return answer(ctx, func(w *webhook.Webhook) (*apikeysv1.RotateWebhookSecretResponse, error) {
		m := withPending(w, pending)
		m.Secret = secret.Reveal()
		return &apikeysv1.RotateWebhookSecretResponse{Webhook: m}, nil
	}, func() (webhook.Webhook, error) {
		return s.change(ctx, req.GetId(), webhook.WebhookSecretRotated, func(w *webhook.Webhook, now time.Time) error {
			return s.rules.RotateSecret(w, secret, wire.WebhookRotation(req), now)
		})
	})
}

// change applies a rule to a webhook of the caller's organization.
func (s *webhooks) change(ctx context.Context, id string, event apikey.EventType, rule func(*webhook.Webhook, time.Time) error) (webhook.Webhook, error) {
	if !apikey.IsID(webhook.IDPrefix, id) {
		return webhook.Webhook{}, webhook.ErrNotFound
	}
	return s.store.ChangeWebhook(ctx, authorOf(ctx), callerOf(ctx).Organization, id, event, rule)
}

// DeleteWebhook takes a webhook away. What was on its way to it is cancelled in the
// background.
func (s *webhooks) DeleteWebhook(ctx context.Context, req *apikeysv1.DeleteWebhookRequest) (*apikeysv1.DeleteWebhookResponse, error) {
	if !apikey.IsID(webhook.IDPrefix, req.GetId()) {
		return nil, webhook.ErrNotFound
	}
	if err := s.store.DeleteWebhook(ctx, authorOf(ctx), callerOf(ctx).Organization, req.GetId()); err != nil {
		return nil, err
	}
	return &apikeysv1.DeleteWebhookResponse{Id: req.GetId()}, nil
}

// TestWebhook sends a test event.
func (s *webhooks) TestWebhook(ctx context.Context, req *apikeysv1.TestWebhookRequest) (*apikeysv1.TestWebhookResponse, error) {
	if !apikey.IsID(webhook.IDPrefix, req.GetId()) {
		return nil, webhook.ErrNotFound
	}
	return answer(ctx, func(d *store.DeliveryOf) (*apikeysv1.TestWebhookResponse, error) {
		m, err := wire.Delivery(&d.Delivery, d.Of, nil)
		return &apikeysv1.TestWebhookResponse{Delivery: m}, err
	}, func() (store.DeliveryOf, error) {
		return s.store.TestWebhook(ctx, authorOf(ctx), callerOf(ctx).Organization, req.GetId())
	})
}

// ListWebhookEventTypes lists what can be subscribed to.
func (s *webhooks) ListWebhookEventTypes(context.Context, *apikeysv1.ListWebhookEventTypesRequest) (*apikeysv1.ListWebhookEventTypesResponse, error) {
	return &apikeysv1.ListWebhookEventTypesResponse{EventTypes: wire.WebhookEventTypes()}, nil
}

// The bounds of a replay: how many events a call looks at, and how many of them
// one transaction.
const (
	maxReplay   = 10_000
	replayBatch = 200
)

// ReplayEvents queues events again that happened in a span of time.
func (s *webhooks) ReplayEvents(ctx context.Context, req *apikeysv1.ReplayEventsRequest) (*apikeysv1.ReplayEventsResponse, error) {
	found := faultsOf(ctx)
	since, until := found.span(req)
	if until.IsZero() {
		until = s.store.Now()
	}
	if !since.Before(until) {
		found.add("until", "must be later than since")
	}
	if err := found.err(); err != nil {
		return nil, err
	}
	if !apikey.IsID(webhook.IDPrefix, req.GetId()) {
		return nil, webhook.ErrNotFound
	}
	choose := func(*webhook.Delivery) bool { return true }
	if req.GetOnlyFailed() {
		choose = func(d *webhook.Delivery) bool { return d != nil && d.State == webhook.StateFailed }
	}
	organization := callerOf(ctx).Organization
	after, err := s.store.PositionBefore(ctx, since)
	if err != nil {
		return nil, err
	}
	last, err := s.store.PositionBefore(ctx, until)
	if err != nil {
		return nil, err
	}
	resp := &apikeysv1.ReplayEventsResponse{Until: wire.Timestamp(until)}
	// At least once: there may be nothing to replay, and still the webhook has to
	// be there and enabled.
	for looked := 0; looked == 0 || after < last; looked += replayBatch {
		if looked == maxReplay {
			// The next call begins where this one ends; what happened in that very
			// microsecond is looked at again, and found to be queued.
			next, err := s.store.TimeAt(ctx, after)
			if err != nil {
				return nil, err
			}
			resp.Until = wire.Timestamp(next)
			break
		}
		batch, err := s.store.ReplayEvents(ctx, authorOf(ctx), organization, req.GetId(), after, last, replayBatch, choose)
		if err != nil {
			return nil, err
		}
		resp.Matched += int32(batch.Matched)
		resp.Queued += int32(batch.Queued)
		after = batch.Last
	}
	return resp, nil
}
