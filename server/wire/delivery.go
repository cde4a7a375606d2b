package wire

import (
	"strings"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// Delivery returns the message of d, a delivery of e, and the attempts that are to be shown
// with it. It has no payload where e is nil: the log no longer keeps it.
func Delivery(d *webhook.Delivery, e *apikey.Event, attempts []webhook.Attempt) (*apikeysv1.Delivery, error) {
	payload := &apikeysv1.DeliveryPayload{}
	if e != nil {
		event, err := Event(e)
		if err != nil {
			return nil, err
		}
		switch {
		case event.ApiKey != nil:
			payload.Resource = &apikeysv1.DeliveryPayload_ApiKey{ApiKey: event.ApiKey}
		case event.Webhook != nil:
			payload.Resource = &apikeysv1.DeliveryPayload_Webhook{Webhook: event.Webhook}
		}
	}
	m := &apikeysv1.Delivery{
		Id:             d.ID,
		WebhookId:      d.WebhookID,
		OrganizationId: d.OrganizationID,
		Url:            d.URL,
		Event:          string(d.Event),
		ResourceId:     d.ResourceID,
		Payload:        payload,
		Retries:        int32(d.Retries()),
		CreatedAt:      Timestamp(d.CreatedAt),
		UpdatedAt:      Timestamp(d.UpdatedAt),
		FirstSentAt:    Timestamp(d.FirstSentAt),
		NextAttemptAt:  Timestamp(d.NextAttemptAt),
		DelayMs:        d.Delay.Milliseconds(),
		State:          deliveryStates.number[d.State],
		AttemptsTotal:  int32(d.Attempts),
	}
	m.ResponseStatus, m.ResponseBody, m.Error = outcome(&d.Last)
	for i := range attempts {
		m.Attempts = append(m.Attempts, attempt(&attempts[i]))
	}
	return m, nil
}

func attempt(a *webhook.Attempt) *apikeysv1.DeliveryAttempt {
	m := &apikeysv1.DeliveryAttempt{
		Number:     int32(a.Number),
		StartedAt:  Timestamp(a.StartedAt),
		DurationMs: a.Duration.Milliseconds(),
		Trigger:    triggers.number[a.Trigger],
		Url:        a.URL,
	}
	m.ResponseStatus, m.ResponseBody, m.Error = outcome(&a.Outcome)
	return m
}

// maxShownBody bounds the text of an answer's body in a message, in bytes: a
// delivery with 100 attempts has to fit the 4 MiB that any gRPC client takes.
const maxShownBody = 16 << 10

// outcome returns the three fields that a delivery and an attempt have in
// common. A body is whatever the endpoint sent; a message holds UTF-8 alone.
func outcome(o *webhook.Outcome) (status *int32, body *string, failure *apikeysv1.DeliveryError) {
	if o.Status != 0 {
		status = proto.Int32(int32(o.Status))
		text := strings.ToValidUTF8(string(o.Body), "\uFFFD")
		if len(text) > maxShownBody { // what took the place of a byte is longer
			text = strings.ToValidUTF8(text[:maxShownBody], "")
		}
		body = &text
	}
	return status, body, deliveryError(o.Failure)
}

// deliveryError returns the message of f; no failure is unset.
func deliveryError(f webhook.Failure) *apikeysv1.DeliveryError {
	if f == (webhook.Failure{}) {
		return nil
	}
	return &apikeysv1.DeliveryError{Class: string(f.Class), Message: f.Message}
}

// DeliveryCounts returns the message of how many deliveries are in each state.
func DeliveryCounts(n map[webhook.DeliveryState]int64) *apikeysv1.DeliveryCounts {
	m := &apikeysv1.DeliveryCounts{
		Pending: n[webhook.StatePending], Delivered: n[webhook.StateDelivered], Failed: n[webhook.StateFailed], Cancelled: n[webhook.StateCancelled],
	}
	m.Total = m.GetPending() + m.GetDelivered() + m.GetFailed() + m.GetCancelled()
	return m
}
