package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// watching is a running `apikeys events watch`.
type watching struct {
	stdout *lines
	stderr bytes.Buffer // to be read once it has ended
	stop   context.CancelFunc
	done   chan error
}

func startWatching(t *testing.T, args ...string) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := &watching{stdout: newLines(t), stop: cancel, done: make(chan error, 1)}
	go func() {
		w.done <- run(ctx, append([]string{"events", "watch"}, args...), []string{"APIKEYS_TOKEN=" + servertest.RootToken}, streams{stdout: w.stdout, stderr: &w.stderr})
		w.stdout.pipe.Close()
	}()
	return w
}

// A server that is killed in the middle of its stream comes back, and what
// follows follows.
func TestWatchSurvivesAKill(t *testing.T) {
	t.Parallel()
	hold := func(req *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse], cursors ...string) error {
		for _, cursor := range cursors {
			if err := stream.Send(change(cursor)); err != nil {
				return err
			}
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	first, address := serveFeed(t, "127.0.0.1:0", feed{watch: func(req *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
		return hold(req, stream, "a", "b")
	}})
	w := startWatching(t, "--server", address, "-o", "json")
	for _, want := range []string{"a", "b"} {
		if got := w.stdout.event(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	first.Stop()
	serveFeed(t, address, feed{watch: func(req *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
		return hold(req, stream, "after "+req.GetAfter())
	}})
	if got := w.stdout.event(); got != "after b" {
		t.Errorf("got %s", got)
	}
	w.stop()
	if err := <-w.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	want := regexp.MustCompile(`^apikeys: connection lost, connecting again: .*\napikeys: connected again\napikeys: to go on from here: --after=after b\n$`)
	if !want.MatchString(w.stderr.String()) {
		t.Errorf("told %s", w.stderr.String())
	}
}

// The real server stops and starts again, and nothing of what happens before,
// meanwhile and afterwards is missing or comes twice.
func TestWatchSurvivesARestart(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), "127.0.0.1:0"
	start := func() *servertest.Server {
		return servertest.Start(t, func(c *server.Config) { c.DataDir, c.GRPCAddr = dir, address })
	}
	create := func(s *servertest.Server) string {
		t.Helper()
		answer, err := s.Keys.CreateApiKey(s.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{Label: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetApiKey().GetId()
	}
	s := start()
	address = s.Conn.Target()
	want := []string{create(s)}
	w := startWatching(t, "--server", address, "--after=start")
	if head := w.stdout.next(); !strings.HasPrefix(head, "TIME (UTC) ") {
		t.Errorf("head: %s", head)
	}
	var got []string
	read := func() { got = append(got, strings.Fields(w.stdout.next())[3]) }
	read()
	want = append(want, create(s))
	read()
	s.Stop()
	s = start()
	want = append(want, create(s), create(s))
	read()
	read()
	w.stop()
	if err := <-w.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resources (-want +got)\n%s", diff)
	}
	if _, more := <-w.stdout.c; more {
		t.Error("there was more")
	}
	// The place that it told is a place to go on from.
	cursor := regexp.MustCompile(`--after=(\S+)`).FindStringSubmatch(w.stderr.String())
	if cursor == nil {
		t.Fatalf("told %s", w.stderr.String())
	}
	last := create(s)
	again := startWatching(t, "--server", address, "--after="+cursor[1])
	again.stdout.next()
	if line := again.stdout.next(); !strings.Contains(line, last) {
		t.Errorf("went on with %s", line)
	}
	again.stop()
	if err := <-again.done; err != nil {
		t.Error(err)
	}
}

// What a server refuses for good ends a watch with one line that says so.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		err    error
		args   []string
		report string
		notes  string
	}{
		{"unauthenticated", fault(t, codes.Unauthenticated, "The key was revoked.", "UNAUTHENTICATED"), nil,
			"apikeys: The key was revoked (UNAUTHENTICATED, support_1); log in again with apikeys login, or set APIKEYS_TOKEN\n", "apikeys: to go on from here: --after=a\n"},
		{"denied", fault(t, codes.PermissionDenied, "The scope is missing.", "INSUFFICIENT_SCOPE"), nil,
			"apikeys: The scope is missing (INSUFFICIENT_SCOPE, support_1); apikeys me shows what this token may do\n", "apikeys: to go on from here: --after=a\n"},
		{"expired", fault(t, codes.OutOfRange, "The cursor is too old.", "CURSOR_EXPIRED"), nil,
			"apikeys: The cursor is too old (CURSOR_EXPIRED, support_1); what is still kept follows --after=old\n", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, address := serveFeed(t, "127.0.0.1:0", feed{watch: func(_ *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
				if err := stream.Send(heartbeat("a")); err != nil {
					return err
				}
				return c.err
			}})
			w := startWatching(t, "--server", address, "-o", "json")
			w.stdout.next()
			err := <-w.done
			var reported bytes.Buffer
			report(&reported, err)
			if reported.String() != c.report || w.stderr.String() != c.notes || exitCode(err) != 1 {
				t.Errorf("%d: reported %s, told %s", exitCode(err), reported.String(), w.stderr.String())
			}
		})
	}
	w := startWatching(t, "--server=127.0.0.1:1")
	if err := <-w.done; err == nil || !strings.Contains(err.Error(), "127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused") {
		t.Errorf("no server: %v", err)
	}
}
