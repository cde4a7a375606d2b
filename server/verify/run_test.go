package verify

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Run stores once a second, goes on after a failure, and once more at the end,
// which does not break off a flush under way.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := newFakeKeys()
		v := newVerifier(t, keys, time.Now)
		_, secret := keys.create(t, apikey.Key{}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- v.Run(ctx) }()
		use := func() { wantCode(t, v, Request{Secret: secret, Cost: 1}, apikey.CodeValid) }
		wait := func(d time.Duration, want int64) {
			t.Helper()
			<-time.After(d)
			synctest.Wait()
			if got := keys.sum(); got != want {
				t.Errorf("%d stored, want %d", got, want)
			}
		}
		use()
		wait(999*time.Millisecond, 0)
		wait(time.Millisecond, 1)
		keys.setOnAdd(func(context.Context, []apikey.UsageCount) (int, error) { return 0, errBroken })
		use()
		wait(time.Second, 1)
		keys.setOnAdd(nil)
		wait(time.Second, 2)

		// The end comes in the middle of a flush.
		keys.setOnAdd(func(ctx context.Context, counts []apikey.UsageCount) (int, error) {
			cancel()
			<-time.After(time.Millisecond)
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			return keys.store(counts), nil
		})
		use()
		wait(time.Second+time.Millisecond, 3)
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestRunStoresAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, broken := range []error{nil, errBroken} {
		keys := newFakeKeys()
		v := newVerifier(t, keys, nil)
		_, secret := keys.create(t, apikey.Key{}, 0)
		wantCode(t, v, Request{Secret: secret, Cost: 1}, apikey.CodeValid)
		if broken != nil {
			keys.onAdd = func(context.Context, []apikey.UsageCount) (int, error) { return 0, broken }
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := v.Run(ctx); !errors.Is(err, broken) || broken == nil && keys.sum() != 1 {
			t.Errorf("Run = %v, %d stored", err, keys.sum())
		}
	}
}
