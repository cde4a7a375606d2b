package client

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// An attempt is a connection of a watcher that ends as it is told to.
type attempt struct {
	err   error
	lasts time.Duration
	sends int // messages first
}

type scripted struct {
	grpc.ClientStream
	attempt
	now *time.Time
}

func (s *scripted) Recv() (*apikeysv1.WatchEventsResponse, error) {
	if s.sends--; s.sends >= 0 {
		return heartbeat("c"), nil
	}
	*s.now = s.now.Add(s.lasts)
	return nil, s.err
}

// How long a watcher waits, and what it does not wait for.
func TestWatcherDelays(t *testing.T) {
	t.Parallel()
	gone := status.Error(codes.Unavailable, "gone")
	limited := fault(t, codes.ResourceExhausted, "Slow down.", "RATE_LIMITED", &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Minute)})
	const ms = time.Millisecond
	cases := []struct {
		name     string
		attempts []attempt
		want     []time.Duration
		err      string
	}{
		{"never there", []attempt{{err: gone}}, nil, "gone"},
		{"twice as long each time, up to a limit", []attempt{{err: gone, sends: 1}, {err: gone}, {err: gone}, {err: gone}, {err: gone}, {err: gone}, {err: gone}, {err: gone}, {err: status.Error(codes.PermissionDenied, "no")}},
			[]time.Duration{150 * ms, 300 * ms, 600 * ms, 1200 * ms, 2400 * ms, 4800 * ms, 7500 * ms, 7500 * ms}, "no"},
		{"a flapping server is spared", []attempt{{err: gone, sends: 1}, {err: gone, sends: 1}, {err: status.Error(codes.NotFound, "no")}}, []time.Duration{150 * ms, 300 * ms}, "no"},
		{"a connection that lasted", []attempt{{err: gone, sends: 1}, {err: gone, sends: 1, lasts: time.Minute}, {err: status.Error(codes.Unauthenticated, "no")}}, []time.Duration{150 * ms, 150 * ms}, "no"},
		{"as long as the server asks", []attempt{{err: limited, sends: 1}, {err: fault(t, codes.ResourceExhausted, "Slow.", "SLOW_CONSUMER")}, {err: status.Error(codes.InvalidArgument, "no")}}, []time.Duration{time.Minute, 300 * ms}, "no"},
		{"whatever a proxy says", []attempt{{err: status.Error(codes.Internal, "x"), sends: 1}, {err: status.Error(codes.Unknown, "x")}, {err: io.EOF}, {err: status.Error(codes.Canceled, "x")}, {err: status.Error(codes.Unimplemented, "no")}},
			[]time.Duration{150 * ms, 300 * ms, 600 * ms, 1200 * ms}, "no"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			now := time.Unix(0, 0)
			var waited []time.Duration
			left := c.attempts
			w := &Watcher{
				MustConnect: true,
				now:         func() time.Time { return now },
				random:      func() float64 { return 0.5 },
				wait:        func(_ context.Context, d time.Duration) { waited = append(waited, d) },
				open: func(context.Context, string) (grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], func(), error) {
					next := left[0]
					left = left[1:]
					return &scripted{attempt: next, now: &now}, func() {}, nil
				},
			}
			err := w.Run(t.Context(), func(*apikeysv1.WatchEventsResponse) error { return nil })
			if diff := cmp.Diff(c.want, waited); diff != "" || err == nil || status.Convert(err).Message() != c.err || len(left) > 0 {
				t.Errorf("%v, %d left, waited (-want +got)\n%s", err, len(left), diff)
			}
		})
	}
}

// A watcher goes on after the last message that was taken, and not after one that was
// not.
func TestWatcherCursor(t *testing.T) {
	t.Parallel()
	var after []string
	now := time.Unix(0, 0)
	w := &Watcher{
		now:    func() time.Time { return now },
		random: func() float64 { return 0 },
		wait:   func(context.Context, time.Duration) {},
		cursor: "begin",
		open: func(_ context.Context, cursor string) (grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], func(), error) {
			after = append(after, cursor)
			if len(after) == 1 {
				return nil, nil, status.Error(codes.Unavailable, "not there yet")
			}
			return &scripted{attempt: attempt{err: status.Error(codes.Unavailable, "gone"), sends: 1}, now: &now}, func() {}, nil
		},
	}
	full := errors.New("the disk is full")
	taken := 0
	err := w.Run(t.Context(), func(*apikeysv1.WatchEventsResponse) error {
		if taken++; taken == 2 {
			return full
		}
		return nil
	})
	if diff := cmp.Diff([]string{"begin", "begin", "c"}, after); diff != "" || !errors.Is(err, full) || w.Cursor() != "c" {
		t.Errorf("%v, after %s, began (-want +got)\n%s", err, w.Cursor(), diff)
	}
}

func heartbeat(cursor string) *apikeysv1.WatchEventsResponse {
	return &apikeysv1.WatchEventsResponse{Cursor: cursor}
}

// fault is an error as the server makes it.
func fault(t *testing.T, code codes.Code, message, reason string, details ...protoadapt.MessageV1) error {
	t.Helper()
	info := &errdetails.ErrorInfo{Domain: "apikeys", Reason: reason}
	st, err := status.New(code, message).WithDetails(append(details, info, &errdetails.RequestInfo{ServingData: "support_1"})...)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}
