package server_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// benchWatchers is how many watchers the benchmarks of events have. It is what a
// caller may have.
const benchWatchers = 100

// BenchmarkWatchers sends 2,000 events to 100 watchers over gRPC on loopback. Its
// floor is a bare server that sends the same messages to as many.
func BenchmarkWatchers(b *testing.B) {
	const events = 2000
	s := servertest.Start(b, quiet)
	// Streams that were given up count until the server has heard of it, so the
	// rounds take turns.
	secrets := make([]string, 8)
	for i := range secrets {
		secrets[i] = reader(b, s)
	}
	round := 0
	from := watch(b, s.Conn, s.Context(b.Context()), "")
	first, err := from.Recv()
	if err != nil {
		b.Fatal(err)
	}
	manyKeys(b, s, events)
	messages := make([]*apikeysv1.WatchEventsResponse, events)
	for i := range messages {
		if messages[i], err = from.Recv(); err != nil {
			b.Fatal(err)
		}
	}
	floor := startWatchService(b, messages)
	all := func(conn *grpc.ClientConn) time.Duration {
		round++
		ctx, cancel := context.WithCancel(servertest.As(b.Context(), secrets[round%len(secrets)]))
		defer cancel()
		var watchers sync.WaitGroup
		start := time.Now()
		for range benchWatchers {
			watchers.Go(func() {
				stream := watch(b, conn, ctx, first.GetCursor())
				for n := 0; n < events; {
					m, err := stream.Recv()
					if err != nil {
						b.Error(err)
						return
					}
					if m.GetEvent() != nil {
						n++
					}
				}
			})
		}
		watchers.Wait()
		return time.Since(start)
	}
	all(floor)
	all(s.Conn)
	var least, spent time.Duration
	sent := 0
	for b.Loop() {
		least += all(floor)
		spent += all(s.Conn)
		sent += events * benchWatchers
	}
	b.ReportMetric(float64(least)/float64(spent), "x-of-floor")
	b.ReportMetric(float64(sent)/spent.Seconds(), "events/s")
	b.ReportMetric(float64(sent)/least.Seconds(), "floor-events/s")
}

