package network_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/apikeys-dev/apikeys/server/servertest/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo returns the address of a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, p *network.Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a byte and returns the error of its answer.
func ask(t *testing.T, c net.Conn, timeout time.Duration) error {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func TestProxy(t *testing.T) {
	p := network.NewProxy(t, echo(t))
	c := dial(t, p)
	if err := ask(t, c, time.Minute); err != nil {
		t.Fatal(err)
	}
	p.Hold()
	if err := ask(t, c, 20*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("held: %v", err)
	}
	p.Restore()
	if err := ask(t, c, time.Minute); err != nil {
		t.Errorf("what was held does not come: %v", err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil { // The answer before was of what was held.
		t.Error(err)
	}
	p.Delay(30 * time.Millisecond)
	began := time.Now()
	if err := ask(t, c, time.Minute); err != nil || time.Since(began) < 30*time.Millisecond {
		t.Errorf("delayed: %v after %s", err, time.Since(began))
	}
	p.Cut()
	if err := ask(t, c, time.Minute); err == nil {
		t.Error("cut, and answered")
	}
	if err := ask(t, dial(t, p), time.Minute); err == nil {
		t.Error("cut, and a new connection answered")
	}
	p.Restore()
	if err := ask(t, dial(t, p), time.Minute); err != nil {
		t.Errorf("restored: %v", err)
	}
}
