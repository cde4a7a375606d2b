package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// webhooksCommands are about webhooks: what is posted where when something changes.
type webhooksCommands struct {
	Create       webhooksCreateCommand       `cmd:"" help:"Make a webhook, and show its secret this once."`
	Get          webhooksGetCommand          `cmd:"" help:"Show a webhook, and how its endpoint does."`
	List         webhooksListCommand         `cmd:"" help:"List webhooks, oldest first."`
	Update       webhooksUpdateCommand       `cmd:"" help:"Change fields of a webhook, enable or disable it."`
	RotateSecret webhooksRotateSecretCommand `cmd:"" help:"Give a webhook a new secret, and show it this once."`
	Delete       webhooksDeleteCommand       `cmd:"" help:"Delete a webhook, and cancel its deliveries."`
	Test         webhooksTestCommand         `cmd:"" help:"Send a webhook.test event, and show its delivery."`
	Replay       webhooksReplayCommand       `cmd:"" help:"Send the events of a time again."`
	Retry        webhooksRetryCommand        `cmd:"" help:"Send at once what waits, failed or was cancelled."`
	EventTypes   webhooksEventTypesCommand   `cmd:"" help:"List the types of events."`
	Analytics    webhooksAnalyticsCommand    `cmd:"" help:"Show what the deliveries of a time came to."`
	Listen       webhooksListenCommand       `cmd:"" help:"Post events, signed, to a URL of this machine as they happen, until SIGINT or SIGTERM."`
}

// webhookColumns are the columns of a list of webhooks.
func (c *clientSettings) webhookColumns() []output.Column {
	return c.withOrganization([]output.Column{
		{Head: "ID", Path: "id"},
		{Head: "LABEL", Path: "label", Flexible: true},
		{Head: "ENABLED", Path: "enabled"},
		{Head: "HEALTH", Path: "health.state"},
		{Head: "PENDING", Path: "health.pending"},
		{Head: "URL", Path: "url", Flexible: true},
		{Head: "EVENTS", Path: "events", Flexible: true},
	})
}

// webhookFields are the fields of a webhook that can be set at any time.
type webhookFields struct {
	Label       *string   `group:"fields" placeholder:"TEXT" help:"What people call the webhook."`
	Description *string   `group:"fields" placeholder:"TEXT" help:"What the webhook is for."`
	URL         *string   `group:"fields" name:"url" placeholder:"URL" help:"Where events are posted: https:// and a public address."`
	Events      []string  `group:"fields" placeholder:"TYPE" complete:"types" help:"The types of events, separated by commas, or * for all of API keys."`
	Format      string    `group:"fields" enum:",classic,resource,standard,cloudevents" default:"" placeholder:"FORMAT" help:"The form of the body: classic, resource, standard or cloudevents."`
	HeaderFile  []headers `group:"fields" sep:"none" type:"path" placeholder:"FILE" help:"A file of headers to send, a line such as X-Token: value each; - is standard input. Values are secrets, so no flag takes one."`
}

// headers is the path of a file of headers.
type headers string

// webhooksCreateCommand makes a webhook.
type webhooksCreateCommand struct {
	webhookFields `embed:""`
	Disabled      bool `group:"fields" help:"Make a webhook that gets nothing until it is enabled."`
	secretCaller  `embed:""`
}

// Run shows the secret of the new webhook.
func (c *webhooksCreateCommand) Run(ctx context.Context, sources *sources, out streams) error {
	switch {
	case c.Label == nil:
		return usageError{errors.New(`--label is needed: what people call the webhook, such as --label "billing"`)}
	case c.URL == nil:
		return usageError{errors.New("--url is needed: where events are posted, such as --url https://example.com/hook")}
	case len(c.Events) == 0:
		return usageError{errors.New("--events is needed: the types of events, such as --events api_key.revoked, or '*'; apikeys webhooks event-types lists them")}
	}
	given, err := out.readHeaders(c.HeaderFile)
	if err != nil {
		return err
	}
	build := func(time.Time) *apikeysv1.CreateWebhookRequest {
		req := &apikeysv1.CreateWebhookRequest{Label: *c.Label, Url: *c.URL, Events: c.Events, Format: c.format(), Headers: given}
		if c.Description != nil {
			req.Description = *c.Description
		}
		if c.Disabled {
			req.Enabled = new(bool)
		}
		return req
	}
	return makeSecret(ctx, &c.secretCaller, sources, out, build, func(ctx context.Context, s *session, req *apikeysv1.CreateWebhookRequest) (*apikeysv1.Webhook, error) {
		answer, err := s.webhooks.CreateWebhook(ctx, req)
		return answer.GetWebhook(), err
	})
}

func (f *webhookFields) format() apikeysv1.WebhookFormat {
	return apikeysv1.WebhookFormat(apikeysv1.WebhookFormat_value["WEBHOOK_FORMAT_"+strings.ToUpper(f.Format)])
}

// webhooksGetCommand shows a webhook.
type webhooksGetCommand struct {
	ID     string `arg:"" complete:"webhooks" help:"The id of the webhook."`
	caller `embed:""`
}

