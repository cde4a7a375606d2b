package described

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// maxRead is how much of a body is looked at. Larger ones are those of the tests of
// bounds.
const maxRead = 4 << 20

// Transport returns a RoundTripper over base that fails the test where an exchange with
// the server at url is not as the document says. A stream is checked as far as it was
// read when its body is closed. A benchmark gets base.
func Transport(t testing.TB, url string, base http.RoundTripper) http.RoundTripper {
	t.Helper()
	if _, ok := t.(*testing.B); ok {
		return base
	}
	d, err := Served()
	if err != nil {
		t.Fatal(err)
	}
	_, host, _ := strings.Cut(url, "://")
	tr := &transport{t: t, d: d, host: host, base: base}
	t.Cleanup(func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.over = true
	})
	return tr
}

type transport struct {
	t    testing.TB
	d    *Document
	host string
	base http.RoundTripper

	mu   sync.Mutex
	over bool // the test has ended, and takes no errors any more
}

// RoundTrip makes one exchange.
func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != tr.host {
		return tr.base.RoundTrip(r)
	}
	x := &Exchange{Method: r.Method, Target: r.URL.RequestURI(), Request: r.Header.Clone()}
	if x.Method == "" {
		x.Method = http.MethodGet
	}
	sent := new(copied)
	if r.Body != nil && r.Body != http.NoBody {
		r2 := *r
		r2.Body = &copying{r.Body, sent, nil}
		r = &r2
	}
	resp, err := tr.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	x.Status, x.Header = resp.StatusCode, resp.Header.Clone()
	got := new(copied)
	resp.Body = &copying{resp.Body, got, sync.OnceFunc(func() {
		var whole bool
		x.Body, whole = got.take()
		x.Sent, _ = sent.take()
		whole = whole || resp.ContentLength == int64(len(x.Body))
		if streams := x.Header.Get("Content-Type") != "application/json"; whole || streams {
			tr.check(x)
		}
	})}
	return resp, nil
}

// CloseIdleConnections closes those of the RoundTripper below.
func (tr *transport) CloseIdleConnections() {
	if c, ok := tr.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (tr *transport) check(x *Exchange) {
	err := errors.Join(tr.d.Check(x), Record(x))
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if err != nil && !tr.over {
		tr.t.Errorf("%v\n%s", err, pretty(x))
	}
}

// Check fails the test where an exchange is not as the document says, for tests without
// a client.
func Check(t testing.TB, x *Exchange) {
	t.Helper()
	d, err := Served()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Check(x), Record(x)); err != nil {
		t.Errorf("%v\n%s", err, pretty(x))
	}
}

// copied is what has passed through a body so far.
type copied struct {
	mu    sync.Mutex
	data  []byte
	whole bool // its end was seen, and all was kept
	cut   bool
}

func (c *copied) add(p []byte, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.data)+len(p) > maxRead {
		c.cut = true
	} else {
		c.data = append(c.data, p...)
	}
	c.whole = c.whole || end
}

func (c *copied) take() (data []byte, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.data), c.whole && !c.cut
}

// copying is a body whose bytes are copied as they pass.
type copying struct {
	io.ReadCloser
	to  *copied
	end func() // called once it is over; may be nil
}

// Read reads, and copies.
func (c *copying) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.to.add(p[:n], errors.Is(err, io.EOF))
	if err != nil && c.end != nil {
		c.end()
	}
	return n, err
}

// Close closes the body.
func (c *copying) Close() error {
	if c.end != nil {
		c.end()
	}
	return c.ReadCloser.Close()
}

// recordTo names a folder that exchanges are kept in, one on a line, for validators
// that are no part of this module.
const recordTo = "APIKEYS_RECORD_EXCHANGES"

var recording struct {
	sync.Mutex
	file *os.File
}

// Record keeps an exchange where the environment names a folder for that.
func Record(x *Exchange) error {
	dir := os.Getenv(recordTo)
	if dir == "" {
		return nil
	}
	line, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("record an exchange: %w", err)
	}
	recording.Lock()
	defer recording.Unlock()
	if recording.file == nil {
		if recording.file, err = os.OpenFile(filepath.Join(dir, fmt.Sprintf("%d.jsonl", os.Getpid())), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil { //nolint:gosec // Whoever runs the tests names the folder.
			return fmt.Errorf("record an exchange: %w", err)
		}
	}
	if _, err := recording.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("record an exchange: %w", err)
	}
	return nil
}
