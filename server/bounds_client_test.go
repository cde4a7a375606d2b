package server

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// client is a connection that is spoken over by hand.
type client struct {
	*boundedServer
	conn   net.Conn
	reader *bufio.Reader // HTTP/1.1

	// HTTP/2.
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	last   uint32 // the last stream, the one before the first at first
	// ended holds how each stream ended that was read of.
	ended map[uint32]string
	// window is what the client lets the server send on a stream.
	window uint32
}

// dial opens a connection and shakes hands.
func (s *boundedServer) dial() *client { return s.dialFrom("127.0.0.1", 1<<20) }

// dialFrom is dial from an address, with a window for the answers of each stream.
func (s *boundedServer) dialFrom(from string, window uint32) *client {
	s.t.Helper()
	c := &client{boundedServer: s, conn: s.bare(from), ended: make(map[uint32]string), window: window, last: ^uint32(0)}
	if s.secure {
		protocols := []string{"http/1.1"}
		if s.http2 {
			protocols = []string{"h2"}
		}
		secured := tls.Client(c.conn, &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1", NextProtos: protocols})
		if err := secured.HandshakeContext(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		c.conn = secured
	}
	if !s.http2 {
		c.reader = bufio.NewReader(c.conn)
		return c
	}
	c.framer = http2.NewFramer(c.conn, c.conn)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	c.must(io.WriteString(c.conn, http2.ClientPreface))
	c.check(c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}))
	return c
}

func (c *client) must(_ int, err error) { c.t.Helper(); c.check(err) }

func (c *client) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// call is what a client asks.
type boundedCall struct {
	method     string // of gRPC
	verb, path string // of REST
	credential string
	body       string
	// withheld is how many bytes of the body are announced and not sent.
	withheld int
	headers  []string // name, value, and so on
}

// list is a call that any operator may make.
var list = boundedCall{method: "ApiKeysService/ListApiKeys", verb: http.MethodGet, path: "/developers/api_keys?page_size=1"}

// as returns the call with a credential.
func (b boundedCall) as(credential string) boundedCall { b.credential = credential; return b }

// send sends a call and returns its stream.
func (c *client) send(b boundedCall) uint32 {
	c.t.Helper()
	stream, err := c.trySend(b)
	c.check(err)
	return stream
}

func (c *client) trySend(b boundedCall) (uint32, error) {
	if !c.http2 {
		return 0, c.sendHTTP1(b)
	}
	c.last += 2
	fields := []string{":method", b.verb, ":scheme", "http", ":path", b.path, ":authority", "a"}
	if c.rpc {
		fields = []string{":method", "POST", ":scheme", "http", ":path", "/" + b.method, ":authority", "a", "content-type", "application/grpc", "te", "trailers"}
		if !strings.HasPrefix(b.method, "grpc.") && !strings.HasPrefix(b.method, "envoy.") {
			fields[5] = "/apikeys.v1." + b.method
		}
	}
	if b.credential != "" {
		fields = append(fields, "authorization", "Bearer "+b.credential)
	}
	if b.body != "" && !c.rpc {
		fields = append(fields, "content-type", "application/json", "content-length", fmt.Sprint(len(b.body)+b.withheld))
	}
	c.block.Reset()
	for i, all := 0, append(fields, b.headers...); i < len(all); i += 2 {
		if err := c.enc.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}); err != nil {
			return 0, err
		}
	}
	body := []byte(b.body)
	if c.rpc {
		n := len(body) + b.withheld
		body = append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...)
	}
	if err := c.writeBlock(c.block.Bytes(), len(body) == 0 && b.withheld == 0); err != nil {
		return 0, err
	}
	for len(body) > 0 {
		n := min(len(body), 16<<10)
		if err := c.framer.WriteData(c.last, n == len(body) && b.withheld == 0, body[:n]); err != nil {
			return 0, err
		}
		body = body[n:]
	}
	return c.last, nil
}

// writeBlock writes a header block in as many frames as it needs.
func (c *client) writeBlock(block []byte, endStream bool) error {
	n := min(len(block), 16<<10)
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.last, BlockFragment: block[:n], EndStream: endStream, EndHeaders: n == len(block)})
	for block = block[n:]; err == nil && len(block) > 0; block = block[n:] {
		n = min(len(block), 16<<10)
		err = c.framer.WriteContinuation(c.last, n == len(block), block[:n])
	}
	return err
}

