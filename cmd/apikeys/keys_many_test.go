package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// TestManyKeys shows what would become of many keys, asks, and does it.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var ids []string
	for i := range 5 {
		ids = append(ids, line(h.run("keys", "create", "--label", fmt.Sprint("k", i), "--owner", "anna", "-o", "id")))
	}
	other := line(h.run("keys", "create", "--label", "other", "--owner", "bert", "-o", "id"))
	state := func(id string) string { return line(h.run("keys", "get", id, "-o", "jsonpath=$.state")) }

	stdout, stderr, err := h.try("keys", "revoke", "--owner", "anna", "--dry-run", "-o", "id")
	if err != nil || !slices.Equal(strings.Fields(stdout), ids) || !strings.Contains(stderr, "would be revoked: 5; as they are: 0; refused: 0. Nothing was changed") || state(ids[0]) != "active" {
		t.Fatalf("dry run: %q %q", stdout, stderr)
	}
	if got := h.fail(2, "keys", "revoke", "--owner", "anna"); !strings.Contains(got, "5 keys will be revoked") || !strings.Contains(got, "add --yes to do it, or --dry-run") {
		t.Errorf("nobody to ask: %s", got)
	}
	person := &script{answers: []string{"n"}}
	h.person = person
	if got := h.fail(1, "keys", "disable", "--owner", "anna"); !strings.Contains(got, "nothing was changed") || state(ids[0]) != "active" {
		t.Errorf("no: %s", got)
	}
	person.answers = []string{"y"}
	stdout, stderr, err = h.try("keys", "disable", "--owner", "anna")
	if err != nil || strings.Count(stdout, "  done") != 5 || !strings.Contains(stderr, "disabled: 5; as they were: 0; refused: 0") || !strings.Contains(person.asked[1], "5 keys will be disabled; go on? [y/N]") {
		t.Errorf("yes: %q %q %q", stdout, stderr, person.asked)
	}
	if state(ids[4]) != "disabled" || state(other) != "active" {
		t.Error("other keys were disabled")
	}
	if _, stderr, err = h.try("keys", "disable", "--owner", "anna"); err != nil || !strings.Contains(stderr, "nothing to do: 5 keys are chosen") {
		t.Errorf("again: %q", stderr)
	}
	if _, stderr, err = h.try("keys", "enable", ids[0], ids[1], ids[0], "--yes"); err != nil || !strings.Contains(stderr, "enabled: 2") {
		t.Errorf("by ids: %q", stderr)
	}
	if _, stderr, err = h.try("keys", "update", "--where-owner", "anna", "--where-state", "active", "--owner", "cara", "--metadata", "a=b", "--yes"); err != nil || !strings.Contains(stderr, "changed: 2") {
		t.Errorf("update: %q", stderr)
	}
	if got := strings.Fields(h.run("keys", "list", "--owner", "cara", "--metadata", "a=b", "--order", "desc", "-o", "id")); !slices.Equal(got, []string{ids[1], ids[0]}) {
		t.Errorf("listed: %v", got)
	}
	h.run("keys", "revoke", ids[2])
	stdout, stderr, err = h.try("keys", "update", ids[2], ids[3], "--label", "x", "--yes", "-o", "json")
	var results []struct{ ID, Outcome string }
	if jsonErr := json.Unmarshal([]byte(stdout), &results); jsonErr != nil || len(results) != 2 || results[0].Outcome != "refused" || exitCode(err) != 1 || !strings.Contains(stderr, "1 keys were refused") {
		t.Errorf("a refusal: %q %q", stdout, stderr)
	}
	if stdout = h.run("keys", "delete", "--owner", "anna", "--yes"); len(strings.Fields(stdout)) != 3 {
		t.Errorf("deleted: %q", stdout)
	}
	secret := line(h.run("keys", "create", "--label", "s", "-o", "secret"))
	if got := strings.Fields(h.run("keys", "list", "--secret", secret[:20]+"..."+secret[len(secret)-5:], "-o", "jsonpath=$[*].label")); len(got) != 1 || got[0] != "s" {
		t.Errorf("by the visible part: %v", got)
	}
	for args, want := range map[string]string{
		"revoke":                               "which keys? give ids, or a filter",
		"revoke x --owner y":                   "cannot be given together",
		"update --owner x":                     "which keys?",
		"update x y --label z --etag e":        "--etag is for one key",
		"list --secret " + secret:              "must be the visible part",
		"rotate --owner x -o secret --dry-run": "-o secret is for",
	} {
		code := 2
		if strings.HasPrefix(args, "rotate") {
			code = 1
		}
		if got := h.fail(code, append([]string{"keys"}, strings.Fields(args)...)...); !strings.Contains(got, want) || strings.Contains(got, secret) {
			t.Errorf("%s: %s", args, got)
		}
	}
}

