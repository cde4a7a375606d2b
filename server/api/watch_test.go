package api_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestWatchTellsOfChanges(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		before := r.create(&apikeysv1.CreateApiKeyRequest{})
		s := r.watch(r.as(""), &apikeysv1.WatchEventsRequest{})
		k := r.create(&apikeysv1.CreateApiKeyRequest{Label: "after"})
		e := s.event(apikey.KeyCreated)
		if e.GetResourceId() != k.GetId() || e.GetApiKey().GetLabel() != "after" || e.GetActor().GetKind() != "operator" {
			t.Error(e)
		}
		if e.GetApiKey().GetSecret() == k.GetSecret() || e.GetApiKey().GetSecret() == "" {
			t.Error("the secret is not masked")
		}
		_, err := r.keys.RevokeApiKey(r.as(""), &apikeysv1.RevokeApiKeyRequest{Id: before.GetId()})
		r.must(err)
		if e := s.event(apikey.KeyRevoked); e.GetApiKey().GetState() != apikeysv1.ApiKeyState_API_KEY_STATE_REVOKED {
			t.Error(e)
		}
	})
}

// A heartbeat comes at once and whenever nothing else did for its time; what comes
// after its cursor is what comes after it.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[int32]time.Duration{0: 15 * time.Second, 1: time.Second, 300: 300 * time.Second} {
		inBubble(t, func(t *testing.T, r *harness) {
			start := time.Now()
			req := &apikeysv1.WatchEventsRequest{}
			if seconds > 0 {
				req.HeartbeatSeconds = proto.Int32(seconds)
			}
			s := r.watch(r.as(""), req)
			if d := time.Since(start); d != 0 {
				t.Errorf("the first came after %s", d)
			}
			for range 3 {
				last := time.Now()
				m, err := s.Recv()
				if err != nil || m.GetEvent() != nil || time.Since(last) != want {
					t.Fatalf("%v, %v after %s", m, err, time.Since(last))
				}
			}
			// An event puts the next heartbeat off.
			time.Sleep(want / 2)
			k := r.create(&apikeysv1.CreateApiKeyRequest{})
			s.event(apikey.KeyCreated)
			last := time.Now()
			m, err := s.Recv()
			if err != nil || m.GetEvent() != nil || time.Since(last) != want {
				t.Fatalf("%v, %v after %s", m, err, time.Since(last))
			}
			next := r.create(&apikeysv1.CreateApiKeyRequest{})
			again := r.watch(r.as(""), &apikeysv1.WatchEventsRequest{After: m.GetCursor()})
			if e := again.event(apikey.KeyCreated); e.GetResourceId() != next.GetId() {
				t.Errorf("after the heartbeat came %s, want %s and not %s", e.GetResourceId(), next.GetId(), k.GetId())
			}
		})
	}
}

// The heartbeats of a stream whose filter matches nothing move on with the log.
func TestHeartbeatMovesOn(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		for name, req := range map[string]*apikeysv1.WatchEventsRequest{
			"type":     {Types: []string{string(apikey.KeyDeleted)}},
			"resource": {ResourceIds: []string{"nothing"}},
		} {
			req.HeartbeatSeconds = proto.Int32(1)
			s := r.watch(r.as(""), req)
			k := r.create(&apikeysv1.CreateApiKeyRequest{}) // seen by none
			time.Sleep(1500 * time.Millisecond)
			m, err := s.Recv()
			if err != nil || m.GetEvent() != nil {
				t.Fatal(m, err)
			}
			next := r.create(&apikeysv1.CreateApiKeyRequest{})
			again := r.watch(r.as(""), &apikeysv1.WatchEventsRequest{After: m.GetCursor()})
			if e := again.event(apikey.KeyCreated); e.GetResourceId() != next.GetId() {
				t.Errorf("%s: after the heartbeat came %s, want %s and not %s", name, e.GetResourceId(), next.GetId(), k.GetId())
			}
		}
		// So do those of another organization, which nobody woke.
		s := r.watch(r.as("", "x-organization-id", "org_other"), &apikeysv1.WatchEventsRequest{HeartbeatSeconds: proto.Int32(1)})
		r.create(&apikeysv1.CreateApiKeyRequest{})
		synctest.Wait()
		m, err := s.Recv()
		r.must(err)
		position, err := r.cursors.Open(m.GetCursor(), "org_other")
		r.must(err)
		if _, newest, _ := r.store.EventBounds(t.Context()); position != newest {
			t.Errorf("the heartbeat is at %d, the log at %d", position, newest)
		}
	})
}

