package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/mattn/go-sqlite3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// runMain makes this test binary run the program instead of the tests, so that a
// test can start it as a process of its own, and kill that.
const runMain = "TEST_RUN_APIKEYS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
	}
	if asked := os.Getenv(runFloor); asked != "" {
		fmt.Fprintln(os.Stderr, "serve the floor:", serveFloor(asked))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const crashToken = "a-root-token-for-the-crash-test"

// process is the program as a process of its own.
type process struct {
	cmd  *exec.Cmd
	rest string // the base URL of the REST listener
	conn *grpc.ClientConn
	keys apikeysv1.ApiKeysServiceClient
}

var addresses = regexp.MustCompile(`rest=(\S+) grpc=(\S+)`)

// startProcess starts the program on dir, with settings as variables of its environment,
// and waits until it serves.
func startProcess(t testing.TB, dir string, settings ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "serve", "--data-dir", dir, "--rest-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0")
	cmd.Env = append(append(os.Environ(), runMain+"=1", "APIKEYS_ROOT_TOKEN="+crashToken), settings...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the program: %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // for a test that ends early
	addrs := make(chan []string, 1)
	go func() {
		defer close(addrs)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if found := addresses.FindStringSubmatch(lines.Text()); found != nil {
				addrs <- found[1:]
			}
		}
	}()
	found, ok := <-addrs
	if !ok {
		t.Fatal("the program ended before it served")
	}
	go func() {
		for range addrs { //nolint:revive // The pipe is read to its end, so that the program never blocks on it.
		}
	}()
	conn, err := grpc.NewClient(found[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return &process{cmd: cmd, rest: "http://" + found[0], conn: conn, keys: apikeysv1.NewApiKeysServiceClient(conn)}
}

// kill ends the process as a power cut would.
func (p *process) kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	_ = p.cmd.Wait() // It was killed, which is what this says.
	p.conn.Close()
}

// answered is what the server has promised about one key: how many changes it
// has confirmed, and the last of each kind.
type answered struct {
	changes int64 // creation included
	secret  string
	revoked bool
	// unknown is set when a call on the key had no answer: it may have been made.
	unknown bool
}

// TestKillUnderLoad kills the program under a load of creates, rotates, updates
// and revokes: after each restart every answered change is there, each change has
// exactly one event, and what was refused has none.
func TestKillUnderLoad(t *testing.T) {
	dir := t.TempDir()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+crashToken)
	known := make(map[string]*answered)
	for round := range 3 {
		p := startProcess(t, dir)
		checkAnswered(ctx, t, p, known)
		var done atomic.Int64
		enough := make(chan struct{})
		var mu sync.Mutex
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				own := make(map[string]*answered)
				for writeOne(ctx, p.keys, own) {
					if done.Add(1) == int64(150+100*round) {
						close(enough)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				for id, a := range own {
					known[id] = a
				}
			})
		}
		<-enough
		p.kill(t)
		writers.Wait()
		checkEvents(t, dir, known)
	}
	p := startProcess(t, dir)
	checkAnswered(ctx, t, p, known)
	p.kill(t)
	if len(known) < 50 {
		t.Errorf("only %d keys were made; the load was too small to mean anything", len(known))
	}
}

// writeOne makes one change and notes what was answered. It returns false when
// the server is gone.
func writeOne(ctx context.Context, keys apikeysv1.ApiKeysServiceClient, own map[string]*answered) bool {
	var id string
	for id = range own { // The order of a map is random enough.
		break
	}
	a := own[id]
	if a == nil || rand.IntN(3) == 0 {
		resp, err := keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "crash"})
		if err == nil {
			own[resp.GetApiKey().GetId()] = &answered{changes: 1, secret: resp.GetApiKey().GetSecret()}
		}
		return status.Code(err) != codes.Unavailable
	}
	var err error
	switch rand.IntN(8) {
	case 0:
		_, err = keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: id})
		if err == nil && !a.revoked {
			a.revoked = true
			a.changes++
		}
	default:
		var resp *apikeysv1.RotateApiKeyResponse
		resp, err = keys.RotateApiKey(ctx, &apikeysv1.RotateApiKeyRequest{Id: id, OverlapSeconds: new(int32)})
		if err == nil {
			a.secret = resp.GetApiKey().GetSecret()
			a.changes++
		}
	}
	if code := status.Code(err); code != codes.OK && code != codes.FailedPrecondition {
		a.unknown = true
		return false
	}
	return true
}

// checkAnswered compares what the server says of each key with what it has
// promised.
func checkAnswered(ctx context.Context, t *testing.T, p *process, known map[string]*answered) {
	t.Helper()
	for id, a := range known {
		resp, err := p.keys.GetApiKey(ctx, &apikeysv1.GetApiKeyRequest{Id: id})
		if err != nil {
			t.Errorf("the answered key %s is gone: %v", id, err)
			continue
		}
		revoked := resp.GetApiKey().GetState() == apikeysv1.ApiKeyState_API_KEY_STATE_REVOKED
		if revoked != a.revoked && !a.unknown {
			t.Errorf("key %s: revoked %t, answered %t", id, revoked, a.revoked)
		}
		verified, err := p.keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: a.secret})
		if err != nil {
			t.Fatalf("verify: %v", err)
		}
		if !a.unknown && verified.GetValid() == a.revoked {
			t.Errorf("key %s, revoked %t: the answered secret is %s", id, a.revoked, verified.GetCode())
		}
	}
}

// checkEvents reads the log as it was left: gap-free, one event for each change
// of each key, and none for a change that was not made.
func checkEvents(t *testing.T, dir string, known map[string]*answered) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "apikeys.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	scan := func(query string, into ...any) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), query).Scan(into...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	var count, newest, position, mismatched int64
	scan("SELECT count(*), max(id) FROM events", &count, &newest)
	scan("SELECT position FROM revisions", &position)
	if count != newest || newest != position {
		t.Errorf("%d events, the newest is %d, the revision %d; the log has gaps", count, newest, position)
	}
	scan(`SELECT count(*) FROM api_keys k WHERE k.version != (SELECT count(*) FROM events e WHERE e.resource_id = k.id)`, &mismatched)
	if mismatched != 0 {
		t.Errorf("%d keys do not have exactly one event for each of their changes", mismatched)
	}
	for id, a := range known {
		var version int64
		scan(fmt.Sprintf("SELECT version FROM api_keys WHERE id = '%s'", id), &version)
		if version != a.changes && !(a.unknown && version == a.changes+1) {
			t.Errorf("key %s has %d changes, answered were %d", id, version, a.changes)
		}
	}
}