// BenchmarkWatchLatency measures how long after a change was answered 100 watchers
// have its event, at 500 changes a second, without and with 100 others beside them
// that never read.
func BenchmarkWatchLatency(b *testing.B) {
	for _, dead := range []int{0, benchWatchers} {
		b.Run(fmt.Sprintf("dead=%d", dead), func(b *testing.B) {
			s := servertest.Start(b, quiet)
			ctx := s.Context(b.Context())
			var answered sync.Map // id of a key -> when its creation was answered
			var mu sync.Mutex
			var late []time.Duration
			other := reader(b, s)
			for range dead {
				watch(b, s.Conn, servertest.As(b.Context(), other), "start")
			}
			streams := make([]grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], benchWatchers)
			for i := range streams {
				streams[i] = watch(b, s.Conn, ctx, "")
				if _, err := streams[i].Recv(); err != nil {
					b.Fatal(err)
				}
			}
			const changes = 500
			for b.Loop() {
				var watchers sync.WaitGroup
				received := make([]map[string]time.Time, len(streams))
				for i, stream := range streams {
					watchers.Go(func() {
						received[i] = make(map[string]time.Time, changes)
						for len(received[i]) < changes {
							m, err := stream.Recv()
							if err != nil {
								b.Error(err)
								return
							}
							if m.GetEvent() != nil {
								received[i][m.GetEvent().GetResourceId()] = time.Now()
							}
						}
					})
				}
				tick := time.NewTicker(2 * time.Millisecond)
				for range changes {
					<-tick.C
					resp, err := s.Keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "key"})
					if err != nil {
						b.Fatal(err)
					}
					answered.Store(resp.GetApiKey().GetId(), time.Now())
				}
				tick.Stop()
				watchers.Wait()
				for _, times := range received {
					for id, at := range times {
						began, _ := answered.Load(id)
						mu.Lock()
						late = append(late, max(0, at.Sub(began.(time.Time))))
						mu.Unlock()
					}
				}
			}
			slices.Sort(late)
			b.ReportMetric(float64(late[len(late)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(late[len(late)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkIdleWatchers measures the memory of 1,000 watchers that wait, their
// clients included. Its floor is as many streams of a bare server.
func BenchmarkIdleWatchers(b *testing.B) {
	const callers, each = 10, 100
	memory := func() uint64 {
		for range 4 { // Each halves the stacks that have become too large.
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	s := servertest.Start(b, quiet)
	floor := startWatchService(b, nil)
	secrets := make([]string, callers)
	for i := range secrets {
		secrets[i] = reader(b, s)
	}
	idle := func(conn *grpc.ClientConn) float64 {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		before := memory()
		streams := make([]grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], 0, callers*each)
		for i := range cap(streams) {
			streams = append(streams, watch(b, conn, servertest.As(ctx, secrets[i%callers]), ""))
			if _, err := streams[i].Recv(); err != nil {
				b.Fatal(err)
			}
		}
		used := float64(memory()-before) / float64(len(streams)) / 1024
		cancel()
		for _, stream := range streams {
			for {
				if _, err := stream.Recv(); err != nil {
					break
				}
			}
		}
		return used
	}
	idle(floor)
	idle(s.Conn)
	var least, used float64
	for b.Loop() {
		least += idle(floor)
		used += idle(s.Conn)
	}
	b.ReportMetric(least/used, "x-of-floor")
	b.ReportMetric(used/float64(b.N), "KiB/watcher")
	b.ReportMetric(least/float64(b.N), "floor-KiB/watcher")
}

// BenchmarkCatchUp measures a watcher that is 100,000 events behind, or as many as
// APIKEYS_BENCH_EVENTS says. Its floor is a bare server that sends as many.
func BenchmarkCatchUp(b *testing.B) {
	events := 100_000
	if text := os.Getenv("APIKEYS_BENCH_EVENTS"); text != "" {
		var err error
		if events, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	s := servertest.Start(b, quiet)
	manyKeys(b, s, 1)
	s.Stop()
	copyEvents(b, filepath.Join(s.Dir, "apikeys.db"), events)
	s = servertest.Start(b, quiet, func(c *server.Config) { c.DataDir = s.Dir })
	sample := watch(b, s.Conn, s.Context(b.Context()), "start")
	var m *apikeysv1.WatchEventsResponse
	for m.GetEvent() == nil {
		var err error
		if m, err = sample.Recv(); err != nil {
			b.Fatal(err)
		}
	}
	messages := make([]*apikeysv1.WatchEventsResponse, events)
	for i := range messages {
		messages[i] = m
	}
	floor := startWatchService(b, messages)
	catchUp := func(conn *grpc.ClientConn) time.Duration {
		ctx, cancel := context.WithCancel(s.Context(b.Context()))
		defer cancel()
		start := time.Now()
		stream := watch(b, conn, ctx, "start")
		for n := 0; n < events; {
			m, err := stream.Recv()
			if err != nil {
				b.Fatal(err)
			}
			if m.GetEvent() != nil {
				n++
			}
		}
		return time.Since(start)
	}
	var least, spent time.Duration
	for b.Loop() {
		least += catchUp(floor)
		spent += catchUp(s.Conn)
	}
	b.ReportMetric(float64(least)/float64(spent), "x-of-floor")
	b.ReportMetric(float64(b.N*events)/spent.Seconds(), "events/s")
}

// copyEvents makes a log of n events out of its first.
func copyEvents(b *testing.B, path string, n int) {
	b.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	columns := "event_id, organization_id, type, resource_id, changes, actor_kind, actor_id, actor_name, request_id, created_at, payload"
	// The first event tells of the root token, and no organization sees it.
	last := strconv.Itoa(n + 1)
	for _, statement := range []string{
		"WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < " + last + ") " +
			"INSERT INTO events (id, " + columns + ") SELECT n.i, " + columns + " FROM n, events WHERE events.id = 2",
		"UPDATE revisions SET position = " + last,
	} {
		if _, err := db.ExecContext(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
}

// reader makes a key that may read events, and returns its secret.
func reader(b *testing.B, s *servertest.Server) string {
	b.Helper()
	resp, err := s.Keys.CreateApiKey(s.Context(b.Context()), &apikeysv1.CreateApiKeyRequest{Label: "reader", Scopes: []string{"events.read"}})
	if err != nil {
		b.Fatal(err)
	}
	return resp.GetApiKey().GetSecret()
}

func watch(b *testing.B, conn *grpc.ClientConn, ctx context.Context, after string) grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse] {
	b.Helper()
	stream, err := apikeysv1.NewEventsServiceClient(conn).WatchEvents(ctx, &apikeysv1.WatchEventsRequest{After: after})
	if err != nil {
		b.Fatal(err)
	}
	return stream
}

// startWatchService returns a connection to a bare server that sends a first
// message and then messages to whoever watches, and waits.
func startWatchService(b *testing.B, messages []*apikeysv1.WatchEventsResponse) *grpc.ClientConn {
	b.Helper()
	server := grpc.NewServer()
	apikeysv1.RegisterEventsServiceServer(server, bareWatch{messages: messages})
	listener := listenLoopback(b)
	go server.Serve(listener)
	b.Cleanup(server.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

type bareWatch struct {
	apikeysv1.UnimplementedEventsServiceServer
	messages []*apikeysv1.WatchEventsResponse
}

func (s bareWatch) WatchEvents(_ *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
	if err := stream.Send(&apikeysv1.WatchEventsResponse{Cursor: "cursor"}); err != nil {
		return err
	}
	for _, m := range s.messages {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}
