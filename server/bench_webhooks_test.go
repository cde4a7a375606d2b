package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// BenchmarkDeliveries drains 10,000 prepared deliveries of 100 webhooks. Its floor
// is a bare net/http client that posts the same bodies to the same receiver, 64 at a
// time. All webhooks are of one host, which has at most 64 attempts at a time.
func BenchmarkDeliveries(b *testing.B) { drainDeliveries(b, 1, openStore) }

// BenchmarkDeliveriesOfHosts is BenchmarkDeliveries where the webhooks are of four hosts,
// 127.0.0.1 to 127.0.0.4, as those of many owners are of many hosts: what bounds the
// attempts at a time is then the organization's 256. The floor stays the same: 64 posts
// at a time to one host.
func BenchmarkDeliveriesOfHosts(b *testing.B) { drainDeliveries(b, 4, openStore) }

// BenchmarkDeliveriesPostgres is BenchmarkDeliveriesOfHosts on PostgreSQL, which does not
// wait for its disk where .ci/postgres runs it.
func BenchmarkDeliveriesPostgres(b *testing.B) { drainDeliveries(b, 4, openPostgresStore) }

func drainDeliveries(b *testing.B, hosts int, open func(testing.TB) *store.Store) {
	const webhooks, each = 100, 100
	var received atomic.Int64
	var all chan struct{}
	var sample atomic.Pointer[[]byte]
	receivers := hostReceivers(b, hosts, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			b.Error(err)
		}
		sample.CompareAndSwap(nil, &body)
		if received.Add(1) == webhooks*each {
			close(all)
		}
	})
	var floor, ours time.Duration
	for b.Loop() {
		b.StopTimer()
		s := open(b)
		for i := range webhooks {
			makeWebhook(b, s, fmt.Sprint(receivers[i%hosts], "/", i))
		}
		makeKeys(b, s, each)
		fanOutAll(b, s)
		worker := deliver.NewWorker(deliver.WorkerConfig{Queue: s, PerWebhook: 8, PerHost: 64, PerOrganization: 256, Client: loopbackClient(), Grace: 20 * time.Second})
		received.Store(0)
		all = make(chan struct{})
		b.StartTimer()
		began := time.Now()
		stop := runWorker(b, worker)
		<-all
		stop() // what came of the last is settled
		ours += time.Since(began)
		b.StopTimer()
		if n := delivered(b, s); n != webhooks*each {
			b.Fatalf("%d of %d delivered", n, webhooks*each)
		}
		received.Store(0)
		all = make(chan struct{})
		floor += postAll(b, receivers[0], *sample.Load(), webhooks*each)
		b.StartTimer()
	}
	perSecond := float64(webhooks*each*b.N) / ours.Seconds()
	b.ReportMetric(perSecond, "deliveries/s")
	b.ReportMetric(floor.Seconds()/ours.Seconds(), "x-of-floor")
}

