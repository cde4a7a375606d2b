package server_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// startReplicas starts so many servers that share a PostgreSQL database and its secrets
// file. change may alter each by its number.
func startReplicas(tb testing.TB, n int, change func(i int, c *server.Config)) []*servertest.Server {
	tb.Helper()
	database, secrets := servertest.NewPostgres(tb), filepath.Join(tb.TempDir(), "secrets")
	replicas := make([]*servertest.Server, n)
	for i := range replicas {
		replicas[i] = servertest.Start(tb, func(c *server.Config) {
			c.Database, c.SecretsFile = database, secrets
			if change != nil {
				change(i, c)
			}
		})
	}
	return replicas
}

// unnotified cuts NOTIFY off.
func unnotified(_ int, c *server.Config) { c.Unnotified = true }

// nextEvent returns the next message of a stream that has an event.
func nextEvent(tb testing.TB, stream grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse]) *apikeysv1.WatchEventsResponse {
	tb.Helper()
	for {
		m, err := stream.Recv()
		if err != nil {
			tb.Fatal(err)
		}
		if m.GetEvent() != nil {
			return m
		}
	}
}

// TestWatcherMovesBetweenReplicas has a watcher go on at one server after the cursor of
// another, again and again while all of them make changes: it sees every event once, in
// the order of the log, with NOTIFY and without.
func TestWatcherMovesBetweenReplicas(t *testing.T) {
	for name, change := range map[string]func(int, *server.Config){"notified": nil, "unnotified": unnotified} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const each, moves = 10, 5
			replicas := startReplicas(t, 3, change)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			first, err := apikeysv1.NewEventsServiceClient(replicas[0].Conn).WatchEvents(replicas[0].Context(ctx), &apikeysv1.WatchEventsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			beat, err := first.Recv()
			if err != nil {
				t.Fatal(err)
			}
			made := make(chan map[string]bool, len(replicas))
			for _, s := range replicas {
				go func() {
					ids := make(map[string]bool)
					for range each {
						created, err := s.Keys.CreateApiKey(s.Context(ctx), &apikeysv1.CreateApiKeyRequest{Label: "key"})
						if err != nil {
							t.Error(err)
							break
						}
						ids[created.GetApiKey().GetId()] = true
					}
					made <- ids
				}()
			}
			seen := make(map[string]bool)
			var order []string
			cursor := beat.GetCursor()
			for i := 0; len(order) < each*len(replicas); i++ {
				s := replicas[i%len(replicas)]
				moving, stop := context.WithCancel(ctx)
				stream, err := apikeysv1.NewEventsServiceClient(s.Conn).WatchEvents(s.Context(moving), &apikeysv1.WatchEventsRequest{After: cursor})
				if err != nil {
					t.Fatal(err)
				}
				for range min(moves, each*len(replicas)-len(order)) {
					m := nextEvent(t, stream)
					if id := m.GetEvent().GetId(); seen[id] {
						t.Fatalf("%s came twice", id)
					} else {
						seen[id], order = true, append(order, id)
					}
					cursor = m.GetCursor()
				}
				stop()
			}
			all := make(map[string]bool)
			for range replicas {
				for id := range <-made {
					all[id] = true
				}
			}
			list, err := apikeysv1.NewEventsServiceClient(replicas[1].Conn).ListEvents(replicas[1].Context(ctx), &apikeysv1.ListEventsRequest{After: beat.GetCursor()})
			if err != nil {
				t.Fatal(err)
			}
			if len(list.GetEvents()) != len(order) || len(all) != len(order) {
				t.Fatalf("%d events in the log, %d keys, %d seen", len(list.GetEvents()), len(all), len(order))
			}
			for i, e := range list.GetEvents() {
				if e.GetId() != order[i] || !all[e.GetResourceId()] {
					t.Errorf("event %d was %s, in the log it is %s of %s", i, order[i], e.GetId(), e.GetResourceId())
				}
			}
		})
	}
}
