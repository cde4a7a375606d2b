package server_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/network"
)

// waitTimeout bounds what a test waits for.
const waitTimeout = 30 * time.Second

// soon returns once done does, or fails the test.
func soon(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	for late := time.Now().Add(waitTimeout); !done(); {
		if time.Now().After(late) {
			tb.Fatalf("%s: not within %s", what, waitTimeout)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// warmKey makes a key with the scopes of a caller at one server, and has others verify
// it, so that it is in their memories.
func warmKey(tb testing.TB, at *servertest.Server, others ...*servertest.Server) (id, secret string) {
	tb.Helper()
	created, err := at.Keys.CreateApiKey(at.Context(tb.Context()), &apikeysv1.CreateApiKeyRequest{
		Label: "key", Scopes: []string{"events.read", "api_keys.read"},
	})
	if err != nil {
		tb.Fatal(err)
	}
	id, secret = created.GetApiKey().GetId(), created.GetApiKey().GetSecret()
	for _, s := range others {
		for range 2 {
			if code := verifyAt(tb, s, secret); code != apikeysv1.VerificationCode_VERIFICATION_CODE_VALID {
				tb.Fatalf("a new key is %s", code)
			}
		}
	}
	return id, secret
}

func verifyAt(tb testing.TB, s *servertest.Server, secret string) apikeysv1.VerificationCode {
	tb.Helper()
	v, err := s.Keys.VerifyApiKey(s.Context(tb.Context()), &apikeysv1.VerifyApiKeyRequest{Key: secret})
	if err != nil {
		tb.Fatal(err)
	}
	return v.GetCode()
}

func revokeAt(tb testing.TB, s *servertest.Server, id string) {
	tb.Helper()
	if _, err := s.Keys.RevokeApiKey(s.Context(tb.Context()), &apikeysv1.RevokeApiKeyRequest{Id: id}); err != nil {
		tb.Fatal(err)
	}
}

const revoked = apikeysv1.VerificationCode_VERIFICATION_CODE_REVOKED

// wantRevoked fails unless a server refuses a key at once, in every way.
func wantRevoked(tb testing.TB, s *servertest.Server, secret string) {
	tb.Helper()
	if code := verifyAt(tb, s, secret); code != revoked {
		tb.Errorf("verified: %s", code)
	}
	batch, err := s.Keys.BatchVerifyApiKeys(s.Context(tb.Context()), &apikeysv1.BatchVerifyApiKeysRequest{
		Keys: []*apikeysv1.VerifyApiKeyRequest{{Key: secret}},
	})
	if err != nil || batch.GetResults()[0].GetCode() != revoked {
		tb.Errorf("in a batch: %v, %v", batch, err)
	}
	_, err = s.Keys.ListApiKeys(servertest.As(tb.Context(), secret), &apikeysv1.ListApiKeysRequest{})
	if status.Code(err) != codes.Unauthenticated {
		tb.Errorf("as a credential: %v", err)
	}
}

// TestRevocationOnAnotherReplica revokes a key at one server, and has the others
// refuse it soon and end its streams, with NOTIFY and without.
func TestRevocationOnAnotherReplica(t *testing.T) {
	for name, change := range map[string]func(int, *server.Config){"notified": nil, "unnotified": unnotified} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replicas := startReplicas(t, 3, change)
			a, others := replicas[0], replicas[1:]
			id, secret := warmKey(t, a, others...)
			ended := make(chan error, len(others))
			for _, s := range others {
				stream, err := apikeysv1.NewEventsServiceClient(s.Conn).WatchEvents(servertest.As(t.Context(), secret), &apikeysv1.WatchEventsRequest{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
				go func() {
					for {
						if _, err := stream.Recv(); err != nil {
							ended <- err
							return
						}
					}
				}()
			}
			revokeAt(t, a, id)
			wantRevoked(t, a, secret)
			for _, s := range others {
				soon(t, "the refusal", func() bool { return verifyAt(t, s, secret) == revoked })
				wantRevoked(t, s, secret)
				if err := <-ended; status.Code(err) != codes.Unauthenticated {
					t.Errorf("the stream ended with %v", err)
				}
			}
		})
	}
}

// broken reports whether a server says that it is not ready for a reason.
func saysNotReady(tb testing.TB, s *servertest.Server, reason string) bool {
	tb.Helper()
	a := s.Call(tb, http.MethodGet, "/readyz", "")
	health, err := healthpb.NewHealthClient(s.Conn).Check(tb.Context(), &healthpb.HealthCheckRequest{})
	return a.Status == http.StatusServiceUnavailable && strings.Contains(string(a.Body), reason) &&
		err == nil && health.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING
}

func saysReady(tb testing.TB, s *servertest.Server) bool {
	tb.Helper()
	a := s.Call(tb, http.MethodGet, "/readyz", "")
	health, err := healthpb.NewHealthClient(s.Conn).Check(tb.Context(), &healthpb.HealthCheckRequest{})
	return a.Status == http.StatusOK && err == nil && health.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// TestBrokenFeedAnswersFromTheDatabase takes the log away from a server, but not the
// database: it says so, refuses at once what another server has revoked, though its
// memory has it, and ends the streams of that key. It goes on by itself.
func TestBrokenFeedAnswersFromTheDatabase(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*network.Proxy){"cut": (*network.Proxy).Cut, "held": (*network.Proxy).Hold} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log *network.Proxy
			replicas := startReplicas(t, 2, func(i int, c *server.Config) {
				if i == 1 {
					log, c.DatabaseDirect = network.NewDatabaseProxy(t, c.Database)
				}
			})
			a, b := replicas[0], replicas[1]
			id, secret := warmKey(t, a, b)
			other, otherSecret := warmKey(t, a, b)
			stream, err := apikeysv1.NewEventsServiceClient(b.Conn).WatchEvents(servertest.As(t.Context(), secret), &apikeysv1.WatchEventsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			soon(t, "ready", func() bool { return saysReady(t, b) })

			away(log)
			soon(t, "not ready", func() bool { return saysNotReady(t, b, "cannot follow the changes of other servers") })
			revokeAt(t, a, id)
			wantRevoked(t, b, secret)
			if code := verifyAt(t, b, otherSecret); code != apikeysv1.VerificationCode_VERIFICATION_CODE_VALID {
				t.Errorf("the other key: %s", code)
			}
			for err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("the stream ended with %v", err)
			}

			log.Restore()
			soon(t, "ready again", func() bool { return saysReady(t, b) })
			for _, line := range []string{"The event log could not be read", "The event log is read again", "The server is not ready", "The server is ready again"} {
				if len(b.Log.Lines(line)) == 0 {
					t.Errorf("the log lacks %q", line)
				}
			}
			revokeAt(t, a, other)
			soon(t, "the refusal", func() bool { return verifyAt(t, b, otherSecret) == revoked })
		})
	}
}

