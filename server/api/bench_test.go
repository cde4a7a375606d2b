package api_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/api"
)

type captured map[string]grpc.MethodDesc

func (c captured) RegisterService(desc *grpc.ServiceDesc, srv any) {
	for _, m := range desc.Methods {
		handler := m.Handler
		m.Handler = func(_ any, ctx context.Context, dec func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			return handler(srv, ctx, dec, i)
		}
		c[m.MethodName] = m
	}
}

// BenchmarkVerifyApiKey is all that the server does for a verification between
// the bytes of the request and those of the answer.
func BenchmarkVerifyApiKey(b *testing.B) {
	r := newHarness(b)
	methods := make(captured)
	r.api.RegisterRemote(methods)
	var requests [][]byte
	for i := range 1000 {
		k := r.create(&apikeysv1.CreateApiKeyRequest{
			Label: fmt.Sprint("Key ", i), Scopes: []string{"invoices.read", "payments.read"},
			OwnerId: fmt.Sprint("user_", i), Metadata: map[string]string{"team": "billing"},
		})
		request, err := proto.Marshal(&apikeysv1.VerifyApiKeyRequest{Key: k.GetSecret()})
		r.must(err)
		requests = append(requests, request)
	}
	ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("authorization", "Bearer "+rootToken, "user-agent", "x", "content-type", "application/grpc"))
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}})
	codec := api.NewCodec()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		request := requests[i%len(requests)]
		i++
		resp, err := methods["VerifyApiKey"].Handler(nil, ctx, func(m any) error { return proto.Unmarshal(request, m.(proto.Message)) }, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := codec.Marshal(resp); err != nil {
			b.Fatal(err)
		}
	}
}
