package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/network"
)

// A crowd is a server as a process with very many keys, and a command line as others
// that change many of them. Commands reach whichever server there is at one address.
type crowd struct {
	dir      string
	database string // the URL of one of PostgreSQL; empty for SQLite
	process  *process
	proxy    *network.Proxy
	db       *sql.DB
	template string // the id of the key that the others are copies of
	copied   int
}

// crowds are the databases that a crowd can have.
var crowds = map[string]func(testing.TB) string{"SQLite": func(testing.TB) string { return "" }, "PostgreSQL": servertest.NewPostgres}

func newCrowd(t testing.TB, database string) *crowd {
	t.Helper()
	c := &crowd{dir: t.TempDir(), database: database}
	c.start(t)
	made, err := c.process.keys.CreateApiKey(c.operator(t), &apikeysv1.CreateApiKeyRequest{
		Label: "one of many", OwnerId: "template", Scopes: []string{"invoices.read"}, Metadata: map[string]string{"plan": "gold"},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.template = made.GetApiKey().GetId()
	driver, source := "pgx", database
	if database == "" {
		driver, source = "sqlite3", "file:"+filepath.Join(c.dir, "apikeys.db")+"?_busy_timeout=10000"
	}
	if c.db, err = sql.Open(driver, source); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.db.Close() })
	return c
}

// start starts the server.
func (c *crowd) start(t testing.TB) {
	t.Helper()
	var settings []string
	if c.database != "" {
		settings = []string{"APIKEYS_DATABASE=" + c.database}
	}
	c.process = startProcess(t, c.dir, settings...)
	if c.proxy == nil {
		c.proxy = network.NewProxy(t, c.process.conn.Target())
	}
	c.proxy.Redirect(c.process.conn.Target())
}

func (c *crowd) operator(t testing.TB) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+crashToken)
}

// copyKeys adds n keys of an owner, like the template but for their ids and secrets, which
// nobody knows. The ids of different owners stand between each other.
func (c *crowd) copyKeys(t testing.TB, owner string, n int) {
	t.Helper()
	rows, err := c.db.QueryContext(t.Context(), "SELECT * FROM api_keys WHERE 1 = 0")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || rows.Err() != nil {
		t.Fatal(err, rows.Err())
	}
	const span = 100_000_000_000 // The keys of each owner have ids from 0 to about here.
	id := fmt.Sprintf("'api_key_01a1fd04-9f5f-7797-863c-' || substr(CAST(1000000000000 + %d * CAST(i AS bigint) + %d AS text), 2)", span/n, c.copied)
	c.copied++
	random := "randomblob(32)"
	if c.database != "" {
		random = "sha256(convert_to(gen_random_uuid()::text, 'UTF8'))"
	}
	values := slices.Clone(columns)
	for name, value := range map[string]string{"id": id, "owner_id": "'" + owner + "'", "secret_hash": random, "edge_hash": random} {
		values[slices.Index(columns, name)] = value
	}
	c.exec(t, fmt.Sprintf("INSERT INTO api_keys (%s) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT %s FROM n, api_keys WHERE id = '%s'",
		strings.Join(columns, ", "), n, strings.Join(values, ", "), c.template))
}

