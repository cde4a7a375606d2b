// Command grpc is a gRPC service that lets nobody in without a good API key: the example
// of docs/protect-your-api.md for interceptors. The service is the health check, so that
// the example needs no proto of its own.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/apikeys-dev/apikeys/client"
)

func main() {
	keys, err := client.New(cmp.Or(os.Getenv("APIKEYS_GRPC"), "127.0.0.1:9090"), client.Options{Token: os.Getenv("APIKEYS_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	// A method that is not named here may be called by nobody.
	api := client.Interceptors{Client: keys, Scopes: map[string][]string{
		healthpb.Health_Check_FullMethodName: {"products.read"},
	}}

	s := grpc.NewServer(grpc.UnaryInterceptor(api.Unary()), grpc.StreamInterceptor(api.Stream()))
	healthpb.RegisterHealthServer(s, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "4000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	log.Fatal(s.Serve(listener))
}
