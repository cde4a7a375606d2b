package main

import (
	"bufio"
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// What an endpoint sends without being asked, net/http tells the standard logger, with the
// url's query and header values of ours if the endpoint likes. No command lets it through.
func TestUnaskedBytesReachNoLog(t *testing.T) {
	var told bytes.Buffer
	log.SetOutput(&told)
	if err := run(t.Context(), []string{"version"}, nil, streams{stdout: io.Discard, stderr: io.Discard}); err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\nPOST /hook?token=hunter2 X-Tenant: hunter3")
		// The client closes the connection once it has seen, and told of, the rest.
		io.Copy(io.Discard, conn)
	}()
	client := deliver.NewClient(deliver.ClientConfig{Guard: webhook.Unguarded()})
	defer client.Close()
	o, err := client.Send(t.Context(), "http://"+listener.Addr().String()+"/hook?token=hunter2", http.Header{"X-Tenant": {"hunter3"}}, []byte("{}"))
	if err != nil || !o.Acknowledged() {
		t.Errorf("got %+v, %v", o, err)
	}
	<-ended
	if log.Writer() != io.Discard || strings.Contains(told.String(), "hunter") {
		t.Errorf("told %q", told.String())
	}
}
