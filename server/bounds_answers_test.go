package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestAnswerBounds is the part of the table about answers that nobody reads.
func TestAnswerBounds(t *testing.T) {
	testBounds(t, []bound{
		{"time to read an answer", boundAnswerTime},
		{"time to read a stream", boundStreamTime},
		{"bytes of answers of a caller", boundCallerAnswers},
		{"bytes of answers in all", boundAnswers},
		{"bytes of answers asked for at once", boundAnswersAtOnce},
		{"bytes of messages of a caller", boundMessages},
	})
	testBoundsOfMemory(t, []bound{{"time to read anything", boundReading}})
}

// boundAnswerTime asks for an answer and lets the server send none of it.
func boundAnswerTime(t *testing.T, p protocol, proven bool) {
	if !p.http2 {
		return // its answers are held up by the connection alone: see boundReading
	}
	s := startBounded(t, p, func(c *Config) { c.AnswerTimeout, c.CredentialTimeout = enough, enough })
	c := s.dialFrom("127.0.0.1", 0)
	stream := c.send(list.as(credentialOf(proven)))
	if p.rpc && !proven { // a refusal is no data
		if got := c.answer(stream); got != "unauthenticated" {
			t.Errorf("no credential: %s", got)
		}
	}
	if p.rpc || !proven {
		c.closed()
	} else if err := c.ends(stream); err != nil {
		t.Errorf("an answer that is not read: %v", err)
	}
	eventually(t, "the end of all answers", func() bool { return s.listeners.conns.AnswerBytes() == 0 })
}

// ends reads until a stream has been reset.
func (c *client) ends(stream uint32) error {
	for c.ended[stream] != "reset" {
		delete(c.ended, stream)
		if err := c.readFrame(); err != nil {
			return err
		}
	}
	return nil
}

// boundReading asks and asks, and never reads.
func boundReading(t *testing.T, p protocol, proven bool) {
	s := startBounded(t, p, func(c *Config) { c.AnswerTimeout, c.CredentialTimeout = 300*time.Millisecond, enough })
	before := liveMemory()
	c := s.dial()
	if p.http2 && !p.rpc { // Else streams end one after the other, before the system's room is used up.
		c.check(c.framer.WriteWindowUpdate(0, 1<<30))
	}
	go func() {
		for {
			if _, err := c.trySend(list.as(credentialOf(proven))); err != nil {
				return
			}
		}
	}()
	eventually(t, "a connection", func() bool { return s.listeners.conns.Len() == 1 })
	most := int64(0)
	var looked time.Time
	eventually(t, "its end", func() bool {
		if time.Since(looked) > 50*time.Millisecond { // each look is a collection, which holds the server up
			most = max(most, int64(liveMemory())-int64(before))
			looked = time.Now()
		}
		return s.listeners.conns.Len() == 0
	})
	if most > 64<<20 {
		t.Errorf("%d bytes were held", most)
	}
}

// boundStreamTime watches, and lets the server send nothing.
func boundStreamTime(t *testing.T, p protocol, proven bool) {
	if !p.http2 || !proven {
		return
	}
	s := startBounded(t, p, func(c *Config) { c.AnswerTimeout = enough })
	c := s.dialFrom("127.0.0.1", 0)
	stream := c.send(boundedCall{method: "EventsService/WatchEvents", verb: http.MethodGet, path: "/developers/events/watch?heartbeat_seconds=1"}.as(boundsToken))
	// The stream ends first. What it sent lies unread, and then the connection ends
	// over gRPC, where nothing else can end it.
	if p.rpc {
		s.fill()
		c.closed()
	} else if err := c.ends(stream); err != nil {
		t.Errorf("a stream that is not read: %v", err)
	}
}

// create returns a call that makes a key with a large resource.
func create(label string) boundedCall {
	text := strings.Repeat("x", 1900)
	metadata := make([]string, 16)
	for i := range metadata {
		metadata[i] = fmt.Sprintf(`"k%d": %q`, i, strings.Repeat("y", 490))
	}
	return boundedCall{
		verb: http.MethodPost, path: "/developers/api_keys",
		body: fmt.Sprintf(`{"label": %q, "description": %q, "scopes": ["api_keys.read"], "metadata": {%s}}`, label, text, strings.Join(metadata, ", ")),
	}.as(boundsToken)
}

// fill makes as many keys with large resources as a page of 1 MiB has room for.
func (s *boundedServer) fill() {
	s.t.Helper()
	rest := &boundedServer{Server: s.Server, protocol: protocol{secure: s.secure}, t: s.t, roots: s.roots}
	c := rest.dial()
	for i := range 130 {
		if got := c.answer(c.send(create(fmt.Sprint(i)))); got != "ok" {
			s.t.Fatalf("make a key: %s", got)
		}
	}
	c.conn.Close()
}

var page = boundedCall{method: "ApiKeysService/ListApiKeys", verb: http.MethodGet, path: "/developers/api_keys?page_size=1000", body: ""}

func boundCallerAnswers(t *testing.T, p protocol, proven bool) {
	testAnswers(t, p, proven, func(c *Config) { c.AnswerBytesPerCaller = 1 << 20 })
}

func boundAnswers(t *testing.T, p protocol, proven bool) {
	testAnswers(t, p, proven, func(c *Config) { c.AnswerBytesMax, c.AnswerBytesPerCaller = 1<<20, 1<<20 })
}

