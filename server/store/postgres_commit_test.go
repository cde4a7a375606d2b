package store_test

import (
	"bytes"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// cut is when a proxy cuts its connections.
type cut int

const (
	never        cut = iota
	beforeCommit     // PostgreSQL never hears of it
	afterCommit      // PostgreSQL has heard of it, and its answer is lost
	forGood          // afterCommit, and nobody gets through any more
)

// proxy is a network between the store and PostgreSQL that fails when it is told to.
type proxy struct {
	listener net.Listener
	server   string
	requests atomic.Int64 // how often something was sent to the server

	mu  sync.Mutex
	cut cut
}

// newProxy returns a proxy of the server of a database, and the database's URL
// through it.
func newProxy(t *testing.T, database string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, server: u.Host}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { p.serve(client, &connections) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		connections.Wait()
	})
	u.Host = listener.Addr().String()
	u.RawQuery = "sslmode=disable" // What is encrypted it could not read.
	return p, u.String()
}

func (p *proxy) set(c cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = c
}

// next returns when to cut, and that it happens once.
func (p *proxy) next() cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cut
	if c == beforeCommit || c == afterCommit {
		p.cut = never
	}
	return c
}

func (p *proxy) serve(client net.Conn, connections *sync.WaitGroup) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	connections.Go(func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			if err != nil {
				_ = client.Close()
				return
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		p.requests.Add(1)
		if bytes.Contains(bytes.ToLower(buffer[:n]), []byte("commit\x00")) {
			switch p.next() {
			case never:
			case beforeCommit:
				return
			case afterCommit:
				_ = client.Close()
				_, _ = server.Write(buffer[:n])
				return
			case forGood:
				_ = p.listener.Close()
				_ = client.Close()
				_, _ = server.Write(buffer[:n])
				return
			}
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// TestPostgresCommitCut loses the connection during a commit: what was made is
// answered as made, what was not as not, and what nobody knows as that.
func TestPostgresCommitCut(t *testing.T) {
	for name, c := range map[string]struct {
		cut    cut
		made   bool
		answer string
	}{
		"before it": {beforeCommit, false, "was not made"},
		"after it":  {afterCommit, true, ""},
		"for good":  {forGood, true, "is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			direct := postgresServer(t).copy(t, nil)
			p, through := newProxy(t, direct)
			s := openAndInitialize(t, store.Config{Postgres: masked.New(through), Logger: quiet})
			k, err := s.CreateKey(t.Context(), operator, benchmarkKey)
			if err != nil {
				t.Fatal(err)
			}
			var told []store.Commit
			s.OnCommit(func(commit store.Commit) { told = append(told, commit) })
			p.set(c.cut)
			_, err = s.ChangeKey(t.Context(), operator, k.OrganizationID, k.ID, apikey.KeyUpdated, func(k *apikey.Key, _ time.Time) error {
				k.Label = "changed"
				return nil
			})
			if c.answer == "" && err != nil || c.answer != "" && (err == nil || !strings.Contains(err.Error(), c.answer)) {
				t.Errorf("got %v, want %q", err, c.answer)
			}
			if c.answer != "" {
				wantUnavailable(t, err)
			}
			// What is cached of a key goes unless the change was surely not made.
			if dropped := len(told) == 1 && len(told[0].ChangedKeys) == 1; dropped != c.made {
				t.Errorf("told %+v", told)
			} else if c.made && told[0].Unknown != (c.cut == forGood) {
				t.Errorf("told that nobody knows: %v", told[0].Unknown)
			}
			beside := openAndInitialize(t, store.Config{Postgres: masked.New(direct)})
			got, err := beside.Key(t.Context(), k.OrganizationID, k.ID)
			if err != nil || (got.Label == "changed") != c.made {
				t.Errorf("label %q, %v", got.Label, err)
			}
			if c.cut != forGood {
				if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
					t.Errorf("the next change: %v", err)
				}
			}
		})
	}
}
