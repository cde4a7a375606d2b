package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// Calls for many keys. A call finds the keys that it is for, ascending by id, and
// changes them a few dozen at a time, so that no transaction holds the writer for long
// and others take their turns in between. It ends after so many keys, or so much time,
// with a token that goes on after the last.

const (
	// maxBatch is how many keys one call takes. A rotation's is the number in the
	// rule of its proto: all its keys are changed in one transaction, with the answer.
	maxBatch, maxRotations = 1000, 100
	// batchChunk is how many keys one transaction changes.
	batchChunk = 50
	// batchTime is how long a call goes on before it answers with what it has done,
	// where its deadline does not end it sooner.
	batchTime = 10 * time.Second
	// batchMargin is how long before the deadline of a call it ends.
	batchMargin = 500 * time.Millisecond
)

// batchRequest is what the requests for many keys have in common.
type batchRequest interface {
	proto.Message
	GetIds() []string
	GetFilter() *apikeysv1.ApiKeyFilter
	GetValidateOnly() bool
	GetPageSize() int32
	GetPageToken() string
}

// batch is a call for many keys.
type batch struct {
	request batchRequest
	change  store.KeysChange
	token   boundToken
	most    int
	// setsQuotas says that the change sets quotas: see [apiKeys.pauseQuota].
	setsQuotas bool
	after      string // the id after which it goes on

	ids []string // those that are looked at, ascending
	// known are the keys that were found, by their ids.
	known map[string]apikey.Key
	next  string // the id after which the next call goes on; "" where nothing is left

	results []store.KeyResult
}

// newBatch reads what a request says of its keys. found are the faults of the request
// that are known before.
func newBatch(ctx context.Context, found faults, req batchRequest, most int, change store.KeysChange) (*batch, error) {
	b := &batch{request: req, change: change, token: bindToken(req), most: most}
	if req.GetFilter() != nil {
		// A filter tells what only a reader may know.
		if err := callerOf(ctx).Rights.Check("api_keys.read"); err != nil {
			return nil, err
		}
	}
	switch ids, filter := req.GetIds(), req.GetFilter(); {
	case len(ids) > 0 && filter != nil:
		found.add("filter", "must not be given together with ids")
	case len(ids) > 0:
		b.change.Named = true
		b.change.Filter = store.KeyFilter{Organization: callerOf(ctx).Organization}
		b.ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	case filter == nil:
		found.add("ids", "is required, 1 to 1000 of them; or a filter")
	case proto.Size(filter) == 0:
		found.add("filter", `must name what the keys have, such as {"state": "active"}`)
	default:
		b.change.Filter = found.keyFilter(ctx, "filter.", filter)
	}
	if size := int(req.GetPageSize()); size > 0 {
		b.most = size
	}
	b.after = found.boundToken(b.token, req.GetPageToken(), false)
	return b, found.err()
}

// find finds the keys of this call.
func (s *apiKeys) findBatch(ctx context.Context, b *batch) error {
	filter := b.change.Filter
	if b.change.Named {
		b.ids = slices.DeleteFunc(b.ids, func(id string) bool { return id <= b.after })
		if len(b.ids) > b.most {
			b.ids = b.ids[:b.most]
			b.next = b.ids[b.most-1]
		}
		filter.IDs = slices.DeleteFunc(append([]string{}, b.ids...), func(id string) bool { return !apikey.IsID(apikey.IDPrefix, id) })
	}
	b.known = make(map[string]apikey.Key)
	for after := b.after; ; {
		keys, next, err := s.store.Keys(ctx, filter, after, b.most-len(b.known))
		if err != nil {
			return err
		}
		for i := range keys {
			b.known[keys[i].ID] = keys[i]
			if !b.change.Named {
				b.ids = append(b.ids, keys[i].ID)
			}
		}
		if !b.change.Named {
			b.next = next
			return nil
		}
		if next == "" {
			return nil
		}
		after = next // A page of large keys ends early.
	}
}

