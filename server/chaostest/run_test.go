package chaostest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// The bounds of what a run waits for, once nothing is broken any more.
const (
	// recoveryTime is within what time every replica serves.
	recoveryTime = 20 * time.Second
	// catchUpTime is within what time watchers and deliveries of new events have come
	// to the end of the log.
	catchUpTime = 20 * time.Second
	// leaseTime is within what time a delivery is sent again that a replica had in
	// flight when it died.
	leaseTime = 75 * time.Second
	// settleTime is for how long around a fault what was received may not have been
	// taken down: a replica that lost its database tries again.
	settleTime = 5 * time.Second
)

// finish ends a load and checks all that was seen. It waits for deliveries in flight
// when a replica died where patient, and else only checks that they will come.
func (l *load) finish(patient bool) []string {
	if err := l.recovered(l.ctx, recoveryTime); err != nil {
		l.violation("recovery: %v", err)
	}
	l.settle()
	if err := l.enableAll(); err != nil {
		l.violation("enable a webhook at the end: %v", err)
	}
	var log []logged
	var err error
	history, page := l.history.of(), pages(l.dir)
	var untold []string
	_ = retry(l.ctx, expireAfter+catchUpTime, func(context.Context) error {
		if log, err = l.readLog(l.replicas[1]); err != nil {
			return err
		}
		if untold = checkNotices(history, log); len(untold) > 0 {
			return errors.New(untold[0])
		}
		return nil
	})
	if err != nil {
		return append(l.violations, err.Error())
	}
	l.endWatchersWithin(log[len(log)-1].Position)
	rows := l.awaitDeliveries(log, patient)

	faults := l.violations
	faults = append(faults, checkKeys(resolve(history, log), len(l.replicas), page)...)
	faults = append(faults, checkBudgets(history, l.spending.all, 1+midnights(l.history.began), page)...)
	faults = append(faults, checkLog(history, log, page)...)
	faults = append(faults, checkExpiry(history)...)
	faults = append(faults, untold...)
	faults = append(faults, checkWatchers(l.watchers, log)...)
	faults = append(faults, checkDeliveries(l.hooks.webhooks, log, rows, l.hooks.received(), func(at time.Duration) bool {
		return l.faults.around(at, settleTime)
	})...)
	l.report(history, log, rows)
	return faults
}

// midnights returns how many midnights have passed since a time.
func midnights(began time.Time) int64 {
	day := func(t time.Time) int64 { return t.Unix() / 86_400 }
	return day(time.Now()) - day(began)
}

// enableAll enables the webhook that the load has disabled now and then.
func (l *load) enableAll() error {
	w := l.hooks.webhooks[3]
	return retry(l.ctx, recoveryTime, func(ctx context.Context) error {
		_, err := l.replicas[0].hooks.UpdateWebhook(as(ctx, w.organization), &apikeysv1.UpdateWebhookRequest{
			Id: w.id, Webhook: &apikeysv1.Webhook{Enabled: true}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"enabled"}},
		})
		return err
	})
}

// endWatchersWithin ends the watchers at a position, and says which do not come to it.
func (l *load) endWatchersWithin(position int64) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.endWatchers(position)
	}()
	select {
	case <-done:
	case <-time.After(catchUpTime):
		l.violation("not every watcher has come to the end of the log, %d, within %v", position, catchUpTime)
		l.cancel()
		<-done
	}
}

// awaitDeliveries waits until every delivery that the log demands is delivered, or is
// under the lease of a replica that has died, and returns the queue.
func (l *load) awaitDeliveries(log []logged, patient bool) (rows []deliveryRow) {
	demand := len(demanded(l.hooks.webhooks, log))
	most := catchUpTime
	if patient {
		most = leaseTime + catchUpTime
	}
	err := retry(l.t.Context(), most, func(ctx context.Context) (err error) {
		if rows, err = l.deliveries(ctx); err != nil {
			return err
		}
		waiting := 0
		for _, row := range rows {
			if row.state == "pending" && (patient || row.dueIn < 0 || row.lease == "" || row.dueIn > leaseTime) {
				waiting++
			}
		}
		if waiting > 0 || len(rows) < demand {
			return fmt.Errorf("of %d deliveries %d are made, and %d of these wait", demand, len(rows), waiting)
		}
		return nil
	})
	if err != nil {
		l.violation("deliveries: %v", err)
	}
	return rows
}

// deliveries reads the queue.
func (l *load) deliveries(ctx context.Context) (rows []deliveryRow, err error) {
	conn, err := l.database().connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	found, err := conn.Query(ctx, `SELECT id, webhook_id, event_id, state, lease,
		coalesce(due_at - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 0) FROM deliveries`)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		var row deliveryRow
		var due int64
		if err := found.Scan(&row.id, &row.webhook, &row.event, &row.state, &row.lease, &due); err != nil {
			return nil, err
		}
		row.dueIn = time.Duration(due) * time.Microsecond
		rows = append(rows, row)
	}
	return rows, found.Err()
}

// report says how much a run has done.
func (l *load) report(history []*operation, log []logged, rows []deliveryRow) {
	counts := make(map[string]int)
	for _, o := range history {
		counts[o.Kind]++
		if o.Outcome == unknown {
			counts["unknown"]++
		}
	}
	messages, moves := 0, 0
	for _, w := range l.watchers {
		messages += len(w.Seen)
		moves += w.moves
	}
	l.t.Logf("%v: %d faults, %d keys, %d budgets, %v; %d events, %d deliveries, %d messages to watchers that moved %d times",
		l.history.now().Round(time.Second), l.faults.count(), l.pool.made, len(l.spending.all), counts, len(log), len(rows), messages, moves)
	l.small = counts["verify"] < 500 || len(log) < 50 || len(rows) < 20
}

// fail reports what is wrong, the first of it in the test's output and all of it in a
// file.
func (l *load) fail(faults []string) {
	l.t.Helper()
	if l.small {
		l.t.Error("the load was too small to mean anything")
	}
	if len(faults) == 0 {
		return
	}
	path := filepath.Join(l.dir, "violations.txt")
	if err := os.WriteFile(path, []byte(strings.Join(faults, "\n")+"\n"), 0o600); err != nil {
		l.t.Error(err)
	}
	for _, f := range faults[:min(10, len(faults))] {
		l.t.Error(f)
	}
	l.t.Errorf("%d violations, all in %s", len(faults), path)
}

// TestRandom breaks things at random under load.
func TestRandom(t *testing.T) {
	needsChaos(t)
	l := newCluster(t, clusterConfig{}).startLoad()
	l.pause(3 * time.Second) // in which nothing is broken, so that nothing excuses a double
	err := l.breakThings(*chaosTime)
	l.fail(append(l.finish(*chaosTime >= 5*time.Minute), errorText(err)...))
}

func errorText(err error) []string {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return []string{err.Error()}
}
