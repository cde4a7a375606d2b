package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/store"
)

// withWebhooks opens a database with so many webhooks of org_default, whose deliveries
// are made while it is used, and sent to nobody.
func withWebhooks(b *testing.B, webhooks int) *store.Store {
	b.Helper()
	s := openStore(b)
	for i := range webhooks {
		makeWebhook(b, s, fmt.Sprint("http://127.0.0.1:1024/", i))
	}
	runFanOut(b, s, deliver.NewWorker(deliver.WorkerConfig{Queue: s, PerWebhook: 8, PerHost: 64, PerOrganization: 256, Client: loopbackClient()}))
	return s
}

// BenchmarkCreateWithWebhooks makes keys by 64 callers in an organization that has 100
// webhooks. Its floor is the same without webhooks; the two take turns.
func BenchmarkCreateWithWebhooks(b *testing.B) {
	const keys = 1000
	var floor, ours time.Duration
	for b.Loop() {
		without, with := withWebhooks(b, 0), withWebhooks(b, 100)
		began := time.Now()
		makeKeys(b, without, keys)
		middle := time.Now()
		makeKeys(b, with, keys)
		floor, ours = floor+middle.Sub(began), ours+time.Since(middle)
	}
	b.ReportMetric(float64(keys*b.N)/ours.Seconds(), "keys/s")
	b.ReportMetric(floor.Seconds()/ours.Seconds(), "x-of-floor")
}

// BenchmarkCreateBesideWebhooks is the time that one organization's create takes beside
// 16 writers of another that has 100 webhooks. Its floor is the same where the other has
// none.
func BenchmarkCreateBesideWebhooks(b *testing.B) {
	measure := func(s *store.Store) []time.Duration {
		var over atomic.Bool
		var writers sync.WaitGroup
		for range 16 {
			writers.Go(func() {
				for !over.Load() {
					makeKey(b, s, "org_default")
				}
			})
		}
		times := make([]time.Duration, 500)
		for i := range times {
			began := time.Now()
			makeKey(b, s, "org_other")
			times[i] = time.Since(began)
			time.Sleep(2 * time.Millisecond)
		}
		over.Store(true)
		writers.Wait()
		return times
	}
	var floor, ours []time.Duration
	for b.Loop() {
		floor = append(floor, measure(withWebhooks(b, 0))...)
		ours = append(ours, measure(withWebhooks(b, 100))...)
	}
	slices.Sort(floor)
	slices.Sort(ours)
	p50 := float64(ours[len(ours)/2].Microseconds())
	b.ReportMetric(p50, "p50-µs")
	b.ReportMetric(float64(ours[len(ours)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(p50/float64(floor[len(floor)/2].Microseconds()), "p50-x-of-floor")
}

// BenchmarkChangeToReceiver is the time from the beginning of a change to its arrival at
// the one webhook that is subscribed, at 50 changes a second.
func BenchmarkChangeToReceiver(b *testing.B) {
	arrived := make(chan time.Time, 1)
	receiver := bareReceiver(b, func(http.ResponseWriter, *http.Request) { arrived <- time.Now() })
	s := openStore(b)
	makeWebhook(b, s, receiver)
	worker := deliver.NewWorker(deliver.WorkerConfig{Queue: s, PerWebhook: 8, PerHost: 64, PerOrganization: 256, Client: loopbackClient(), Grace: time.Millisecond})
	runFanOut(b, s, worker)
	runWorker(b, worker)
	var times []time.Duration
	tick := time.NewTicker(time.Second / 50)
	defer tick.Stop()
	for b.Loop() {
		for range 250 {
			<-tick.C
			began := time.Now()
			makeKey(b, s, "org_default")
			times = append(times, (<-arrived).Sub(began))
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}
