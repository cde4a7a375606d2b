package main

import (
	"context"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// meCommand shows who calls.
type meCommand struct {
	caller `embed:""`
}

// Run shows who the server takes this caller for, and what it may do.
func (c *meCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "actor.id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.callers.GetCaller, &apikeysv1.GetCallerRequest{})
		return s.show(answer.GetCaller(), err)
	})
}

// scopesCommands are about what keys can be allowed to do.
type scopesCommands struct {
	List scopesListCommand `cmd:"" help:"List the scopes that keys can be given, with what each opens."`
}

// scopesListCommand lists scopes.
type scopesListCommand struct {
	caller `embed:""`
}

// Run shows the catalogue.
func (c *scopesListCommand) Run(ctx context.Context, sources *sources, out streams) error {
	columns := []output.Column{{Head: "SCOPE", Path: "name"}, {Head: "OPENS", Path: "routes", Flexible: true}}
	return c.call(ctx, sources, out, "name", func(ctx context.Context, s *session) error {
		_, _, err := list(s, 0, columns, func(int32, string) ([]*apikeysv1.Scope, string, error) {
			answer, err := once(ctx, s.keys.ListScopes, &apikeysv1.ListScopesRequest{})
			return answer.GetScopes(), "", err
		})
		return err
	})
}

// analyticsCommand shows what all verifications came to.
type analyticsCommand struct {
	timeSpan `embed:""`
	caller   `embed:""`
}

// Run shows totals, rates, the keys that were used most, and the hours.
func (c *analyticsCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "since", func(ctx context.Context, s *session) error {
		req := &apikeysv1.GetApiKeysAnalyticsRequest{}
		req.Since, req.Until = c.times(s.now)
		answer, err := once(ctx, s.keys.GetApiKeysAnalytics, req)
		return s.show(answer, err)
	})
}
