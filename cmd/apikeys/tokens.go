package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// tokensCommands are about the tokens of operators: those that a running server makes,
// and the root token.
type tokensCommands struct {
	Create tokensCreateCommand `cmd:"" help:"Make a token of an operator, and show its secret this once."`
	Get    tokensGetCommand    `cmd:"" help:"Show a token."`
	List   tokensListCommand   `cmd:"" help:"List the tokens of operators, oldest first."`
	Update tokensUpdateCommand `cmd:"" help:"Change fields of a token."`
	Rotate tokensRotateCommand `cmd:"" help:"Give a token a new secret, and show it this once."`
	Delete tokensDeleteCommand `cmd:"" help:"End a token at once."`
	Reset  tokenResetCommand   `cmd:"" help:"Make a new root token, in the database of the settings; the one before it stops working."`
}

// roles are the words of the roles.
const roles = "verifier, viewer, auditor, manager or admin"

// tokenFields are the fields of a token that can be set at any time.
type tokenFields struct {
	Name          *string     `group:"fields" placeholder:"NAME" help:"What people call the token; events show it. Default: the role."`
	Description   *string     `group:"fields" placeholder:"TEXT" help:"What the token is for."`
	Scopes        []string    `group:"fields" aliases:"scope" placeholder:"SCOPE" complete:"scopes" help:"The scopes of the token, in place of a role."`
	Organizations []string    `group:"fields" placeholder:"ID" help:"The organizations that the token is for, separated by commas, or * for all."`
	IPAllowList   []string    `group:"fields" name:"ip-allow-list" aliases:"allow-ip" placeholder:"RANGE" help:"The addresses and ranges that may use the token. Default: any."`
	ExpiresAt     *futureTime `group:"fields" aliases:"expires-in" placeholder:"TIME" help:"When the token stops working: in 90d, or 2027-01-31. Default: never."`
}

// tokensCreateCommand makes a token of an operator.
type tokensCreateCommand struct {
	tokenFields  `embed:""`
	Role         string `group:"fields" placeholder:"ROLE" help:"What the token may do: verifier, viewer, auditor, manager or admin."`
	secretCaller `embed:""`
}

// Run shows the secret of the new token.
func (c *tokensCreateCommand) Run(ctx context.Context, sources *sources, out streams) error {
	if len(c.Organizations) == 0 {
		return usageError{fmt.Errorf("--organizations is needed: the organizations that the token is for, separated by commas, or '*' for all")}
	}
	role, ok := apikeysv1.OperatorRole_value["OPERATOR_ROLE_"+strings.ToUpper(c.Role)]
	if c.Role != "" && (!ok || role == 0) {
		return usageError{fmt.Errorf("--role: must be %s, not %q", roles, apikey.Excerpt(c.Role))}
	}
	build := func(now time.Time) *apikeysv1.CreateOperatorTokenRequest {
		req := &apikeysv1.CreateOperatorTokenRequest{
			Name: c.Role, Role: apikeysv1.OperatorRole(role), Scopes: c.Scopes,
			Organizations: c.Organizations, IpAllowList: c.IPAllowList, ExpiresAt: c.ExpiresAt.proto(now),
		}
		if c.Name != nil {
			req.Name = *c.Name
		}
		if c.Description != nil {
			req.Description = *c.Description
		}
		return req
	}
	return makeSecret(ctx, &c.secretCaller, sources, out, build, func(ctx context.Context, s *session, req *apikeysv1.CreateOperatorTokenRequest) (*apikeysv1.OperatorToken, error) {
		answer, err := s.tokens.CreateOperatorToken(ctx, req)
		return answer.GetOperatorToken(), err
	})
}

// tokensGetCommand shows a token.
type tokensGetCommand struct {
	ID     string `arg:"" complete:"tokens" help:"The id of the token."`
	caller `embed:""`
}

// Run shows the token, its secret masked.
func (c *tokensGetCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.tokens.GetOperatorToken, &apikeysv1.GetOperatorTokenRequest{Id: c.ID})
		return s.show(answer.GetOperatorToken(), err)
	})
}

// tokensListCommand lists the tokens of operators.
type tokensListCommand struct {
	CreatedBy string `group:"filter" placeholder:"ID" help:"Only tokens that this actor made."`
	pageLimit `embed:""`
	caller    `embed:""`
}

// tokenColumns are the columns of a list of tokens.
var tokenColumns = []output.Column{
	{Head: "ID", Path: "id"},
	{Head: "NAME", Path: "name", Flexible: true},
	{Head: "RIGHTS", Path: "role", Else: "scopes", Flexible: true},
	{Head: "ORGANIZATIONS", Path: "organizations", Flexible: true},
	{Head: "CREATED", Path: "created_at"},
	{Head: "LAST USED", Path: "last_used_at"},
	{Head: "EXPIRES", Path: "expires_at"},
}