func (c *client) sendHTTP1(b boundedCall) error {
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: a\r\n", b.verb, b.path)
	if b.credential != "" {
		fmt.Fprintf(&head, "Authorization: Bearer %s\r\n", b.credential)
	}
	if n := len(b.body) + b.withheld; n > 0 {
		fmt.Fprintf(&head, "Content-Type: application/json\r\nContent-Length: %d\r\n", n)
	}
	for i := 0; i < len(b.headers); i += 2 {
		fmt.Fprintf(&head, "%s: %s\r\n", b.headers[i], b.headers[i+1])
	}
	_, err := io.WriteString(c.conn, head.String()+"\r\n"+b.body)
	return err
}

// The answers of every protocol in one set of words.
var statusWords = map[string]string{
	"0": "ok", "200": "ok", "16": "unauthenticated", "401": "unauthenticated", "8": "exhausted", "429": "exhausted",
	"3": "late", "4": "late", "400": "late", "431": "refused", "413": "exhausted",
}

// answer reads until a stream has ended and returns how: a word of statusWords,
// "reset", or "closed" where the connection ended first.
func (c *client) answer(stream uint32) string {
	c.t.Helper()
	if !c.http2 {
		status, _, err := readResponse(c.reader)
		if err != nil {
			c.checkTimeout(err)
			return "closed"
		}
		return word(fmt.Sprint(status))
	}
	for c.ended[stream] == "" {
		if err := c.readFrame(); err != nil {
			c.checkTimeout(err)
			return "closed"
		}
	}
	return c.ended[stream]
}

// readResponse reads an answer of HTTP/1.1 to its end. last says that the server
// closes the connection after it.
func readResponse(r *bufio.Reader) (status int, last bool, err error) {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, false, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Close, errors.Join(err, resp.Body.Close())
}

func word(status string) string {
	if w := statusWords[status]; w != "" {
		return w
	}
	return status
}

// checkTimeout fails the test where nothing came in all the time that a test has.
func (c *client) checkTimeout(err error) {
	c.t.Helper()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("nothing came for 10 seconds")
	}
}

// readFrame reads a frame and keeps what it says of the end of a stream.
func (c *client) readFrame() error {
	f, err := c.framer.ReadFrame()
	if err != nil {
		var stream http2.StreamError
		if errors.As(err, &stream) {
			return nil
		}
		return err
	}
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.MetaHeadersFrame:
		for _, field := range f.Fields {
			if field.Name == "grpc-status" || field.Name == ":status" && !c.rpc {
				c.ended[id] = word(field.Value)
			}
		}
	case *http2.DataFrame:
		if n := len(f.Data()); n > 0 && c.window > 0 {
			return c.framer.WriteWindowUpdate(0, uint32(n))
		}
	case *http2.RSTStreamFrame:
		if c.ended[id] == "" {
			c.ended[id] = "reset"
		}
	}
	return nil
}

// closed reads until the connection ends.
func (c *client) closed() {
	c.t.Helper()
	var err error
	for err == nil {
		if c.http2 {
			err = c.readFrame()
		} else {
			_, err = c.reader.ReadByte()
		}
	}
	c.checkTimeout(err)
}

// anyAnswer reads until any stream has ended, and returns how.
func (c *client) anyAnswer() string {
	c.t.Helper()
	for len(c.ended) == 0 {
		if err := c.readFrame(); err != nil {
			c.checkTimeout(err)
			return "closed"
		}
	}
	for _, how := range c.ended {
		return how
	}
	return ""
}

// answerOf reads the answer of the nth call, and reports whether there was one. It
// may run beside a goroutine that sends.
func (c *client) answerOf(n int) bool {
	if !c.http2 {
		_, _, err := readResponse(c.reader)
		return err == nil
	}
	for c.ended[uint32(2*n+1)] == "" {
		if f, err := c.framer.ReadFrame(); err != nil {
			return false
		} else if f.Header().Flags.Has(http2.FlagHeadersEndStream) && f.Header().Type == http2.FrameHeaders {
			c.ended[f.Header().StreamID] = "ended"
		}
	}
	return true
}

// prove makes a call with a good credential.
func (c *client) prove() {
	c.t.Helper()
	if got := c.answer(c.send(list.as(boundsToken))); got != "ok" {
		c.t.Fatalf("a good credential: %s", got)
	}
}