// BenchmarkBesideHanging is the time from the beginning of a change to its arrival
// at a healthy webhook, beside one that hangs and has 10,000 waiting, against the
// same without it. The two take turns, so that what else the machine does meets
// both.
func BenchmarkBesideHanging(b *testing.B) {
	setUp := func(hanging bool) (measure func() time.Duration) {
		arrived := make(chan time.Time, 1)
		receiver := bareReceiver(b, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // Only then it is seen that the client goes.
			if r.URL.Path == "/hangs" {
				<-r.Context().Done()
				return
			}
			arrived <- time.Now()
		})
		s := openStore(b)
		if !hanging {
			makeKeys(b, s, 10_000)
		} else {
			w := makeWebhook(b, s, receiver+"/hangs")
			makeKeys(b, s, 10_000)
			fanOutAll(b, s)
			// Its share of what is measured would be a second webhook's, not one's that hangs.
			_, err := s.ChangeWebhook(b.Context(), apikey.System("benchmark"), "org_default", w.ID, webhook.WebhookUpdated, func(w *webhook.Webhook, _ time.Time) error {
				w.Events = []apikey.EventType{webhook.WebhookFailing}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		makeWebhook(b, s, receiver+"/healthy")
		worker := deliver.NewWorker(deliver.WorkerConfig{Queue: s, PerWebhook: 8, PerHost: 64, PerOrganization: 256, Client: loopbackClient(), Grace: time.Millisecond})
		runFanOut(b, s, worker)
		runWorker(b, worker)
		return func() time.Duration {
			began := time.Now()
			makeKeys(b, s, 1)
			took := (<-arrived).Sub(began)
			time.Sleep(time.Millisecond) // What comes of it is settled.
			return took
		}
	}
	for b.Loop() {
		b.StopTimer()
		alone, beside := setUp(false), setUp(true)
		times := [2][]time.Duration{}
		b.StartTimer()
		for range 1500 {
			times[0], times[1] = append(times[0], alone()), append(times[1], beside())
		}
		quantile := func(which, percent int) float64 {
			slices.Sort(times[which])
			return float64(times[which][len(times[which])*percent/100].Microseconds())
		}
		b.ReportMetric(quantile(1, 50)/quantile(0, 50), "p50-x-of-floor")
		b.ReportMetric(quantile(1, 99)/quantile(0, 99), "p99-x-of-floor")
		b.ReportMetric(quantile(1, 50), "p50-µs")
		b.ReportMetric(quantile(1, 99), "p99-µs")
	}
}

// bareReceiver runs a bare receiver and returns its URL.
func bareReceiver(tb testing.TB, receive http.HandlerFunc) string {
	tb.Helper()
	s := httptest.NewServer(receive)
	tb.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// hostReceivers runs a bare receiver on each of the first addresses of loopback and
// returns their URLs.
func hostReceivers(tb testing.TB, hosts int, receive http.HandlerFunc) (urls []string) {
	tb.Helper()
	for i := range hosts {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", i+1))
		if err != nil {
			tb.Fatal(err)
		}
		s := &httptest.Server{Listener: listener, Config: &http.Server{Handler: receive, ReadHeaderTimeout: time.Minute}}
		s.Start()
		tb.Cleanup(func() {
			s.CloseClientConnections()
			s.Close()
		})
		urls = append(urls, s.URL)
	}
	return urls
}

var loopback = webhook.Guard{Loopback: true}

func loopbackClient() *deliver.Client {
	return deliver.NewClient(deliver.ClientConfig{Guard: loopback})
}

// openStore opens a new database, without a server.
func openStore(tb testing.TB) *store.Store {
	tb.Helper()
	return initialized(tb, store.Config{Path: filepath.Join(tb.TempDir(), "apikeys.db")})
}

// openPostgresStore opens a new database of the server that APIKEYS_TEST_POSTGRES names.
func openPostgresStore(tb testing.TB) *store.Store {
	tb.Helper()
	return initialized(tb, store.Config{Postgres: masked.New(servertest.NewPostgres(tb))})
}

func initialized(tb testing.TB, c store.Config) *store.Store {
	tb.Helper()
	s, err := store.Open(tb.Context(), c)
	if err == nil {
		err = s.Initialize(tb.Context(), nil, nil)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	sealer, err := keyring.NewSealer(keyring.NewKey("e_1", strings.Repeat("k", 32)))
	if err != nil {
		tb.Fatal(err)
	}
	s.SealWith(sealer)
	return s
}

func makeWebhook(tb testing.TB, s *store.Store, url string) webhook.Webhook {
	tb.Helper()
	secret, err := hooks.NewSecret(nil)
	if err != nil {
		tb.Fatal(err)
	}
	w, err := s.CreateWebhook(tb.Context(), apikey.System("benchmark"), "org_default", func(_ int, now time.Time) (webhook.Webhook, error) {
		return webhook.Rules{Guard: loopback}.Create(webhook.Webhook{
			OrganizationID: "org_default", Label: "x", URL: url, Enabled: true,
			Events: []apikey.EventType{webhook.AllEvents}, Format: webhook.FormatClassic,
		}, secret, now)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// makeKeys makes n keys, many at a time.
func makeKeys(tb testing.TB, s *store.Store, n int) {
	tb.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range min(n, 64) {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				makeKey(tb, s, "org_default")
			}
		})
	}
	wg.Wait()
}

// makeKey has an operator make a key in an organization.
func makeKey(tb testing.TB, s *store.Store, organization string) {
	tb.Helper()
	by := &apikey.Caller{Organization: organization, Rights: apikey.AllRights()}
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err == nil {
		_, err = s.CreateKey(tb.Context(), by, func(now time.Time) (apikey.Key, error) {
			return apikey.Rules{Catalogue: apikey.DefaultScopes(), Formats: apikey.DefaultKeyFormats()}.Create(apikey.Key{
				OrganizationID: organization, Label: "A key of middling length", Enabled: true, Scopes: apikey.Scopes{"products.read"},
				Secret: keyring.NewPeppers(keyring.NewKey("x_1", "edge"), keyring.NewKey("p_1", "pepper")).Stored(secret),
			}, now)
		})
	}
	if err != nil {
		tb.Error(err)
	}
}

// fanOutAll makes the deliveries of all events that there are.
func fanOutAll(tb testing.TB, s *store.Store) {
	tb.Helper()
	for more := true; more; {
		done, err := s.FanOut(tb.Context(), "org_default", time.Second)
		if err != nil {
			tb.Fatal(err)
		}
		more = done.More
	}
}

// runFanOut has a fan-out follow the log until the end of the test.
func runFanOut(tb testing.TB, s *store.Store, worker *deliver.Worker) {
	tb.Helper()
	fanOut := deliver.NewFanOut(deliver.FanOutConfig{Log: s, MaxBehind: time.Minute, Due: worker.Wake})
	s.OnCommit(func(c store.Commit) {
		worker.Wake(c.Due)
		fanOut.Notify(c.Organizations, c.Subscribed)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fanOut.Run(ctx) // It has no errors.
	}()
	tb.Cleanup(func() { cancel(); <-done })
}

// runWorker runs a worker until the function that it returns is called.
func runWorker(tb testing.TB, w *deliver.Worker) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.Run(ctx) // It has no errors.
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	tb.Cleanup(stop)
	return stop
}

// delivered counts the deliveries that were.
func delivered(tb testing.TB, s *store.Store) (n int) {
	tb.Helper()
	for after := ""; ; {
		list, next, err := s.Deliveries(tb.Context(), store.DeliveryFilter{State: webhook.StateDelivered}, after, 1000)
		if err != nil {
			tb.Fatal(err)
		}
		if n += len(list); next == "" {
			return n
		}
		after = next
	}
}

// postAll posts body n times, 64 at a time, and returns how long that took.
func postAll(tb testing.TB, url string, body []byte, n int) time.Duration {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DialContext: (&net.Dialer{}).DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var left atomic.Int64
	left.Store(int64(n))
	began := time.Now()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				resp, err := client.Post(url, "application/json", strings.NewReader(string(body)))
				if err != nil {
					tb.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}