// Run shows the webhook, its secret and the values of its headers masked.
func (c *webhooksGetCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.webhooks.GetWebhook, &apikeysv1.GetWebhookRequest{Id: c.ID})
		return s.show(answer.GetWebhook(), err)
	})
}

// webhooksListCommand lists webhooks.
type webhooksListCommand struct {
	Failing   *bool  `group:"filter" negatable:"" help:"Only webhooks whose endpoint fails, or does not."`
	CreatedBy string `group:"filter" placeholder:"ID" help:"Only webhooks that this actor made."`
	pageLimit `embed:""`
	caller    `embed:""`
}

// Run shows the webhooks of all pages.
func (c *webhooksListCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		req := &apikeysv1.ListWebhooksRequest{Failing: c.Failing, CreatedBy: c.CreatedBy}
		_, _, err := list(s, c.Limit, c.webhookColumns(), func(size int32, token string) ([]*apikeysv1.Webhook, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := once(ctx, s.webhooks.ListWebhooks, req)
			return page.GetWebhooks(), page.GetNextPageToken(), err
		})
		return err
	})
}

// webhooksUpdateCommand changes fields of a webhook.
type webhooksUpdateCommand struct {
	ID            string `arg:"" complete:"webhooks" help:"The id of the webhook."`
	webhookFields `embed:""`
	Enabled       *bool    `group:"fields" negatable:"" help:"Let the webhook be called, or, with --no-enabled, not."`
	Clear         []string `group:"fields" placeholder:"FIELD" help:"Fields that are to be empty: description, headers."`
	ETag          string   `group:"fields" name:"etag" placeholder:"ETAG" help:"Change the webhook only if it is still this version of it."`
	caller        `embed:""`
}

// Run shows the webhook as it is then.
func (c *webhooksUpdateCommand) Run(ctx context.Context, sources *sources, out streams) error {
	given, err := out.readHeaders(c.HeaderFile)
	if err != nil {
		return err
	}
	hook, paths, err := c.patch(given)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return errNothingToChange
	}
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.webhooks.UpdateWebhook, &apikeysv1.UpdateWebhookRequest{
			Id: c.ID, Webhook: hook, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: c.ETag,
		})
		return s.show(answer.GetWebhook(), err)
	})
}

// patch returns the fields that are given as a webhook, and their paths.
func (c *webhooksUpdateCommand) patch(given map[string]string) (hook *apikeysv1.Webhook, paths []string, err error) {
	hook = &apikeysv1.Webhook{Events: c.Events, Format: c.format(), Headers: given}
	for path, field := range map[string]struct{ given, set *string }{
		"label": {c.Label, &hook.Label}, "description": {c.Description, &hook.Description}, "url": {c.URL, &hook.Url},
	} {
		if field.given != nil {
			*field.set = *field.given
			paths = append(paths, path)
		}
	}
	if c.Events != nil {
		paths = append(paths, "events")
	}
	if c.Format != "" {
		paths = append(paths, "format")
	}
	for name := range given {
		paths = append(paths, "headers.`"+strings.ReplaceAll(name, "`", "``")+"`")
	}
	if c.Enabled != nil {
		hook.Enabled = *c.Enabled
		paths = append(paths, "enabled")
	}
	paths, err = cleared(paths, c.Clear, []string{"description", "headers"})
	return hook, paths, err
}

// webhooksRotateSecretCommand gives a webhook a new secret.
type webhooksRotateSecretCommand struct {
	ID           string  `arg:"" complete:"webhooks" help:"The id of the webhook."`
	Overlap      *period `group:"fields" placeholder:"TIME" help:"How long the old secret signs beside the new one, up to 30d. Default: 24h."`
	EndOldest    bool    `group:"fields" help:"End the oldest secret now, where five sign already."`
	secretCaller `embed:""`
}

// Run shows the new secret.
func (c *webhooksRotateSecretCommand) Run(ctx context.Context, sources *sources, out streams) error {
	req := &apikeysv1.RotateWebhookSecretRequest{Id: c.ID, EndOldest: c.EndOldest}
	if c.Overlap != nil {
		req.OverlapSeconds = c.Overlap.seconds()
	}
	return makeSecret(ctx, &c.secretCaller, sources, out, fixed(req), func(ctx context.Context, s *session, req *apikeysv1.RotateWebhookSecretRequest) (*apikeysv1.Webhook, error) {
		answer, err := s.webhooks.RotateWebhookSecret(ctx, req)
		return answer.GetWebhook(), err
	})
}

// webhooksDeleteCommand deletes a webhook.
type webhooksDeleteCommand struct {
	ID       string `arg:"" complete:"webhooks" help:"The id of the webhook."`
	idCaller `embed:""`
}

// Run shows the id of what was deleted.
func (c *webhooksDeleteCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.webhooks.DeleteWebhook, &apikeysv1.DeleteWebhookRequest{Id: c.ID})
		return s.show(answer, err)
	})
}

