package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// BenchmarkReplicasVerify is VerifyApiKey over gRPC, warm, by 64 callers: through one
// replica, and in turns with it through three of another database, each of which has
// all keys in memory. x-three-of-one compares how many calls a second of the replicas'
// processors answers; processor time includes storing the counters, to the last of them.
// The replicas share the machine, so three are no faster, and none has enough to do to
// gather what it reads and writes; each stores a count of each key every second, so that
// of fewer calls a second more goes into that. x-each-of-one is without that: one replica
// of the three has all callers, each in turn, and what the two idle ones spend counts too.
func BenchmarkReplicasVerify(b *testing.B) {
	keys, turn := sized(b, 300, 10_000), sized(b, 3000, 100_000)
	ctx := operatorOf(b)
	_, addr := startFloor(b, floorOfGRPC)
	floor := dial(b, addr)
	sides := oneAndThree(b)
	var verify [2]func(i int) error
	var counted [2]func(calls int)
	var each func(replica, i int) error
	for side, r := range sides {
		secrets := make([]string, keys)
		byCallers(b, 64, keys, func(i int) error {
			resp, err := r.of(i).keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "Key", Scopes: []string{"invoices.read"}})
			secrets[i] = resp.GetApiKey().GetSecret()
			return err
		})
		each = func(replica, i int) error {
			resp, err := r.of(replica).keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secrets[i%keys]})
			if err == nil && !resp.GetValid() {
				err = fmt.Errorf("not valid: %v", resp.GetCode())
			}
			return err
		}
		through := each
		verify[side] = func(i int) error { return through(i+i/keys, i) } // Each key through each replica.
		counted[side] = r.awaitCounted(b)
		byCallers(b, 64, len(r.list)*keys, verify[side])
		counted[side](len(r.list) * keys)
	}
	empty := func(int) error {
		return floor.Invoke(ctx, "/bench.Empty/Call", &emptypb.Empty{}, &emptypb.Empty{})
	}
	byCallers(b, 64, keys, empty)
	spent := func(side int, call func(i int) error) (wall, processor time.Duration) {
		before := sides[side].processorTime(b)
		wall = byCallers(b, 64, turn, call)
		counted[side](turn)
		return wall, sides[side].processorTime(b) - before
	}
	var wall, processor [2]time.Duration
	var least, alone time.Duration
	round := 0
	turns := []func(){
		func() { least += byCallers(b, 64, turn, empty) },
		func() {
			_, p := spent(1, func(i int) error { return each(round, i) })
			alone += p
		},
	}
	for side := range sides {
		turns = append(turns, func() {
			w, p := spent(side, verify[side])
			wall[side], processor[side] = wall[side]+w, processor[side]+p
		})
	}
	for ; b.Loop(); round++ {
		for i := range turns { // Each is first in turn, and every other round goes backwards.
			turns[(i*(1+2*(round%2))+round)%len(turns)]()
		}
	}
	calls := float64(b.N * turn)
	for side, name := range []string{"1", "3"} {
		b.ReportMetric(calls/wall[side].Seconds(), "calls/s-"+name)
		b.ReportMetric(processor[side].Seconds()*1e6/calls, "cpu-µs/call-"+name)
		b.ReportMetric(least.Seconds()/wall[side].Seconds(), "x-of-floor-"+name)
	}
	b.ReportMetric(alone.Seconds()*1e6/calls, "cpu-µs/call-each")
	b.ReportMetric(processor[0].Seconds()/processor[1].Seconds(), "x-three-of-one")
	b.ReportMetric(processor[0].Seconds()/alone.Seconds(), "x-each-of-one")
}

// BenchmarkReplicasWatch is how long after the answer to a change its event is with the
// watchers: of the one replica that made it, and of the two others of three. Changes are
// made one after the other, 500 a second or as fast as they are answered.
func BenchmarkReplicasWatch(b *testing.B) {
	watchers, changes := sized(b, 4, 100), sized(b, 40, 1000)
	ctx := operatorOf(b)
	sides := oneAndThree(b)
	late := make([][]time.Duration, len(sides))
	for b.Loop() {
		for side, r := range sides {
			others := r.list[min(1, len(r.list)-1):]
			late[side] = append(late[side], watchLate(ctx, b, r.list[0], others, watchers, changes)...)
		}
	}
	reportTimes(b, late[0], "same")
	reportTimes(b, late[1], "other")
}

