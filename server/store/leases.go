package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// LeaseName names a kind of work that one server of a database does at a time.
type LeaseName string

// The kinds of work.
const (
	// LeaseJobs is for the periodic jobs that change the database.
	LeaseJobs LeaseName = "jobs"
	// LeaseFanOut is for the fan-out of events to webhooks.
	LeaseFanOut LeaseName = "fan_out"
)

// LeaseNames are all of them.
var LeaseNames = []LeaseName{LeaseFanOut, LeaseJobs}

// The times of leases. A server that has died is followed by another within
// leaseLength and leasePoll.
const (
	leaseLength  = 5 * time.Second
	leaseRenewal = time.Second
	// leasePoll is how often a server that does not hold a lease tries to take it.
	leasePoll = 500 * time.Millisecond
	// leaseStatement bounds a statement about a lease, so that several fit into the
	// length of a lease.
	leaseStatement = 2 * time.Second
)

// Lease is the right to do a kind of work. Where servers share the database, one of them
// has it at a time: it is a row with the name of its holder, a token that grows each time
// that the lease is taken, and the time when it ends, by the clock of the database. On
// SQLite the only server has every lease.
//
// A process that was paused may believe that it holds a lease that has passed on. So the
// context of the work carries the token, and every transaction of this store that is
// begun with that context checks in the transaction that the token still stands, and
// keeps it until the transaction ends.
type Lease struct {
	store *Store
	name  LeaseName
	log   *slog.Logger
	held  atomic.Bool
	made  bool // the row is known to be there; for Run
}

// Lease returns the lease of a kind of work.
func (s *Store) Lease(name LeaseName) *Lease {
	return &Lease{store: s, name: name, log: s.log.With("lease", name)}
}

// Name returns the name of the work.
func (l *Lease) Name() LeaseName { return l.name }

// Held reports whether this server does the work now.
func (l *Lease) Held() bool { return l.held.Load() }

// Run calls work each time that this server has taken the lease, until ctx ends; one call
// at a time. The context of work ends when the lease is lost; work must return then, and
// not before. When ctx ends the lease is given up, so that another server takes it at
// once.
func (l *Lease) Run(ctx context.Context, work func(context.Context)) {
	if !l.store.Shared() {
		l.held.Store(true)
		defer l.held.Store(false)
		work(ctx)
		return
	}
	failing := false
	next := time.NewTicker(leasePoll)
	defer next.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		token, err := l.take(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && !failing:
			l.log.Warn("A lease cannot be asked for; it is tried again.", "error", err)
		case err == nil && failing:
			l.log.Info("A lease can be asked for again.")
		}
		if token != 0 {
			l.term(ctx, token, began.Add(leaseLength), work)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
		case <-next.C:
		}
	}
}

// errLeaseLost says that the lease, under which something was to be written, is another
// server's.
var errLeaseLost = errors.New("the lease is no longer held")

// term does the work from the taking of the lease until its end.
func (l *Lease) term(ctx context.Context, token int64, until time.Time, work func(context.Context)) {
	l.log.Info("This server has taken a lease and does its work.", "holder", l.store.holder, "token", token)
	term, end := context.WithCancelCause(ctx)
	defer end(nil)
	l.held.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer end(nil)
		work(context.WithValue(term, fenceKey{}, &fence{l.name, token, end}))
	}()
	l.keep(term, token, until, end)
	l.held.Store(false)
	<-done
	if cause := context.Cause(term); errors.Is(cause, errLeaseLost) {
		l.log.Warn("This server has lost a lease and has ended its work; another may do it.", "token", token, "error", cause)
		return
	}
	l.giveUp(context.WithoutCancel(ctx), token)
}

// keep renews the lease until term ends, and ends it when the lease is lost. until is
// when the lease ends at the latest, by the clock of this process: it counts from before
// the statement that took or renewed it.
func (l *Lease) keep(term context.Context, token int64, until time.Time, lost context.CancelCauseFunc) {
	next := time.NewTicker(leaseRenewal)
	defer next.Stop()
	ended := time.NewTimer(time.Until(until))
	defer ended.Stop()
	for err := error(nil); ; {
		select {
		case <-term.Done():
			return
		case <-ended.C:
			lost(errors.Join(errLeaseLost, errors.New("it was not renewed in time"), err))
			return
		case <-next.C:
		}
		began := time.Now()
		var held bool
		if held, err = l.renew(term, token, time.Until(until)); err != nil {
			continue
		}
		if !held {
			lost(errLeaseLost)
			return
		}
		until = began.Add(leaseLength)
		ended.Reset(time.Until(until))
	}
}