// run makes the change of the keys.
func (s *apiKeys) runBatch(ctx context.Context, b *batch) error {
	if err := s.findBatch(ctx, b); err != nil {
		return err
	}
	if b.request.GetValidateOnly() {
		s.tryBatch(ctx, b)
		return nil
	}
	began, longest := s.now(), time.Duration(0)
	for ids := range slices.Chunk(b.ids, batchChunk) {
		if len(b.results) > 0 && s.ends(ctx, began, longest) {
			b.next = b.results[len(b.results)-1].ID
			return nil
		}
		start := s.now()
		done, err := s.changeKeys(ctx, b, ids)
		if err != nil {
			return b.interrupted(err)
		}
		longest = max(longest, s.now().Sub(start))
		if b.took(done) {
			return nil
		}
	}
	return nil
}

// changeKeys makes the change of some of the keys, in one transaction.
func (s *apiKeys) changeKeys(ctx context.Context, b *batch, ids []string) (store.KeyResults, error) {
	change := b.change
	change.Filter.IDs = ids
	if b.setsQuotas {
		resume, err := s.meter.PauseQuota(ctx, ids...)
		if err != nil {
			return store.KeyResults{}, err
		}
		defer resume()
	}
	return s.store.ChangeKeys(ctx, authorOf(ctx), &change)
}

// took notes what became of some of the keys, and reports whether the call ends with
// them.
func (b *batch) took(done store.KeyResults) (ended bool) {
	b.results = append(b.results, done.Results...)
	if !done.Ended {
		return false
	}
	if last := done.Results[len(done.Results)-1].ID; last < b.ids[len(b.ids)-1] {
		b.next = last
	}
	return true
}

// interrupted returns err, unless a part was done: the answer tells of that, and the
// next call of what hinders it.
func (b *batch) interrupted(err error) error {
	if len(b.results) == 0 {
		return err
	}
	b.next = b.results[len(b.results)-1].ID
	return nil
}

// ends reports whether a call is to end, since another transaction could take it past
// its deadline.
func (s *apiKeys) ends(ctx context.Context, began time.Time, longest time.Duration) bool {
	if ctx.Err() != nil || s.now().Sub(began) >= batchTime {
		return true
	}
	deadline, limited := ctx.Deadline()
	return limited && time.Until(deadline) < batchMargin+2*longest
}

// tryBatch tells what the change of the keys would come to.
func (s *apiKeys) tryBatch(ctx context.Context, b *batch) {
	now := s.store.Now()
	for _, id := range b.ids {
		r := store.KeyResult{ID: id, Err: apikey.AsError(apikey.ErrNotFound)}
		if k, ok := b.known[id]; ok {
			r = b.change.Try(callerOf(ctx), &k, now)
		}
		b.results = append(b.results, r)
	}
}

// BatchUpdateApiKeys changes the same fields of many keys.
func (s *apiKeys) BatchUpdateApiKeys(ctx context.Context, req *apikeysv1.BatchUpdateApiKeysRequest) (*apikeysv1.BatchUpdateApiKeysResponse, error) {
	found := faultsOf(ctx)
	single := &apikeysv1.UpdateApiKeyRequest{ApiKey: req.GetUpdate(), UpdateMask: req.GetUpdateMask()}
	switch {
	case req.GetUpdate() == nil:
		found.add("update", "is required; it has the new values")
	case req.GetUpdateMask() == nil:
		found.add("update_mask", "is required; it names the fields to change")
	}
	patch, problems := wire.KeyPatch(single)
	for _, p := range append(problems, s.rules.PatchProblems(patch, s.now())...) {
		if p.Field != "update_mask" {
			p.Field = "update." + p.Field
		}
		found = append(found, p)
	}
	b, err := newBatch(ctx, found, req, maxBatch, store.KeysChange{
		Event: apikey.KeyUpdated, Disables: patch.Disables(),
		Rule: func(k *apikey.Key, now time.Time) error { return s.rules.Update(k, patch, now) },
	})
	if err != nil {
		return nil, err
	}
	b.setsQuotas = patch.Names("quota")
	if err := s.runBatch(ctx, b); err != nil {
		return nil, err
	}
	list, o := keyResults(b.results)
	return &apikeysv1.BatchUpdateApiKeysResponse{
		Results: list, Done: o.done, Unchanged: o.unchanged, Refused: o.refused, NextPageToken: b.token.encode(b.next),
	}, nil
}

