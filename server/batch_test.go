package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// calling returns the context of calls with a credential in an organization.
func calling(ctx context.Context, credential, organization string, more ...string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(append([]string{"authorization", credential, "x-organization-id", organization}, more...)...))
}

// population makes keys of many states in an organization, the same for the same
// random numbers, and returns their ids and the secret of a caller with some of the
// rights, which is one of them.
func population(t *testing.T, w *harness, organization string, random *rand.Rand) (ids []string, caller string) {
	t.Helper()
	keys, ctx := w.Keys, calling(t.Context(), servertest.RootToken, organization)
	now := w.clock.Now()
	for i := range 24 {
		request := &apikeysv1.CreateApiKeyRequest{Label: fmt.Sprint("key ", i), OwnerId: []string{"ann", "bob"}[random.IntN(2)]}
		request.Scopes = [][]string{{"invoices.read"}, {"invoices.read", "api_keys.update", "api_keys.delete", "api_keys.read"}, {"*"}, nil}[random.IntN(4)]
		if random.IntN(3) == 0 {
			request.ExpiresAt = timestamppb.New(now.Add(time.Duration(1+random.IntN(3)) * time.Hour))
		}
		if i == 12 {
			request.Scopes, request.ExpiresAt = []string{"invoices.read", "api_keys.update", "api_keys.delete", "api_keys.read"}, nil
			if random.IntN(2) == 0 {
				request.ExpiresAt = timestamppb.New(now.Add(3 * time.Hour))
			}
		}
		if random.IntN(3) == 0 {
			request.RateLimit = &apikeysv1.RateLimit{Requests: 1000, WindowSeconds: 10}
		}
		made, err := keys.CreateApiKey(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		id := made.GetApiKey().GetId()
		ids = append(ids, id)
		change := random.IntN(6)
		if i == 12 {
			caller = made.GetApiKey().GetSecret()
			if change = 4; random.IntN(2) == 0 {
				change = 2 // It calls with its previous secret.
			}
		}
		switch change {
		case 0:
			_, err = keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: id})
		case 1:
			_, err = keys.UpdateApiKey(ctx, &apikeysv1.UpdateApiKeyRequest{Id: id, ApiKey: &apikeysv1.ApiKey{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"enabled"}}})
		case 2:
			overlap := int32(3600)
			_, err = keys.RotateApiKey(ctx, &apikeysv1.RotateApiKeyRequest{Id: id, OverlapSeconds: &overlap})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return ids, caller
}

// outcomeOf returns in one word what became of a call for one key.
func outcomeOf(events int, err error) string {
	if err == nil {
		return []string{"unchanged", "done"}[events]
	}
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return err.Error()
}

// shownOf returns what two keys of different ids have in common.
func shownOf(t *testing.T, w *harness, organization string, ids []string) (all []string) {
	t.Helper()
	ctx := calling(t.Context(), servertest.RootToken, organization)
	for _, id := range ids {
		resp, err := w.Keys.GetApiKey(ctx, &apikeysv1.GetApiKeyRequest{Id: id})
		if err != nil {
			all = append(all, outcomeOf(0, err))
			continue
		}
		k := resp.GetApiKey()
		all = append(all, fmt.Sprint(k.GetLabel(), k.GetState(), k.GetScopes(), k.GetExpiresAt().AsTime(), k.GetRevokeReason(), k.GetMetadata(), k.GetRateLimit(), k.GetPreviousSecretExpiresAt().AsTime(), k.GetEtag()))
	}
	return all
}

