package main

import (
	"context"
	"strings"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// deliveriesCommands are about what is sent to webhooks, and what became of it.
type deliveriesCommands struct {
	List   deliveriesListCommand   `cmd:"" help:"List deliveries, oldest event first."`
	Get    deliveriesGetCommand    `cmd:"" help:"Show a delivery with its attempts."`
	Retry  deliveriesRetryCommand  `cmd:"" help:"Send a delivery at once, delivered ones too."`
	Cancel deliveriesCancelCommand `cmd:"" help:"Give a delivery up that waits."`
}

// deliveryColumns are the columns of a list of deliveries.
func (c *clientSettings) deliveryColumns() []output.Column {
	return c.withOrganization([]output.Column{
		{Head: "ID", Path: "id"},
		{Head: "STATE", Path: "state"},
		{Head: "EVENT", Path: "event"},
		{Head: "STATUS", Path: "response_status"},
		{Head: "RETRIES", Path: "retries"},
		{Head: "NEXT ATTEMPT", Path: "next_attempt_at"},
		{Head: "ERROR", Path: "error.class"},
		{Head: "URL", Path: "url", Flexible: true},
	})
}

// deliveryState returns the state of a word.
func deliveryState(word string) apikeysv1.DeliveryState {
	return apikeysv1.DeliveryState(apikeysv1.DeliveryState_value["DELIVERY_STATE_"+strings.ToUpper(word)])
}

// deliveriesListCommand lists deliveries.
type deliveriesListCommand struct {
	Webhook   string `group:"filter" aliases:"webhook-id" placeholder:"ID" complete:"webhooks" help:"Only deliveries of this webhook."`
	State     string `group:"filter" enum:",pending,delivered,failed,cancelled" default:"" placeholder:"STATE" help:"Only those that are pending, delivered, failed or cancelled."`
	Event     string `group:"filter" placeholder:"TYPE" complete:"types" help:"Only those of events of this type."`
	Resource  string `group:"filter" aliases:"resource-id" placeholder:"ID" complete:"keys" help:"Only those of events about this resource."`
	timeSpan  `embed:""`
	pageLimit `embed:""`
	caller    `embed:""`
}

// Run shows the deliveries of all pages.
func (c *deliveriesListCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		req := &apikeysv1.ListDeliveriesRequest{WebhookId: c.Webhook, State: deliveryState(c.State), Event: c.Event, ResourceId: c.Resource}
		req.Since, req.Until = c.times(s.now)
		_, _, err := list(s, c.Limit, c.deliveryColumns(), func(size int32, token string) ([]*apikeysv1.Delivery, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := once(ctx, s.webhooks.ListDeliveries, req)
			return page.GetDeliveries(), page.GetNextPageToken(), err
		})
		return err
	})
}

// deliveriesGetCommand shows a delivery.
type deliveriesGetCommand struct {
	ID     string `arg:"" complete:"deliveries" help:"The id of the delivery."`
	caller `embed:""`
}

// Run shows the delivery with its attempts.
func (c *deliveriesGetCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.webhooks.GetDelivery, &apikeysv1.GetDeliveryRequest{Id: c.ID})
		return s.show(answer.GetDelivery(), err)
	})
}

// deliveriesRetryCommand sends a delivery at once.
type deliveriesRetryCommand struct {
	ID     string `arg:"" complete:"deliveries" help:"The id of the delivery."`
	caller `embed:""`
}

// Run shows the delivery as it is then.
func (c *deliveriesRetryCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.webhooks.RetryDelivery, &apikeysv1.RetryDeliveryRequest{Id: c.ID})
		return s.show(answer.GetDelivery(), err)
	})
}

// deliveriesCancelCommand gives a delivery up.
type deliveriesCancelCommand struct {
	ID     string `arg:"" complete:"deliveries" help:"The id of the delivery."`
	caller `embed:""`
}

// Run shows the delivery as it is then.
func (c *deliveriesCancelCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.webhooks.CancelDelivery, &apikeysv1.CancelDeliveryRequest{Id: c.ID})
		return s.show(answer.GetDelivery(), err)
	})
}
