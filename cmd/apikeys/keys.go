package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// keysCommands are about API keys.
type keysCommands struct {
	Create  keysCreateCommand  `cmd:"" help:"Make a key, and show its secret this once."`
	Get     keysGetCommand     `cmd:"" help:"Show a key."`
	List    keysListCommand    `cmd:"" help:"List keys, oldest first."`
	Update  keysUpdateCommand  `cmd:"" help:"Change fields of a key, or of many."`
	Enable  keysEnableCommand  `cmd:"" help:"Let disabled keys be used again."`
	Disable keysDisableCommand `cmd:"" help:"Stop keys until they are enabled again."`
	Rotate  keysRotateCommand  `cmd:"" help:"Give keys new secrets, and show them this once."`
	Revoke  keysRevokeCommand  `cmd:"" help:"End keys for good; they stay readable."`
	Delete  keysDeleteCommand  `cmd:"" help:"End keys and take them out of every list."`
	Verify  keysVerifyCommand  `cmd:"" help:"Check a secret, which is read from standard input."`
	Usage   keysUsageCommand   `cmd:"" help:"Show how often a key was used."`
}

// keyColumns are the columns of a list of keys.
func (c *clientSettings) keyColumns() []output.Column {
	return c.withOrganization([]output.Column{
		{Head: "ID", Path: "id"},
		{Head: "LABEL", Path: "label", Flexible: true},
		{Head: "STATE", Path: "state"},
		{Head: "OWNER", Path: "owner_id", Flexible: true},
		{Head: "SCOPES", Path: "scopes", Flexible: true},
		{Head: "CREATED", Path: "created_at"},
		{Head: "LAST USED", Path: "metrics.last_used_at"},
		{Head: "EXPIRES", Path: "expires_at"},
	})
}

// withOrganization puts the column of the organization behind the first, where a list
// is of all of them.
func (c *clientSettings) withOrganization(columns []output.Column) []output.Column {
	if c.Organization != "*" {
		return columns
	}
	return append([]output.Column{columns[0], {Head: "ORGANIZATION", Path: "organization_id"}}, columns[1:]...)
}

// keyFilter chooses keys.
type keyFilter struct {
	State         string            `group:"filter" enum:",active,disabled,expired,revoked" default:"" placeholder:"STATE" help:"Only keys that are active, disabled, expired or revoked."`
	Owner         string            `group:"filter" placeholder:"ID" help:"Only keys of this owner_id."`
	CreatedBy     string            `group:"filter" placeholder:"ID" help:"Only keys that this actor made: an operator's, a person's or a key's id."`
	Query         string            `group:"filter" name:"q" short:"q" placeholder:"TEXT" help:"Only keys whose label has this text in it."`
	ExternalID    string            `group:"filter" name:"external-id" placeholder:"ID" help:"Only the key that was given this external_id."`
	Secret        visiblePart       `group:"filter" placeholder:"PART" help:"Only keys whose secret looks like this where it is masked: its beginning, or beginning...end, such as sk_live_4fT0cYxLq2Rk...x81Qz."`
	Scope         string            `group:"filter" placeholder:"SCOPE" complete:"scopes" help:"Only keys whose list of scopes names this one."`
	Metadata      map[string]string `group:"filter" mapsep:"none" placeholder:"KEY=VALUE" help:"Only keys whose metadata has this entry. Can be repeated."`
	CreatedAfter  *pastTime         `group:"filter" placeholder:"TIME" help:"Only keys made at or after this time, such as 7d ago."`
	CreatedBefore *pastTime         `group:"filter" placeholder:"TIME" help:"Only keys made before this time."`
	ExpiresBefore *futureTime       `group:"filter" placeholder:"TIME" help:"Only keys that expire before this time, such as 7d from now."`
	UnusedSince   *pastTime         `group:"filter" placeholder:"TIME" help:"Only keys that were not used since this time, such as 90d ago. A key that was never used counts from its creation."`
	Previous      string            `group:"filter" name:"previous-secret" enum:",in_use" default:"" placeholder:"in_use" help:"Only keys whose previous secret works and was used since the rotation."`
}

// visiblePart is what is seen of a secret where it is masked.
type visiblePart string

// UnmarshalText refuses a whole secret, which no flag may hold.
func (p *visiblePart) UnmarshalText(text []byte) error {
	if *p = visiblePart(text); apikey.IsSecret(string(text)) {
		return errors.New("must be the visible part of a secret, and this is a whole one, which every user of this machine can read now; give it to apikeys keys verify on standard input")
	}
	return nil
}

