package identity_test

import (
	"context"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
	"github.com/apikeys-dev/apikeys/server/servertest/issuer"
)

// BenchmarkFind checks one token: as it is remembered, anew, and one that is forged.
func BenchmarkFind(b *testing.B) {
	for _, algorithm := range []string{"ES256", "RS256", "EdDSA"} {
		i := issuer.Start(b)
		i.Rotate(issuer.NewKey("k", algorithm))
		now := clock.At(clock.Noon)
		all, err := identity.New(identity.Config{Issuers: []identity.Issuer{trusting(i)}, Catalogue: apikey.DefaultScopes(), Now: now.Now})
		if err != nil {
			b.Fatal(err)
		}
		token := i.Token(clock.Noon, issuer.Claims{"scope": "api_keys.read", "name": "Anna"})
		find := func(b *testing.B, token string) error {
			_, err := all.Find(b.Context(), token)
			return err
		}
		b.Run(algorithm+"/remembered", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := find(b, token); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(algorithm+"/anew", func(b *testing.B) {
			b.ReportAllocs()
			for n := 1; b.Loop(); n++ {
				now.Set(clock.Noon.Add(time.Duration(-n))) // Nothing is remembered of what was checked later.
				if err := find(b, token); err != nil {
					b.Fatal(err)
				}
			}
		})
		forged := token[:len(token)-8] + "AAAAAAAA"
		if algorithm == "ES256" || algorithm == "EdDSA" {
			forged = token[:len(token)-9] + "AAAAAAAA" + token[len(token)-1:]
		}
		b.Run(algorithm+"/forged", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := find(b, forged); err == nil {
					b.Fatal("a forged token is good")
				}
			}
		})
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = all.Run(ended)
	}
}
