package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/connection"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// A call is one request on its way through the Handler. It travels in the
// context and is never used again, because the gRPC face may still hold the
// context when the answer is out.
type call struct {
	h     *Handler
	w     http.ResponseWriter
	r     *http.Request // as it came
	verb  string        // its method; GET for HEAD
	route *route        // nil where the path has none for the method
	done  bool          // an answer was begun
	// bodyRead is set once the body begins to be read.
	bodyRead bool
	// bodyLate is set where the body did not arrive in time.
	bodyLate bool
	// onConnection is what the connection knows of the call.
	onConnection connection.Call

	*space
}

type callKey struct{}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// A space is the memory that a call reads into and writes from.
type space struct {
	in  bytes.Buffer
	out []byte
}

// spaces keeps the memory of calls that ended for those that come.
var spaces = sync.Pool{New: func() any { return new(space) }}

// end answers what a panic left unanswered, or cuts off the answer that it
// broke into, and gives the memory back.
func (c *call) end() {
	const largest = 64 << 10 // one huge body must not stay in memory for good
	if v := recover(); v != nil {
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
		f := &failure{status: http.StatusInternalServerError, cause: fmt.Errorf("panic: %v\n%s", v, debug.Stack())}
		if c.done {
			_ = c.settle(f)
			panic(http.ErrAbortHandler)
		}
		c.fail(f)
		return // what panicked may hold the memory still
	}
	if c.r.ProtoMajor == 1 {
		// The next request is given a deadline of its own; what net/http itself answers
		// must not meet this one's. Over HTTP/2 it ends with the stream.
		_ = http.NewResponseController(c.w).SetWriteDeadline(time.Time{})
	}
	if c.in.Cap() <= largest && cap(c.out) <= largest {
		spaces.Put(c.space)
	}
}

// succeed answers 200. data is what the envelope holds, tail its rest.
func (c *call) succeed(data, tail string) {
	c.out = append(append(append(c.out[:0], head...), data...), tail...)
	c.write(http.StatusOK)
}

// success builds the envelope of an answer and sets the headers that go with
// it. The router writes it.
func (c *call) success(m proto.Message) {
	msg := m.ProtoReflect()
	c.out = append(c.out[:0], head...)
	data := msg
	if fd := c.route.data; fd == nil {
		c.out = wirejson.Append(c.out, m)
	} else {
		c.out = wirejson.AppendField(c.out, msg, fd)
	}
	c.out = append(c.out, c.route.tail...)
	c.onConnection.Hold(len(c.out))
	if fd := c.route.etag; fd != nil {
		if c.route.data != nil {
			data = msg.Get(c.route.data).Message()
		}
		if etag := data.Get(fd).String(); etag != "" {
			c.w.Header().Set("ETag", `"`+etag+`"`)
		}
	}
	if fd := c.route.next; fd != nil {
		if token := msg.Get(fd).String(); token != "" {
			c.w.Header().Set("X-Next-Page-Token", token)
			c.w.Header().Set("Link", nextLink(c.r.URL, token))
		}
	}
	c.done = true
}

// write sends what out holds.
func (c *call) write(status int) {
	c.done = true
	c.w.Header().Set("Content-Length", strconv.Itoa(len(c.out)))
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		c.onConnection.Hold(len(c.out))
		_, _ = c.w.Write(c.out) // the client has gone; there is nobody to tell
	}
}

// nextLink is the Link of the next page: the same query with another token.
func nextLink(u *url.URL, token string) string {
	query := u.Query()
	query.Set("page_token", token)
	return "<" + u.EscapedPath() + "?" + query.Encode() + `>; rel="next"`
}

// plainPath reports whether a path is one that a route can have. An empty
// segment, a dot or an escaped slash would mean another path to some proxy than
// to us, so they mean none.
func plainPath(u *url.URL) bool {
	if !strings.HasPrefix(u.Path, "/") || !utf8.ValidString(u.Path) {
		return false
	}
	if u.RawPath != "" && strings.Contains(strings.ToLower(u.RawPath), "%2f") {
		return false
	}
	for segment := range strings.SplitSeq(u.Path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// context is the context of the request with what the gRPC face is told of it: its
// client and its connection.
func (c *call) context() context.Context {
	return authn.WithClient(connection.NewCall(c.r.Context(), &c.onConnection), clientOf(c.r))
}

// clientOf is where a request came from: the peer of the connection, and what
// proxies say of whom they speak for. Which of it to believe is not decided
// here.
func clientOf(r *http.Request) authn.Client {
	client := authn.Client{ForwardedFor: r.Header["X-Forwarded-For"]}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		client.Addr = peer.Addr().Unmap().WithZone("")
	}
	return client
}
