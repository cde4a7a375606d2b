// Command go is an HTTP API that lets nobody in without a good API key. It is the
// example of docs/protect-your-api.md for net/http, and so for chi, gorilla and every
// router that takes a func(http.Handler) http.Handler.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

type keyOfRequest struct{}

// protect lets a request through whose key holds all of scopes.
func protect(keys apikeysv1.ApiKeysServiceClient, verifier string, scopes ...string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			secret := cmp.Or(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.Header.Get("X-API-Key"))
			host, _, _ := net.SplitHostPort(r.RemoteAddr) // behind a proxy: what that says
			ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
			defer cancel()
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+verifier)
			answer, err := keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secret, Scopes: scopes, Ip: host})
			if err != nil { // no answer is no permission
				log.Print("verify: ", err)
				http.Error(w, "try again", http.StatusServiceUnavailable)
				return
			}
			switch answer.GetCode() {
			case apikeysv1.VerificationCode_VERIFICATION_CODE_VALID:
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), keyOfRequest{}, answer.GetApiKey())))
			case apikeysv1.VerificationCode_VERIFICATION_CODE_IP_NOT_ALLOWED, apikeysv1.VerificationCode_VERIFICATION_CODE_INSUFFICIENT_SCOPE:
				http.Error(w, "this key may not do that", http.StatusForbidden)
			case apikeysv1.VerificationCode_VERIFICATION_CODE_RATE_LIMITED, apikeysv1.VerificationCode_VERIFICATION_CODE_QUOTA_EXCEEDED:
				if answer.RetryAfterSeconds != nil {
					w.Header().Set("Retry-After", strconv.FormatInt(int64(answer.GetRetryAfterSeconds()), 10))
				}
				http.Error(w, "over the limit of this key", http.StatusTooManyRequests)
			default:
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "a valid API key is needed", http.StatusUnauthorized)
			}
		})
	}
}

func main() {
	conn, err := grpc.NewClient(cmp.Or(os.Getenv("APIKEYS_GRPC"), "127.0.0.1:9090"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	readers := protect(apikeysv1.NewApiKeysServiceClient(conn), os.Getenv("APIKEYS_KEY"), "products.read")
	http.Handle("GET /products", readers(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := r.Context().Value(keyOfRequest{}).(*apikeysv1.ApiKey)
		json.NewEncoder(w).Encode(map[string]string{"owner": key.GetOwnerId()})
	})))
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "4000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
