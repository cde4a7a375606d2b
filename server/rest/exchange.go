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

// An exchange is one request on its way through the Handler, and its answer. The
// exchange travels in the context and is never used again, because the gRPC API may
// still hold the context when the answer is out.
type exchange struct {
	h      *Handler
	w      http.ResponseWriter
	r      *http.Request // as it came
	method string        // its method; GET for HEAD
	route  *route        // nil where the path has none for the method
	done   bool          // an answer was begun
	csv    bool          // the answer is to be CSV
	// bodyRead is set once the body begins to be read.
	bodyRead bool
	// bodyLate is set where the body did not arrive in time.
	bodyLate bool
	// onConnection is what the connection knows of the exchange.
	onConnection connection.Call

	*buffers
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// buffers are the memory that an exchange reads into and writes from.
type buffers struct {
	in  bytes.Buffer
	out []byte
}

// bufferPool keeps the buffers of exchanges that ended for those that come.
var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

// end answers what a panic left unanswered, or cuts off the answer that it
// broke into, and gives the memory back.
func (e *exchange) end() {
	const largest = 64 << 10 // one huge body must not stay in memory for good
	if v := recover(); v != nil {
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
		f := &failure{status: http.StatusInternalServerError, cause: fmt.Errorf("panic: %v\n%s", v, debug.Stack())}
		if e.done {
			_ = e.settle(f)
			panic(http.ErrAbortHandler)
		}
		e.fail(f)
		return // what panicked may hold the memory still
	}
	if e.r.ProtoMajor == 1 {
		// The next request is given a deadline of its own; what net/http itself answers
		// must not meet this one's. Over HTTP/2 it ends with the stream.
		_ = http.NewResponseController(e.w).SetWriteDeadline(time.Time{})
	}
	if e.in.Cap() <= largest && cap(e.out) <= largest {
		bufferPool.Put(e.buffers)
	}
}

// succeed answers 200. data is what the envelope holds, tail its rest.
func (e *exchange) succeed(data, tail string) {
	e.out = append(append(append(e.out[:0], head...), data...), tail...)
	e.write(http.StatusOK)
}

// success builds the envelope of an answer and sets the headers that go with
// it. The router writes it.
func (e *exchange) success(m proto.Message) {
	msg := m.ProtoReflect()
	if e.route.oauth {
		e.out = appendBare(e.out[:0], msg)
		e.onConnection.Hold(len(e.out))
		e.done = true
		return
	}
	e.out = append(e.out[:0], head...)
	data := msg
	if fd := e.route.data; fd == nil {
		e.out = wirejson.Append(e.out, m)
	} else {
		e.out = wirejson.AppendField(e.out, msg, fd)
	}
	e.out = append(e.out, e.route.tail...)
	if e.csv {
		e.out = e.csvOf(msg)
	}
	e.onConnection.Hold(len(e.out))
	if fd := e.route.etag; fd != nil {
		if e.route.data != nil {
			data = msg.Get(e.route.data).Message()
		}
		if etag := data.Get(fd).String(); etag != "" {
			e.w.Header().Set("ETag", `"`+etag+`"`)
		}
	}
	if fd := e.route.next; fd != nil {
		if token := msg.Get(fd).String(); token != "" {
			e.w.Header().Set("X-Next-Page-Token", token)
			e.w.Header().Set("Link", nextLink(e.r.URL, token))
		}
	}
	if fd := e.route.total; fd != nil {
		e.w.Header().Set("X-Total-Count", strconv.FormatInt(msg.Get(fd).Int(), 10))
	}
	e.done = true
}

// write sends what out holds.
func (e *exchange) write(status int) {
	e.done = true
	e.w.Header().Set("Content-Length", strconv.Itoa(len(e.out)))
	e.w.WriteHeader(status)
	if e.r.Method != http.MethodHead {
		e.onConnection.Hold(len(e.out))
		_, _ = e.w.Write(e.out) // the client has gone; there is nobody to tell
	}
}

// nextLink is the Link of the next page: the same query with another token.
func nextLink(u *url.URL, token string) string {
	query := u.Query()
	query.Set("page_token", token)
	return "<" + u.EscapedPath() + "?" + query.Encode() + `>; rel="next"`
}

// canonicalPath reports whether a path is one that a route can have. An empty
// segment, a dot or an escaped slash would mean another path to some proxy than
// to us, so they mean none.
func canonicalPath(u *url.URL) bool {
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

// context is the context of the request with what the gRPC API is told of it: its
// client and its connection.
func (e *exchange) context() context.Context {
	return authn.WithClient(connection.NewCall(e.r.Context(), &e.onConnection), clientOf(e.r))
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
