package server_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/issuer"
)

// BenchmarkVerifyByPerson is VerifyApiKey over gRPC with the token of a workload, which is
// remembered. Its floor is the same call with an operator token.
func BenchmarkVerifyByPerson(b *testing.B) {
	i := issuer.Start(b)
	s := servertest.Start(b, people(i), quiet)
	secrets := manyKeys(b, s, benchKeys/10)
	var token struct{ Secret string }
	s.Call(b, http.MethodPost, tokensPath, `{"name": "gateway", "role": "verifier", "organizations": ["*"]}`).Into(b, &token)
	verify := func(credential string) func(i int) error {
		ctx := servertest.As(b.Context(), credential, "x-organization-id", "*")
		return func(i int) error {
			resp, err := s.Keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[i%len(secrets)]})
			if err == nil && !resp.GetValid() {
				err = fmt.Errorf("not valid: %v", resp.GetCode())
			}
			return err
		}
	}
	compare(b, verify(token.Secret), verify(i.Token(time.Now(), issuer.Claims{"sub": "gateway", "org": "*", "roles": []string{"verifiers"}})))
}