// A client that takes nothing for a minute is ended, and can go on where it was.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		s := r.watchSlowly("", "")
		time.Sleep(299 * time.Second) // Where there is nothing to take, nobody waits.
		var ids []string
		for range 5 {
			ids = append(ids, r.create(&apikeysv1.CreateApiKeyRequest{}).GetId())
		}
		time.Sleep(59 * time.Second)
		s.take()
		time.Sleep(59 * time.Second) // It took one, so it has another minute.
		last := s.take()
		synctest.Wait()
		start := time.Now()
		s.end(codes.ResourceExhausted, "SLOW_CONSUMER")
		if d := time.Since(start); d != time.Minute {
			t.Errorf("it ended after %s", d)
		}
		again := r.watch(r.as(""), &apikeysv1.WatchEventsRequest{After: last.GetCursor()})
		if e := again.event(apikey.KeyCreated); e.GetResourceId() != ids[2] {
			t.Error(e)
		}
	})
}

func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		k, other := r.reader(), r.reader()
		var open []*stream
		for range 3 {
			open = append(open, r.watch(r.as(k.GetSecret()), &apikeysv1.WatchEventsRequest{}))
		}
		r.open(r.as(k.GetSecret()), &apikeysv1.WatchEventsRequest{}).end(codes.ResourceExhausted, "TOO_MANY_STREAMS")
		// Another caller has streams of its own, and an ended one makes room.
		r.watch(r.as(other.GetSecret()), &apikeysv1.WatchEventsRequest{})
		open[1].cancel()
		synctest.Wait()
		r.watch(r.as(k.GetSecret()), &apikeysv1.WatchEventsRequest{})
		r.open(r.as(k.GetSecret()), &apikeysv1.WatchEventsRequest{}).end(codes.ResourceExhausted, "TOO_MANY_STREAMS")
	}, func(c *api.Config) { c.Streams = 3 })
}

func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		idle := r.watch(r.as(""), &apikeysv1.WatchEventsRequest{})
		blocked := r.watchSlowly("", "")
		for range 5 {
			r.create(&apikeysv1.CreateApiKeyRequest{})
		}
		for range 5 {
			idle.event(apikey.KeyCreated)
		}
		synctest.Wait()
		start := time.Now()
		r.api.EndStreams()
		idle.end(codes.Unavailable, "SERVER_STOPPING")
		blocked.end(codes.Unavailable, "SERVER_STOPPING")
		r.open(r.as(""), &apikeysv1.WatchEventsRequest{}).end(codes.Unavailable, "SERVER_STOPPING")
		if d := time.Since(start); d > 0 {
			t.Errorf("it took %s", d)
		}
	})
}

// The ways in which the credential of a stream ends. The stream may be idle,
// blocked on its client, or far behind; it ends within a second.
func TestStreamEndsWithItsCredential(t *testing.T) {
	t.Parallel()
	update := func(key *apikeysv1.ApiKey, paths ...string) func(*harness, *apikeysv1.ApiKey) {
		return func(r *harness, k *apikeysv1.ApiKey) {
			_, err := r.keys.UpdateApiKey(r.as(""), &apikeysv1.UpdateApiKeyRequest{
				Id: k.GetId(), ApiKey: key, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
			})
			r.must(err)
		}
	}
	rotate := func(overlap int32) func(*harness, *apikeysv1.ApiKey) {
		return func(r *harness, k *apikeysv1.ApiKey) {
			_, err := r.keys.RotateApiKey(r.as(""), &apikeysv1.RotateApiKeyRequest{Id: k.GetId(), OverlapSeconds: &overlap})
			r.must(err)
		}
	}
	cases := map[string]struct {
		change func(*harness, *apikeysv1.ApiKey)
		after  time.Duration // of the change
		code   codes.Code
		reason string
	}{
		"revoked": {func(r *harness, k *apikeysv1.ApiKey) {
			_, err := r.keys.RevokeApiKey(r.as(""), &apikeysv1.RevokeApiKeyRequest{Id: k.GetId()})
			r.must(err)
		}, 0, codes.Unauthenticated, "UNAUTHENTICATED"},
		"deleted": {func(r *harness, k *apikeysv1.ApiKey) {
			_, err := r.keys.DeleteApiKey(r.as(""), &apikeysv1.DeleteApiKeyRequest{Id: k.GetId()})
			r.must(err)
		}, 0, codes.Unauthenticated, "UNAUTHENTICATED"},
		"disabled": {update(&apikeysv1.ApiKey{Enabled: false}, "enabled"), 0, codes.Unauthenticated, "UNAUTHENTICATED"},
		"rotated":  {rotate(0), 0, codes.Unauthenticated, "UNAUTHENTICATED"},
		"rotated with overlap": {
			rotate(90), 90 * time.Second, codes.Unauthenticated, "UNAUTHENTICATED",
		},
		"narrowed": {
			update(&apikeysv1.ApiKey{Scopes: []string{"api_keys.read"}}, "scopes"),
			0, codes.PermissionDenied, "INSUFFICIENT_SCOPE",
		},
		"address lost": {
			update(&apikeysv1.ApiKey{IpAllowList: []string{"192.0.2.1"}}, "ip_allow_list"),
			0, codes.PermissionDenied, "IP_NOT_ALLOWED",
		},
		"expiry set": {func(r *harness, k *apikeysv1.ApiKey) {
			update(&apikeysv1.ApiKey{ExpiresAt: timestamppb.New(time.Now().Add(100 * time.Second))}, "expires_at")(r, k)
		}, 100 * time.Second, codes.Unauthenticated, "UNAUTHENTICATED"},
		"expires": {func(*harness, *apikeysv1.ApiKey) {}, time.Hour, codes.Unauthenticated, "UNAUTHENTICATED"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *harness) {
				k := r.create(&apikeysv1.CreateApiKeyRequest{
					Scopes: []string{"events.read"}, ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
				})
				idle := r.watch(r.as(k.GetSecret()), &apikeysv1.WatchEventsRequest{HeartbeatSeconds: proto.Int32(300)})
				start := time.Now()
				c.change(r, k)
				for {
					m, err := idle.Recv()
					if err != nil {
						checkFailure(t, err, c.code, c.reason)
						break
					}
					if time.Since(start) > c.after && m.GetEvent() != nil {
						t.Errorf("an event after the end: %v", m)
					}
				}
				if d := time.Since(start); d < c.after || d > c.after+time.Second {
					t.Errorf("it ended after %s, want %s", d, c.after)
				}
			})
		})
	}
}