// proto returns the filter of a call for many keys.
func (f *keyFilter) proto(now time.Time) *apikeysv1.ApiKeyFilter {
	return &apikeysv1.ApiKeyFilter{
		State:   apikeysv1.ApiKeyState(apikeysv1.ApiKeyState_value["API_KEY_STATE_"+strings.ToUpper(f.State)]),
		OwnerId: f.Owner, CreatedBy: f.CreatedBy, Q: f.Query, ExternalId: f.ExternalID, Secret: string(f.Secret), Scope: f.Scope, Metadata: f.Metadata,
		CreatedAfter: f.CreatedAfter.proto(now), CreatedBefore: f.CreatedBefore.proto(now),
		ExpiresBefore: f.ExpiresBefore.proto(now), UnusedSince: f.UnusedSince.proto(now),
		PreviousSecret: apikeysv1.PreviousSecretUse(apikeysv1.PreviousSecretUse_value["PREVIOUS_SECRET_USE_"+strings.ToUpper(f.Previous)]),
	}
}

// request returns the request of a list.
func (f *keyFilter) request(now time.Time) *apikeysv1.ListApiKeysRequest {
	p := f.proto(now)
	return &apikeysv1.ListApiKeysRequest{
		State: p.GetState(), OwnerId: p.GetOwnerId(), CreatedBy: p.GetCreatedBy(), Q: p.GetQ(), ExternalId: p.GetExternalId(),
		Secret: p.GetSecret(), Scope: p.GetScope(), Metadata: p.GetMetadata(), CreatedAfter: p.GetCreatedAfter(), CreatedBefore: p.GetCreatedBefore(),
		ExpiresBefore: p.GetExpiresBefore(), UnusedSince: p.GetUnusedSince(), PreviousSecret: p.GetPreviousSecret(),
	}
}

// keysListCommand lists keys.
type keysListCommand struct {
	keyFilter `embed:""`
	listOrder `embed:""`
	pageLimit `embed:""`
	caller    `embed:""`
}

// Run shows the keys that the filter chooses, of all pages.
func (c *keysListCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		req := c.request(s.now)
		req.Order = c.order()
		_, _, err := list(s, c.Limit, c.keyColumns(), func(size int32, token string) ([]*apikeysv1.ApiKey, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := once(ctx, s.keys.ListApiKeys, req)
			return page.GetApiKeys(), page.GetNextPageToken(), err
		})
		return err
	})
}

// keysGetCommand shows a key.
type keysGetCommand struct {
	ID     string `arg:"" complete:"keys" help:"The id of the key."`
	caller `embed:""`
}

// Run shows the key, its secret masked.
func (c *keysGetCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.keys.GetApiKey, &apikeysv1.GetApiKeyRequest{Id: c.ID})
		return s.show(answer.GetApiKey(), err)
	})
}

// keysUsageCommand shows the usage of a key.
type keysUsageCommand struct {
	ID       string `arg:"" complete:"keys" help:"The id of the key."`
	timeSpan `embed:""`
	By       string `group:"filter" name:"granularity" aliases:"by" enum:"hour,day" default:"hour" help:"Count by hour or by day."`
	caller   `embed:""`
}

// Run shows the key's usage: totals, and the hours or days.
func (c *keysUsageCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.call(ctx, sources, out, "api_key_id", func(ctx context.Context, s *session) error {
		req := &apikeysv1.GetApiKeyUsageRequest{Id: c.ID, Granularity: apikeysv1.UsageGranularity_USAGE_GRANULARITY_HOUR}
		if c.By == "day" {
			req.Granularity = apikeysv1.UsageGranularity_USAGE_GRANULARITY_DAY
		}
		req.Since, req.Until = c.times(s.now)
		answer, err := once(ctx, s.keys.GetApiKeyUsage, req)
		return s.show(answer, err)
	})
}

// timeSpan is the time that a command looks at.
type timeSpan struct {
	Since *pastTime `group:"filter" placeholder:"TIME" help:"From this time on, such as 1h ago or 2027-01-31."`
	Until *pastTime `group:"filter" placeholder:"TIME" help:"Before this time. Default: now."`
}

// times returns both ends, nil for one that was not given.
func (t *timeSpan) times(now time.Time) (since, until *timestamppb.Timestamp) {
	return t.Since.proto(now), t.Until.proto(now)
}

// errOneETag is what an etag for many keys meets.
var errOneETag = errors.New("--etag is for one key; leave it out to change many")

// errNothingToChange is what an update without a field meets.
var errNothingToChange = usageError{errors.New("nothing to change: give a field, such as --label, or --clear FIELD")}