// testAnswers leaves pages unread until the caller is refused.
func testAnswers(t *testing.T, p protocol, proven bool, change func(*Config)) {
	if !proven || !p.http2 {
		return // the one has no answers of any size, the other one at a time
	}
	s := startBounded(t, p, change)
	s.fill()
	c := s.dialFrom("127.0.0.1", 0)
	var held int64
	for range 2 {
		c.send(page.as(boundsToken))
		held++
		eventually(t, "an answer under way", func() bool { return s.listeners.conns.AnswerBytes() >= held<<19 })
	}
	if most := s.listeners.conns.AnswerBytes(); most > 4<<20 {
		t.Errorf("%d bytes are under way", most)
	}
	if got := c.answer(c.send(page.as(boundsToken))); got != "exhausted" {
		t.Errorf("another answer: %s", got)
	}
	c.conn.Close()
	eventually(t, "the end of all answers", func() bool { return s.listeners.conns.AnswerBytes() == 0 })
	s.dial().prove()
}

// boundAnswersAtOnce asks for all pages before the first is answered, and reads none.
func boundAnswersAtOnce(t *testing.T, p protocol, proven bool) {
	if !proven || !p.http2 {
		return // as for testAnswers
	}
	s := startBounded(t, p, func(c *Config) { c.AnswerBytesPerCaller = 1 << 20 })
	s.fill()
	c := s.dialFrom("127.0.0.1", 0)
	const calls, most = 40, 10
	for range calls {
		c.send(page.as(boundsToken))
	}
	for refused := 0; refused < calls-most; {
		c.check(c.readFrame())
		refused = 0
		for _, code := range c.ended {
			if code == "exhausted" {
				refused++
			}
		}
	}
	if held := s.listeners.conns.AnswerBytes(); held > most<<20 {
		t.Errorf("%d bytes are under way", held)
	}
	c.conn.Close()
	eventually(t, "the end of all answers", func() bool { return s.listeners.conns.AnswerBytes() == 0 })
}

// boundMessages announces large messages and keeps back the end of each.
func boundMessages(t *testing.T, p protocol, proven bool) {
	if !proven {
		return // no message is read
	}
	s := startBounded(t, p, func(c *Config) { c.AnswerBytesPerCaller = 4 << 20 })
	large := boundedCall{
		method: "ApiKeysService/CreateApiKey", verb: http.MethodPost, path: "/developers/api_keys", body: "{", withheld: 1<<20 - 1,
	}.as(boundsToken)
	for held := range int64(2) {
		s.dial().send(large)
		eventually(t, "a message under way", func() bool { return s.listeners.conns.AnswerBytes() == (held+1)<<20 })
	}
	c := s.dial()
	if got := c.answer(c.send(large)); got != "exhausted" {
		t.Errorf("another message: %s", got)
	}
	s.dial().prove()
}

// TestUnknownMethodsLeaveNothing calls methods that there are not over one connection,
// without a credential.
func TestUnknownMethodsLeaveNothing(t *testing.T) {
	s := startBounded(t, protocols[0], func(*Config) {})
	c := s.dial()
	call := func(calls int) {
		for range calls {
			if got := c.answer(c.send(boundedCall{method: "ApiKeysService/Grant"})); got != "12" { // UNIMPLEMENTED
				t.Fatalf("answer %s", got)
			}
			clear(c.ended)
		}
	}
	call(100)
	before := liveMemory()
	call(5000)
	if grown := int64(liveMemory()) - int64(before); grown > 2<<20 {
		t.Errorf("%d bytes are kept", grown)
	}
}

// TestQuietStream watches where nothing happens: a deadline belongs to one write and
// ends with it, and the time for a request ends with the request.
func TestQuietStream(t *testing.T) {
	for _, p := range protocols {
		for _, format := range []string{"application/x-ndjson", "text/event-stream"} {
			t.Run(p.name+" "+format, func(t *testing.T) {
				t.Parallel()
				s := startBounded(t, p, func(c *Config) {
					c.AnswerTimeout, c.MessageTimeout, c.HeaderTimeout, c.CredentialTimeout = enough, enough, enough, enough
				})
				c := s.dial()
				watch := boundedCall{
					method: "EventsService/WatchEvents", verb: http.MethodGet, path: "/developers/events/watch?heartbeat_seconds=1",
					headers: []string{"accept", format}, credential: boundsToken,
				}
				if p.rpc {
					watch.body = "\x20\x01" // heartbeat_seconds: 1
				}
				c.send(watch)
				if beats := c.beats(4); beats != 4 {
					t.Errorf("%d heartbeats", beats)
				}
			})
		}
	}
}

// beats reads messages of a stream until there were most, or the stream has ended.
func (c *client) beats(most int) (n int) {
	for n < most {
		if !c.http2 {
			line, err := c.reader.ReadString('\n')
			if err != nil {
				return n
			}
			if strings.Contains(line, `"cursor"`) || strings.HasPrefix(line, "id: ") {
				n++
			}
			continue
		}
		f, err := c.framer.ReadFrame()
		if err != nil {
			return n
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			n++
		case *http2.RSTStreamFrame:
			return n
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return n
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.check(c.framer.WritePing(true, f.Data))
			}
		}
	}
	return n
}
