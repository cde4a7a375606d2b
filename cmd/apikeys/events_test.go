package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// lines is an output that is read line by line while it is written.
type lines struct {
	t    *testing.T
	pipe *io.PipeWriter
	c    chan string
}

func newLines(t *testing.T) *lines {
	read, write := io.Pipe()
	l := &lines{t: t, pipe: write, c: make(chan string)}
	go func() {
		defer close(l.c)
		for {
			var line []byte
			for b := make([]byte, 1); ; line = append(line, b[0]) {
				if _, err := read.Read(b); err != nil {
					return
				} else if b[0] == '\n' {
					break
				}
			}
			l.c <- string(line)
		}
	}()
	return l
}

func (l *lines) Write(data []byte) (int, error) { return l.pipe.Write(data) }

// next returns the next line.
func (l *lines) next() string {
	l.t.Helper()
	select {
	case line, ok := <-l.c:
		if !ok {
			l.t.Fatal("the output has ended")
		}
		return line
	case <-time.After(20 * time.Second):
		l.t.Fatal("no line came")
		return ""
	}
}

// event returns the type of the event in the next line of JSON that has one.
func (l *lines) event() string {
	l.t.Helper()
	for {
		var m struct {
			Cursor string
			Event  *struct{ Type, Resource_ID string }
		}
		line := l.next()
		if err := json.Unmarshal([]byte(line), &m); err != nil || m.Cursor == "" {
			l.t.Fatalf("not a message: %s", line)
		}
		if m.Event != nil {
			return m.Event.Type
		}
	}
}

