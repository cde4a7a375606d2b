package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/apikeys-dev/apikeys/server/servertest"
)

// BenchmarkForwardAuth is a question of a gateway over HTTP, warm. Its floor is a bare
// net/http handler that gives everybody the same answer, with as many headers.
func BenchmarkForwardAuth(b *testing.B) {
	s := servertest.Start(b, quiet, withGate)
	secrets := manyKeys(b, s, benchKeys)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchCallers}}
	ask := func(url string, i int) (http.Header, error) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		req.Header = http.Header{
			"Authorization": {"Bearer " + secrets[i%len(secrets)]}, "X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/v1/invoices/17"},
			"X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"api.example.test"}, "Accept": {"*/*"},
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("status %s", resp.Status)
		}
		return resp.Header, nil
	}
	url := s.Gate + "/forward_auth?scope=invoices.read"
	sample, err := ask(url, 0)
	if err != nil {
		b.Fatal(err)
	}
	sample.Del("Date") // net/http has its own.
	sample.Del("Content-Length")
	listener := listenLoopback(b)
	bare := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		header := w.Header()
		for name, values := range sample {
			header[name] = values
		}
		w.WriteHeader(http.StatusOK)
	})}
	go bare.Serve(listener)
	b.Cleanup(func() { bare.Close() })
	floor := "http://" + listener.Addr().String() + "/forward_auth?scope=invoices.read"
	compare(b,
		func(i int) error { _, err := ask(floor, i); return err },
		func(i int) error { _, err := ask(url, i); return err })
}

// BenchmarkExtAuthz is a question of Envoy, warm, by a client that sends and takes bytes,
// since it is not Go that asks in life. Its floor is an empty call on a bare server.
// x-of-answer is its rate as a part of a bare server's that decodes the question and gives
// everybody the same answer.
func BenchmarkExtAuthz(b *testing.B) {
	s := servertest.Start(b, quiet, withGate)
	secrets := manyKeys(b, s, benchKeys)
	requests := make([]rawMessage, len(secrets))
	for i, secret := range secrets {
		var err error
		if requests[i], err = proto.Marshal(checkRequest(b, gateRequest{
			method: "GET", uri: "/v1/invoices/17", from: "198.51.100.7", query: "scope=invoices.read", headers: []string{"Authorization: Bearer " + secret},
		})); err != nil {
			b.Fatal(err)
		}
	}
	ctx := context.WithoutCancel(b.Context())
	check := func(conn grpc.ClientConnInterface) func(i int) error {
		return func(i int) error {
			var resp rawMessage
			err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, requests[i%len(requests)], &resp, grpc.ForceCodecV2(rawCodec{}))
			if err == nil && !bytes.Contains(resp, []byte("x-api-key-id")) {
				err = fmt.Errorf("refused: %q", resp)
			}
			return err
		}
	}
	gate := dialGateGRPC(b, s)
	var encoded rawMessage
	answer := new(authv3.CheckResponse)
	if err := gate.Invoke(ctx, authv3.Authorization_Check_FullMethodName, requests[0], &encoded, grpc.ForceCodecV2(rawCodec{})); err != nil {
		b.Fatal(err)
	}
	if err := proto.Unmarshal(encoded, answer); err != nil {
		b.Fatal(err)
	}
	floor := serveBare(b, &emptyService)
	same := check(serveBare(b, checkService(answer)))
	run(b, benchTurn, same)
	var least time.Duration
	spent := compare(b, func(int) error {
		return floor.Invoke(ctx, "/bench.Empty/Call", &emptypb.Empty{}, &emptypb.Empty{})
	}, check(gate), func() { least += run(b, benchTurn, same) })
	b.ReportMetric(float64(least)/float64(spent), "x-of-answer")
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

// checkService is Check with the same answer to everybody.
func checkService(answer *authv3.CheckResponse) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Check",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return answer, decode(new(authv3.CheckRequest))
			},
		}},
	}
}