// A blocked send does not keep a stream from ending, in the tail or far behind it.
func TestBlockedStreamEndsWithItsCredential(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"", "start"} {
		inBubble(t, func(t *testing.T, r *harness) {
			k := r.reader()
			for range 50 {
				r.create(&apikeysv1.CreateApiKeyRequest{})
			}
			s := r.watchSlowly(k.GetSecret(), after)
			r.create(&apikeysv1.CreateApiKeyRequest{})
			s.take()
			r.create(&apikeysv1.CreateApiKeyRequest{})
			synctest.Wait()
			_, err := r.keys.RevokeApiKey(r.as(""), &apikeysv1.RevokeApiKeyRequest{Id: k.GetId()})
			r.must(err)
			start := time.Now()
			if m, err := s.Recv(); err == nil {
				t.Errorf("it was sent %v", m)
			} else {
				checkFailure(t, err, codes.Unauthenticated, "UNAUTHENTICATED")
			}
			if d := time.Since(start); d > 0 {
				t.Errorf("it ended after %s", d)
			}
		})
	}
}

// A stream goes on whose credential stays good while its key changes, and checking
// it again is neither counted nor limited.
func TestStreamOutlivesOtherChanges(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		k := r.create(&apikeysv1.CreateApiKeyRequest{
			Scopes: []string{"events.read"}, RateLimit: &apikeysv1.RateLimit{Requests: 1, WindowSeconds: 86400},
		})
		s := r.watch(r.as(k.GetSecret()), &apikeysv1.WatchEventsRequest{})
		for range 3 {
			_, err := r.keys.UpdateApiKey(r.as(""), &apikeysv1.UpdateApiKeyRequest{
				Id: k.GetId(), ApiKey: &apikeysv1.ApiKey{Label: time.Now().String()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label"}},
			})
			r.must(err)
			s.event(apikey.KeyUpdated)
			s.idle(10 * time.Minute)
		}
		_, err := r.keys.RotateApiKey(r.as(""), &apikeysv1.RotateApiKeyRequest{Id: k.GetId(), OverlapSeconds: proto.Int32(60)})
		r.must(err)
		s.event(apikey.KeyRotated)
		r.must(r.meter.Flush(t.Context()))
		got, err := r.keys.GetApiKey(r.as(""), &apikeysv1.GetApiKeyRequest{Id: k.GetId()})
		r.must(err)
		if n := got.GetApiKey().GetMetrics().GetTotalRequests(); n != 1 {
			t.Errorf("%d requests were counted, want 1", n)
		}
	})
}

func TestOperatorTokenReset(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		s := r.watch(r.as(""), &apikeysv1.WatchEventsRequest{HeartbeatSeconds: proto.Int32(300)})
		s.idle(10 * time.Minute)
		start := time.Now()
		r.resetToken("root_another_token")
		s.end(codes.Unauthenticated, "UNAUTHENTICATED")
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("it ended after %s", d)
		}
	})
}

// A client that goes leaves nothing behind.
func TestClientGoes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		s := r.watch(r.as(""), &apikeysv1.WatchEventsRequest{})
		s.cancel()
		if _, err := s.Recv(); err == nil {
			t.Error("the stream goes on")
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(r.as(""), time.Second)
		defer cancel()
		r.watch(ctx, &apikeysv1.WatchEventsRequest{}).end(codes.DeadlineExceeded, "") // The client counts for itself.
		synctest.Wait()
	}, func(c *api.Config) { c.Streams = 1 })
}
