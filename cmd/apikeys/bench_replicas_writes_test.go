package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// createOne makes a usual key.
func createOne(ctx context.Context, p *process) error {
	_, err := p.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{
		Label: "Benchmark", Scopes: []string{"invoices.read", "payments.read"}, OwnerId: "user_1",
		Metadata: map[string]string{"team": "billing"},
	})
	return err
}

// BenchmarkReplicasCreate is CreateApiKey by 64 callers, through one replica and, in turns
// with it, through three of another database. Its floor is pgbench on a third, which
// inserts the same rows, 64 keys and their events in a transaction, under the same lock of
// the row that counts positions. Two more floors are pgbench with 64 clients and one key a
// transaction: under that lock, and without it.
func BenchmarkReplicasCreate(b *testing.B) {
	turn := sized(b, 128, 12_800)
	ctx, sides, floor := operatorOf(b), oneAndThree(b), newWriteFloor(b)
	sides[0].tellDurability(b)
	for _, r := range sides {
		byCallers(b, 64, 64*4, func(i int) error { return createOne(ctx, r.of(i)) })
	}
	var wall, least [3]time.Duration
	for b.Loop() {
		for side, r := range sides {
			wall[side] += byCallers(b, 64, turn, func(i int) error { return createOne(ctx, r.of(i)) })
		}
		least[0] += floor.run(b, floor.groups, 1, turn/writeGroup)
		least[1] += floor.run(b, floor.counted, 64, turn/64)
		least[2] += floor.run(b, floor.alone, 64, turn/64)
	}
	created := float64(b.N * turn)
	for side, name := range []string{"1", "3"} {
		b.ReportMetric(created/wall[side].Seconds(), "creates/s-"+name)
		b.ReportMetric(least[0].Seconds()/wall[side].Seconds(), "x-of-floor-"+name)
	}
	for i, name := range []string{"groups", "counted", "alone"} {
		b.ReportMetric(created/least[i].Seconds(), "pgbench-keys/s-"+name)
	}
}

// BenchmarkReplicasGroups is CreateApiKey by 1 to 128 callers of each replica, which
// decides how many changes share a transaction. ms-transaction is the time of one, begin
// to commit: of one replica it is how long the row that counts positions is locked, of
// three it includes the wait for that lock. ms-between is the time from one commit to
// the next, of whichever replica: where replicas wait for the lock, that is how long
// one holds it.
func BenchmarkReplicasGroups(b *testing.B) {
	counts := []int{1, 4, 16, 64, 128}
	counts = counts[:sized(b, 2, len(counts))]
	for _, n := range []int{1, 3} {
		for _, callers := range counts {
			b.Run(fmt.Sprintf("replicas=%d/callers=%d", n, callers), func(b *testing.B) {
				r, ctx := startReplicas(b, n), operatorOf(b)
				turn := sized(b, 3, 100) * n * callers
				if callers < 16 {
					turn *= 4
				}
				create := func(i int) error { return createOne(ctx, r.of(i)) }
				byCallers(b, n*callers, n*callers, create)
				const changes, transaction, commit = "apikeys_database_commit_changes", "apikeys_database_transaction_seconds", "apikeys_database_commit_seconds"
				names := []string{changes + "_sum", changes + "_count", transaction + "_sum", commit + "_sum"}
				sums := make([]float64, len(names))
				add := func(sign float64) {
					for i, name := range names {
						sums[i] += sign * r.metric(b, name)
					}
				}
				var wall time.Duration
				for b.Loop() {
					add(-1)
					wall += byCallers(b, n*callers, turn, create)
					add(1)
				}
				b.ReportMetric(float64(b.N*turn)/wall.Seconds(), "creates/s")
				b.ReportMetric(sums[0]/sums[1], "changes/group")
				b.ReportMetric(1000*sums[2]/sums[1], "ms-transaction")
				b.ReportMetric(1000*sums[3]/sums[1], "ms-commit")
				b.ReportMetric(1000*wall.Seconds()/sums[1], "ms-between")
			})
		}
	}
}

// writeGroup is how many changes a transaction of the floor holds.
const writeGroup = 64

// writeFloor is a database of the same schema that pgbench writes.
type writeFloor struct {
	program, dir           string
	database               *replicas
	groups, counted, alone string // files of pgbench
}

