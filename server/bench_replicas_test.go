package server_test

import (
	"slices"
	"testing"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server"
)

// BenchmarkRevocationAcrossReplicas measures how long after a revocation was asked for
// at one server another one refuses the key, which it has in memory: the time includes
// the call and its commit.
func BenchmarkRevocationAcrossReplicas(b *testing.B) {
	withAndWithoutNotify(b, func(b *testing.B, change func(int, *server.Config)) {
		replicas := startReplicas(b, 2, change)
		first, second := replicas[0], replicas[1]
		var late []time.Duration
		for b.Loop() {
			id, secret := warmKey(b, first, second)
			start := time.Now()
			refused := make(chan time.Duration, 1)
			go func() {
				for verifyAt(b, second, secret) != revoked {
				}
				refused <- time.Since(start)
			}()
			began := time.Since(start)
			revokeAt(b, first, id)
			late = append(late, <-refused-began)
		}
		reportLate(b, late)
	})
}

// BenchmarkWatchAcrossReplicas measures how long after a change was asked for at one
// server a watcher at another one has its event.
func BenchmarkWatchAcrossReplicas(b *testing.B) {
	withAndWithoutNotify(b, func(b *testing.B, change func(int, *server.Config)) {
		replicas := startReplicas(b, 2, change)
		first, second := replicas[0], replicas[1]
		stream := watch(b, second.Conn, second.Context(b.Context()), "")
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
		var late []time.Duration
		for b.Loop() {
			began := time.Now()
			if _, err := first.Keys.CreateApiKey(first.Context(b.Context()), &apikeysv1.CreateApiKeyRequest{Label: "key"}); err != nil {
				b.Fatal(err)
			}
			nextEvent(b, stream)
			late = append(late, time.Since(began))
		}
		reportLate(b, late)
	})
}

// withAndWithoutNotify runs a benchmark with NOTIFY and with it cut off.
func withAndWithoutNotify(b *testing.B, run func(*testing.B, func(int, *server.Config))) {
	for name, cutOff := range map[string]bool{"notified": false, "unnotified": true} {
		b.Run(name, func(b *testing.B) {
			run(b, func(_ int, c *server.Config) {
				quiet(c)
				c.Unnotified = cutOff
			})
		})
	}
}

func reportLate(b *testing.B, late []time.Duration) {
	slices.Sort(late)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(late[len(late)/2]), "p50-ms")
	b.ReportMetric(ms(late[len(late)*99/100]), "p99-ms")
	b.ReportMetric(ms(late[len(late)-1]), "max-ms")
}
