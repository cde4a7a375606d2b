package api

import (
	"context"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// ListDeliveries lists deliveries.
func (s *webhooks) ListDeliveries(ctx context.Context, req *apikeysv1.ListDeliveriesRequest) (*apikeysv1.ListDeliveriesResponse, error) {
	found := faultsOf(ctx)
	after := found.pageToken(webhook.DeliveryIDPrefix, req.GetPageToken())
	since, until := found.span(req)
	var event apikey.EventType
	if text := req.GetEvent(); text != "" {
		event = found.eventType("event", text)
	}
	if err := found.err(); err != nil {
		return nil, err
	}
	list, next, err := s.store.Deliveries(ctx, store.DeliveryFilter{
		Organization: callerOf(ctx).Organization,
		Among:        callerOf(ctx).Among(),
		WebhookID:    req.GetWebhookId(),
		State:        wire.DeliveryState(req.GetState()),
		Event:        event,
		ResourceID:   req.GetResourceId(),
		Since:        since,
		Until:        until,
	}, after, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	var page page[*apikeysv1.Delivery]
	for i := range list {
		m, err := wire.Delivery(&list[i].Delivery, list[i].Of, nil)
		if err != nil {
			return nil, err
		}
		if !page.add(m) {
			next = list[i-1].ID
			break
		}
	}
	return &apikeysv1.ListDeliveriesResponse{Deliveries: page.rows, NextPageToken: encodePageToken(next)}, nil
}

// GetDelivery returns one delivery with its attempts.
func (s *webhooks) GetDelivery(ctx context.Context, req *apikeysv1.GetDeliveryRequest) (*apikeysv1.GetDeliveryResponse, error) {
	m, err := s.delivery(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &apikeysv1.GetDeliveryResponse{Delivery: m}, nil
}

// delivery returns the message of a delivery of the caller's organization.
func (s *webhooks) delivery(ctx context.Context, id string) (*apikeysv1.Delivery, error) {
	if !apikey.IsID(webhook.DeliveryIDPrefix, id) {
		return nil, webhook.ErrDeliveryNotFound
	}
	d, err := s.store.Delivery(ctx, callerOf(ctx).Organization, id)
	if err != nil {
		return nil, err
	}
	return wire.Delivery(&d.Delivery, d.Of, d.Attempts)
}

// RetryDelivery makes a delivery due at once.
func (s *webhooks) RetryDelivery(ctx context.Context, req *apikeysv1.RetryDeliveryRequest) (*apikeysv1.RetryDeliveryResponse, error) {
	return answer(ctx, func(d *store.DeliveryWithAttempts) (*apikeysv1.RetryDeliveryResponse, error) {
		m, err := wire.Delivery(&d.Delivery, d.Of, d.Attempts)
		return &apikeysv1.RetryDeliveryResponse{Delivery: m}, err
	}, func() (store.DeliveryWithAttempts, error) {
		return s.changeDelivery(ctx, req.GetId(), func(d *webhook.Delivery, w *webhook.Webhook, now time.Time) error {
			if w == nil {
				return apikey.Errorf(apikey.KindFailedPrecondition, webhook.ReasonWebhookDisabled,
					"The webhook of this delivery was deleted.")
			}
			return d.Retry(w, webhook.TriggerRetry, now)
		})
	})
}

// CancelDelivery ends a pending delivery.
func (s *webhooks) CancelDelivery(ctx context.Context, req *apikeysv1.CancelDeliveryRequest) (*apikeysv1.CancelDeliveryResponse, error) {
	return answer(ctx, func(d *store.DeliveryWithAttempts) (*apikeysv1.CancelDeliveryResponse, error) {
		m, err := wire.Delivery(&d.Delivery, d.Of, d.Attempts)
		return &apikeysv1.CancelDeliveryResponse{Delivery: m}, err
	}, func() (store.DeliveryWithAttempts, error) {
		return s.changeDelivery(ctx, req.GetId(), func(d *webhook.Delivery, _ *webhook.Webhook, now time.Time) error {
			_, err := d.Cancel(now)
			return err
		})
	})
}

// changeDelivery applies a rule to a delivery of the caller's organization.
func (s *webhooks) changeDelivery(ctx context.Context, id string, rule func(*webhook.Delivery, *webhook.Webhook, time.Time) error) (store.DeliveryWithAttempts, error) {
	if !apikey.IsID(webhook.DeliveryIDPrefix, id) {
		return store.DeliveryWithAttempts{}, webhook.ErrDeliveryNotFound
	}
	return s.store.ChangeDelivery(ctx, authorOf(ctx), callerOf(ctx).Organization, id, rule)
}

// retryBatch is how many deliveries one transaction opens again.
const retryBatch = 50

// RetryDeliveries sends the deliveries of a webhook again that are in some states. A
// call that ends early has done a part, and does the rest when it is made again.
func (s *webhooks) RetryDeliveries(ctx context.Context, req *apikeysv1.RetryDeliveriesRequest) (*apikeysv1.RetryDeliveriesResponse, error) {
	if !apikey.IsID(webhook.IDPrefix, req.GetId()) {
		return nil, webhook.ErrNotFound
	}
	var states []webhook.DeliveryState
	for _, state := range req.GetStates() {
		states = append(states, wire.DeliveryState(state))
	}
	resp := &apikeysv1.RetryDeliveriesResponse{}
	for after, more := int64(0), true; more; more = after > 0 {
		queued, next, err := s.store.RetryDeliveries(ctx, authorOf(ctx), callerOf(ctx).Organization, req.GetId(), states, after, retryBatch)
		if err != nil {
			return nil, err
		}
		resp.Queued += int32(queued)
		after = next
	}
	return resp, nil
}