// TestNothingIsServedThatCannotBeLoaded takes the database away from a server: what its
// memory has is good for a moment, and after that the answer is that nobody knows. It
// goes on by itself.
func TestNothingIsServedThatCannotBeLoaded(t *testing.T) {
	t.Parallel()
	var database *network.Proxy
	replicas := startReplicas(t, 2, func(i int, c *server.Config) {
		if i == 1 {
			database, c.Database = network.NewDatabaseProxy(t, c.Database)
		}
	})
	a, b := replicas[0], replicas[1]
	id, secret := warmKey(t, a, b)
	database.Hold()
	time.Sleep(feed.MaxAge) // What is waited for is that time has passed.
	revokeAt(t, a, id)
	_, err := b.Keys.VerifyApiKey(b.Context(t.Context()), &apikeysv1.VerifyApiKeyRequest{Key: secret})
	st := status.Convert(err)
	retry := false
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			retry = info.GetRetryDelay().AsDuration() > 0
		}
	}
	if st.Code() != codes.Unavailable || !retry {
		t.Errorf("over gRPC: %v, to be tried again: %t", err, retry)
	}
	rest := b.Call(t, http.MethodPost, "/developers/api_keys/verify", `{"key": "`+secret+`"}`)
	if rest.Status != http.StatusServiceUnavailable || rest.Header.Get("Retry-After") == "" {
		t.Errorf("over REST: %s, Retry-After %q", rest, rest.Header.Get("Retry-After"))
	}
	rest = b.Call(t, http.MethodGet, "/developers/api_keys", "", "Authorization: Bearer "+secret)
	if rest.Status != http.StatusServiceUnavailable {
		t.Errorf("as a credential: %s", rest)
	}
	database.Restore()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	soon(t, "an answer", func() bool {
		v, err := b.Keys.VerifyApiKey(b.Context(ctx), &apikeysv1.VerifyApiKeyRequest{Key: secret})
		return err == nil && v.GetCode() == revoked
	})
}

// TestRevokedAgain revokes a key at one server, and then again at another that has not
// heard of it: by a call of its own, which changes nothing, and by the same call sent
// again, which gets the first answer. The revocation is in force there once it is answered.
func TestRevokedAgain(t *testing.T) {
	t.Parallel()
	replicas := startReplicas(t, 2, unnotified)
	first, second := replicas[0], replicas[1]
	for name, header := range map[string]string{"by another call": "", "by the same call": "revoke-"} {
		for i := range 10 {
			id, secret := warmKey(t, first, first, second)
			for _, s := range replicas {
				ctx := s.Context(t.Context())
				if header != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", header+strconv.Itoa(i))
				}
				if _, err := s.Keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: id}); err != nil {
					t.Fatal(err)
				}
				if code := verifyAt(t, s, secret); code != revoked {
					t.Fatalf("%s: %s after the answer", name, code)
				}
			}
		}
	}
}
