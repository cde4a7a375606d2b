// Command grpc is a gRPC service that lets nobody in without a good API key: the
// example of docs/protect-your-api.md for an interceptor. The service is the health
// check, so that the example needs no proto of its own.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// protect lets a call through whose key holds the scopes of its method.
func protect(keys apikeysv1.ApiKeysServiceClient, verifier string, scopes map[string][]string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		needed, known := scopes[info.FullMethod]
		if !known {
			return nil, status.Error(codes.PermissionDenied, "nobody may call this method")
		}
		var secret, ip string
		if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) > 0 {
			secret = strings.TrimPrefix(values[0], "Bearer ")
		}
		if p, ok := peer.FromContext(ctx); ok {
			ip, _, _ = net.SplitHostPort(p.Addr.String())
		}
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		answer, err := keys.VerifyApiKey(metadata.AppendToOutgoingContext(asking, "authorization", "Bearer "+verifier),
			&apikeysv1.VerifyApiKeyRequest{Key: secret, Scopes: needed, Ip: ip})
		if err != nil { // no answer is no permission
			log.Print("verify: ", err)
			return nil, status.Error(codes.Unavailable, "try again")
		}
		switch answer.GetCode() {
		case apikeysv1.VerificationCode_VERIFICATION_CODE_VALID:
			return handler(ctx, req)
		case apikeysv1.VerificationCode_VERIFICATION_CODE_IP_NOT_ALLOWED, apikeysv1.VerificationCode_VERIFICATION_CODE_INSUFFICIENT_SCOPE:
			return nil, status.Error(codes.PermissionDenied, "this key may not do that")
		case apikeysv1.VerificationCode_VERIFICATION_CODE_RATE_LIMITED, apikeysv1.VerificationCode_VERIFICATION_CODE_QUOTA_EXCEEDED:
			return nil, status.Error(codes.ResourceExhausted, "over the limit of this key")
		default:
			return nil, status.Error(codes.Unauthenticated, "a valid API key is needed")
		}
	}
}

func main() {
	conn, err := grpc.NewClient(cmp.Or(os.Getenv("APIKEYS_GRPC"), "127.0.0.1:9090"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(protect(apikeysv1.NewApiKeysServiceClient(conn), os.Getenv("APIKEYS_KEY"),
		map[string][]string{healthpb.Health_Check_FullMethodName: {"products.read"}})))
	healthpb.RegisterHealthServer(s, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "4000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	log.Fatal(s.Serve(listener))
}
