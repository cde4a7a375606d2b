package server_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// TestLimitsOfReplicas has three servers spend an exact rate limit, a quota and a local
// rate limit at the same time: the first two hold for all of them together, the local
// one for each.
func TestLimitsOfReplicas(t *testing.T) {
	t.Parallel()
	const most = 60
	replicas := startReplicas(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	day := func(mode apikeysv1.RateLimitMode) *apikeysv1.RateLimit {
		return &apikeysv1.RateLimit{Requests: most, WindowSeconds: 86_400, Mode: mode}
	}
	for name, c := range map[string]struct {
		create      *apikeysv1.CreateApiKeyRequest
		least, most int64
	}{
		// What is held elsewhere when a server refuses comes back to it a little later: at
		// most a block a server, which is less than a sixteenth and what calls just wait for.
		"exact": {&apikeysv1.CreateApiKeyRequest{RateLimit: day(apikeysv1.RateLimitMode_RATE_LIMIT_MODE_EXACT)}, most - 20, most},
		"quota": {&apikeysv1.CreateApiKeyRequest{Quota: &apikeysv1.Quota{Limit: most}}, most - 20, most},
		"local": {&apikeysv1.CreateApiKeyRequest{RateLimit: day(apikeysv1.RateLimitMode_RATE_LIMIT_MODE_LOCAL)}, 3 * most, 3 * most},
	} {
		c.create.Label = name
		created, err := replicas[0].Keys.CreateApiKey(replicas[0].Context(ctx), c.create)
		if err != nil {
			t.Fatal(err)
		}
		request := &apikeysv1.VerifyApiKeyRequest{Key: created.GetApiKey().GetSecret(), Cost: proto.Int32(1)}
		var valid atomic.Int64
		var group sync.WaitGroup
		for _, s := range replicas {
			for range 2 {
				group.Go(func() {
					for range 2 * most {
						v, err := s.Keys.VerifyApiKey(s.Context(ctx), request)
						if err != nil {
							t.Error(err)
							return
						}
						if v.GetValid() {
							valid.Add(1)
						}
					}
				})
			}
		}
		group.Wait()
		if n := valid.Load(); n < c.least || n > c.most {
			t.Errorf("%s: %d were valid, want %d to %d", name, n, c.least, c.most)
		}
		// A change at one server holds at the others.
		if _, err := replicas[0].Keys.UpdateApiKey(replicas[0].Context(ctx), &apikeysv1.UpdateApiKeyRequest{
			Id: created.GetApiKey().GetId(), ApiKey: &apikeysv1.ApiKey{},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"rate_limit", "quota"}},
		}); err != nil {
			t.Fatal(err)
		}
		for _, s := range replicas {
			for limited := true; limited; {
				v, err := s.Keys.VerifyApiKey(s.Context(ctx), request)
				if err != nil {
					t.Fatal(name, err)
				}
				limited = !v.GetValid() || v.GetRateLimit() != nil || v.GetQuota() != nil
			}
		}
	}
}
