package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// fill makes more events than HTTP/2 holds for a client that takes none.
func (r *harness) fill() {
	r.Helper()
	metadata := map[string]string{"a": strings.Repeat("x", 8000)}
	for range 60 {
		r.create(&apikeysv1.CreateApiKeyRequest{Metadata: metadata})
	}
}

// drain receives what is on its way until the stream ends, and checks why it did.
func drain(t *testing.T, stream grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], code codes.Code, reason string) {
	t.Helper()
	n := 0
	for ; ; n++ {
		if _, err := stream.Recv(); err != nil {
			checkFailure(t, err, code, reason)
			break
		}
	}
	if n == 0 || n >= 60 {
		t.Errorf("%d messages were on their way", n)
	}
}

// Over the network, a stream whose client takes nothing, so that a send is blocked,
// ends for each reason that a stream has.
func TestBlockedNetworkStream(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(r *harness, key *apikeysv1.ApiKey)
		code   codes.Code
		reason string
	}{
		"revoked": {func(r *harness, k *apikeysv1.ApiKey) {
			_, err := r.keys.RevokeApiKey(r.as(""), &apikeysv1.RevokeApiKeyRequest{Id: k.GetId()})
			r.must(err)
		}, codes.Unauthenticated, "UNAUTHENTICATED"},
		"stopping": {func(r *harness, _ *apikeysv1.ApiKey) { r.api.EndStreams() }, codes.Unavailable, "SERVER_STOPPING"},
		"slow":     {func(*harness, *apikeysv1.ApiKey) {}, codes.ResourceExhausted, "SLOW_CONSUMER"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			r := newHarness(t, func(c *api.Config) {
				c.Streams = 1
				if name == "slow" {
					c.SlowClientTimeout = 200 * time.Millisecond
				}
			})
			events := apikeysv1.NewEventsServiceClient(r.listen())
			k := r.reader()
			ctx, cancel := context.WithCancel(r.as(k.GetSecret()))
			defer cancel()
			stream, err := events.WatchEvents(ctx, &apikeysv1.WatchEventsRequest{})
			r.must(err)
			_, err = stream.Recv()
			r.must(err)
			r.fill()
			c.end(r, k)
			// A caller may have one stream, so another can be opened once this one is over.
			for {
				another, err := events.WatchEvents(ctx, &apikeysv1.WatchEventsRequest{})
				r.must(err)
				_, err = another.Recv()
				if !strings.Contains(fmt.Sprint(status.Convert(err).Details()), "TOO_MANY_STREAMS") {
					break
				}
			}
			drain(t, stream, c.code, c.reason)
		})
	}
}

// A client that reads late but reads loses nothing.
func TestLateReader(t *testing.T) {
	t.Parallel()
	r := newHarness(t)
	events := apikeysv1.NewEventsServiceClient(r.listen())
	stream, err := events.WatchEvents(r.as(""), &apikeysv1.WatchEventsRequest{})
	r.must(err)
	_, err = stream.Recv()
	r.must(err)
	r.fill()
	for n := 0; n < 60; {
		m, err := stream.Recv()
		r.must(err)
		if m.GetEvent() == nil {
			continue
		}
		if n++; m.GetEvent().GetType() != string(apikey.KeyCreated) || m.GetCursor() != m.GetEvent().GetCursor() {
			t.Fatal(m)
		}
	}
}
