package main

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// keysUpdateCommand changes fields of keys.
type keysUpdateCommand struct {
	chosenKeys `embed:""`
	keyFields  `embed:""`
	Clear      []string  `group:"fields" sep:"none" placeholder:"FIELD" help:"Fields that are to be empty, separated by commas: description, owner_id, scopes, ip_allow_list, expires_at, rate_limit, quota, metadata, and last metadata.KEY."`
	ETag       string    `group:"fields" name:"etag" placeholder:"ETAG" help:"Change the one key only if it is still this version of it."`
	Where      keyFilter `embed:"" prefix:"where-"`
	many       `embed:""`
	caller     `embed:""`
}

// Run shows the key as it is then, or what became of each of many.
func (c *keysUpdateCommand) Run(ctx context.Context, sources *sources, out streams) error {
	one, err := c.isOne(&c.Where, c.many)
	if err != nil {
		return err
	}
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		key, paths, err := c.patch(c.Clear, s.now)
		switch {
		case err != nil:
			return err
		case len(paths) == 0:
			return errNothingToChange
		case one:
			return s.update(ctx, c.IDs[0], key, paths, c.ETag)
		case c.ETag != "":
			return usageError{errOneETag}
		}
		return c.job(s, &c.Where, "changed", s.updateMany(key, paths)).run(ctx, c.many)
	})
}

// update changes fields of a key, and shows it.
func (s *session) update(ctx context.Context, id string, key *apikeysv1.ApiKey, paths []string, etag string) error {
	answer, err := once(ctx, s.keys.UpdateApiKey, &apikeysv1.UpdateApiKeyRequest{Id: id, ApiKey: key, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: etag})
	return s.show(answer.GetApiKey(), err)
}

// updateMany returns the call that changes fields of many keys.
func (s *session) updateMany(key *apikeysv1.ApiKey, paths []string) func(context.Context, manyPage) (manyAnswer, []proto.Message, error) {
	return func(ctx context.Context, p manyPage) (manyAnswer, []proto.Message, error) {
		answer, err := s.keys.BatchUpdateApiKeys(ctx, &apikeysv1.BatchUpdateApiKeysRequest{
			Ids: p.ids, Filter: p.filter, ValidateOnly: p.dryRun, PageToken: p.token, Update: key, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
		return answer, messagesOf(answer.GetResults()), err
	}
}

// keysEnableCommand lets keys be used again.
type keysEnableCommand struct{ switchKeys }

// Run shows the key as it is then, or what became of each of many.
func (c *keysEnableCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.turn(ctx, sources, out, &apikeysv1.ApiKey{Enabled: true}, "enabled")
}

// keysDisableCommand stops keys until they are enabled.
type keysDisableCommand struct{ switchKeys }

// Run shows the key as it is then, or what became of each of many.
func (c *keysDisableCommand) Run(ctx context.Context, sources *sources, out streams) error {
	return c.turn(ctx, sources, out, &apikeysv1.ApiKey{}, "disabled")
}

// switchKeys are keys to enable or disable.
type switchKeys struct {
	chosenKeys `embed:""`
	keyFilter  `embed:""`
	many       `embed:""`
	caller     `embed:""`
}

func (c *switchKeys) turn(ctx context.Context, sources *sources, out streams, key *apikeysv1.ApiKey, verb string) error {
	one, err := c.isOne(&c.keyFilter, c.many)
	if err != nil {
		return err
	}
	paths := []string{"enabled"}
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		if one {
			return s.update(ctx, c.IDs[0], key, paths, "")
		}
		return c.job(s, &c.keyFilter, verb, s.updateMany(key, paths)).run(ctx, c.many)
	})
}

// keysRevokeCommand ends keys for good.
type keysRevokeCommand struct {
	chosenKeys `embed:""`
	Reason     string `group:"fields" enum:"unspecified,key_compromise,superseded,no_longer_needed,privilege_withdrawn" default:"unspecified" placeholder:"REASON" help:"key_compromise, superseded, no_longer_needed or privilege_withdrawn."`
	keyFilter  `embed:""`
	many       `embed:""`
	caller     `embed:""`
}

// Run shows the key as it is then, or what became of each of many.
func (c *keysRevokeCommand) Run(ctx context.Context, sources *sources, out streams) error {
	one, err := c.isOne(&c.keyFilter, c.many)
	if err != nil {
		return err
	}
	reason := apikeysv1.RevokeReason(apikeysv1.RevokeReason_value["REVOKE_REASON_"+strings.ToUpper(c.Reason)])
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		if one {
			answer, err := once(ctx, s.keys.RevokeApiKey, &apikeysv1.RevokeApiKeyRequest{Id: c.IDs[0], Reason: reason})
			return s.show(answer.GetApiKey(), err)
		}
		return c.job(s, &c.keyFilter, "revoked", func(ctx context.Context, p manyPage) (manyAnswer, []proto.Message, error) {
			answer, err := s.keys.BatchRevokeApiKeys(ctx, &apikeysv1.BatchRevokeApiKeysRequest{
				Ids: p.ids, Filter: p.filter, ValidateOnly: p.dryRun, PageToken: p.token, Reason: reason,
			})
			return answer, messagesOf(answer.GetResults()), err
		}).run(ctx, c.many)
	})
}

// keysDeleteCommand ends keys and takes them out of every list.
type keysDeleteCommand struct {
	chosenKeys `embed:""`
	keyFilter  `embed:""`
	many       `embed:""`
	idCaller   `embed:""`
}

// Run shows the ids of what was deleted.
func (c *keysDeleteCommand) Run(ctx context.Context, sources *sources, out streams) error {
	one, err := c.isOne(&c.keyFilter, c.many)
	if err != nil {
		return err
	}
	return c.call(ctx, sources, out, "id", func(ctx context.Context, s *session) error {
		if one {
			answer, err := once(ctx, s.keys.DeleteApiKey, &apikeysv1.DeleteApiKeyRequest{Id: c.IDs[0]})
			return s.show(answer, err)
		}
		return c.job(s, &c.keyFilter, "deleted", func(ctx context.Context, p manyPage) (manyAnswer, []proto.Message, error) {
			answer, err := s.keys.BatchDeleteApiKeys(ctx, &apikeysv1.BatchDeleteApiKeysRequest{Ids: p.ids, Filter: p.filter, ValidateOnly: p.dryRun, PageToken: p.token})
			return answer, messagesOf(answer.GetResults()), err
		}).run(ctx, c.many)
	})
}
