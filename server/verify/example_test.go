package verify_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// oneKey is storage with a single key.
type oneKey struct{ key apikey.Key }

func (s oneKey) KeysBySecret(_ context.Context, hashes []apikey.Hash) ([]apikey.Key, int64, error) {
	for _, h := range hashes {
		if h == s.key.Secret.Hash {
			return []apikey.Key{s.key}, 1, nil
		}
	}
	return nil, 0, nil
}

func ExampleVerifier_Verify() {
	peppers := keyring.NewPeppers(keyring.NewKey("edge_1", "kept out of it too"), keyring.NewKey("pepper_1", "kept out of the database"))
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	clock := func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }
	verifier, err := verify.New(verify.Config{
		Peppers: peppers,
		Keys: oneKey{apikey.Key{
			Enabled: true, Scopes: apikey.Scopes{"invoices.read"}, Secret: peppers.Stored(secret),
			IPAllowList: apikey.AllowList{netip.MustParsePrefix("192.0.2.0/24")},
			RateLimit:   apikey.RateLimit{Requests: 1, WindowSeconds: 60},
		}},
		Meter: meter.New(meter.Config{Now: clock}),
		Now:   clock,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	inside, outside := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.7")
	for _, r := range []verify.Request{
		{Secret: "sk_live_mistyped"},
		{Secret: secret.Reveal(), Addr: outside, Cost: 1},
		{Secret: secret.Reveal(), Addr: inside, Scopes: []string{"invoices.create"}, Cost: 1},
		{Secret: secret.Reveal(), Addr: inside, Scopes: []string{"invoices.read"}, Cost: 1},
		{Secret: secret.Reveal(), Addr: inside, Scopes: []string{"invoices.read"}, Cost: 1},
	} {
		result, err := verifier.Verify(context.Background(), r)
		fmt.Println(result.Code, result.RetryAfter, err)
	}
	// Output:
	// malformed 0s <nil>
	// ip_not_allowed 0s <nil>
	// insufficient_scope 0s <nil>
	// valid 0s <nil>
	// rate_limited 1m0s <nil>
}
