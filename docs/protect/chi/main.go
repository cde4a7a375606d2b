// Command chi is an HTTP API that lets nobody in without a good API key: the example of
// docs/protect-your-api.md for chi.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/go-chi/chi/v5"

	"github.com/apikeys-dev/apikeys/client"
)

func main() {
	keys, err := client.New(cmp.Or(os.Getenv("APIKEYS_GRPC"), "127.0.0.1:9090"), client.Options{Token: os.Getenv("APIKEYS_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	api := client.Middleware{Client: keys}

	router := chi.NewRouter()
	router.With(api.Require("products.read")).Get("/products", func(w http.ResponseWriter, r *http.Request) {
		key := client.FromContext(r.Context()).Key
		json.NewEncoder(w).Encode(map[string]string{"owner": key.GetOwnerId()})
	})

	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "4000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	log.Fatal(http.Serve(listener, router))
}
