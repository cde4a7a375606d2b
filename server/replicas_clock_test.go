package server_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
)

// TestClockOfTheDatabase has a server whose machine is ten minutes off, and one whose
// time of day is set while it runs: both go by the database's time, and say that they
// have to.
func TestClockOfTheDatabase(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"ahead": 10 * time.Minute, "behind": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var moved atomic.Int64
			start := time.Now()
			replicas := startReplicas(t, 2, func(i int, c *server.Config) {
				if i == 1 {
					moved.Store(int64(off))
					c.Machine.Now = func() (time.Time, time.Duration) {
						now := time.Now()
						return now.Add(time.Duration(moved.Load())), now.Sub(start)
					}
				}
			})
			a, b := replicas[0], replicas[1]
			check := func(step string) {
				t.Helper()
				began := time.Now().Add(-time.Second)
				created, err := b.Keys.CreateApiKey(b.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{
					Label: "key", ExpiresAt: timestamppb.New(time.Now().Add(5 * time.Minute)),
				})
				if err != nil {
					t.Fatalf("%s: %v", step, err)
				}
				if at := created.GetApiKey().GetCreatedAt().AsTime(); at.Before(began) || at.After(time.Now().Add(time.Second)) {
					t.Errorf("%s: created at %s, and it is %s", step, at, time.Now().UTC())
				}
				if code := verifyAt(t, b, created.GetApiKey().GetSecret()); code != apikeysv1.VerificationCode_VERIFICATION_CODE_VALID {
					t.Errorf("%s: before its expiry: %s", step, code)
				}
				short, err := a.Keys.CreateApiKey(a.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{
					Label: "key", ExpiresAt: timestamppb.New(time.Now().Add(time.Second)),
				})
				if err != nil {
					t.Fatal(err)
				}
				soon(t, "the expiry", func() bool {
					return verifyAt(t, b, short.GetApiKey().GetSecret()) == apikeysv1.VerificationCode_VERIFICATION_CODE_EXPIRED
				})
				if now := time.Now(); now.Before(short.GetApiKey().GetExpiresAt().AsTime().Add(-100 * time.Millisecond)) {
					t.Errorf("%s: expired at %s", step, now)
				}
				// Ids ascend by creation, whichever server makes them.
				if short.GetApiKey().GetId() <= created.GetApiKey().GetId() {
					t.Errorf("%s: %s was made after %s", step, short.GetApiKey().GetId(), created.GetApiKey().GetId())
				}
			}
			check("from the start")
			ready := b.Call(t, http.MethodGet, "/readyz", "")
			if ready.Status != http.StatusOK || !strings.Contains(string(ready.Body), `"warnings":["The clock of this machine is 10m0s off the database's, by which the server goes."]`) {
				t.Errorf("readiness: %s", ready)
			}
			if ready := a.Call(t, http.MethodGet, "/readyz", ""); ready.Status != http.StatusOK || strings.Contains(string(ready.Body), "warnings") {
				t.Errorf("readiness of the other: %s", ready)
			}
			moved.Store(0)
			soon(t, "the end of the warning", func() bool {
				return !strings.Contains(string(b.Call(t, http.MethodGet, "/readyz", "").Body), "warnings")
			})
			check("set right")
			moved.Store(int64(-off))
			check("set wrong")
			if begun, over := len(b.Log.Lines("The clocks of this machine and of the database differ")), len(b.Log.Lines("of the database agree again")); begun < 1 || over < 1 {
				t.Errorf("%d lines of a beginning, %d of an end", begun, over)
			}
		})
	}
}