// BatchRevokeApiKeys ends many keys for good.
func (s *apiKeys) BatchRevokeApiKeys(ctx context.Context, req *apikeysv1.BatchRevokeApiKeysRequest) (*apikeysv1.BatchRevokeApiKeysResponse, error) {
	b, err := newBatch(ctx, faultsOf(ctx), req, maxBatch, store.KeysChange{
		Event: apikey.KeyRevoked,
		Rule: func(k *apikey.Key, now time.Time) error {
			s.rules.Revoke(k, wire.RevokeReason(req.GetReason()), now)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	if err := s.runBatch(ctx, b); err != nil {
		return nil, err
	}
	list, o := keyResults(b.results)
	return &apikeysv1.BatchRevokeApiKeysResponse{
		Results: list, Done: o.done, Unchanged: o.unchanged, Refused: o.refused, NextPageToken: b.token.encode(b.next),
	}, nil
}

// BatchDeleteApiKeys ends many keys and takes them out of every list and read.
func (s *apiKeys) BatchDeleteApiKeys(ctx context.Context, req *apikeysv1.BatchDeleteApiKeysRequest) (*apikeysv1.BatchDeleteApiKeysResponse, error) {
	b, err := newBatch(ctx, faultsOf(ctx), req, maxBatch, store.KeysChange{Event: apikey.KeyDeleted})
	if err != nil {
		return nil, err
	}
	if err := s.runBatch(ctx, b); err != nil {
		return nil, err
	}
	list, o := keyResults(b.results)
	return &apikeysv1.BatchDeleteApiKeysResponse{
		Results: list, Done: o.done, Unchanged: o.unchanged, Refused: o.refused, NextPageToken: b.token.encode(b.next),
	}, nil
}

// BatchRotateApiKeys gives many keys new secrets, in one transaction: that the keys are
// changed and that the answer is kept, with which alone they can be used, is one.
func (s *apiKeys) BatchRotateApiKeys(ctx context.Context, req *apikeysv1.BatchRotateApiKeysRequest) (*apikeysv1.BatchRotateApiKeysResponse, error) {
	found := faultsOf(ctx)
	if callOf(ctx).idempotency == nil && !req.GetValidateOnly() && !slices.ContainsFunc(found, func(p apikey.FieldProblem) bool { return p.Field == headerIdempotencyKey }) {
		found.add(headerIdempotencyKey, "is required: with it the same call gets the new secrets again, should its answer be lost")
	}
	overlap := time.Duration(req.GetOverlapSeconds()) * time.Second
	secrets := make(map[string]apikey.Secret)
	b, err := newBatch(ctx, found, req, maxRotations, store.KeysChange{
		Event: apikey.KeyRotated,
		Rule: func(k *apikey.Key, now time.Time) error {
			format := s.rules.Formats.Next(k)
			secret, err := apikey.NewSecret(format.Prefix, s.random)
			if err != nil {
				return fmt.Errorf("make a secret: %w", err)
			}
			if req.GetEndPrevious() {
				k.EndPrevious()
			}
			secrets[k.ID] = secret
			return s.rules.Rotate(k, format, s.peppers.Stored(secret), overlap, now)
		},
	})
	if err != nil {
		return nil, err
	}
	if err := s.findBatch(ctx, b); err != nil {
		return nil, err
	}
	message := func() *apikeysv1.BatchRotateApiKeysResponse {
		list, o := keyRotations(b.results)
		return &apikeysv1.BatchRotateApiKeysResponse{
			Results: list, Done: o.done, Unchanged: o.unchanged, Refused: o.refused, NextPageToken: b.token.encode(b.next),
		}
	}
	if req.GetValidateOnly() {
		s.tryBatch(ctx, b)
		return message(), nil
	}
	return answer(ctx, func(done *store.KeyResults) (*apikeysv1.BatchRotateApiKeysResponse, error) {
		b.results = nil
		b.took(*done)
		resp := message()
		for i, r := range done.Results {
			if r.Changed {
				resp.Results[i].Secret = secrets[r.ID].Reveal() // the one place where it is shown
			}
		}
		return resp, nil
	}, func() (store.KeyResults, error) { return s.changeKeys(ctx, b, b.ids) })
}