// watchLate has watchers at some replicas, makes changes through another and returns how
// long after its answer each change was with each watcher.
func watchLate(ctx context.Context, b *testing.B, through *process, at []*process, watchers, changes int) []time.Duration {
	b.Helper()
	// The streams of the round before count until their replica has heard of their end, so
	// each round is another caller's.
	reader, err := through.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "reader", Scopes: []string{"events.read"}})
	if err != nil {
		b.Fatal(err)
	}
	watching, cancel := context.WithTimeout(
		metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer "+reader.GetApiKey().GetSecret()), time.Minute)
	defer cancel()
	streams := make([]grpc.ServerStreamingClient[apikeysv1.WatchEventsResponse], watchers)
	for i := range streams {
		var err error
		streams[i], err = apikeysv1.NewEventsServiceClient(at[i%len(at)].conn).WatchEvents(watching, &apikeysv1.WatchEventsRequest{})
		if err == nil {
			_, err = streams[i].Recv()
		}
		if err != nil {
			b.Fatalf("watch: %v", err)
		}
	}
	received := make([]map[string]time.Time, watchers)
	var all sync.WaitGroup
	for i, stream := range streams {
		all.Go(func() {
			received[i] = make(map[string]time.Time, changes)
			for len(received[i]) < changes {
				m, err := stream.Recv()
				if err != nil {
					b.Errorf("watcher %d has %d of %d events: %v", i, len(received[i]), changes, err)
					return
				}
				if m.GetEvent() != nil {
					received[i][m.GetEvent().GetResourceId()] = time.Now()
				}
			}
		})
	}
	answered := make(map[string]time.Time, changes)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range changes {
		<-tick.C
		resp, err := through.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "key"})
		if err != nil {
			b.Fatal(err)
		}
		answered[resp.GetApiKey().GetId()] = time.Now()
	}
	all.Wait()
	var late []time.Duration
	for _, times := range received {
		for id, at := range times {
			late = append(late, max(0, at.Sub(answered[id])))
		}
	}
	return late
}

// BenchmarkReplicasCatchUp is how many events a second watchers receive that begin 1,000
// behind, all in one replica and spread over three.
func BenchmarkReplicasCatchUp(b *testing.B) {
	watchers, events := sized(b, 6, 99), sized(b, 200, 1000)
	ctx := operatorOf(b)
	sides := oneAndThree(b)
	for _, r := range sides {
		byCallers(b, 64, events, func(i int) error {
			_, err := r.of(i).keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "key"})
			return err
		})
	}
	var wall [2]time.Duration
	for b.Loop() {
		for side, r := range sides {
			wall[side] += byCallers(b, watchers, watchers, func(i int) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				stream, err := apikeysv1.NewEventsServiceClient(r.of(i).conn).WatchEvents(ctx, &apikeysv1.WatchEventsRequest{After: "start"})
				for n := 0; err == nil && n < events; {
					var m *apikeysv1.WatchEventsResponse
					if m, err = stream.Recv(); m.GetEvent() != nil {
						n++
					}
				}
				return err
			})
		}
	}
	for side, name := range []string{"1", "3"} {
		b.ReportMetric(float64(b.N*watchers*events)/wall[side].Seconds(), "events/s-"+name)
	}
}

// BenchmarkReplicasRevoke is how long after a revocation was answered by one replica
// another has refused the key, which it had in memory and was asked about all the time.
func BenchmarkReplicasRevoke(b *testing.B) {
	keys := sized(b, 15, 500)
	ctx, r := operatorOf(b), startReplicas(b, 3)
	var late []time.Duration
	for b.Loop() {
		for i := range keys {
			late = append(late, revokeLate(ctx, b, r.list[0], r.list[1+i%2]))
		}
	}
	reportTimes(b, late, "other")
}

// revokeLate makes a key, has another replica keep it in memory, revokes it and returns
// how long after the answer the other has refused it.
func revokeLate(ctx context.Context, b *testing.B, through, other *process) time.Duration {
	b.Helper()
	made, err := through.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "key"})
	if err != nil {
		b.Fatal(err)
	}
	verify := func() *apikeysv1.VerifyApiKeyResponse {
		resp, err := other.keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: made.GetApiKey().GetSecret()})
		if err != nil {
			b.Errorf("verify: %v", err)
		}
		return resp
	}
	if resp := verify(); !resp.GetValid() {
		b.Fatalf("a new key is %v", resp.GetCode())
	}
	refused := make(chan time.Time, 1)
	go func() {
		for began := time.Now(); ; {
			if !verify().GetValid() || time.Since(began) > 10*time.Second {
				refused <- time.Now()
				return
			}
		}
	}()
	if _, err := through.keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: made.GetApiKey().GetId()}); err != nil {
		b.Fatal(err)
	}
	answered := time.Now()
	late := (<-refused).Sub(answered)
	if late > 5*time.Second {
		b.Fatalf("key %s is valid %v after its revocation", made.GetApiKey().GetId(), late)
	}
	return max(0, late)
}
