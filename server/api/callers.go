package api

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// callers is the service that tells callers about themselves.
type callers struct {
	apikeysv1.UnimplementedCallersServiceServer

	catalogue []string
}

// GetCaller tells who makes the call.
func (s *callers) GetCaller(ctx context.Context, _ *apikeysv1.GetCallerRequest) (*apikeysv1.GetCallerResponse, error) {
	return &apikeysv1.GetCallerResponse{Caller: wire.Caller(callerOf(ctx), s.catalogue)}, nil
}

// The bounds of what a call waits for the event about its root token, and how long after
// one that could not be written the next call tries it again.
const (
	rootUseTimeout = 5 * time.Second
	rootUsePause   = 10 * time.Second
)

// rootUses writes the event about the first use of a root token in each hour. It is
// written before the call goes on, so that whoever was answered is in the log.
type rootUses struct {
	store *store.Store
	now   func() time.Time
	log   *slog.Logger

	told atomic.Pointer[rootUse]
	mu   sync.Mutex // held while an event is written
	next time.Time  // before which none is tried, after a failure
}

// rootUse is a use that is in the log: of a token, in an hour.
type rootUse struct {
	id   string
	hour time.Time
}

// note notes a call with a root token.
func (u *rootUses) note(ctx context.Context, call *call) {
	now := u.now()
	use := rootUse{call.caller.Actor.ID, now.UTC().Truncate(time.Hour)}
	if told := u.told.Load(); told != nil && told.id == use.id && told.hour.Equal(use.hour) {
		return
	}
	// Calls at the same time do not wait for the one that writes.
	if !u.mu.TryLock() {
		return
	}
	defer u.mu.Unlock()
	if now.Before(u.next) && now.After(u.next.Add(-2*rootUsePause)) {
		return
	}
	by := &apikey.Caller{
		Origin: apikey.Origin{Actor: call.caller.Actor, RequestID: call.requestID()},
		Rights: call.caller.Rights, StoredToken: call.caller.StoredToken, Root: true,
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rootUseTimeout)
	defer cancel()
	if err := u.store.RecordRootUse(ctx, by, use.hour); err != nil {
		u.next = now.Add(rootUsePause)
		u.log.Error("The use of the root token could not be written to the event log; the next use tries it again.", "error", err)
		return
	}
	u.told.Store(&use)
}
