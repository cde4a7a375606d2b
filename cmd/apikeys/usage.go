package main

import (
	"context"
	"strings"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// usageCommand shows what was used, in figures that can be billed.
type usageCommand struct {
	timeSpan `embed:""`
	GroupBy  string `group:"filter" name:"group-by" enum:"organization_id,owner_id,api_key_id" default:"organization_id" placeholder:"FIELD" help:"Add up by organization_id, owner_id or api_key_id. Default: organization_id."`
	By       string `group:"filter" name:"granularity" aliases:"by" enum:"hour,day" default:"day" help:"Count by hour or by day."`
	Key      string `group:"filter" aliases:"api-key-id" placeholder:"ID" complete:"keys" help:"Only this key; with --group-by api_key_id."`
	Owner    string `group:"filter" aliases:"owner-id" placeholder:"OWNER" help:"Only the keys of this owner; with --group-by owner_id."`
	caller   `embed:""`
}

// Run shows the rows of all pages: in the forms of whole answers as one answer, in the
// others a row each.
func (c *usageCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "start", func(ctx context.Context, s *session) error {
		req := &apikeysv1.GetUsageRequest{
			GroupBy:     apikeysv1.UsageGroup(apikeysv1.UsageGroup_value["USAGE_GROUP_"+strings.ToUpper(c.GroupBy)]),
			Granularity: apikeysv1.UsageGranularity(apikeysv1.UsageGranularity_value["USAGE_GRANULARITY_"+strings.ToUpper(c.By)]),
			ApiKeyId:    c.Key, OwnerId: c.Owner,
		}
		req.Since, req.Until = c.times(s.now)
		var whole *apikeysv1.GetUsageResponse
		page := func(size int32, token string) ([]*apikeysv1.UsageRow, string, error) {
			req.PageSize, req.PageToken = size, token
			answer, err := once(ctx, s.usage.GetUsage, req)
			if err != nil {
				return nil, "", err
			}
			if whole == nil {
				whole = answer
			} else if c.Output.IsWhole() {
				whole.Rows = append(whole.Rows, answer.GetRows()...)
			}
			if at := answer.GetIncompleteBefore(); at != nil && !c.Output.IsWhole() {
				s.note("what was used before %s is not kept whole", at.AsTime().Format("2006-01-02 15:04:05"))
			}
			return answer.GetRows(), answer.GetNextPageToken(), nil
		}
		if !c.Output.IsWhole() {
			_, _, err := list(s, 0, c.columns(), page)
			return err
		}
		for token := ""; ; {
			_, next, err := page(mostOfAPage, token)
			if err != nil {
				return err
			}
			if token = next; token == "" {
				whole.NextPageToken = ""
				return s.show(whole, nil)
			}
		}
	})
}

func (c *usageCommand) columns() []output.Column {
	columns := []output.Column{{Head: "START (UTC)", Path: "start"}, {Head: "ORGANIZATION", Path: "organization_id"}}
	switch c.GroupBy {
	case "owner_id":
		columns = append(columns, output.Column{Head: "OWNER", Path: "owner_id"})
	case "api_key_id":
		columns = append(columns, output.Column{Head: "API KEY", Path: "api_key_id"})
	}
	return append(columns, output.Column{Head: "CALLS", Path: "calls"}, output.Column{Head: "UNITS", Path: "units"})
}

// webhooksAnalyticsCommand shows what deliveries came to.
type webhooksAnalyticsCommand struct {
	timeSpan `embed:""`
	caller   `embed:""`
}

// Run shows states, delays, what is sent most, and the URLs that fail most.
func (c *webhooksAnalyticsCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "since", func(ctx context.Context, s *session) error {
		req := &apikeysv1.GetWebhooksAnalyticsRequest{}
		req.Since, req.Until = c.times(s.now)
		answer, err := once(ctx, s.webhooks.GetWebhooksAnalytics, req)
		return s.show(answer, err)
	})
}
