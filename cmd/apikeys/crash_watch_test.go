package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// TestWatchThroughKills has writers and followers of all manners, over all transports, at
// a program that is killed three times. Everyone connects again, and in the end the
// history of each follower is held against the log.
func TestWatchThroughKills(t *testing.T) {
	const kills, calls = 3, 200
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for what would never end
	defer cancel()
	p := startProcess(t, dir)
	created, err := p.keys.CreateApiKey(as(ctx, crashOrganizations[0]), &apikeysv1.CreateApiKeyRequest{Label: "rotated"})
	if err != nil {
		t.Fatal(err)
	}
	rotated := created.GetApiKey().GetId()
	s := &env{}
	s.moved = sync.NewCond(&s.mu)
	all := followers(rotated)
	prompt := 0
	var following sync.WaitGroup
	for i, f := range all {
		if f.prompt() {
			prompt++
		}
		following.Go(func() {
			if err := f.follow(ctx, s, rand.New(rand.NewPCG(uint64(i), 3))); err != nil {
				t.Errorf("%s: %v", f.Name, err)
				s.change(func() { s.failed++ })
			}
		})
	}
	known := make(map[string]*answered)
	for round := 1; ; round++ {
		s.change(func() { s.process, s.nth, s.met = p, round, make(map[*follower]bool) })
		written := s.write(ctx, p, rotated, known)
		s.await(func() bool {
			return s.calls >= round*calls && len(s.met)+s.failed >= prompt || s.writing == 0
		})
		if round > kills {
			s.change(func() { s.stopped = true })
			written()
			s.change(func() { s.over = true })
			break
		}
		p.kill(t)
		written()
		p = startProcess(t, dir)
	}
	following.Wait()
	log := readLog(ctx, t, p)
	for _, f := range all {
		f.place(ctx, t, p, log)
	}
	p.kill(t)
	checkEvents(t, dir, known)
	messages, lost := 0, 0
	for _, f := range all {
		for _, fault := range f.Check(log) {
			t.Error(fault)
		}
		if f.prompt() && f.cut == 0 && f.lost != kills {
			t.Errorf("%s lost its connection %d times, with %d kills", f.Name, f.lost, kills)
		}
		messages += len(f.messages)
		lost += f.lost
	}
	t.Logf("%d events, %d followers, %d messages, %d connections lost", len(log), len(all), messages, lost)
}

// followers returns one of each manner for each transport, with filters in turn.
func followers(rotated string) (all []*follower) {
	transports := map[string]transport{"gRPC": overGRPC, "lines": overLines, "SSE": overSSE}
	manners := map[string]follower{
		"eager":           {},
		"from the oldest": {from: "start"},
		"slow":            {slow: 2},
		"cut":             {cut: 10},
		"late, slow, cut": {slow: 1, cut: 20, late: 100, from: "start"},
	}
	filters := []servertest.History{
		{Name: "all"},
		{Name: "one", Organization: "org_a"},
		{Name: "types", Organization: "org_b", Types: []string{"api_key.created", "api_key.revoked"}},
		{Name: "resource", Resources: []string{rotated}},
		{Name: "nothing", Resources: []string{"api_key_of_nobody"}},
	}
	for i, name := range slices.Sorted(maps.Keys(transports)) {
		for j, mannerName := range slices.Sorted(maps.Keys(manners)) {
			f := manners[mannerName]
			f.transport, f.History = transports[name], filters[(i+j)%len(filters)]
			f.Name = name + ", " + f.Name + ", " + mannerName
			all = append(all, &f)
		}
	}
	return all
}

// An env is where the program serves: one process after the other, each with
// addresses of its own, on one data directory.
type env struct {
	mu      sync.Mutex
	moved   *sync.Cond
	process *process
	nth     int                // of the processes, from 1 on
	met     map[*follower]bool // the prompt ones that the process has told something
	failed  int                // followers that gave up
	writing int                // writers of the process
	calls   int                // of the writers, answered
	stopped bool               // the writers make no further call; those under way may still change something
	over    bool               // the writers have ended, so nothing changes any more
}

// change makes a change that others may wait for.
func (s *env) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.moved.Broadcast()
}

func (s *env) await(until func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !until() {
		s.moved.Wait()
	}
}

// pass lets n calls of the writers pass, while there are any to come.
func (s *env) pass(n int) {
	end := -1
	s.await(func() bool {
		if end < 0 {
			end = s.calls + n
		}
		return s.over || s.calls >= end
	})
}

// isOver reports whether nothing changes any more.
func (s *env) isOver() (over bool) {
	s.await(func() bool { over = s.over; return true })
	return over
}

// meet notes that a process has told a follower something.
func (s *env) meet(f *follower, p *process) {
	s.change(func() {
		if s.process == p && f.prompt() {
			s.met[f] = true
		}
	})
}

// after returns the process that runs, once it is another than the nth.
func (s *env) after(nth int) (p *process, number int, err error) {
	s.await(func() bool {
		p, number = s.process, s.nth
		return s.over || number > nth
	})
	if number <= nth {
		return nil, 0, fmt.Errorf("process %d was lost, but nobody killed it", nth)
	}
	return p, number, nil
}

// write has writers change keys of all organizations, until the process is gone
// or nothing more is wanted. Besides, one key is rotated all the time.
func (s *env) write(ctx context.Context, p *process, rotated string, known map[string]*answered) (wait func()) {
	const writers = 6
	var all sync.WaitGroup
	s.change(func() { s.writing = writers })
	for i := range writers {
		all.Go(func() {
			own := make(map[string]*answered)
			for stopped := false; !stopped && writeOne(as(ctx, crashOrganizations[i%3]), p.keys, own); {
				if i == 0 { // What comes of this is in the log; that the server is gone shows soon enough.
					_, _ = p.keys.RotateApiKey(as(ctx, crashOrganizations[0]), &apikeysv1.RotateApiKeyRequest{Id: rotated, OverlapSeconds: new(int32)})
				}
				s.change(func() { s.calls++; stopped = s.stopped })
			}
			s.change(func() {
				s.writing--
				for id, a := range own {
					known[id] = a
				}
			})
		})
	}
	return all.Wait
}

var crashOrganizations = []string{"org_a", "org_b", "org_c"}

// as returns a context whose calls are the operator's, in an organization or, where
// that is empty, in all.
func as(ctx context.Context, organization string) context.Context {
	if organization == "" {
		organization = "*"
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+crashToken, "x-organization-id", organization)
}
