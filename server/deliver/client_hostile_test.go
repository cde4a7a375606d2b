package deliver

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

var quiet = log.New(io.Discard, "", 0)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// rawServe runs an endpoint that speaks for itself, connection n in a goroutine
// of its own, and returns its url.
func rawServe(t *testing.T, handle func(conn net.Conn, n int)) string {
	t.Helper()
	listener := listen(t, "127.0.0.1:0")
	var running sync.WaitGroup
	running.Go(func() {
		for n := 0; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				handle(conn, n)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return "http://" + listener.Addr().String() + "/hook?token=hunter2"
}

// readRequest takes one request, whole, and reports whether there was one.
func readRequest(t *testing.T, conn net.Conn) bool {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	return err == nil
}

// flood writes text over and over until the other side has had enough, and
// returns how many bytes that took.
func flood(conn net.Conn, text string, limit int) int {
	chunk := []byte(strings.Repeat(text, max(1, (16<<10)/len(text))))
	sent := 0
	for sent < limit {
		n, err := conn.Write(chunk)
		sent += n
		if err != nil {
			break
		}
	}
	return sent
}

const gigabyte = 1 << 30

func TestHostileEndpoints(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(make([]byte, 20<<20))
	z.Close()

	say := func(text string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, text) } }
	cases := []struct {
		name   string
		answer func(net.Conn)
		status int
		class  webhook.ErrorClass
		body   int // the bytes that are read
	}{
		{"a gigabyte", func(c net.Conn) {
			io.WriteString(c, ok+"Content-Length: 1073741824\r\n\r\n")
			if n := flood(c, "x", gigabyte); n > 64<<20 {
				t.Errorf("%d bytes were taken", n)
			}
		}, 200, "", maxResponseBody},
		{"a gigabyte in chunks", func(c net.Conn) {
			io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n")
			flood(c, "4\r\nxxxx\r\n", gigabyte)
		}, 200, "", maxResponseBody},
		{"a gigabyte of failure", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Length: 1073741824\r\n\r\n")
			flood(c, "x", gigabyte)
		}, 500, webhook.ClassHTTPStatus, maxResponseBody},
		{"a gzip bomb", func(c net.Conn) {
			io.WriteString(c, ok+"Content-Encoding: gzip\r\nConnection: close\r\n\r\n")
			c.Write(bomb.Bytes())
		}, 200, "", min(bomb.Len(), maxResponseBody)},
		{"20 MB of headers", func(c net.Conn) {
			io.WriteString(c, ok)
			if n := flood(c, "X-Padding: "+strings.Repeat("x", 1000)+"\r\n", 20<<20); n >= 20<<20 {
				t.Error("all headers were taken")
			}
		}, 0, webhook.ClassInvalidResponse, 0},
		{"one header without an end", func(c net.Conn) {
			io.WriteString(c, ok+"X-Padding: ")
			flood(c, "x", 20<<20)
		}, 0, webhook.ClassInvalidResponse, 0},
		{"a status line without an end", func(c net.Conn) { flood(c, "H", 20<<20) }, 0, webhook.ClassInvalidResponse, 0},
		{"trailers without an end", func(c net.Conn) {
			io.WriteString(c, ok+"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n")
			flood(c, "X: "+strings.Repeat("x", 1000)+"\r\n", 20<<20)
		}, 200, webhook.ClassInvalidResponse, 0},
		{"a flood of 103", func(c net.Conn) { flood(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 20<<20) }, 0, webhook.ClassInvalidResponse, 0},
		{"a flood of 100", func(c net.Conn) { flood(c, "HTTP/1.1 100 Continue\r\n\r\n", 20<<20) }, 0, webhook.ClassInvalidResponse, 0},
		{"a 102, then 200", say("HTTP/1.1 102 Processing\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nok"), 200, "", 2},
		{"101 and the connection", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.Copy(io.Discard, c)
		}, 101, webhook.ClassHTTPStatus, 0},
		{"HTTP/1.0", say("HTTP/1.0 200 OK\r\n\r\nold but good"), 200, "", 12},
		{"HTTP/0.9", say("<html>"), 0, webhook.ClassInvalidResponse, 0},
		{"another protocol", say("220 mail.example ESMTP\r\n"), 0, webhook.ClassInvalidResponse, 0},
		{"two lengths", say(ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk"), 0, webhook.ClassInvalidResponse, 0},
		{"a status of four digits", say("HTTP/1.1 2000 OK\r\n\r\n"), 0, webhook.ClassInvalidResponse, 0},
		{"closed without a word", func(net.Conn) {}, 0, webhook.ClassConnectionFailed, 0},
		{"closed within the headers", say(ok + "X: y\r\n"), 0, webhook.ClassConnectionFailed, 0},
		{"closed within a header", say(ok + "Content-Le"), 0, webhook.ClassInvalidResponse, 0},
		{"closed within the body", say(ok + "Content-Length: 10\r\n\r\nhalf"), 200, webhook.ClassConnectionFailed, 4},
		{"closed within a chunk", say(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nha"), 200, webhook.ClassConnectionFailed, 2},
		{"closed within the body of a failure", say("HTTP/1.1 503 No\r\nContent-Length: 10\r\n\r\nhalf"), 503, webhook.ClassHTTPStatus, 4},
		{"reset", func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, 0, webhook.ClassConnectionFailed, 0},
		{"an answer and junk behind it", say(ok + "Content-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\n\r\n"), 200, "", 2},
		{"204 with a body", say("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"), 204, "", 0},
		{"a redirect", say("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"), 302, webhook.ClassHTTPStatus, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			url := rawServe(t, func(conn net.Conn, _ int) {
				readRequest(t, conn)
				c.answer(conn)
			})
			client := localClient(t, ClientConfig{})
			defer client.Close()
			o := send(t, client, url)
			if o.Status != c.status || o.Failure.Class != c.class || len(o.Body) != c.body {
				t.Errorf("status %d, %d bytes, %+v", o.Status, len(o.Body), o.Failure)
			}
		})
	}
}

// Whatever takes too long ends with the attempt's time, at any point of it.
func TestEndpointsThatTakeTheirTime(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	cases := []struct {
		name   string
		answer func(net.Conn)
		status int
		class  webhook.ErrorClass
	}{
		{"never", func(c net.Conn) { io.Copy(io.Discard, c) }, 0, webhook.ClassTimeout},
		{"no end of the headers", func(c net.Conn) {
			io.WriteString(c, ok+"X: y\r\n")
			io.Copy(io.Discard, c)
		}, 0, webhook.ClassTimeout},
		{"no body", func(c net.Conn) {
			io.WriteString(c, ok+"Content-Length: 5\r\n\r\n")
			io.Copy(io.Discard, c)
		}, 200, webhook.ClassTimeout},
		{"half a body", func(c net.Conn) {
			io.WriteString(c, ok+"Content-Length: 5\r\n\r\nhe")
			io.Copy(io.Discard, c)
		}, 200, webhook.ClassTimeout},
		{"half the body of a failure", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nhe")
			io.Copy(io.Discard, c)
		}, 500, webhook.ClassHTTPStatus},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := rawServe(t, func(conn net.Conn, _ int) {
				readRequest(t, conn)
				c.answer(conn)
			})
			o := send(t, localClient(t, ClientConfig{Timeout: 400 * time.Millisecond}), url)
			if o.Status != c.status || o.Failure.Class != c.class {
				t.Errorf("got %+v", o)
			}
		})
	}
}

// A body that comes byte by byte keeps every single read short; only the time of
// the whole attempt ends it.
func TestDrip(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	url := rawServe(t, func(conn net.Conn, _ int) {
		readRequest(t, conn)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(conn, "1\r\nx\r\n"); err != nil {
				close(release)
				return
			}
		}
	})
	o := send(t, localClient(t, ClientConfig{Timeout: 400 * time.Millisecond}), url)
	if o.Status != 200 || o.Failure.Class != webhook.ClassTimeout || len(o.Body) == 0 {
		t.Errorf("got %+v", o)
	}
	<-release
}
