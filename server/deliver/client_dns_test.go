package deliver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// A nameServer answers questions for IPv4 addresses with what answer returns,
// NXDOMAIN where that is none.
type nameServer struct {
	answer func(asked int) []string
	asked  atomic.Int32
}

// resolver returns a resolver that asks n, over a pipe.
func (n *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go n.serve(theirs)
		return ours, nil
	}}
}

// serve answers the questions of one connection. A pipe is a stream, so each
// message has its length in front, as over TCP.
func (n *nameServer) serve(conn net.Conn) {
	defer conn.Close()
	question := make([]byte, 512)
	for {
		if _, err := conn.Read(question[:2]); err != nil {
			return
		}
		size := int(binary.BigEndian.Uint16(question))
		if _, err := conn.Read(question[:size]); err != nil {
			return
		}
		reply := n.reply(question[:size])
		conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
	}
}

func (n *nameServer) reply(question []byte) []byte {
	end := 12
	for question[end] != 0 {
		end += int(question[end]) + 1
	}
	kind := binary.BigEndian.Uint16(question[end+1:])
	var addresses []string
	if kind == 1 { // A
		addresses = n.answer(int(n.asked.Add(1)))
	} else {
		addresses = n.answer(0)
	}
	reply := append([]byte{}, question[:2]...)
	code := byte(0)
	if len(addresses) == 0 {
		code = 3
	}
	reply = append(reply, 0x81, 0x80|code, 0, 1)
	if kind != 1 {
		addresses = nil
	}
	reply = append(reply, 0, byte(len(addresses)), 0, 0, 0, 0)
	reply = append(reply, question[12:end+5]...)
	for _, text := range addresses {
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		reply = append(reply, netip.MustParseAddr(text).AsSlice()...)
	}
	return reply
}

// A name that resolves to an allowed address once and to a forbidden one
// afterwards: each connection is checked for itself.
func TestNameThatChangesItsAddress(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.2:0")
	if err != nil {
		t.Skipf("this system has no 127.0.0.2: %v", err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Listener.Close()
	server.Listener = listener
	server.StartTLS()
	defer server.Close()

	names := &nameServer{answer: func(asked int) []string {
		if asked <= 1 {
			return []string{"127.0.0.2"}
		}
		return []string{"127.0.0.1"}
	}}
	client := NewClient(ClientConfig{
		Guard:    webhook.Guard{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}},
		RootCAs:  server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		Resolver: names.resolver(),
	})
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	url := "https://example.com:" + port + "/?token=hunter2" // the certificate's name
	if o := send(t, client, url); !o.Acknowledged() {
		t.Fatalf("first: %+v", o)
	}
	client.Close()
	for range 2 {
		want := blockedAddress
		if o := send(t, client, url); o.Failure != want {
			t.Errorf("then: %+v", o)
		}
	}
	client.Close()
}

func TestNames(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		answer []string
		want   webhook.Failure
	}{
		{"none", nil, webhook.Failure{Class: webhook.ClassDNSError, Message: "The host does not exist."}},
		{"private", []string{"10.0.0.1"}, blockedAddress},
		{"several, none public", []string{"10.0.0.1", "169.254.169.254"}, blockedAddress},
		{"metadata", []string{"169.254.169.254"}, blockedAddress},
		{"unspecified", []string{"0.0.0.0"}, blockedAddress},
	}
	for _, c := range cases {
		names := &nameServer{answer: func(int) []string { return c.answer }}
		client := NewClient(ClientConfig{Resolver: names.resolver()})
		if o := send(t, client, "https://receiver.example/?token=hunter2"); o.Failure != c.want {
			t.Errorf("%s: %+v", c.name, o.Failure)
		}
		client.Close()
	}
	broken := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("10.9.8.7 is down")
	}}
	client := NewClient(ClientConfig{Resolver: broken})
	defer client.Close()
	if o := send(t, client, "https://receiver.example/"); o.Failure != (webhook.Failure{Class: webhook.ClassDNSError, Message: "The host could not be looked up."}) {
		t.Errorf("a broken resolver: %+v", o.Failure)
	}
}

func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = quiet
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	o := send(t, localClient(t, ClientConfig{RootCAs: pool}), server.URL)
	if o.Failure.Class != webhook.ClassTLSError || !strings.Contains(o.Failure.Message, "expired") {
		t.Errorf("got %+v", o)
	}
}

// An endpoint that ends the handshake, and one that speaks only what is broken.
func TestHandshakeThatFails(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = quiet
	server.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	server.StartTLS()
	defer server.Close()
	if o := send(t, localClient(t, ClientConfig{}), server.URL); o.Failure.Class != webhook.ClassTLSError {
		t.Errorf("TLS 1.1: %+v", o)
	}
	closed := rawServe(t, func(net.Conn, int) {})
	if o := send(t, localClient(t, ClientConfig{}), strings.Replace(closed, "http:", "https:", 1)); o.Failure.Class != webhook.ClassConnectionFailed {
		t.Errorf("closed: %+v", o)
	}
}
