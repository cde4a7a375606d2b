package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/described"
)

// restProtocols are the protocols that REST is spoken over.
var restProtocols = []string{"HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2 over TLS"}

// eachRESTProtocol calls f with a server for each protocol of REST, which the harness
// speaks.
func eachRESTProtocol(t *testing.T, f func(t *testing.T, w *harness)) {
	for _, name := range restProtocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !strings.HasSuffix(name, "TLS") {
				f(t, newHarness(t))
				return
			}
			cert, key, roots := loopbackCertificate(t)
			w := newHarness(t, func(c *server.Config) { c.TLSCert, c.TLSKey = cert, key })
			w.REST = "https" + strings.TrimPrefix(w.REST, "http")
			w.http2 = strings.HasPrefix(name, "HTTP/2")
			w.trust = &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}}
			protocols := new(http.Protocols)
			protocols.SetHTTP1(!w.http2)
			protocols.SetHTTP2(w.http2)
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: protocols}
			t.Cleanup(transport.CloseIdleConnections)
			w.client = &http.Client{Transport: described.Transport(t, w.REST, transport)}
			f(t, w)
		})
	}
}

// loopbackCertificate writes a certificate for 127.0.0.1 into files.
func loopbackCertificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	borrowed := httptest.NewTLSServer(nil)
	defer borrowed.Close()
	pair := borrowed.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AddCert(borrowed.Certificate())
	return cert, key, roots
}

// dial opens a connection to the REST listener, for HTTP/1.1.
func (w *harness) dial(t *testing.T) net.Conn {
	t.Helper()
	_, address, _ := strings.Cut(w.REST, "://")
	var conn net.Conn
	var err error
	if w.trust != nil {
		conn, err = (&tls.Dialer{Config: w.trust}).DialContext(t.Context(), "tcp", address)
	} else {
		conn, err = new(net.Dialer).DialContext(t.Context(), "tcp", address)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// request returns the request that bytes of HTTP/1.1 are, for a client of HTTP/2. A
// body that is announced and not there never comes.
func (w *harness) request(t *testing.T, text string) *http.Request {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.ReplaceAll(head, "<auth>", "Authorization: Bearer "+servertest.RootToken), "\n")
	first := strings.Fields(lines[0])
	req, err := http.NewRequestWithContext(t.Context(), first[0], w.REST+first[1], strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	if length := req.Header.Get("Content-Length"); length != "" {
		if req.ContentLength, err = strconv.ParseInt(length, 10, 64); err != nil {
			t.Fatal(err)
		}
		never, end := io.Pipe()
		t.Cleanup(func() { _ = end.Close() })
		req.Body = never
		req.Header.Del("Content-Length")
	}
	return req
}

// sendHTTP2 is send for HTTP/2.
func (w *harness) sendHTTP2(t *testing.T, text string) (status int, header http.Header, answer []byte) {
	t.Helper()
	resp, err := w.client.Do(w.request(t, text))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.ProtoMajor != 2 {
		t.Errorf("the server speaks %s", resp.Proto)
	}
	return resp.StatusCode, resp.Header, answer
}

// firstStatus returns the first status that comes back to a request whose body is
// announced: 100 where the server wants it.
func (w *harness) firstStatus(t *testing.T, text string) int {
	t.Helper()
	if !w.http2 {
		conn := w.dial(t)
		if _, err := io.WriteString(conn, strings.ReplaceAll(text, "\n", "\r\n")+"\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, len("HTTP/1.1 100"))
		if _, err := io.ReadFull(conn, line); err != nil {
			t.Fatal(err)
		}
		_, code, _ := bytes.Cut(line, []byte(" "))
		status, err := strconv.Atoi(string(code))
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	wanted := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() {
		wanted = http.StatusContinue
		cancel()
	}})
	resp, err := w.client.Do(w.request(t, text).WithContext(ctx))
	switch {
	case wanted != 0:
		return wanted
	case err != nil:
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