// newWriteFloor makes the files of pgbench from a key that a replica has made.
func newWriteFloor(b *testing.B) *writeFloor {
	b.Helper()
	f := &writeFloor{database: newReplicas(b), dir: b.TempDir(), program: "pgbench"}
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench"); len(found) > 0 {
		f.program = found[len(found)-1]
	} else if _, err := exec.LookPath(f.program); err != nil {
		b.Skip("pgbench is not installed: apt-get install postgresql-contrib")
	}
	f.database.start(b, 1)
	if err := createOne(operatorOf(b), f.database.list[0]); err != nil {
		b.Fatal(err)
	}
	f.database.stop(b)
	if _, err := f.database.open(b).ExecContext(b.Context(), "CREATE SEQUENCE floor START 1000000000"); err != nil {
		b.Fatal(err)
	}
	f.groups = f.script(b, "groups", writeGroup, true)
	f.counted = f.script(b, "counted", 1, true)
	f.alone = f.script(b, "alone", 1, false)
	return f
}

// script writes a file of pgbench with a transaction of so many keys and their events, and
// returns its path. Where they are counted, their positions come from the row that counts
// them, which is locked first.
func (f *writeFloor) script(b *testing.B, name string, n int, counted bool) string {
	b.Helper()
	text := "BEGIN;\n"
	if counted {
		text += "SELECT position FROM revisions WHERE id = 1 FOR UPDATE \\gset\n"
	} else {
		text += "SELECT nextval('floor') AS position \\gset\n"
	}
	key, event := f.row(b, "api_keys"), f.row(b, "events")
	var events []string
	for i := 1; i <= n; i++ {
		at := fmt.Sprintf("(:position::bigint + %d)", i)
		text += "INSERT INTO api_keys VALUES (" + key(at) + ");\n"
		events = append(events, "("+event(at)+")")
	}
	text += "INSERT INTO events VALUES " + strings.Join(events, ", ") + ";\n"
	if counted {
		text += fmt.Sprintf("UPDATE revisions SET position = :position::bigint + %d WHERE id = 1;\n", n)
	}
	path := filepath.Join(f.dir, name+".sql")
	if err := os.WriteFile(path, []byte(text+"COMMIT;\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// row returns the values of a row like the only one of a table, for a position: what is
// unique is made from that and is as long as it is in life.
func (f *writeFloor) row(b *testing.B, table string) func(at string) string {
	b.Helper()
	db := f.database.open(b)
	rows, err := db.QueryContext(b.Context(), "SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND table_schema = current_schema() ORDER BY ordinal_position", table)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	var columns, quoted []string
	for rows.Next() {
		var column string
		if err := rows.Scan(&column); err != nil {
			b.Fatal(err)
		}
		columns, quoted = append(columns, column), append(quoted, "quote_nullable("+pgx.Identifier{column}.Sanitize()+"::text)")
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	values, into := make([]string, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := db.QueryRowContext(b.Context(), "SELECT "+strings.Join(quoted, ", ")+" FROM "+pgx.Identifier{table}.Sanitize()).Scan(into...); err != nil {
		b.Fatal(err)
	}
	return func(at string) string {
		all := append([]string(nil), values...)
		for i, column := range columns {
			switch {
			case table == "events" && column == "id":
				all[i] = at
			case column == "id", column == "event_id":
				all[i] = "'api_key_01a1fd59-b983-7407-beb9-' || to_char(" + at + ", 'FM000000000000')"
			case column == "secret_hash":
				all[i] = "sha256(int8send(" + at + "))"
			}
		}
		return strings.Join(all, ", ")
	}
}

var pgbenchRate = regexp.MustCompile(`tps = ([0-9.]+) `)

// run has so many clients of pgbench run a file so many times each, and returns how long
// that took.
func (f *writeFloor) run(b *testing.B, file string, clients, times int) time.Duration {
	b.Helper()
	c, err := pgx.ParseConfig(f.database.database)
	if err != nil {
		b.Fatal("the URL of the database cannot be read")
	}
	// Prepared statements, as the program has them. The files name no variable but position.
	cmd := exec.CommandContext(b.Context(), f.program, "--no-vacuum", "--protocol=prepared", "--jobs=1",
		"--file="+file, "--client="+strconv.Itoa(clients), "--transactions="+strconv.Itoa(times))
	cmd.Env = append(os.Environ(), "PGHOST="+c.Host, "PGPORT="+strconv.Itoa(int(c.Port)), "PGUSER="+c.User,
		"PGPASSWORD="+c.Password, "PGDATABASE="+c.Database, "PGSSLMODE=require")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		b.Fatalf("pgbench: %v\n%s", err, out.String())
	}
	found := pgbenchRate.FindSubmatch(out.Bytes())
	if found == nil || !bytes.Contains(out.Bytes(), []byte("number of failed transactions: 0 ")) {
		b.Fatalf("pgbench says:\n%s", out.String())
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil || rate <= 0 {
		b.Fatalf("pgbench says:\n%s", out.String())
	}
	return time.Duration(float64(clients*times) / rate * float64(time.Second))
}