// feed is a fake service of events.
type feed struct {
	apikeysv1.UnimplementedEventsServiceServer
	watch func(*apikeysv1.WatchEventsRequest, grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error
}

func (f feed) WatchEvents(req *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
	return f.watch(req, stream)
}

func (f feed) ListEvents(ctx context.Context, _ *apikeysv1.ListEventsRequest) (*apikeysv1.ListEventsResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return nil, status.Error(codes.Internal, strings.Join(append(md["authorization"], md["x-organization-id"]...), ", "))
}

// serveFeed serves a fake at address, which may be on port 0, and returns the
// server and its address.
func serveFeed(t *testing.T, address string, f feed, options ...grpc.ServerOption) (*grpc.Server, string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	apikeysv1.RegisterEventsServiceServer(s, f)
	go s.Serve(listener)
	t.Cleanup(s.Stop)
	return s, listener.Addr().String()
}

func heartbeat(cursor string) *apikeysv1.WatchEventsResponse {
	return &apikeysv1.WatchEventsResponse{Cursor: cursor}
}

func change(cursor string) *apikeysv1.WatchEventsResponse {
	return &apikeysv1.WatchEventsResponse{Cursor: cursor, Event: &apikeysv1.Event{Type: cursor, Cursor: cursor}}
}

// fault is an error as our server makes it.
func fault(t *testing.T, code codes.Code, message, reason string, details ...protoadapt.MessageV1) error {
	t.Helper()
	info := &errdetails.ErrorInfo{Domain: "apikeys", Reason: reason, Metadata: map[string]string{"oldest": "old"}}
	ids := &errdetails.RequestInfo{ServingData: "support_1"}
	st, err := status.New(code, message).WithDetails(append(details, info, ids)...)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

func TestListEvents(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	ctx := s.Context(t.Context())
	for _, organization := range []string{"org_default", "org_default", "org_b"} {
		if _, err := s.Keys.CreateApiKey(s.Context(t.Context(), "x-organization-id", organization), &apikeysv1.CreateApiKeyRequest{Label: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := s.Keys.ListApiKeys(ctx, &apikeysv1.ListApiKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first := keys.GetApiKeys()[0].GetId()
	mask := &fieldmaskpb.FieldMask{Paths: []string{"label", "description"}}
	if _, err := s.Keys.UpdateApiKey(ctx, &apikeysv1.UpdateApiKeyRequest{Id: first, ApiKey: &apikeysv1.ApiKey{Label: "y", Description: "z"}, UpdateMask: mask}); err != nil {
		t.Fatal(err)
	}
	list := func(args ...string) (stdout, stderr string) {
		t.Helper()
		var out, notes bytes.Buffer
		args = append([]string{"events", "list", "--server", s.Conn.Target()}, args...)
		if err := run(t.Context(), args, []string{"APIKEYS_TOKEN=" + servertest.RootToken}, streams{stdout: &out, stderr: &notes}); err != nil {
			t.Fatal(err)
		}
		return out.String(), notes.String()
	}

	var events []json.RawMessage
	s.Call(t, "GET", "/developers/events", "").Into(t, &events)
	got, notes := list("-o", "jsonl")
	if notes != "" {
		t.Errorf("told %s", notes)
	}
	// Cursors of one place differ.
	cursor := regexp.MustCompile(`"cursor":"[^"]*"`)
	var want strings.Builder
	for _, e := range events {
		fmt.Fprintf(&want, "%s\n", e)
	}
	if diff := cmp.Diff(cursor.ReplaceAllString(want.String(), ""), cursor.ReplaceAllString(got, "")); diff != "" || len(events) != 3 {
		t.Errorf("%d events, not as REST has them (-want +got)\n%s", len(events), diff)
	}

	got, _ = list("--type=api_key.updated", "--resource", first)
	rows := strings.Split(strings.TrimSpace(got), "\n")
	if len(rows) != 2 || !strings.HasSuffix(rows[1], "  label,description") {
		t.Errorf("table:\n%s", got)
	} else if strings.Index(rows[0], "CHANGES") != strings.Index(rows[1], "label,description") || strings.Index(rows[0], "RESOURCE") != strings.Index(rows[1], first) {
		t.Errorf("not aligned:\n%s", got)
	}
	if got, _ = list("--organization=*"); strings.Count(got, "\n") != 6 || !strings.Contains(got, "  org_b  ") || !strings.Contains(got, "  -             root_token.used") || !strings.Contains(got, "  ORGANIZATION") {
		t.Errorf("all organizations:\n%s", got)
	}

	// By time, by actor, and from the newest on.
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--since=1h"}, 3}, {[]string{"--until=1h"}, 0}, {[]string{"--since=2000-01-01", "--until=2100-01-01 00:00:00"}, 3},
		{[]string{"--since=1d", "--actor=root"}, 3}, {[]string{"--actor=nobody"}, 0},
	} {
		got, _ := list(append(c.args, "-o", "jsonl")...)
		if n := strings.Count(got, "\n"); n != c.want {
			t.Errorf("%q: %d events, want %d", c.args, n, c.want)
		}
	}
	got, notes = list("--order=desc", "--limit=2", "-o", "jsonl")
	wantLines := strings.SplitAfter(cursor.ReplaceAllString(want.String(), ""), "\n")
	if diff := cmp.Diff(wantLines[2]+wantLines[1], cursor.ReplaceAllString(got, "")); diff != "" || !strings.Contains(notes, "raise --limit") {
		t.Errorf("%s; from the newest (-want +got)\n%s", notes, diff)
	}
	for _, args := range [][]string{{"--since=yesterday"}, {"--order=up"}} {
		err := run(t.Context(), append([]string{"events", "list"}, args...), nil, streams{stdout: io.Discard, stderr: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "must be") {
			t.Errorf("%q: %v", args, err)
		}
	}

	// Page after page is the whole.
	var all strings.Builder
	after := "start"
	for range 10 {
		page, notes := list("--limit=1", "-o", "jsonl", "--after="+after)
		all.WriteString(page)
		next := regexp.MustCompile(`--after=(\S+)`).FindStringSubmatch(notes)
		if next == nil {
			break
		}
		after = next[1]
	}
	if diff := cmp.Diff(cursor.ReplaceAllString(want.String(), ""), cursor.ReplaceAllString(all.String(), "")); diff != "" {
		t.Errorf("pages (-want +got)\n%s", diff)
	}
}

// A reader that has enough closes the pipe, and that is all right.
func TestClosedPipe(t *testing.T) {
	t.Parallel()
	_, address := serveFeed(t, "127.0.0.1:0", feed{watch: func(_ *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
		for stream.Send(change("a")) == nil {
		}
		return nil
	}})
	for _, fault := range []error{syscall.EPIPE, io.ErrClosedPipe, syscall.ENOSPC} {
		var notes bytes.Buffer
		out := streams{stdout: failing{fault}, stderr: &notes}
		err := run(t.Context(), []string{"events", "watch", "--server", address}, []string{"APIKEYS_TOKEN=t"}, out)
		if errors.Is(fault, syscall.ENOSPC) {
			if !errors.Is(err, fault) {
				t.Errorf("%v: %v", fault, err)
			}
		} else if err != nil || notes.Len() > 0 {
			t.Errorf("%v: %v, told %s", fault, err, notes.String())
		}
	}
}

type failing struct{ error }

func (f failing) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/dev/stdout", Err: f.error}
}

// The connection is what the settings say: encrypted, to the server that the
// authorities vouch for, with the token and the organization.
func TestConnectionWithTLS(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	_, address := serveFeed(t, "127.0.0.1:0", feed{}, grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0])))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--server grpcs://" + address + " --ca-file " + ca + " --organization org_b": "Bearer secret-token, org_b",
		"--server " + address + " --tls --ca-file " + ca:                             "Bearer secret-token",
		"--server https://" + address:                                                "certificate",
		"--server " + address:                                                        "does it want TLS (--tls)?",
	} {
		err := run(t.Context(), append([]string{"events", "list"}, strings.Fields(args)...), []string{"APIKEYS_TOKEN=secret-token"}, streams{stdout: io.Discard, stderr: io.Discard})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}
