package server_test

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// TestIdempotencyAtReplicas sends each create to three servers at once under one
// idempotency key: one key is made, and all who are answered have its secret.
func TestIdempotencyAtReplicas(t *testing.T) {
	t.Parallel()
	replicas := startReplicas(t, 3, nil)
	for i := range 20 {
		var mu sync.Mutex
		secrets := make(map[string]int)
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() {
				s := replicas[n%3]
				ctx := metadata.AppendToOutgoingContext(s.Context(t.Context()), "idempotency-key", fmt.Sprint("create-", i))
				made, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "key"})
				if err != nil {
					t.Errorf("create %d: %v", i, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				secrets[made.GetApiKey().GetSecret()]++
			})
		}
		wg.Wait()
		if len(secrets) != 1 {
			t.Fatalf("one call made keys of %d secrets", len(secrets))
		}
	}
	s := replicas[0]
	if list, err := s.Keys.ListApiKeys(s.Context(t.Context()), &apikeysv1.ListApiKeysRequest{}); err != nil || len(list.GetApiKeys()) != 20 {
		t.Errorf("%d keys of 20 calls, %v", len(list.GetApiKeys()), err)
	}
}
