package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// A follower is a client that watches through all kills, and begins again after the
// last cursor that it has taken.
type follower struct {
	servertest.History
	transport transport
	from      string // what it names as long as it has no cursor
	slow      int    // calls of the writers that it lets pass between messages
	cut       int    // messages after which it cuts its connection, about
	late      int    // calls that it lets pass before it connects to another process

	messages []followed
	lost     int // connections to processes that were killed
}

// A followed message is one that a follower took; id is the event's, if it has one.
type followed struct{ cursor, id string }

// prompt reports whether it may be waited for.
func (f *follower) prompt() bool { return f.slow == 0 && f.late == 0 }

// cursor is where it goes on, empty at its first connection.
func (f *follower) cursor() string {
	if n := len(f.messages); n > 0 {
		return f.messages[n-1].cursor
	}
	return ""
}

// errGone is the end of a connection to a process that was killed.
var errGone = errors.New("the server is gone")

// follow watches until everything is over and nothing follows.
func (f *follower) follow(ctx context.Context, s *env, random *rand.Rand) error {
	s.pass(f.late)
	for gone := 0; ; {
		p, nth, err := s.after(gone)
		if err != nil {
			return err
		}
		end, err := f.connect(ctx, s, p, random)
		switch {
		case errors.Is(err, errGone):
			gone = nth
			f.lost++
			s.pass(f.late)
		case err != nil || end:
			return err
		}
	}
}

// connect follows over one connection, and reports whether that was to the end.
func (f *follower) connect(ctx context.Context, s *env, p *process, random *rand.Rand) (end bool, err error) {
	taken, most := 0, 1+random.IntN(2*f.cut+1)
	for m, fault := range f.transport(ctx, p, f) {
		if fault != nil {
			return false, fault
		}
		if taken++; taken == 1 {
			if m.id != "" {
				return false, fmt.Errorf("a connection begins with the event %s", m.id)
			}
			s.meet(f, p)
		}
		f.messages = append(f.messages, m)
		if m.id == "" && s.isOver() {
			next, err := p.eventsAfter(ctx, m.cursor, 1)
			if err != nil || len(next) == 0 {
				return true, err
			}
		}
		if f.cut > 0 && taken == most {
			return false, nil
		}
		s.pass(f.slow)
	}
	return false, errors.New("a stream ended without an error")
}

// eventsAfter lists up to n events of all organizations after a cursor.
func (p *process) eventsAfter(ctx context.Context, cursor string, n int32) ([]*apikeysv1.Event, error) {
	resp, err := apikeysv1.NewEventsServiceClient(p.conn).ListEvents(as(ctx, ""), &apikeysv1.ListEventsRequest{After: cursor, PageSize: n})
	return resp.GetEvents(), err
}

