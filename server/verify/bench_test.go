package verify

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// BenchmarkVerify is a warm, valid verification in process, over 10,000 keys.
// x-of-floor is its time over that of the floor: one HMAC-SHA-256 of a key,
// pooled. The two are measured in turns, so that a neighbour on the machine
// slows both.
func BenchmarkVerify(b *testing.B) {
	for _, limited := range []bool{false, true} {
		b.Run(fmt.Sprintf("limited=%t", limited), func(b *testing.B) {
			keys := newFakeKeys()
			v := newVerifier(b, keys, time.Now)
			secrets := make([]string, 10_000)
			for i := range secrets {
				k := apikey.Key{
					OrganizationID: "org_a",
					Scopes:         apikey.Scopes{"invoices.read", "invoices.create"},
					IPAllowList:    apikey.AllowList{netip.MustParsePrefix("192.0.2.0/24")},
				}
				if limited {
					k.RateLimit = apikey.RateLimit{Requests: 1_000_000, WindowSeconds: 1}
				}
				_, secrets[i] = keys.create(b, k, 0)
			}
			request := Request{
				Organization: "org_a", Scopes: []string{"invoices.read"}, Addr: netip.MustParseAddr("192.0.2.7"), Cost: 1,
			}
			verify := func(secret string) {
				request.Secret = secret
				if r, err := v.Verify(b.Context(), request); err != nil || r.Code != apikey.CodeValid {
					b.Fatalf("Verify = %s, %v", r.Code, err)
				}
			}
			for _, s := range secrets {
				verify(s)
			}
			floor := newFloor()
			b.ReportAllocs()
			var spent, least time.Duration
			const turn = 500
			for i := 0; b.Loop(); {
				start := time.Now()
				for range turn {
					floor.hash(secrets[i%len(secrets)])
					i++
				}
				between := time.Now()
				for range turn {
					verify(secrets[i%len(secrets)])
					i++
				}
				least += between.Sub(start)
				spent += time.Since(between)
			}
			b.ReportMetric(float64(spent)/float64(least), "x-of-floor")
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*turn), "ns/verify")
			b.ReportMetric(float64(least.Nanoseconds())/float64(b.N*turn), "ns/floor")
		})
	}
}

// A floor hashes as cheaply as the standard library can.
type floor struct{ pool sync.Pool }

type floorHasher struct {
	mac hash.Hash
	in  [64]byte
	out [sha256.Size]byte
}

func newFloor() *floor {
	return &floor{sync.Pool{New: func() any { return &floorHasher{mac: hmac.New(sha256.New, []byte("pepper"))} }}}
}

func (f *floor) hash(text string) byte {
	h := f.pool.Get().(*floorHasher)
	h.mac.Reset()
	h.mac.Write(h.in[:copy(h.in[:], text)])
	h.mac.Sum(h.out[:0])
	sum := h.out[0]
	f.pool.Put(h)
	return sum
}

// BenchmarkVerifyObserved is the same verification with observations on. x-of-unobserved
// is its rate as a part of the rate with nobody watching, measured in turns.
func BenchmarkVerifyObserved(b *testing.B) {
	keys := newFakeKeys()
	sides := [2]*harness{
		newVerifier(b, keys, time.Now),
		newHarness(b, keys, Config{Now: time.Now, Observations: NewObservations()}),
	}
	secrets := make([]string, 10_000)
	for i := range secrets {
		_, secrets[i] = keys.create(b, apikey.Key{OrganizationID: "org_a", Scopes: apikey.Scopes{"invoices.read"}}, 0)
	}
	ctx, request := b.Context(), Request{Organization: "org_a", Scopes: []string{"invoices.read"}, Cost: 1}
	verify := func(side int, secret string) {
		request.Secret = secret
		if r, err := sides[side].Verify(ctx, request); err != nil || r.Code != apikey.CodeValid {
			b.Fatalf("Verify = %s, %v", r.Code, err)
		}
	}
	for side := range sides {
		for _, s := range secrets {
			verify(side, s)
		}
	}
	b.ReportAllocs()
	var took [2]time.Duration
	const turn = 500
	for i := 0; b.Loop(); i += turn {
		for n := range sides {
			side := (i/turn + n) % 2 // Each goes first as often.
			start := time.Now()
			for j := range turn {
				verify(side, secrets[(i+j)%len(secrets)])
			}
			took[side] += time.Since(start)
		}
	}
	b.ReportMetric(float64(took[0])/float64(took[1]), "x-of-unobserved")
	b.ReportMetric(float64(took[1].Nanoseconds())/float64(b.N*turn), "ns/verify")
}
