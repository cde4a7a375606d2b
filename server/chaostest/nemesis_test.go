package chaostest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// fault breaks something and mends it again.
type fault struct {
	name   string
	weight int
	run    func(l *load, r *replica, random *rand.Rand) error
}

// faults are what the random run breaks. Each takes a few seconds.
var faults = []fault{
	{"kill a replica", 5, func(l *load, r *replica, random *rand.Rand) error {
		return l.killed(r, between(random, 200*time.Millisecond, 2*time.Second))
	}},
	{"pause a replica", 5, func(l *load, r *replica, random *rand.Rand) error {
		return l.paused(r, between(random, 500*time.Millisecond, 7*time.Second))
	}},
	{"stop a replica in order", 1, func(l *load, r *replica, _ *rand.Rand) error { return l.restarted(r) }},
	{"cut a replica off", 3, func(l *load, r *replica, random *rand.Rand) error {
		return l.networked(r, cut, between(random, 300*time.Millisecond, 4*time.Second))
	}},
	{"swallow a replica's data", 2, func(l *load, r *replica, random *rand.Rand) error {
		return l.networked(r, blackhole, between(random, 300*time.Millisecond, 4*time.Second))
	}},
	{"slow a replica's network down", 3, func(l *load, r *replica, random *rand.Rand) error {
		return l.slowed(r, between(random, 10*time.Millisecond, 60*time.Millisecond), 3*time.Second)
	}},
	{"crash the database", 1, func(l *load, _ *replica, _ *rand.Rand) error { return l.databaseRestarted(syscall.SIGQUIT) }},
	{"a held transaction", 1, func(l *load, _ *replica, random *rand.Rand) error {
		return l.heldTransaction(between(random, time.Second, 4*time.Second))
	}},
}

// between returns a time between two.
func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)))
}

// breakThings breaks one thing after the other for a time, with little in between.
func (l *load) breakThings(most time.Duration) error {
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	for end := l.history.now() + most; l.history.now() < end; {
		n := l.random.IntN(sum)
		for _, f := range faults {
			if n -= f.weight; n >= 0 {
				continue
			}
			if err := f.run(l, l.any(l.random), l.random); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			break
		}
		l.pause(between(l.random, 200*time.Millisecond, 2500*time.Millisecond))
	}
	return nil
}

// startTime is within what time a replica that was started serves.
const startTime = 30 * time.Second

// killed kills a replica and starts it again after a time.
func (l *load) killed(r *replica, gone time.Duration) error {
	mended := l.faults.begin(ofProcess, r.number, fmt.Sprintf("killed, for %v", gone))
	defer mended()
	r.kill()
	l.pause(gone)
	return l.started(r)
}

// started starts a replica and waits until it serves.
func (l *load) started(r *replica) error {
	if err := r.start(); err != nil {
		return err
	}
	return retry(l.ctx, startTime, r.serving)
}

// restarted stops a replica in order and starts it again.
func (l *load) restarted(r *replica) error {
	mended := l.faults.begin(ofProcess, r.number, "stopped in order")
	defer mended()
	if err := r.stop(); err != nil {
		return err
	}
	return l.started(r)
}

// paused stops a replica where it stands, for a time.
func (l *load) paused(r *replica, most time.Duration) error {
	mended := l.faults.begin(ofProcess, r.number, fmt.Sprintf("paused for %v", most))
	defer mended()
	r.pause()
	l.pause(most)
	r.resume()
	return nil
}

// networked changes the network between a replica and the database for a time.
func (l *load) networked(r *replica, state connection, most time.Duration) error {
	mended := l.faults.begin(ofNetwork, r.number, fmt.Sprintf("%s for %v", state, most))
	defer mended()
	r.network(state)
	l.pause(most)
	r.network(connected)
	return nil
}

// slowed holds the data between a replica and the database back for a time.
func (l *load) slowed(r *replica, delay, most time.Duration) error {
	mended := l.faults.begin(ofNetwork, r.number, fmt.Sprintf("slow by up to %v, for %v", delay, most))
	defer mended()
	r.slow(delay)
	l.pause(most)
	r.slow(0)
	return nil
}

// databaseRestarted stops the database and starts it again at once.
func (l *load) databaseRestarted(how syscall.Signal) error {
	mended := l.faults.begin(ofDatabase, everyReplica, fmt.Sprintf("restarted by %v", how))
	defer mended()
	l.primary.stop(how)
	return l.primary.start(l.ctx)
}

// heldTransaction has another client hold the row that every change needs, for a time.
func (l *load) heldTransaction(most time.Duration) error {
	mended := l.faults.begin(ofDatabase, everyReplica, fmt.Sprintf("another client's transaction of %v", most))
	defer mended()
	conn, err := l.primary.connect(l.ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(l.ctx))
	if _, err := conn.Exec(l.ctx, "BEGIN"); err != nil {
		return err
	}
	if _, err := conn.Exec(l.ctx, "SELECT position FROM revisions FOR UPDATE"); err != nil {
		return err
	}
	l.pause(most)
	_, err = conn.Exec(l.ctx, "ROLLBACK")
	return err
}

// suspended stops all processes of a run, as a machine that is suspended does.
func (l *load) suspended(most time.Duration) error {
	mended := l.faults.begin(ofProcess, everyReplica, fmt.Sprintf("suspended for %v", most))
	defer mended()
	for _, r := range l.replicas {
		r.pause()
	}
	l.primary.signal(syscall.SIGSTOP)
	l.pause(most)
	l.primary.signal(syscall.SIGCONT)
	for _, r := range l.replicas {
		r.resume()
	}
	return nil
}
