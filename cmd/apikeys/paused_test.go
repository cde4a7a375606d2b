package main

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestPausedReplica stops the process of a server, revokes at another server a key that
// the first has in memory, and lets the process go on once time has passed: the call
// that has waited for it, and with which it begins, is refused.
func TestPausedReplica(t *testing.T) {
	database, dir := servertest.NewPostgres(t), t.TempDir()
	t.Setenv("APIKEYS_DATABASE", database)
	t.Setenv("APIKEYS_SECRETS_FILE", filepath.Join(dir, "secrets"))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+crashToken)
	a, b := startProcess(t, filepath.Join(dir, "a")), startProcess(t, filepath.Join(dir, "b"))
	defer a.kill(t)
	defer b.kill(t)
	for range 3 {
		created, err := a.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "key"})
		if err != nil {
			t.Fatal(err)
		}
		verify := &apikeysv1.VerifyApiKeyRequest{Key: created.GetApiKey().GetSecret()}
		for range 2 {
			if v, err := b.keys.VerifyApiKey(ctx, verify); err != nil || !v.GetValid() {
				t.Fatal(v, err)
			}
		}
		if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if _, err := a.keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: created.GetApiKey().GetId()}); err != nil {
			t.Error(err)
		}
		type answer struct {
			code apikeysv1.VerificationCode
			err  error
		}
		answered := make(chan answer, 1)
		go func() {
			v, err := b.keys.VerifyApiKey(ctx, verify)
			answered <- answer{v.GetCode(), err}
		}()
		<-time.After(time.Second) // The pause itself, which nothing can shorten.
		if err := b.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if got := <-answered; got.err != nil || got.code != apikeysv1.VerificationCode_VERIFICATION_CODE_REVOKED {
			t.Errorf("got %s, %v", got.code, got.err)
		}
	}
}