func (c *crowd) exec(t testing.TB, statement string) {
	t.Helper()
	if _, err := c.db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// wantNumbers compares the numbers in the one row of each query with those that are
// wanted.
func (c *crowd) wantNumbers(t testing.TB, queries map[string][]int) {
	t.Helper()
	for query, want := range queries {
		got, into := make([]int, len(want)), make([]any, len(want))
		for i := range got {
			into[i] = &got[i]
		}
		if err := c.db.QueryRowContext(t.Context(), query).Scan(into...); err != nil {
			t.Errorf("%s: %v", query, err)
		} else if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
}

// events returns how many events of a type there are; of all types, where it is empty.
func (c *crowd) events(t testing.TB, eventType string) (n int) {
	t.Helper()
	if err := c.db.QueryRowContext(t.Context(), "SELECT count(*) FROM events WHERE type LIKE '"+eventType+"%'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// command returns a command as a process.
func (c *crowd) command(args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), runMain+"=1", "APIKEYS_ADDRESS="+c.proxy.Addr(), "APIKEYS_TOKEN="+crashToken,
		"XDG_CONFIG_HOME="+filepath.Join(c.dir, "config"), "XDG_STATE_HOME="+filepath.Join(c.dir, "state"))
	stderr = new(bytes.Buffer)
	cmd.Stderr = stderr
	return cmd, stderr
}

// follow calls tell with the number of events of a type so far, from the first on, until
// that returns true; an error of a stream begins anew.
func (c *crowd) follow(t testing.TB, eventType string, tell func(n int) bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(c.operator(t), time.Minute) // for what would never come
	defer cancel()
	stream, err := apikeysv1.NewEventsServiceClient(c.process.conn).WatchEvents(ctx, &apikeysv1.WatchEventsRequest{Types: []string{eventType}, After: "start"})
	if err != nil {
		return err
	}
	for n := 0; !tell(n); {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if answer.GetEvent() != nil {
			n++
		}
	}
	return nil
}

// interruptions are what interrupts a command that changes many keys: it is killed, it is
// asked to end, or the server is killed under it.
var interruptions = []string{"kill", "interrupt", "kill", "kill", "kill", "server"}

// throughInterruptions runs a command that makes so many events of a type, again after
// each interruption, until it ends well. Each interruption comes at an event, anywhere
// among those that are left.
func (c *crowd) throughInterruptions(t *testing.T, eventType string, total int, args ...string) {
	t.Helper()
	for i, interruption := range interruptions {
		made := c.events(t, eventType)
		cmd, stderr := c.command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// What the server was doing for the command before may add the keys of a transaction.
		at := made + 101 + rand.IntN(max((total-made)/(len(interruptions)-i+1)-100, 1))
		if err := c.follow(t, eventType, func(n int) bool { made = n; return n >= min(at, total) }); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("await %d of %d: %v: %s", at, total, err, stderr)
		}
		switch interruption {
		case "kill":
			_ = cmd.Process.Kill() // It may have ended.
		case "interrupt":
			_ = cmd.Process.Signal(syscall.SIGINT)
		case "server":
			c.process.kill(t)
			c.start(t)
		}
		err := cmd.Wait()
		t.Logf("%s at %d of %d: %v", interruption, made, total, err)
		if err == nil { // It went on with the server that was started again.
			if i < len(interruptions)-1 {
				t.Errorf("it ended before it was interrupted %d times", len(interruptions))
			}
			return
		}
		if interruption == "interrupt" && (exitOf(err) != 1 || !strings.Contains(stderr.String(), "run the same command again to go on")) {
			t.Errorf("interrupted: %v: %s", err, stderr)
		}
		if c.events(t, eventType) == total && len(c.remembered(t)) == 0 {
			return // It had done everything, and was interrupted on its way out.
		}
	}
	cmd, stderr := c.command(args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
}

// remembered returns the files of the calls that commands would go on with.
func (c *crowd) remembered(t *testing.T) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(c.dir, "state", "apikeys", "calls", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// exitOf returns the code that a process has ended with, or -1.
func exitOf(err error) int {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Wait does not wrap it.
		return exit.ExitCode()
	}
	return -1
}

// fullEnv has TestKillWhileManyAreChanged change 10,000 of 105,000 keys, which takes
// minutes.
const fullEnv = "APIKEYS_TEST_FULL"

// TestKillWhileManyAreChanged interrupts commands that revoke and rotate the many keys of
// an owner among very many others, and runs them again until they end well: each key is
// changed once and has one event, no other key is touched, and no new secret is lost.
func TestKillWhileManyAreChanged(t *testing.T) {
	t.Parallel()
	others, many := 2000, 1000
	if os.Getenv(fullEnv) != "" {
		others, many = 95_000, 5000
	}
	for name, database := range crowds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, database(t))
			for owner, n := range map[string]int{"others": others, "revoked": many, "rotated": many} {
				c.copyKeys(t, owner, n)
			}
			events := c.events(t, "") + 2*many
			secrets := filepath.Join(c.dir, "new_secrets")
			c.throughInterruptions(t, "api_key.revoked", many, "keys", "revoke", "--owner", "revoked", "--reason", "superseded", "--yes")
			c.throughInterruptions(t, "api_key.rotated", many, "keys", "rotate", "--owner", "rotated", "--overlap", "1h", "--yes", "--secret-file", secrets)
			c.checkSecrets(t, secrets, many)
			if left := c.remembered(t); len(left) > 0 {
				t.Errorf("still remembered: %v", left)
			}
			c.process.kill(t)
			c.wantNumbers(t, map[string][]int{
				"SELECT count(*), count(DISTINCT resource_id) FROM events WHERE type = 'api_key.revoked'":                                              {many, many},
				"SELECT count(*), count(DISTINCT resource_id) FROM events WHERE type = 'api_key.rotated'":                                              {many, many},
				"SELECT count(*), max(id), (SELECT position FROM revisions) FROM events":                                                               {events, events, events},
				"SELECT count(*) FROM api_keys WHERE owner_id = 'revoked' AND revoked_at IS NOT NULL AND revoke_reason = 'superseded' AND version = 2": {many},
				"SELECT count(*) FROM api_keys WHERE owner_id = 'rotated' AND rotations = 1 AND revoked_at IS NULL AND version = 2":                    {many},
				"SELECT count(*) FROM api_keys WHERE owner_id = 'others' AND version = 1 AND updated_at IS NULL":                                       {others},
				"SELECT count(*) FROM api_keys": {1 + others + 2*many},
			})
		})
	}
}