// webhooksTestCommand sends a test.
type webhooksTestCommand struct {
	ID     string `arg:"" complete:"webhooks" help:"The id of the webhook."`
	Wait   period `group:"output" default:"10s" placeholder:"TIME" help:"How long to wait for the first attempt; 0 to show the delivery at once."`
	caller `embed:""`
}

// Run shows the delivery once it was tried.
func (c *webhooksTestCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.webhooks.TestWebhook, &apikeysv1.TestWebhookRequest{Id: c.ID})
		if err != nil {
			return err
		}
		delivery := answer.GetDelivery()
		for end := time.Now().Add(time.Duration(c.Wait)); delivery.GetAttemptsTotal() == 0 && time.Now().Before(end) && ctx.Err() == nil; {
			wait(ctx, 100*time.Millisecond)
			found, err := once(ctx, s.webhooks.GetDelivery, &apikeysv1.GetDeliveryRequest{Id: delivery.GetId()})
			if err != nil {
				return err
			}
			delivery = found.GetDelivery()
		}
		if err := s.show(delivery, nil); err != nil || c.Wait == 0 || delivery.GetState() == apikeysv1.DeliveryState_DELIVERY_STATE_DELIVERED {
			return err
		}
		if failure := delivery.GetError(); failure != nil {
			return fmt.Errorf("the test was not delivered: %s (%s)", output.Printable(failure.GetMessage()), failure.GetClass())
		}
		return fmt.Errorf("the test was not delivered within %v; apikeys deliveries get %s tells how it goes on", c.Wait, delivery.GetId())
	})
}

// webhooksReplayCommand sends events again.
type webhooksReplayCommand struct {
	ID         string    `arg:"" complete:"webhooks" help:"The id of the webhook."`
	Since      *pastTime `group:"filter" required:"" placeholder:"TIME" help:"Events from this time on, such as 1h ago or 2027-01-31."`
	Until      *pastTime `group:"filter" placeholder:"TIME" help:"Events before this time. Default: now."`
	OnlyFailed bool      `group:"filter" help:"Only events whose delivery failed or was cancelled."`
	caller     `embed:""`
}

// Run shows how many events there were, and how many are sent.
func (c *webhooksReplayCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.webhooks.ReplayEvents, &apikeysv1.ReplayEventsRequest{
			Id: c.ID, Since: c.Since.proto(s.now), Until: c.Until.proto(s.now), OnlyFailed: c.OnlyFailed,
		})
		return s.show(answer, err)
	})
}

// webhooksRetryCommand sends deliveries at once.
type webhooksRetryCommand struct {
	ID     string   `arg:"" complete:"webhooks" help:"The id of the webhook."`
	States []string `group:"filter" enum:"pending,failed,cancelled" default:"pending,failed" placeholder:"STATE" help:"Deliveries that are pending, failed or cancelled, separated by commas."`
	caller `embed:""`
}

// Run shows how many deliveries are sent.
func (c *webhooksRetryCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		req := &apikeysv1.RetryDeliveriesRequest{Id: c.ID}
		for _, state := range c.States {
			req.States = append(req.States, deliveryState(state))
		}
		answer, err := once(ctx, s.webhooks.RetryDeliveries, req)
		return s.show(answer, err)
	})
}

// webhooksEventTypesCommand lists the types of events.
type webhooksEventTypesCommand struct {
	caller `embed:""`
}

// Run shows every type that a webhook can be subscribed to.
func (c *webhooksEventTypesCommand) Run(ctx context.Context, sources *sources, out streams) error {
	columns := []output.Column{{Head: "TYPE", Path: "type"}, {Head: "WHEN", Path: "description", Flexible: true}}
	return c.call(ctx, sources, out, "type", func(ctx context.Context, s *session) error {
		_, _, err := list(s, 0, columns, func(int32, string) ([]*apikeysv1.WebhookEventType, string, error) {
			answer, err := once(ctx, s.webhooks.ListWebhookEventTypes, &apikeysv1.ListWebhookEventTypesRequest{})
			return answer.GetEventTypes(), "", err
		})
		return err
	})
}

// readHeaders reads files of headers; nil where there are none.
func (out streams) readHeaders(files []headers) (map[string]string, error) {
	var all map[string]string
	for _, file := range files {
		text, err := out.readText(string(file))
		if err != nil {
			return nil, fmt.Errorf("--header-file: %w", err)
		}
		for n, line := range slices.Collect(strings.Lines(text)) {
			line = strings.TrimSpace(line)
			if line == "" {
				continue
			}
			name, value, ok := strings.Cut(line, ":")
			if name = strings.TrimSpace(name); !ok || name == "" {
				return nil, usageError{fmt.Errorf("--header-file: line %d must be NAME: VALUE", n+1)}
			}
			if all == nil {
				all = map[string]string{}
			}
			if _, twice := all[name]; twice {
				return nil, usageError{fmt.Errorf("--header-file: line %d has %s a second time", n+1, apikey.Excerpt(name))}
			}
			all[name] = strings.TrimSpace(value)
		}
	}
	return all, nil
}
