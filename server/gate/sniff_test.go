package gate

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSplitter sends connections to the half that speaks what they begin with.
func TestSplitter(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	raw, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Splitter{Listener: raw, Timeout: 10 * time.Second}
	http1, http2 := s.Split()
	ran := make(chan error, 1)
	go func() { ran <- s.Run() }()
	type arrival struct{ half, text string }
	arrivals := make(chan arrival)
	for name, half := range map[string]net.Listener{"1": http1, "2": http2} {
		go func() {
			for {
				conn, err := half.Accept()
				if err != nil {
					return
				}
				text, _ := io.ReadAll(conn)
				conn.Close()
				arrivals <- arrival{name, string(text)}
			}
		}()
	}
	for text, want := range map[string]string{
		"GET / HTTP/1.1\r\n":                  "1",
		"PUT":                                 "1",
		"PRIVATE / HTTP/1.1\r\n":              "1",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n...": "2",
		"x":                                   "1",
	} {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range strings.SplitAfter(text, "R") { // in pieces
			io.WriteString(conn, piece)
		}
		conn.Close()
		if diff := cmp.Diff(arrival{want, text}, <-arrivals, cmp.AllowUnexported(arrival{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	http2.Close()
	if _, err := http2.Accept(); err == nil {
		t.Error("a closed half accepts")
	}
	raw.Close()
	if err := <-ran; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := http1.Accept(); err == nil {
		t.Error("what has ended accepts")
	}
}

// TestSplitterTimeout closes what says too little.
func TestSplitterTimeout(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	raw, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Splitter{Listener: raw, Timeout: 50 * time.Millisecond}
	s.Split()
	go s.Run()
	defer raw.Close()
	for _, text := range []string{"", "P", "PRI"} {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, text)
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzIsHTTP2 tells the same however the bytes arrive, and once it is known.
func FuzzIsHTTP2(f *testing.F) {
	for _, seed := range []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n", "PR", "PRIVATE /", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, start []byte) {
		yes, known := isHTTP2(start)
		if yes != strings.HasPrefix(string(start), http2Start) || yes && !known {
			t.Fatalf("%q: %v, %v", start, yes, known)
		}
		for i := range start {
			if before, knew := isHTTP2(start[:i]); knew && (before != yes || !known) {
				t.Fatalf("%q was %v after %d bytes, and is %v", start, before, i, yes)
			}
		}
	})
}
