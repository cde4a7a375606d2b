package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// TestFailureLevels looks at how loudly a failure is told, and as what: a client that
// goes away is how things go, and is no failure of the server, whatever noticed it
// first.
func TestFailureLevels(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	late, stop := context.WithTimeout(context.Background(), 0)
	defer stop()
	stopping, end := context.WithCancelCause(context.Background())
	end(errStopping)
	disk := errors.New("disk I/O error")
	for name, c := range map[string]struct {
		ctx   context.Context
		err   error
		code  codes.Code
		level string
	}{
		"unexpected":                    {context.Background(), disk, codes.Internal, "ERROR"},
		"unexpected, for one that left": {gone, disk, codes.Canceled, "DEBUG"},
		"unexpected, too late":          {late, disk, codes.DeadlineExceeded, "INFO"},
		"a status of the transport":     {gone, status.Error(codes.Unavailable, "transport is closing"), codes.Canceled, "DEBUG"},
		"cancelled":                     {context.Background(), fmt.Errorf("read: %w", context.Canceled), codes.Canceled, "DEBUG"},
		"too late":                      {context.Background(), fmt.Errorf("read: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "INFO"},
		"a write to one that left":      {gone, fmt.Errorf("%w: %w", errGone, disk), codes.Canceled, "DEBUG"},
		"a panic, for one that left":    {gone, fmt.Errorf("%w: x", errPanic), codes.Internal, "ERROR"},
		"known, for one that left":      {gone, apikey.ErrNotFound, codes.NotFound, "INFO"},
		"unavailable":                   {context.Background(), apikey.Errorf(apikey.KindUnavailable, "UNAVAILABLE", "x"), codes.Unavailable, "ERROR"},
		"an organization that waits":    {context.Background(), apikey.Errorf(apikey.KindUnavailable, webhook.ReasonFanOutBehind, "x"), codes.Unavailable, "INFO"},
		"the server stops":              {stopping, context.Canceled, codes.Unavailable, "DEBUG"},
		"a body that was cut off":       {context.Background(), apikey.Errorf(apikey.KindInvalid, apikey.ReasonIncomplete, "x"), codes.InvalidArgument, "DEBUG"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			chain := &chain{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
			ctx, call := withCall(c.ctx)
			call.admitted = true
			err := chain.failure(ctx, "/s/m", c.err)
			if status.Code(err) != c.code || !strings.Contains(log.String(), "level="+c.level) || !strings.Contains(log.String(), call.supportID()) {
				t.Errorf("got %v, want %s at %s; logged %s", err, c.code, c.level, &log)
			}
		})
	}
}

// TestAccounts has whoever an organization or its issuer can make any number of charged
// to the organization, together.
func TestAccounts(t *testing.T) {
	t.Parallel()
	as := func(kind apikey.ActorKind, id, organization string) connection.Account {
		return accountOf(&apikey.Caller{Origin: apikey.Origin{Actor: apikey.Actor{Kind: kind, ID: id}}, Organization: organization})
	}
	for _, kind := range []apikey.ActorKind{apikey.ActorKey, apikey.ActorPerson} {
		if as(kind, "a", "org_1") != as(kind, "b", "org_1") || as(kind, "a", "org_1") == as(kind, "a", "org_2") {
			t.Errorf("each %s has an account", kind)
		}
	}
	if as(apikey.ActorPerson, "a", "") == as(apikey.ActorPerson, "b", "") || as(apikey.ActorOperator, "a", "org_1") == as(apikey.ActorOperator, "b", "org_1") {
		t.Error("operators share an account")
	}
}
