package hooks_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
)

// A receiver reads the whole body, verifies it, and answers with any 2xx.
func ExampleVerify() {
	secret := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // as CreateWebhook answered it
	now := func() time.Time { return time.Unix(1614265330, 0) }

	receive := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := hooks.Verify(secret, r.Header, body, now()); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Println("received", r.Header.Get("webhook-id"), string(body))
		w.WriteHeader(http.StatusNoContent)
	}

	for _, body := range []string{`{"test": 2432232314}`, `{"test": 0}`} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/hook", strings.NewReader(body))
		r.Header.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
		r.Header.Set("webhook-timestamp", "1614265330")
		r.Header.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
		w := httptest.NewRecorder()
		receive(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// received msg_p5jXN8AQM9LWM0D4loKWxJek {"test": 2432232314}
	// 204
	// 401
}

// A test of a receiver signs a delivery as a server would.
func ExampleSign() {
	secret, err := hooks.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		fmt.Println(err)
		return
	}
	now, body := time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)
	header := http.Header{}
	header.Set(hooks.HeaderID, "delivery_1")
	header.Set(hooks.HeaderTimestamp, "1614265330")
	header.Set(hooks.HeaderSignature, hooks.Sign([]hooks.Secret{secret}, "delivery_1", now, body))
	fmt.Println(hooks.Verify(secret.Reveal(), header, body, now))
	fmt.Println(hooks.Verify(secret.Reveal(), header, body, now.Add(time.Hour)))
	// Output:
	// <nil>
	// webhook-timestamp is not a time within five minutes of now
}

// A secret does not print its text.
func ExampleSecret() {
	secret, err := hooks.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(secret)
	fmt.Println(len(secret.Reveal()))
	// Output:
	// whsec_MfKQ...aLaSw
	// 38
}
