package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// certificate returns the files of a certificate for 127.0.0.1, and the pool
// that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return cert, key, writeCertificate(t, cert, key, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

// writeCertificate makes a new certificate in two files, which is good between two
// times, and returns the pool that trusts it.
func writeCertificate(t *testing.T, cert, key string, from, until time.Time) (pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    from, NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return pool
}

// A reload puts a new certificate on both listeners. Connections that stand go on,
// and files that are no good change nothing.
func TestReloadOfACertificate(t *testing.T) {
	t.Parallel()
	cert, key, first := certificate(t)
	var log bytes.Buffer
	s, stop := runServer(t, Config{TLSCert: cert, TLSKey: key, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	listeners := map[string]net.Addr{"REST": s.RESTAddr(), "gRPC": s.GRPCAddr()}
	dial := func(name string, pool *x509.CertPool) (*tls.Conn, error) {
		conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}}}).DialContext(t.Context(), "tcp", listeners[name].String())
		if err != nil {
			return nil, err
		}
		return conn.(*tls.Conn), nil
	}
	// checkServed makes a new connection to each listener.
	checkServed := func(when string, good, bad *x509.CertPool) {
		t.Helper()
		for name := range listeners {
			conn, err := dial(name, good)
			if err != nil {
				t.Errorf("%s, %s: %v", when, name, err)
				continue
			}
			conn.Close()
			if conn, err := dial(name, bad); err == nil {
				conn.Close()
				t.Errorf("%s, %s: another certificate is served", when, name)
			}
		}
	}
	standing := make(map[string]*tls.Conn)
	for name := range listeners {
		conn, err := dial(name, first)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		standing[name] = conn
	}
	checkServed("at the start", first, x509.NewCertPool())

	second := writeCertificate(t, cert, key, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	checkServed("before the reload", first, second)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	checkServed("after the reload", second, first)
	for name, conn := range standing {
		// HTTP/2 begins with the settings of both sides.
		if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
			t.Errorf("%s: the connection of before: %v", name, err)
		}
		if _, err := conn.Read(make([]byte, 9)); err != nil {
			t.Errorf("%s: the connection of before: %v", name, err)
		}
	}

	writeCertificate(t, cert, filepath.Join(t.TempDir(), "key.pem"), time.Now(), time.Now().Add(time.Hour))
	for name, spoil := range map[string]func() error{
		"the key of another one": func() error { return nil },
		"no certificate":         func() error { return os.WriteFile(cert, []byte("none"), 0o600) },
		"no file":                func() error { return os.Remove(cert) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(); err == nil || !strings.HasPrefix(err.Error(), "tls_cert "+cert+" and tls_key "+key+": ") {
			t.Errorf("%s: %v", name, err)
		}
		checkServed(name, second, first)
	}
	for _, conn := range standing {
		conn.Close()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Count(text, `"read anew" setting=tls_cert`) != 1 || strings.Count(text, "what was read before stays in use") != 3 {
		t.Errorf("the log: %s", text)
	}
}

// The log is warned of a certificate's dates at the start and each day, from 30 days
// before its end on.
func TestDatesOfACertificate(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	cases := map[string]struct {
		from, until time.Duration // from the start on
		warned      int           // lines of 40 days
		first       string        // the first of them
	}{
		"a good one":    {-day, 365 * day, 0, ""},
		"not valid yet": {day + time.Minute, 365 * day, 2, "level=WARN msg=\"The TLS certificate is not valid yet"},
		"expires soon":  {-day, 32*day + time.Minute, 37, "level=WARN msg=\"The TLS certificate expires soon. Replace the files and send the server SIGHUP.\""},
		"expired":       {-2 * day, -day, 40, "level=ERROR msg=\"The TLS certificate has expired"},
		"soon, one day": {-day, 69*day - time.Minute, 1, "days_left=29"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				config := Config{
					TLSCert: filepath.Join(t.TempDir(), "cert.pem"), TLSKey: filepath.Join(t.TempDir(), "key.pem"),
					Now: time.Now, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				}
				writeCertificate(t, config.TLSCert, config.TLSKey, time.Now().Add(c.from), time.Now().Add(c.until))
				served, err := openCertificate(config)
				if err != nil {
					t.Fatal(err)
				}
				jobs := (&Server{config: config, db: &database{}, listeners: &listeners{certificate: served}}).jobs()
				ctx, cancel := context.WithTimeout(t.Context(), 40*day-time.Minute)
				defer cancel()
				jobs[len(jobs)-1].loop(ctx, config.Logger)
				lines := strings.SplitAfter(log.String(), "\n")
				if got := len(lines) - 1; got != c.warned || !strings.Contains(lines[0], c.first) || got > 0 && !strings.Contains(lines[0], "file="+config.TLSCert) {
					t.Errorf("%d lines, want %d, the first with %q, got %s", got, c.warned, c.first, lines[0])
				}
			})
		})
	}
}