// readLog reads the whole log, and gives each event its number for a position.
func readLog(ctx context.Context, t *testing.T, p *process) (log []servertest.Logged) {
	t.Helper()
	for after := "start"; ; {
		events, err := p.eventsAfter(ctx, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 {
			return log
		}
		for _, e := range events {
			log = append(log, servertest.Logged{
				Position: int64(len(log) + 1), ID: e.GetId(), Organization: e.GetOrganizationId(), Type: e.GetType(), Resource: e.GetResourceId(),
			})
			after = e.GetCursor()
		}
	}
}

// place writes down the history. The place of an event is that in the log. That of
// a heartbeat's cursor, which nobody but the server can read, is before the first
// event that the list has after it.
func (f *follower) place(ctx context.Context, t *testing.T, p *process, log []servertest.Logged) {
	t.Helper()
	position := make(map[string]int64, len(log))
	for _, e := range log {
		position[e.ID] = e.Position
	}
	for i, m := range f.messages {
		at, ok := position[m.id]
		if m.id == "" {
			next, err := p.eventsAfter(ctx, m.cursor, 1)
			if err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			if at, ok = int64(len(log)), true; len(next) > 0 {
				at, ok = position[next[0].GetId()]-1, true
			}
		}
		if !ok {
			t.Errorf("%s: the event %s is not in the log", f.Name, m.id)
			continue
		}
		if i == 0 && f.from == "" {
			f.From = at
		}
		f.Seen = append(f.Seen, servertest.Seen{Position: at, ID: m.id})
	}
}

// A transport is a way to follow: one connection of f to p, until it is left or fails.
type transport func(ctx context.Context, p *process, f *follower) iter.Seq2[followed, error]

// overGRPC follows with the service's own client, over a connection of its own.
func overGRPC(ctx context.Context, p *process, f *follower) iter.Seq2[followed, error] {
	return func(yield func(followed, error) bool) {
		conn, err := grpc.NewClient(p.conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			yield(followed{}, err)
			return
		}
		defer conn.Close()
		req := &apikeysv1.WatchEventsRequest{After: f.from, Types: f.Types, ResourceIds: f.Resources, HeartbeatSeconds: proto.Int32(1)}
		if f.cursor() != "" {
			req.After = f.cursor()
		}
		stream, err := apikeysv1.NewEventsServiceClient(conn).WatchEvents(as(ctx, f.Organization), req)
		for err == nil {
			var m *apikeysv1.WatchEventsResponse
			if m, err = stream.Recv(); err == nil && !yield(followed{m.GetCursor(), m.GetEvent().GetId()}, nil) {
				return
			}
		}
		if status.Code(err) == codes.Unavailable {
			err = fmt.Errorf("%w: %w", errGone, err)
		}
		yield(followed{}, err)
	}
}

// overLines follows newline-delimited JSON, and names its cursor in the query.
func overLines(ctx context.Context, p *process, f *follower) iter.Seq2[followed, error] {
	after := f.from
	if f.cursor() != "" {
		after = f.cursor()
	}
	header := http.Header{"Accept": {"application/x-ndjson"}}
	return overREST(ctx, p, f, after, header, func(lines *bufio.Reader) (m followed, err error) {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return m, cutOff(err) // A line without its end is none.
		}
		var content struct {
			Cursor string
			Event  struct{ ID, Cursor string }
		}
		if err := json.Unmarshal(line, &content); err != nil || content.Cursor == "" {
			return m, fmt.Errorf("the line %s: %w", line, err)
		}
		if e := content.Event; e.ID != "" && e.Cursor != content.Cursor {
			return m, fmt.Errorf("two cursors in %s", line)
		}
		return followed{content.Cursor, content.Event.ID}, nil
	})
}

// overSSE follows Server-Sent Events as an EventSource does: the URL stays, and
// Last-Event-ID moves.
func overSSE(ctx context.Context, p *process, f *follower) iter.Seq2[followed, error] {
	header := http.Header{"Accept": {"text/event-stream"}}
	if f.cursor() != "" {
		header.Set("Last-Event-ID", f.cursor())
	}
	return overREST(ctx, p, f, f.from, header, func(lines *bufio.Reader) (m followed, err error) {
		var event struct{ ID, Cursor, Type string }
		var kind string
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return m, cutOff(err) // A block without its end is none.
			}
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch {
			case name == "id":
				m.cursor = value
			case name == "event":
				kind = value
			case name == "data":
				if err := json.Unmarshal([]byte(value), &event); err != nil {
					return m, fmt.Errorf("the data %s: %w", value, err)
				}
				m.id = event.ID
			case line != "\n": // a comment
			case m.cursor == "" || event.Type != kind || m.id != "" && event.Cursor != m.cursor:
				return m, fmt.Errorf("a block of type %q, %+v, %+v", kind, m, event)
			default:
				return m, nil
			}
		}
	})
}

// cutOff returns what the end of an answer's body means. A server that is killed has
// no time to end it well.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("a stream ended well, without saying why")
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// overREST follows over REST, where read reads each message.
func overREST(ctx context.Context, p *process, f *follower, after string, header http.Header, read func(*bufio.Reader) (followed, error)) iter.Seq2[followed, error] {
	return func(yield func(followed, error) bool) {
		fail := func(err error) { yield(followed{}, err) }
		query := url.Values{"types": f.Types, "resource_ids": f.Resources, "heartbeat_seconds": {"1"}}
		if after != "" {
			query.Set("after", after)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.rest+"/developers/events/watch?"+query.Encode(), nil)
		if err != nil {
			fail(err)
			return
		}
		req.Header = header
		req.Header.Set("Authorization", "Bearer "+crashToken)
		req.Header.Set("X-Organization-Id", cmp.Or(f.Organization, "*"))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			fail(fmt.Errorf("%w: %w", errGone, err))
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			answer, _ := io.ReadAll(resp.Body)
			fail(fmt.Errorf("%s: %s", resp.Status, answer))
			return
		}
		for lines := bufio.NewReader(resp.Body); ; {
			m, err := read(lines)
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}