// A losing proxy loses answers: the server has done what it was asked, and whoever asked
// does not hear of it.
func losing(t *testing.T, target string, lose func(method string) error) string {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	keys := apikeysv1.NewApiKeysServiceClient(conn)
	on := func(ctx context.Context) context.Context {
		md, _ := metadata.FromIncomingContext(ctx)
		out := metadata.MD{}
		for _, name := range []string{"authorization", "idempotency-key", "x-organization-id"} {
			out[name] = md[name]
		}
		return metadata.NewOutgoingContext(ctx, out)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (answer any, err error) {
		switch req := req.(type) {
		case *apikeysv1.CreateApiKeyRequest:
			answer, err = keys.CreateApiKey(on(ctx), req)
		case *apikeysv1.BatchRotateApiKeysRequest:
			answer, err = keys.BatchRotateApiKeys(on(ctx), req)
		}
		if lost := lose(info.FullMethod); lost != nil {
			return nil, lost
		}
		return answer, err
	}))
	apikeysv1.RegisterApiKeysServiceServer(server, apikeysv1.UnimplementedApiKeysServiceServer{})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// TestLostAnswers loses the answers of calls that make secrets. No key is made twice,
// and no secret is lost.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, n := range []string{"0", "1", "2"} {
		h.run("keys", "create", "--label", n, "--owner", "dora")
	}
	var answers atomic.Int32
	var lost atomic.Int32 // how many answers are to be lost
	address := losing(t, h.s.Conn.Target(), func(string) error {
		answers.Add(1)
		if lost.Add(-1) >= 0 {
			return status.Error(codes.Unavailable, "the answer is lost")
		}
		return nil
	})
	far := h.with("APIKEYS_ADDRESS=" + address)

	// One answer is lost: the same run gets it.
	lost.Store(1)
	secret := far.run("keys", "create", "--label", "once", "--expires-at", "90d")
	if !apikey.IsSecret(line(secret)) || answers.Load() != 2 {
		t.Fatalf("%q after %d answers", secret, answers.Load())
	}
	// All are lost, and the next run gets it. Another file is no obstacle.
	lost.Store(attempts)
	file := filepath.Join(h.dir, "secret")
	far.fail(1, "keys", "create", "--label", "twice", "--secret-file", file)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("an empty file is left: %v", err)
	}
	stdout, stderr, err := far.try("keys", "create", "--label", "twice", "--secret-file", file)
	text, _ := os.ReadFile(file)
	if err != nil || !strings.Contains(stderr, "an earlier run of this command") || !apikey.IsSecret(line(string(text))) || strings.Contains(stdout+stderr, line(string(text))) {
		t.Fatalf("the next run: %q %q %v", stdout, stderr, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v", info.Mode(), err)
	}
	if got := far.fail(2, "keys", "create", "--label", "thrice", "--secret-file", file); !strings.Contains(got, "is not overwritten") {
		t.Errorf("the same file: %s", got)
	}
	// A third run makes another key.
	far.run("keys", "create", "--label", "twice")
	labels := strings.Fields(h.run("keys", "list", "-o", "jsonpath=$[*].label"))
	if !slices.Equal(labels, []string{"0", "1", "2", "once", "twice", "twice"}) {
		t.Errorf("keys %v", labels)
	}

	// So it is with a rotation of many.
	lost.Store(attempts)
	secrets := filepath.Join(h.dir, "secrets")
	args := []string{"keys", "rotate", "--owner", "dora", "--overlap", "1h", "--yes", "--secret-file", secrets}
	if got := far.fail(1, args...); !strings.Contains(got, "run the same command again to go on") {
		t.Errorf("lost: %s", got)
	}
	stdout, stderr, err = far.try(args...)
	text, _ = os.ReadFile(secrets)
	if err != nil || strings.Count(string(text), "\n") != 3 || strings.Contains(stdout+stderr, "sk_live_") {
		t.Fatalf("rotated: %q %q %s", stdout, stderr, text)
	}
	for text := range strings.Lines(string(text)) {
		id, secret, _ := strings.Cut(line(text), " ")
		if got := line(h.stdin(secret).run("keys", "verify", "-o", "jsonpath=$.api_key.id")); got != id {
			t.Errorf("the secret of %s is %s's", id, got)
		}
	}
	events := strings.Fields(h.run("events", "list", "--type", "api_key.rotated", "--limit", "0", "-o", "jsonpath=$[*].resource_id"))
	if len(events) != 3 {
		t.Errorf("%d keys were rotated", len(events))
	}
	files, _ := filepath.Glob(filepath.Join(h.dir, "state", "apikeys", "calls", "*"))
	if len(files) > 0 {
		t.Errorf("still remembered: %v", files)
	}
	// To standard output, each with its key; without a question it cannot be asked.
	if got := h.run("keys", "rotate", "--owner", "dora", "--end-previous", "-y"); strings.Count(got, "sk_live_") != 3 || strings.Count(got, "api_key_") != 3 {
		t.Errorf("to standard output: %s", got)
	}
	if got := strings.Fields(h.run("keys", "rotate", "--owner", "dora", "--end-previous", "-y", "-o", "secret")); len(got) != 3 || !apikey.IsSecret(got[2]) {
		t.Errorf("secrets alone: %v", got)
	}
}