// checkSecrets verifies that the file has the secret of so many keys, each in the newest
// line of its id.
func (c *crowd) checkSecrets(t *testing.T, path string, want int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest := make(map[string]string)
	for text := range strings.Lines(string(text)) {
		id, secret, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
		newest[id] = secret
	}
	if len(newest) != want {
		t.Errorf("the file has secrets of %d keys, want %d", len(newest), want)
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(newest)), 1000) {
		req := new(apikeysv1.BatchVerifyApiKeysRequest)
		for _, id := range ids {
			req.Keys = append(req.Keys, &apikeysv1.VerifyApiKeyRequest{Key: newest[id]})
		}
		answer, err := c.process.keys.BatchVerifyApiKeys(c.operator(t), req)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range answer.GetResults() {
			if !r.GetValid() || r.GetPreviousSecret() || r.GetApiKey().GetId() != ids[i] {
				t.Fatalf("the secret of %s: %s, of %s", ids[i], r.GetCode(), r.GetApiKey().GetId())
			}
		}
	}
}

// BenchmarkRevokeMany revokes the 5,000 keys of one owner among 105,000, by one command.
func BenchmarkRevokeMany(b *testing.B) {
	for name, database := range crowds {
		b.Run(name, func(b *testing.B) {
			const many = 5000
			c := newCrowd(b, database(b))
			c.copyKeys(b, "others", 100_000)
			var spent time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				owner := fmt.Sprint("owner_", i)
				c.copyKeys(b, owner, many)
				cmd, stderr := c.command("keys", "revoke", "--owner", owner, "--yes")
				b.StartTimer()
				begin := time.Now()
				if err := cmd.Run(); err != nil || !strings.Contains(stderr.String(), "revoked: 5000; as they were: 0; refused: 0") {
					b.Fatalf("%v: %s", err, stderr)
				}
				spent += time.Since(begin)
			}
			b.ReportMetric(spent.Seconds()/float64(b.N), "s/5000-keys")
			c.process.kill(b)
		})
	}
}