// TestManyAreAsOne makes the same changes of the same keys one by one and in one call:
// what becomes of each, the keys afterwards, and the events are the same.
func TestManyAreAsOne(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	overlap := int32(600)
	updates := []struct {
		key   *apikeysv1.ApiKey
		paths []string
	}{
		{&apikeysv1.ApiKey{}, []string{"enabled"}},
		{&apikeysv1.ApiKey{Enabled: true}, []string{"enabled"}},
		{&apikeysv1.ApiKey{Label: "key 3", Scopes: []string{"invoices.read"}}, []string{"label", "scopes"}},
		{&apikeysv1.ApiKey{Scopes: []string{"invoices.read", "invoices.create"}}, []string{"scopes"}},
		{&apikeysv1.ApiKey{ExpiresAt: timestamppb.New(start.Add(5 * time.Hour))}, []string{"expires_at"}},
		{&apikeysv1.ApiKey{Metadata: map[string]string{"a": "b"}}, []string{"metadata.`a`"}},
		{&apikeysv1.ApiKey{RateLimit: &apikeysv1.RateLimit{Requests: 5}}, []string{"rate_limit.requests"}},
	}
	for seed := range uint64(12) {
		one, many := fmt.Sprint("org_one_", seed), fmt.Sprint("org_many_", seed)
		ids, caller := population(t, w, one, rand.New(rand.NewPCG(seed, 1)))
		others, other := population(t, w, many, rand.New(rand.NewPCG(seed, 1)))
		if seed%3 == 0 { // by an operator
			caller, other = servertest.RootToken, servertest.RootToken
		}
		single, batch := calling(t.Context(), caller, one), calling(t.Context(), other, many, "idempotency-key", fmt.Sprint(seed))
		eventsOf := func(organization string) []string {
			return w.column(t, "SELECT type || "+changesColumn+" FROM events WHERE organization_id = ? ORDER BY id", organization)
		}
		made := len(eventsOf(one))
		var call func(id string) error
		var results []*apikeysv1.ApiKeyResult
		var err error
		switch kind := seed % 10; kind {
		default:
			u := updates[kind]
			mask := &fieldmaskpb.FieldMask{Paths: u.paths}
			call = func(id string) error {
				_, err := w.Keys.UpdateApiKey(single, &apikeysv1.UpdateApiKeyRequest{Id: id, ApiKey: u.key, UpdateMask: mask})
				return err
			}
			var resp *apikeysv1.BatchUpdateApiKeysResponse
			resp, err = w.Keys.BatchUpdateApiKeys(batch, &apikeysv1.BatchUpdateApiKeysRequest{Ids: others, Update: u.key, UpdateMask: mask})
			results = resp.GetResults()
		case 7:
			call = func(id string) error {
				_, err := w.Keys.RevokeApiKey(single, &apikeysv1.RevokeApiKeyRequest{Id: id, Reason: apikeysv1.RevokeReason_REVOKE_REASON_SUPERSEDED})
				return err
			}
			var resp *apikeysv1.BatchRevokeApiKeysResponse
			resp, err = w.Keys.BatchRevokeApiKeys(batch, &apikeysv1.BatchRevokeApiKeysRequest{Ids: others, Reason: apikeysv1.RevokeReason_REVOKE_REASON_SUPERSEDED})
			results = resp.GetResults()
		case 8:
			call = func(id string) error {
				_, err := w.Keys.DeleteApiKey(single, &apikeysv1.DeleteApiKeyRequest{Id: id})
				return err
			}
			var resp *apikeysv1.BatchDeleteApiKeysResponse
			resp, err = w.Keys.BatchDeleteApiKeys(batch, &apikeysv1.BatchDeleteApiKeysRequest{Ids: others})
			results = resp.GetResults()
		case 9:
			call = func(id string) error {
				_, err := w.Keys.RotateApiKey(single, &apikeysv1.RotateApiKeyRequest{Id: id, OverlapSeconds: &overlap})
				return err
			}
			var resp *apikeysv1.BatchRotateApiKeysResponse
			resp, err = w.Keys.BatchRotateApiKeys(batch, &apikeysv1.BatchRotateApiKeysRequest{Ids: others, OverlapSeconds: &overlap})
			for _, r := range resp.GetResults() {
				results = append(results, &apikeysv1.ApiKeyResult{Id: r.GetId(), Outcome: r.GetOutcome(), Error: r.GetError()})
			}
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var want, got []string
		for _, id := range ids {
			before := len(eventsOf(one))
			err := call(id)
			outcome := outcomeOf(len(eventsOf(one))-before, err)
			if outcome == "UNAUTHENTICATED" {
				break // The call for many ends where its caller does.
			}
			want = append(want, outcome)
		}
		for _, r := range results {
			got = append(got, map[apikeysv1.BatchOutcome]string{1: "done", 2: "unchanged", 3: r.GetError().GetReason()}[r.GetOutcome()])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seed %d: outcomes (-one by one +in one call)\n%s", seed, diff)
		}
		if diff := cmp.Diff(eventsOf(one)[made:], eventsOf(many)[made:]); diff != "" {
			t.Errorf("seed %d: events (-one by one +in one call)\n%s", seed, diff)
		}
		if diff := cmp.Diff(shownOf(t, w, one, ids), shownOf(t, w, many, others)); diff != "" {
			t.Errorf("seed %d: keys (-one by one +in one call)\n%s", seed, diff)
		}
	}
}

// TestInterrupted cuts calls for many keys off again and again, begins anew where the
// answer was lost, and goes on where it was not: each key is changed once.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	ctx := calling(t.Context(), servertest.RootToken, "org_i")
	ids := map[string]bool{}
	for i := range 400 {
		made, err := w.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: fmt.Sprint(i), OwnerId: []string{"ann", "bob"}[i%2]})
		if err != nil {
			t.Fatal(err)
		}
		ids[made.GetApiKey().GetId()] = i%2 == 0
	}
	random := rand.New(rand.NewPCG(1, 1))
	lost, parts, done := 0, 0, int32(0)
	for token, more := "", true; more; {
		limited, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(40_000))*time.Microsecond)
		resp, err := w.Keys.BatchRevokeApiKeys(limited, &apikeysv1.BatchRevokeApiKeysRequest{Filter: &apikeysv1.ApiKeyFilter{OwnerId: "ann"}, PageToken: token})
		cancel()
		if err != nil {
			lost++
			token = ""
			continue
		}
		parts++
		done += resp.GetDone()
		token, more = resp.GetNextPageToken(), resp.GetNextPageToken() != ""
	}
	t.Logf("%d calls were lost, %d answered, which tell of %d changes", lost, parts, done)
	revoked := w.column(t, "SELECT resource_id FROM events WHERE type = 'api_key.revoked' ORDER BY resource_id")
	var want []string
	for id, is := range ids {
		if is {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	if !slices.Equal(revoked, want) {
		t.Errorf("%d events for %d keys", len(revoked), len(want))
	}
}