// The statements of leases. The time of the database comes from clock_timestamp, since
// now() is that of the transaction's beginning.
const (
	makeLease = "INSERT INTO leases (name, holder, token, until) VALUES ($1, '', 0, clock_timestamp()) ON CONFLICT (name) DO NOTHING"
	// takeLease waits for nobody. A transaction under the lease's last token keeps the row
	// from it until that transaction ends.
	takeLease = `UPDATE leases SET holder = $2, token = token + 1, until = clock_timestamp() + $3::bigint * interval '1 microsecond'
		WHERE name = (SELECT name FROM leases WHERE name = $1 AND until <= clock_timestamp() FOR UPDATE SKIP LOCKED) RETURNING token`
	// renewLease passes by the transactions under its own token.
	renewLease  = "UPDATE leases SET until = clock_timestamp() + $3::bigint * interval '1 microsecond' WHERE name = $1 AND token = $2"
	giveUpLease = "UPDATE leases SET until = clock_timestamp() WHERE name = $1 AND token = $2"
	checkLease  = "SELECT 1 FROM leases WHERE name = $1 AND token = $2 FOR KEY SHARE"
)

// take takes the lease if it is free. The token is 0 where it is not.
func (l *Lease) take(ctx context.Context) (token int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaseStatement)
	defer cancel()
	db := l.store.leasesDB
	if !l.made {
		if _, err := db.ExecContext(ctx, makeLease, string(l.name)); err != nil {
			return 0, fmt.Errorf("make the row of a lease: %w", err)
		}
		l.made = true
	}
	err = db.QueryRowContext(ctx, takeLease, string(l.name), l.store.holder, leaseLength.Microseconds()).Scan(&token)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("take a lease: %w", err)
	}
	return token, nil
}

// renew reports whether the lease is still held, and if so, gives it its full length. It
// takes no longer than most.
func (l *Lease) renew(ctx context.Context, token int64, most time.Duration) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(most, leaseStatement))
	defer cancel()
	result, err := l.store.leasesDB.ExecContext(ctx, renewLease, string(l.name), token, leaseLength.Microseconds())
	if err != nil {
		return false, fmt.Errorf("renew a lease: %w", err)
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// giveUp ends the lease. Where that fails it ends by itself.
func (l *Lease) giveUp(ctx context.Context, token int64) {
	ctx, cancel := context.WithTimeout(ctx, leaseStatement)
	defer cancel()
	if _, err := l.store.leasesDB.ExecContext(ctx, giveUpLease, string(l.name), token); err != nil {
		l.log.Warn("A lease cannot be given up; it ends by itself.", "token", token, "error", err)
		return
	}
	l.log.Info("This server has given up a lease.", "token", token)
}

// fence is under which token something is to be written.
type fence struct {
	name  LeaseName
	token int64
	lost  context.CancelCauseFunc // ends the work
}

// fenceKey is the key of the fence of a context.
type fenceKey struct{}

// checkFence is an error where the work of ctx is done under a lease whose token no
// longer stands. Else the token stands until the transaction of q ends. statements is the
// context of the check itself.
func checkFence(ctx, statements context.Context, q querier) error {
	f, ok := ctx.Value(fenceKey{}).(*fence)
	if !ok {
		return nil
	}
	stands := false
	err := queryRows(statements, q, checkLease, []any{string(f.name), f.token}, func(rows *sql.Rows) error {
		stands = true
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("check a lease: %w", err)
	}
	if !stands {
		f.lost(errLeaseLost)
		return fmt.Errorf("%s: %w", f.name, errLeaseLost)
	}
	return nil
}

// newHolder names this server in the rows of its leases, for people.
func newHolder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	var id [4]byte
	_, _ = rand.Read(id[:]) // It never fails.
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), hex.EncodeToString(id[:]))
}
