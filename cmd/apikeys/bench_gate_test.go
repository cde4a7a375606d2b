package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// BenchmarkGateApart is both questions of gateways with the program in a process of its
// own, warm, by a client that sends and takes bytes, since it is not Go that asks in
// life. The floor of ext_authz is an empty call on a bare server in another process, that
// of forward_auth a bare handler there that gives everybody the same answer.
func BenchmarkGateApart(b *testing.B) {
	const keys = 10_000
	gate := freeAddress(b)
	p := startProcess(b, b.TempDir(), "APIKEYS_GATE_ADDR="+gate, "APIKEYS_TRUSTED_PROXIES=127.0.0.1")
	defer p.kill(b)
	ctx := context.WithoutCancel(b.Context())
	secrets := make([]string, keys)
	together(b, keys, func(i int) error {
		resp, err := p.keys.CreateApiKey(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+crashToken),
			&apikeysv1.CreateApiKeyRequest{Label: "Key", Scopes: []string{"invoices.read", "payments.read"}, OwnerId: "user_1"})
		secrets[i] = resp.GetApiKey().GetSecret()
		return err
	})

	b.Run("ext_authz", func(b *testing.B) {
		process, addr := startFloor(b, floorOfGRPC)
		floor, conn := dial(b, addr), dial(b, gate)
		questions := make([]rawMessage, keys)
		for i, secret := range secrets {
			questions[i] = checkRequest(b, secret)
		}
		compareApart(b, process, p.cmd.Process, func(int) error {
			return floor.Invoke(ctx, "/bench.Empty/Call", &emptypb.Empty{}, &emptypb.Empty{})
		}, func(i int) error {
			var answer rawMessage
			err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, questions[i%keys], &answer, grpc.ForceCodecV2(rawCodec{}))
			if err == nil && !bytes.Contains(answer, []byte("x-api-key-id")) {
				err = fmt.Errorf("refused: %q", answer)
			}
			return err
		})
	})

	b.Run("forward_auth", func(b *testing.B) {
		questions := make([][]byte, keys)
		for i, secret := range secrets {
			questions[i] = []byte("GET /forward_auth?scope=invoices.read HTTP/1.1\r\nHost: gate.example.test\r\nAuthorization: Bearer " + secret +
				"\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /v1/invoices/17\r\nX-Forwarded-For: 198.51.100.7\r\n" +
				"X-Forwarded-Proto: https\r\nX-Forwarded-Host: api.example.test\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n")
		}
		client := newRawClient(b, gate)
		first, err := client.ask(questions[0])
		if err != nil {
			b.Fatal(err)
		}
		process, addr := startFloor(b, headersOf(b, first))
		floor := newRawClient(b, addr)
		passes := func(client *rawClient) func(i int) error {
			return func(i int) error {
				_, err := client.ask(questions[i%keys])
				return err
			}
		}
		compareApart(b, process, p.cmd.Process, passes(floor), passes(client))
	})
}

// compareApart reports the rate of calls to a process as a part of those to a floor's, and
// what both take of a processor for a call.
func compareApart(b *testing.B, floor, program *os.Process, least, call func(i int) error) {
	b.Helper()
	const turn = 100_000
	together(b, turn/10, least)
	together(b, turn/10, call)
	var wall, processor [2]time.Duration
	measure := func(side int, of *os.Process, f func(i int) error) {
		before := processorTime(b, of.Pid)
		wall[side] += together(b, turn, f)
		processor[side] += processorTime(b, of.Pid) - before
	}
	for b.Loop() {
		measure(0, program, call)
		// The program stores its counters once a second, which the floor must not pay for.
		time.Sleep(1200 * time.Millisecond)
		measure(1, floor, least)
	}
	calls := float64(b.N * turn)
	b.ReportMetric(wall[1].Seconds()/wall[0].Seconds(), "x-of-floor")
	b.ReportMetric(calls/wall[0].Seconds(), "calls/s")
	b.ReportMetric(processor[0].Seconds()*1e6/calls, "cpu-µs/call")
	b.ReportMetric(processor[0].Seconds()/processor[1].Seconds(), "x-cpu-of-floor")
}

// checkRequest is what Envoy asks about a request with a key, encoded.
func checkRequest(b *testing.B, secret string) rawMessage {
	b.Helper()
	encoded, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "198.51.100.7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 41234},
		}}}},
		Destination: &authv3.AttributeContext_Peer{Service: "products"},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1234", Method: "GET", Path: "/v1/invoices/17", Host: "api.example.test", Scheme: "http", Protocol: "HTTP/1.1",
			Headers: map[string]string{
				":method": "GET", ":path": "/v1/invoices/17", ":authority": "api.example.test", ":scheme": "http",
				"user-agent": "curl/8.5.0", "accept": "*/*", "authorization": "Bearer " + secret,
			},
		}},
		ContextExtensions: map[string]string{"scope": "invoices.read"},
	}})
	if err != nil {
		b.Fatal(err)
	}
	return encoded
}

// rawMessage is a message as its bytes.
type rawMessage []byte

// rawCodec sends and takes rawMessages.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(rawMessage))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*rawMessage) = data.Materialize()
	return nil
}

// rawClient sends requests over HTTP as their bytes, over one of several connections each.
type rawClient struct{ free chan *rawConn }

// rawConn is a connection and what was read last from it.
type rawConn struct {
	net.Conn
	answer [4 << 10]byte
}

func newRawClient(b *testing.B, addr string) *rawClient {
	b.Helper()
	const callers = 64
	client := &rawClient{make(chan *rawConn, callers)}
	for range callers {
		conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		client.free <- &rawConn{Conn: conn}
	}
	return client
}

// ask sends a request and returns its answer, which is 200 without a body.
func (c *rawClient) ask(request []byte) ([]byte, error) {
	conn := <-c.free
	defer func() { c.free <- conn }()
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	for n := 0; ; {
		more, err := conn.Read(conn.answer[n:])
		if err != nil {
			return nil, err
		}
		n += more
		answer := conn.answer[:n]
		switch {
		case !bytes.HasSuffix(answer, []byte("\r\n\r\n")):
		case !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")):
			return nil, fmt.Errorf("refused: %q", answer)
		default:
			return bytes.Clone(answer), nil
		}
	}
}

// headersOf returns the headers of an answer that a bare handler has to set, as JSON.
func headersOf(b *testing.B, answer []byte) string {
	b.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	resp.Header.Del("Date") // net/http sets it.
	resp.Header.Del("Content-Length")
	text, err := json.Marshal(resp.Header)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}
