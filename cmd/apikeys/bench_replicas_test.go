package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/apikeys-dev/apikeys/server/servertest"
)

// replicasEnv makes the benchmarks of replicas as large as those of docs/scaling.md;
// without it they are as small as a check of them can be.
const replicasEnv = "APIKEYS_BENCH_REPLICAS"

// sized returns full where the environment asks for full sizes, else small.
func sized(b *testing.B, small, full int) int {
	b.Helper()
	switch text := os.Getenv(replicasEnv); text {
	case "":
		return small
	case "full":
		return full
	default:
		b.Fatalf("%s must be full or unset, not %q", replicasEnv, text)
		return 0
	}
}

// replicas are processes of the program that share a database of PostgreSQL.
type replicas struct {
	list     []*process
	ops      []string // the base URLs of their listeners for operators
	database string
	dir      string
	settings []string
}

// newReplicas returns no replicas of an empty database yet.
func newReplicas(b *testing.B, settings ...string) *replicas {
	b.Helper()
	return &replicas{database: servertest.NewPostgres(b), dir: b.TempDir(), settings: settings}
}

// startReplicas returns n replicas of an empty database, until the benchmark ends.
func startReplicas(b *testing.B, n int, settings ...string) *replicas {
	b.Helper()
	r := newReplicas(b, settings...)
	r.start(b, n)
	b.Cleanup(func() { r.stop(b) })
	return r
}

// oneAndThree returns one replica of a database and three of another. They take turns.
func oneAndThree(b *testing.B, settings ...string) [2]*replicas {
	b.Helper()
	return [2]*replicas{startReplicas(b, 1, settings...), startReplicas(b, 3, settings...)}
}

// start starts n replicas, one after the other: the first makes the secrets file that
// all share.
func (r *replicas) start(b *testing.B, n int) {
	b.Helper()
	for i := range n {
		ops := freeAddress(b)
		p := startProcess(b, filepath.Join(r.dir, strconv.Itoa(i)), append([]string{
			"APIKEYS_DATABASE=" + r.database, "APIKEYS_SECRETS_FILE=" + filepath.Join(r.dir, "secrets"),
			"APIKEYS_OPS_ADDR=" + ops,
		}, r.settings...)...)
		r.list, r.ops = append(r.list, p), append(r.ops, "http://"+ops)
	}
}

// stop stops all replicas in order.
func (r *replicas) stop(b *testing.B) {
	b.Helper()
	for _, p := range r.list {
		p.conn.Close()
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			b.Errorf("stop a replica: %v", err)
		}
	}
	for _, p := range r.list {
		if err := p.cmd.Wait(); err != nil {
			b.Errorf("a replica ended: %v", err)
		}
	}
	r.list, r.ops = nil, nil
}

// of returns the replica that the i-th call goes to.
func (r *replicas) of(i int) *process { return r.list[i%len(r.list)] }

// processorTime returns how long the processes of the replicas have had a processor.
func (r *replicas) processorTime(b *testing.B) (spent time.Duration) {
	b.Helper()
	for _, p := range r.list {
		spent += processorTime(b, p.cmd.Process.Pid)
	}
	return spent
}

// processorTime returns how long a process has had a processor, in steps of 10 ms.
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip("no /proc:", err)
	}
	// The name, in brackets, may hold spaces. utime and stime are the 14th and 15th field.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ
}

// metric returns the sum of a metric without labels over all replicas.
func (r *replicas) metric(b *testing.B, name string) (sum float64) {
	b.Helper()
	for _, base := range r.ops {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, base+"/metrics", nil)
		if err != nil {
			b.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		found := false
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
				value, err := strconv.ParseFloat(text, 64)
				if err != nil {
					b.Fatal(err)
				}
				sum, found = sum+value, true
			}
		}
		resp.Body.Close()
		if !found {
			b.Fatalf("%s has no metric %s", base, name)
		}
	}
	return sum
}

// awaitCounted returns a function that is told of valid verifications, which are all that
// there are, and returns once the database has counted them too. Asking the database, and
// not the replicas, costs these nothing.
func (r *replicas) awaitCounted(b *testing.B) func(calls int) {
	b.Helper()
	db, want := r.open(b), 0
	return func(calls int) {
		want += calls
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			var got int
			if err := db.QueryRowContext(b.Context(), "SELECT coalesce(sum(total_requests), 0) FROM api_key_usage").Scan(&got); err != nil {
				b.Fatal(err)
			}
			if got == want {
				return
			}
			if got > want || time.Now().After(end) {
				b.Fatalf("%d of %d verifications are counted", got, want)
			}
		}
	}
}

// open opens the database beside the replicas.
func (r *replicas) open(b *testing.B) *sql.DB {
	b.Helper()
	db, err := sql.Open("pgx", r.database)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}

// tellDurability logs whether the database waits for the disk.
func (r *replicas) tellDurability(b *testing.B) {
	b.Helper()
	var fsync string
	if err := r.open(b).QueryRowContext(b.Context(), "SELECT current_setting('fsync')").Scan(&fsync); err != nil {
		b.Fatal(err)
	}
	if fsync != "on" {
		b.Log("fsync is off: a commit waits for no disk; run by: bash .ci/postgres --durable")
	}
}

// operatorOf returns a context of calls of the operator, whose parent cannot end:
// contexts of one parent that can wait for each other.
func operatorOf(b *testing.B) context.Context {
	b.Helper()
	return metadata.AppendToOutgoingContext(context.WithoutCancel(b.Context()), "authorization", "Bearer "+crashToken)
}

// freeAddress returns an address of loopback that nobody listens on.
func freeAddress(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// byCallers calls f for 0 to n-1 from so many callers and returns how long it took.
func byCallers(b *testing.B, callers, n int, f func(i int) error) time.Duration {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// reportTimes reports the median and the 99th percentile of times.
func reportTimes(b *testing.B, times []time.Duration, name string) {
	b.Helper()
	if len(times) == 0 {
		b.Fatalf("no times of %s", name)
	}
	slices.Sort(times)
	for _, percent := range []int{50, 99} {
		b.ReportMetric(float64(times[len(times)*percent/100].Microseconds())/1000, fmt.Sprintf("p%d-ms-%s", percent, name))
	}
}
