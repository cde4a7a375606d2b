package main

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// TestKillWhileSpending kills the program while many callers spend one quota, and
// starts it again until nothing is left: all servers together never answer more
// valid calls than were granted, and lose no more than what one server holds at a
// kill. A clean run to the end grants to the last unit.
func TestKillWhileSpending(t *testing.T) {
	const limit, kills, callers = 3000, 3, 16
	dir := t.TempDir()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+crashToken)
	p := startProcess(t, dir)
	created, err := p.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "crash", Quota: &apikeysv1.Quota{Limit: limit}})
	if err != nil {
		t.Fatal(err)
	}
	secret := created.GetApiKey().GetSecret()
	var valid atomic.Int64
	for round := range kills {
		reached, ended := spend(ctx, p, secret, &valid, callers, int64((round+1)*limit/(kills+2)))
		<-reached
		p.kill(t)
		<-ended
		p = startProcess(t, dir)
	}
	_, ended := spend(ctx, p, secret, &valid, callers, 0)
	<-ended
	p.kill(t)
	// Beside what it holds in reserve a server can have granted one call to each
	// caller whose answer the kill has cut off.
	lost := int64(kills * (limit/16 + 2*callers))
	if got := valid.Load(); got > limit || got < limit-lost {
		t.Errorf("%d valid of %d, with %d kills; at most %d may be lost", got, limit, kills, lost)
	}
}

// spend has callers spend until nothing is left or the server is gone. reached is
// closed once that many calls in all were valid, ended when all callers are done.
func spend(ctx context.Context, p *process, secret string, valid *atomic.Int64, callers int, many int64) (reached, ended chan struct{}) {
	reached, ended = make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				resp, err := p.keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secret})
				if err != nil || !resp.GetValid() {
					return
				}
				if valid.Add(1) == many {
					close(reached)
				}
			}
		})
	}
	go func() {
		all.Wait()
		close(ended)
	}()
	return reached, ended
}