// Run shows the tokens of all pages.
func (c *tokensListCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		req := &apikeysv1.ListOperatorTokensRequest{CreatedBy: c.CreatedBy}
		_, _, err := list(s, c.Limit, tokenColumns, func(size int32, token string) ([]*apikeysv1.OperatorToken, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := once(ctx, s.tokens.ListOperatorTokens, req)
			return page.GetOperatorTokens(), page.GetNextPageToken(), err
		})
		return err
	})
}

// tokensUpdateCommand changes fields of a token.
type tokensUpdateCommand struct {
	ID          string `arg:"" complete:"tokens" help:"The id of the token."`
	tokenFields `embed:""`
	Clear       []string `group:"fields" placeholder:"FIELD" help:"Fields that are to be empty: description, ip_allow_list, expires_at."`
	ETag        string   `group:"fields" name:"etag" placeholder:"ETAG" help:"Change the token only if it is still this version of it."`
	caller      `embed:""`
}

// Run shows the token as it is then.
func (c *tokensUpdateCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		token, paths, err := c.patch(c.Clear, s.now)
		if err != nil {
			return err
		}
		if len(paths) == 0 {
			return errNothingToChange
		}
		answer, err := once(ctx, s.tokens.UpdateOperatorToken, &apikeysv1.UpdateOperatorTokenRequest{
			Id: c.ID, OperatorToken: token, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: c.ETag,
		})
		return s.show(answer.GetOperatorToken(), err)
	})
}

// patch returns the fields that are given as a token, and their paths.
func (f *tokenFields) patch(toClear []string, now time.Time) (token *apikeysv1.OperatorToken, paths []string, err error) {
	token = &apikeysv1.OperatorToken{Scopes: f.Scopes, Organizations: f.Organizations, IpAllowList: f.IPAllowList, ExpiresAt: f.ExpiresAt.proto(now)}
	if f.Name != nil {
		token.Name = *f.Name
		paths = append(paths, "name")
	}
	if f.Description != nil {
		token.Description = *f.Description
		paths = append(paths, "description")
	}
	for path, given := range map[string]bool{
		"scopes": f.Scopes != nil, "organizations": f.Organizations != nil, "ip_allow_list": f.IPAllowList != nil, "expires_at": token.ExpiresAt != nil,
	} {
		if given {
			paths = append(paths, path)
		}
	}
	paths, err = cleared(paths, toClear, []string{"description", "ip_allow_list", "expires_at"})
	return token, paths, err
}

// cleared adds to paths the fields that are to be empty, which may be some alone.
func cleared(paths, toClear, allowed []string) ([]string, error) {
	for _, name := range toClear {
		path := strings.ReplaceAll(strings.TrimSpace(name), "-", "_")
		if !slices.Contains(allowed, path) {
			return nil, usageError{fmt.Errorf("--clear: must be one of %s, not %q", strings.Join(allowed, ", "), apikey.Excerpt(name))}
		}
		if slices.Contains(paths, path) {
			return nil, usageError{fmt.Errorf("%s is set and cleared in one command; do one of the two", path)}
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths, nil
}

// tokensRotateCommand gives a token a new secret.
type tokensRotateCommand struct {
	ID           string `arg:"" complete:"tokens" help:"The id of the token."`
	rotation     `embed:""`
	secretCaller `embed:""`
}

// Run shows the new secret.
func (c *tokensRotateCommand) Run(ctx context.Context, sources *sources, out streams) error {
	req := &apikeysv1.RotateOperatorTokenRequest{Id: c.ID, OverlapSeconds: c.Overlap.seconds(), EndPrevious: c.EndPrevious}
	return makeSecret(ctx, &c.secretCaller, sources, out, fixed(req), func(ctx context.Context, s *session, req *apikeysv1.RotateOperatorTokenRequest) (*apikeysv1.OperatorToken, error) {
		answer, err := s.tokens.RotateOperatorToken(ctx, req)
		return answer.GetOperatorToken(), err
	})
}

// tokensDeleteCommand ends a token.
type tokensDeleteCommand struct {
	ID       string `arg:"" complete:"tokens" help:"The id of the token."`
	idCaller `embed:""`
}

// Run ends the token at once.
func (c *tokensDeleteCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.tokens.DeleteOperatorToken, &apikeysv1.DeleteOperatorTokenRequest{Id: c.ID})
		return s.show(answer, err)
	})
}
