package chaostest

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// TestFaults breaks one thing after the other, under load, and in the end holds all
// that was seen against the contract. After each fault every replica serves again
// without a hand.
func TestFaults(t *testing.T) {
	needsChaos(t)
	l := newCluster(t, clusterConfig{standby: true}).startLoad()
	l.pause(2 * time.Second)
	for _, f := range []struct {
		name string
		run  func() error
	}{
		{"a replica is killed, and others do its work", func() error { return l.eachKilled() }},
		{"a replica is paused past its leases and woken", func() error { return l.eachPaused(8 * time.Second) }},
		{"a replica is cut off", func() error { return l.networked(l.replicas[0], cut, 4*time.Second) }},
		{"a replica's data is swallowed", func() error { return l.networked(l.replicas[1], blackhole, 6*time.Second) }},
		{"a replica's network is slow", func() error { return l.slowed(l.replicas[2], 80*time.Millisecond, 5*time.Second) }},
		{"many calls wait for the pool", func() error { return l.crowded(l.replicas[2], 200) }},
		{"the database has no connection left", func() error { return l.connectionsTaken(3 * time.Second) }},
		{"a transaction of another client is held open", func() error { return l.heldTransaction(13 * time.Second) }},
		{"the machine is suspended", func() error { return l.suspended(6 * time.Second) }},
		{"the database is restarted in order", func() error { return l.databaseRestarted(syscall.SIGINT) }},
		{"the database crashes", func() error { return l.databaseRestarted(syscall.SIGKILL) }},
		{"the standby takes over", func() error { return l.failover() }},
	} {
		began := l.history.now()
		if err := f.run(); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		mended := l.history.now()
		if err := l.recovered(l.ctx, recoveryTime); err != nil {
			t.Fatalf("after %q: %v", f.name, err)
		}
		t.Logf("%s: from %v to %v, recovered after %v", f.name, began.Round(time.Millisecond), mended.Round(time.Millisecond), (l.history.now() - mended).Round(time.Millisecond))
		l.pause(time.Second)
	}
	l.fail(l.finish(false))
}

// TestClocks has replicas whose clocks are ten minutes off, one to each side: expiry,
// overlaps and refills go by the database's time.
func TestClocks(t *testing.T) {
	needsChaos(t)
	l := newCluster(t, clusterConfig{clockOffsets: [3]time.Duration{0, 10 * time.Minute, -10 * time.Minute}}).startLoad()
	for range 3 {
		l.worker(300*time.Millisecond, l.expire)
		l.worker(300*time.Millisecond, l.overlap)
	}
	l.pause(8 * time.Second)
	if err := l.killed(l.replicas[1], time.Second); err != nil {
		t.Fatal(err)
	}
	l.pause(6 * time.Second)
	l.fail(l.finish(false))
}

// takeOverTime is within what time others do the work of a replica that has died.
const takeOverTime = 10 * time.Second

// eachKilled kills each replica in turn, and then a change through another one reaches
// its webhook in time, whoever had made deliveries.
func (l *load) eachKilled() error {
	for i, r := range l.replicas {
		mended := l.faults.begin(ofProcess, r.number, "killed, until others have taken over")
		r.kill()
		err := l.delivered(l.replicas[(i+1)%len(l.replicas)])
		if startErr := l.started(r); err == nil {
			err = startErr
		}
		mended()
		if err != nil {
			return err
		}
	}
	return nil
}

// delivered makes a change through a replica and waits for its delivery.
func (l *load) delivered(r *replica) error {
	ctx, cancel := context.WithTimeout(as(l.ctx, organizations[0]), changeTimeout)
	defer cancel()
	resp, err := r.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "taken over"})
	if err != nil {
		return err
	}
	began := l.history.now()
	w := l.hooks.webhooks[0]
	return retry(l.ctx, takeOverTime+2*time.Second, func(ctx context.Context) error {
		var id string
		query := fmt.Sprintf("SELECT id FROM deliveries WHERE webhook_id = '%s' AND resource_id = '%s'", w.id, resp.GetApiKey().GetId())
		if err := l.database().scan(ctx, query, &id); err != nil {
			return fmt.Errorf("the delivery of a change at %v: %w", began, err)
		}
		if len(l.hooks.received()[id]) == 0 {
			return fmt.Errorf("the delivery %s of a change at %v was not received", id, began)
		}
		return nil
	})
}

// eachPaused pauses each replica in turn.
func (l *load) eachPaused(most time.Duration) error {
	for _, r := range l.replicas {
		if err := l.paused(r, most); err != nil {
			return err
		}
		if err := l.recovered(l.ctx, recoveryTime); err != nil {
			return err
		}
	}
	return nil
}

// crowded makes many slow calls to a replica at once, more than it has connections.
func (l *load) crowded(r *replica, calls int) error {
	mended := l.faults.begin(ofNetwork, r.number, fmt.Sprintf("slow, with %d calls at once", calls))
	defer mended()
	r.slow(30 * time.Millisecond)
	defer r.slow(0)
	var all sync.WaitGroup
	for i := range calls {
		all.Go(func() {
			o := &operation{Kind: "list", Client: i}
			l.call(r, o, organizations[i%len(organizations)], changeTimeout, func(ctx context.Context, _ *operation) error {
				_, err := r.keys.ListApiKeys(ctx, &apikeysv1.ListApiKeysRequest{PageSize: 20, Q: "chaos"})
				return err
			})
		})
	}
	all.Wait()
	return nil
}

// connectionsTaken takes all connections that the database has left, while a replica
// loses its own.
func (l *load) connectionsTaken(most time.Duration) error {
	mended := l.faults.begin(ofDatabase, everyReplica, "no connection left")
	defer mended()
	var taken []*pgx.Conn
	defer func() {
		for _, c := range taken {
			c.Close(context.WithoutCancel(l.ctx))
		}
	}()
	take := func() error {
		for {
			c, err := l.database().connect(l.ctx)
			if err != nil {
				return err
			}
			taken = append(taken, c)
		}
	}
	r := l.replicas[0]
	_ = take() // until there is none
	r.network(cut)
	_ = take()
	r.network(connected)
	l.pause(most)
	return nil
}

// failover ends the primary as a power cut would, and promotes its standby. What was
// answered is on both.
func (l *load) failover() error {
	if err := l.followed(l.ctx); err != nil {
		return err
	}
	mended := l.faults.begin(ofDatabase, everyReplica, "the primary dies and the standby takes over")
	defer mended()
	l.primary.stop(syscall.SIGKILL)
	l.pause(time.Second)
	if err := l.standby.promote(l.ctx); err != nil {
		return err
	}
	l.promoted = true
	return nil
}
