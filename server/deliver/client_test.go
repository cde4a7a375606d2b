package deliver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// localClient returns a client that may call this machine, closed at the end.
func localClient(t *testing.T, c ClientConfig) *Client {
	t.Helper()
	c.Guard.Loopback = true
	client := NewClient(c)
	t.Cleanup(client.Close)
	return client
}

// serve runs an endpoint until the test is over and returns its url.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL + "/hook?token=hunter2"
}

// send makes one attempt. What it fails with never tells the url's query.
func send(t *testing.T, c *Client, url string) webhook.Outcome {
	t.Helper()
	w := testWebhook()
	body := []byte(`{"a":1}`)
	o, err := c.Send(t.Context(), url, w.Header(&webhook.Delivery{ID: "delivery_1", Format: webhook.FormatClassic}, body, testNow), body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(o.Failure.Message, "hunter2") {
		t.Errorf("the failure tells the query: %s", o.Failure.Message)
	}
	return o
}

func TestSend(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.WithoutCancel(r.Context()))
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "thanks")
	})
	o := send(t, localClient(t, ClientConfig{}), url)
	if !o.Acknowledged() || o.Status != 202 || string(o.Body) != "thanks" {
		t.Fatalf("got %+v", o)
	}
	if got.Method != http.MethodPost || got.URL.RequestURI() != "/hook?token=hunter2" || string(body) != `{"a":1}` || got.ContentLength != 7 {
		t.Errorf("sent %s %s %q", got.Method, got.URL, body)
	}
	if err := hooks.Verify(testSecret.Reveal(), got.Header, body, testNow); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{
		"Content-Type":        "application/json; charset=utf-8",
		"X-Webhook-Signature": hooks.SignClassic(testSecret, body),
		"X-Webhook-Timestamp": "2026-11-21 09:30:00.123",
		"X-Webhook-Delivery":  "delivery_1",
		"Webhook-Id":          "delivery_1",
		"Webhook-Timestamp":   "1795253400",
		"X-Tenant":            "hunter3",
		"User-Agent":          "apikeys-webhooks/1",
		"Accept-Encoding":     "",
		"Cookie":              "",
		"X-Idempotency-Key":   "",
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var code int
		for _, c := range r.URL.Query().Get("code") {
			code = code*10 + int(c-'0')
		}
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Set-Cookie", "a=b")
		if r.URL.Path == "/elsewhere" || r.Header.Get("Cookie") != "" {
			t.Errorf("a redirect was followed or a cookie kept: %s", r.URL)
		}
		w.WriteHeader(code)
	})
	client := localClient(t, ClientConfig{})
	for code, want := range map[string]webhook.Failure{
		"200": {}, "201": {}, "204": {}, "299": {},
		"301": {Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 301 Moved Permanently; redirects are not followed."},
		"302": {Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 302 Found; redirects are not followed."},
		"307": {Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 307 Temporary Redirect; redirects are not followed."},
		"410": {Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 410 Gone."},
		"429": {Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 429 Too Many Requests."},
		"500": {Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 500 Internal Server Error."},
		"599": {Class: webhook.ClassHTTPStatus, Message: "The endpoint answered 599."},
	} {
		if o := send(t, client, strings.Replace(url, "token", "code="+code+"&token", 1)); o.Failure != want {
			t.Errorf("%s: %+v", code, o.Failure)
		}
	}
}

// The environment is read once in a process, and never for loopback: no test
// can see a proxy at work.
func TestNoProxy(t *testing.T) {
	t.Parallel()
	if localClient(t, ClientConfig{}).transport.Proxy != nil {
		t.Error("the client has a proxy")
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = quiet
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	trusted := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	cases := []struct {
		name   string
		config ClientConfig
		url    string
		want   webhook.Failure
	}{
		{"a trusted authority", ClientConfig{RootCAs: trusted}, server.URL, webhook.Failure{}},
		{"an unknown authority", ClientConfig{}, server.URL, webhook.Failure{Class: webhook.ClassTLSError, Message: "The endpoint's certificate is signed by an unknown authority."}},
		{"another host", ClientConfig{RootCAs: trusted}, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), webhook.Failure{Class: webhook.ClassTLSError, Message: "The endpoint's certificate is for another host."}},
		{"no TLS", ClientConfig{}, strings.Replace(plain, "http:", "https:", 1), webhook.Failure{Class: webhook.ClassTLSError, Message: "The endpoint does not speak TLS."}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if o := send(t, localClient(t, c.config), c.url); o.Failure != c.want {
				t.Errorf("got %+v", o)
			}
		})
	}
}

func TestFailuresToConnect(t *testing.T) {
	t.Parallel()
	closed := listen(t, "127.0.0.1:0")
	closed.Close()
	if o := send(t, localClient(t, ClientConfig{}), "http://"+closed.Addr().String()); o.Failure.Class != webhook.ClassConnectionRefused {
		t.Errorf("refused: %+v", o)
	}
	strict := NewClient(ClientConfig{})
	defer strict.Close()
	for _, url := range []string{"https://127.0.0.1/?token=hunter2", "http://example.com/?token=hunter2", "https://[::1]/"} {
		if o := send(t, strict, url); o.Failure.Class != webhook.ClassBlockedAddress {
			t.Errorf("%s: %+v", url, o)
		}
	}
}

// A server that stops is no fault of the endpoint: nothing is to be counted.
func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	o, err := localClient(t, ClientConfig{}).Send(ctx, url, http.Header{}, nil)
	if !errors.Is(err, context.Canceled) || o.Status != 0 || !o.Acknowledged() {
		t.Errorf("got %+v, %v", o, err)
	}
}

// One attempt is one request. An endpoint that takes a request and ends the connection
// has had its attempt, however many connections to it are idle, and whatever the
// owner's headers say about repeating.
func TestOneAttemptIsOneRequest(t *testing.T) {
	t.Parallel()
	const idle = 20
	for name, header := range map[string]http.Header{
		"plain":             {},
		"Idempotency-Key":   {"Idempotency-Key": {"x"}},
		"X-Idempotency-Key": {"X-Idempotency-Key": {"x"}},
		"a nil key":         {"X-Idempotency-Key": nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var posts atomic.Int32
			all := make(chan struct{}) // closed when each connection has its first request
			url := rawServe(t, func(conn net.Conn, _ int) {
				readRequest(t, conn)
				if posts.Add(1) == idle {
					close(all)
				}
				<-all
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				if readRequest(t, conn) {
					posts.Add(1)
				}
			})
			client := localClient(t, ClientConfig{})
			var first sync.WaitGroup
			for range idle {
				first.Go(func() {
					if o, err := client.Send(t.Context(), url, header, []byte("{}")); err != nil || !o.Acknowledged() {
						t.Errorf("got %+v, %v", o, err)
					}
				})
			}
			first.Wait()
			o, err := client.Send(t.Context(), url, header, []byte("{}"))
			if err != nil || o.Failure.Class != webhook.ClassConnectionFailed {
				t.Errorf("got %+v, %v", o, err)
			}
			if n := posts.Load(); n != idle+1 {
				t.Errorf("%d posts of %d attempts", n, idle+1)
			}
		})
	}
}

// A connection that was closed before a request was written to it is no fault of the
// endpoint, so the request goes over another one; but once only.
func TestRepeatedOnceWhereNothingWasWritten(t *testing.T) {
	t.Parallel()
	for idle, want := range map[int]webhook.ErrorClass{1: "", 2: webhook.ClassConnectionFailed} {
		together := make(chan struct{}, idle)
		url := serve(t, func(http.ResponseWriter, *http.Request) {
			if together <- struct{}{}; len(together) == idle {
				for range idle {
					<-together
				}
			}
			for len(together) > 0 { // until all idle connections are there
				runtime.Gosched()
			}
		})
		client := localClient(t, ClientConfig{})
		var broken atomic.Bool
		dial := client.transport.DialContext
		client.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err == nil && !broken.Load() {
				counting := conn.(*countingConn)
				counting.Conn = unwritable{counting.Conn, &broken}
			}
			return conn, err
		}
		var first sync.WaitGroup
		for range idle {
			first.Go(func() { send(t, client, url) })
		}
		first.Wait()
		broken.Store(true)
		if o := send(t, client, url); o.Failure.Class != want {
			t.Errorf("%d idle connections: got %+v", idle, o)
		}
	}
}

// unwritable is a connection that takes no bytes while it is broken.
type unwritable struct {
	net.Conn
	broken *atomic.Bool
}

func (c unwritable) Write(p []byte) (int, error) {
	if c.broken.Load() {
		return 0, &net.OpError{Op: "write", Err: syscall.EPIPE}
	}
	return c.Conn.Write(p)
}

func BenchmarkSend(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	client := NewClient(ClientConfig{Guard: webhook.Guard{Loopback: true}, Timeout: time.Minute})
	defer client.Close()
	w, d := testWebhook(), webhook.Delivery{ID: "delivery_1", Format: webhook.FormatClassic}
	body := []byte(strings.Repeat("x", 700))
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if o, err := client.Send(b.Context(), server.URL, w.Header(&d, body, testNow), body); err != nil || !o.Acknowledged() {
				b.Errorf("%+v, %v", o, err)
			}
		}
	})
}

func TestRetryAfterIsRead(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if o := send(t, localClient(t, ClientConfig{}), url); o.RetryAfter != 90*time.Second || o.Status != 429 {
		t.Errorf("got %+v", o)
	}
}
