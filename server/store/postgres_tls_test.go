package store_test

import (
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
	"github.com/apikeys-dev/apikeys/server/store"
)

// noTLS returns the address of a server that offers no TLS.
func noTLS(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	tb.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 8) // SSLRequest
			if _, err := io.ReadFull(conn, request); err == nil {
				_, _ = conn.Write([]byte("N"))
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

// TestPostgresDemandsTLS says what to set where pg_hba.conf lets nobody in without TLS.
func TestPostgresDemandsTLS(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			backend := pgproto3.NewBackend(conn, conn)
			if _, err := backend.ReceiveStartupMessage(); err == nil {
				backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28000", Message: `no pg_hba.conf entry for host "127.0.0.1", user "u", database "d", no encryption`})
				_ = backend.Flush()
			}
			_ = conn.Close()
		}
	}()
	database := masked.New("postgres://u:hunter2@" + l.Addr().String() + "/d?sslmode=disable")
	wantRefused(t, opened(t, store.Config{Postgres: database, Wait: time.Hour}), "without TLS", "sslmode=verify-full")
}

// TestPostgresTLS verifies the server's certificate, and refuses one that another
// certificate signs or of another name.
func TestPostgresTLS(t *testing.T) {
	s := postgresServer(t)
	if s.url.Query().Get("sslmode") != "verify-full" {
		testenv.Missing(t, "the PostgreSQL server of the tests has no certificate; run them by: bash .ci/postgres go test ./...")
	}
	database := s.copy(t, nil)
	if err := opened(t, store.Config{Postgres: masked.New(database)}); err != nil {
		t.Error(err)
	}
	other := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(other, otherCertificate(t), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(change func(u *url.URL, query url.Values)) store.Config {
		u, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		change(u, query)
		u.RawQuery = query.Encode()
		return store.Config{Postgres: masked.New(u.String())}
	}
	wantRefused(t, opened(t, with(func(_ *url.URL, query url.Values) { query.Set("sslrootcert", other) })), "cannot be reached", "certificate")
	wantRefused(t, opened(t, with(func(u *url.URL, _ url.Values) { u.Host = "localhost:" + u.Port() })), "cannot be reached", "certificate")
	wantRefused(t, opened(t, with(func(_ *url.URL, query url.Values) { query.Set("sslrootcert", other+".none") })), other+".none")
}

// otherCertificate returns a certificate that signs nothing here.
func otherCertificate(tb testing.TB) []byte {
	tb.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}
