package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// keyFields are the fields of a key that can be set at any time.
type keyFields struct {
	Label       *string           `group:"fields" placeholder:"TEXT" help:"What people call the key."`
	Description *string           `group:"fields" placeholder:"TEXT" help:"What the key is for."`
	Owner       *string           `group:"fields" name:"owner" aliases:"owner-id" placeholder:"ID" help:"The field owner_id: your own name for whoever holds the key."`
	Scopes      []string          `group:"fields" placeholder:"SCOPE" complete:"scopes" help:"What the key may do, separated by commas, or * for all."`
	IPAllowList []string          `group:"fields" name:"ip-allow-list" placeholder:"RANGE" help:"The addresses and ranges that may use the key, separated by commas."`
	ExpiresAt   *futureTime       `group:"fields" placeholder:"TIME" help:"When the key stops working: in 90d, or 2027-01-31."`
	RateLimit   *rateLimit        `group:"fields" sep:"none" placeholder:"N/TIME" help:"How many requests in which time, such as 100/1m; 100/1m,exact for one limit over all servers."`
	Quota       *quota            `group:"fields" placeholder:"N" help:"A budget of units: 1000, 1000/daily, 1000/monthly or 1000/monthly@15."`
	Metadata    map[string]string `group:"fields" mapsep:"none" placeholder:"KEY=VALUE" help:"Texts of your own. Can be repeated; an update changes these entries alone."`
}

// keysCreateCommand makes a key.
type keysCreateCommand struct {
	keyFields    `embed:""`
	Mode         string `group:"fields" enum:"live,test" default:"live" help:"What the key is for: live or test. It stays."`
	KeyFormat    string `group:"fields" placeholder:"NAME" help:"The format of the secret, one of the server's setting key_formats."`
	ExternalID   string `group:"fields" name:"external-id" placeholder:"ID" help:"Your own name for the key, unique in the organization. It stays."`
	Disabled     bool   `group:"fields" help:"Make a key that cannot be used until it is enabled."`
	NoScopes     bool   `group:"fields" help:"Make a key without scopes where the server gives all to one that names none."`
	secretCaller `embed:""`
}

// Run shows the new key's secret.
func (c *keysCreateCommand) Run(ctx context.Context, sources *sources, out streams) error {
	if c.Label == nil {
		return usageError{fmt.Errorf("--label is needed: what people call the key, such as --label %q", "shop, production")}
	}
	return makeSecret(ctx, &c.secretCaller, sources, out, c.request, func(ctx context.Context, s *session, req *apikeysv1.CreateApiKeyRequest) (*apikeysv1.ApiKey, error) {
		answer, err := s.keys.CreateApiKey(ctx, req)
		return answer.GetApiKey(), err
	})
}

func (c *keysCreateCommand) request(now time.Time) *apikeysv1.CreateApiKeyRequest {
	req := &apikeysv1.CreateApiKeyRequest{
		Label: *c.Label, Scopes: c.Scopes, EmptyScopes: c.NoScopes, IpAllowList: c.IPAllowList, ExpiresAt: c.ExpiresAt.proto(now),
		Mode: apikeysv1.ApiKeyMode_API_KEY_MODE_LIVE, KeyFormat: c.KeyFormat, ExternalId: c.ExternalID,
		Metadata: c.Metadata, RateLimit: c.RateLimit.proto(), Quota: c.Quota.proto(),
	}
	if c.Description != nil {
		req.Description = *c.Description
	}
	if c.Owner != nil {
		req.OwnerId = *c.Owner
	}
	if c.Mode == "test" {
		req.Mode = apikeysv1.ApiKeyMode_API_KEY_MODE_TEST
	}
	if c.Disabled {
		req.Enabled = new(bool)
	}
	return req
}

// clearable are the fields of a key that --clear takes.
var clearable = []string{"description", "owner_id", "scopes", "ip_allow_list", "expires_at", "rate_limit", "quota", "metadata"}

// patch returns the fields that are given as a key, and their paths. Those of clear are
// named and left unset.
func (f *keyFields) patch(toClear []string, now time.Time) (key *apikeysv1.ApiKey, paths []string, err error) {
	key = &apikeysv1.ApiKey{}
	text := func(path string, given *string, set *string) {
		if given != nil {
			*set = *given
			paths = append(paths, path)
		}
	}
	text("label", f.Label, &key.Label)
	text("description", f.Description, &key.Description)
	text("owner_id", f.Owner, &key.OwnerId)
	if f.Scopes != nil {
		key.Scopes = f.Scopes
		paths = append(paths, "scopes")
	}
	if f.IPAllowList != nil {
		key.IpAllowList = f.IPAllowList
		paths = append(paths, "ip_allow_list")
	}
	if key.ExpiresAt = f.ExpiresAt.proto(now); key.ExpiresAt != nil {
		paths = append(paths, "expires_at")
	}
	if key.RateLimit = f.RateLimit.proto(); key.RateLimit != nil {
		paths = append(paths, "rate_limit")
	}
	if key.Quota = f.Quota.proto(); key.Quota != nil {
		paths = append(paths, "quota")
	}
	for name, value := range f.Metadata {
		if key.Metadata == nil {
			key.Metadata = map[string]string{}
		}
		key.Metadata[name] = value
		paths = append(paths, metadataPath(name))
	}
	for _, name := range splitFields(toClear) {
		path := strings.ReplaceAll(strings.TrimSpace(name), "-", "_")
		if entry, ok := strings.CutPrefix(strings.TrimSpace(name), "metadata."); ok {
			path = metadataPath(entry)
		} else if path == "owner" {
			path = "owner_id"
		} else if !slices.Contains(clearable, path) {
			return nil, nil, usageError{fmt.Errorf("--clear: must be one of %s or metadata.KEY, not %q", strings.Join(clearable, ", "), apikey.Excerpt(name))}
		}
		if slices.Contains(paths, path) {
			return nil, nil, usageError{fmt.Errorf("%s is set and cleared in one command; do one of the two", path)}
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return key, paths, nil
}

// splitFields returns the fields of flags that have several with commas. What follows
// metadata. is one key, which can have commas in it.
func splitFields(flags []string) (fields []string) {
	for _, rest := range flags {
		for more := true; more; {
			field := rest
			if !strings.HasPrefix(rest, "metadata.") {
				field, rest, more = strings.Cut(rest, ",")
			} else {
				more = false
			}
			fields = append(fields, field)
		}
	}
	return fields
}

// metadataPath returns the path of one entry of metadata in an update_mask.
func metadataPath(key string) string {
	return "metadata.`" + strings.ReplaceAll(key, "`", "``") + "`"
}
