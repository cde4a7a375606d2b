package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// idempotentCreates names how many keys TestKillBetweenCommitAndAnswer makes.
const idempotentCreates = "TEST_IDEMPOTENT_CREATES"

// TestKillBetweenCommitAndAnswer makes keys by calls that name an idempotency key. Their
// callers give up at random times, the program is killed under them, and each call is
// repeated until it has an answer, and once more. There is one key for each, whatever
// was repeated has the same secret, and no file holds one.
func TestKillBetweenCommitAndAnswer(t *testing.T) {
	creates := 300
	if text := os.Getenv(idempotentCreates); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q is no number of keys", idempotentCreates, text)
		}
		creates = n
	}
	dir := t.TempDir()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+crashToken)
	secrets := make([]string, creates)
	var lost atomic.Int64
	create := func(p *process, i int, timeout time.Duration) (string, error) {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "idempotency-key", fmt.Sprint("create-", i)), timeout)
		defer cancel()
		resp, err := p.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: fmt.Sprint("key ", i)})
		return resp.GetApiKey().GetSecret(), err
	}
	// Each round has a server that is killed once it has answered its part of the calls.
	const rounds = 4
	for round := range rounds {
		p := startProcess(t, dir)
		var next, done atomic.Int64
		var workers sync.WaitGroup
		killed := make(chan struct{})
		var once sync.Once
		for range 8 {
			workers.Go(func() {
				for i := int(next.Add(1)) - 1; i < creates; i = int(next.Add(1)) - 1 {
					if rand.IntN(3) == 0 && secrets[i] != "" {
						done.Add(1)
						continue // repeated in another round
					}
					secret, err := create(p, i, time.Duration(rand.IntN(20_000))*time.Microsecond)
					switch {
					case err != nil:
						lost.Add(1)
					case secrets[i] == "":
						secrets[i] = secret
					case secrets[i] != secret:
						t.Errorf("call %d was answered with two secrets", i)
					}
					if done.Add(1) >= int64(creates*(round+1)/(rounds+1)) {
						once.Do(func() { close(killed) })
					}
				}
				once.Do(func() { close(killed) }) // nothing is left for this round
			})
		}
		<-killed
		p.kill(t)
		workers.Wait()
	}
	p := startProcess(t, dir)
	for i := range creates {
		secret, err := create(p, i, time.Minute)
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		if secrets[i] != "" && secrets[i] != secret {
			t.Errorf("call %d was answered with two secrets", i)
		}
		secrets[i] = secret
	}
	labels := make(map[string]int)
	for token := ""; ; {
		page, err := p.keys.ListApiKeys(ctx, &apikeysv1.ListApiKeysRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.GetApiKeys() {
			labels[k.GetLabel()]++
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	for i := range creates {
		if n := labels[fmt.Sprint("key ", i)]; n != 1 {
			t.Errorf("call %d made %d keys", i, n)
		}
	}
	verified, err := p.keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[0]})
	if err != nil || !verified.GetValid() {
		t.Errorf("a secret that was answered again: %v, %v", verified, err)
	}
	p.kill(t)
	if lost.Load() < int64(creates/20) {
		t.Errorf("only %d answers were lost; the test means nothing", lost.Load())
	}
	files, err := filepath.Glob(filepath.Join(dir, "apikeys.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no database", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, secret := range secrets {
			if bytes.Contains(data, []byte(secret[len("sk_live_"):])) {
				t.Fatalf("%s holds the secret of call %d", filepath.Base(file), i)
			}
		}
	}
}
