package chaostest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How long a client waits. Servers answer sooner, whatever is broken, unless they are
// paused or gone.
const (
	verifyTimeout = 15 * time.Second
	changeTimeout = 30 * time.Second
)

// load is all that clients do in a run.
type load struct {
	*cluster
	ctx    context.Context // ends with the test
	cancel context.CancelFunc
	// stopping is closed when no call begins any more.
	stopping chan struct{}
	stopOnce sync.Once
	workers  sync.WaitGroup
	clients  atomic.Int64
	pool     keyPool
	hot      atomic.Pointer[knownKey]
	hooks    *receiver
	watchers []*watcher
	watching sync.WaitGroup
	spending spending
	small    bool // too small to mean anything

	mu         sync.Mutex
	violations []string
}

// startLoad begins the load of a run.
func (k *cluster) startLoad() *load {
	k.t.Helper()
	l := &load{cluster: k, stopping: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(k.t.Context())
	k.stop = l.end
	var err error
	l.hooks, err = newReceiver(l)
	k.must(err)
	k.must(l.hooks.subscribe())
	k.must(l.startWatchers())
	for range 4 {
		l.worker(80*time.Millisecond, l.change)
	}
	for range 2 {
		l.worker(40*time.Millisecond, l.changeHot)
	}
	for i := range 2 * len(k.replicas) {
		r := k.replicas[i%len(k.replicas)]
		l.worker(12*time.Millisecond, func(client int, random *rand.Rand) { l.verifyAny(r, client, random) })
		l.worker(30*time.Millisecond, func(client int, random *rand.Rand) { l.spend(r, client, random) })
	}
	l.worker(time.Second, l.expire)
	l.worker(time.Second, l.overlap)
	l.worker(3*time.Second, func(client int, random *rand.Rand) { l.hooks.toggle(random) })
	return l
}

// worker calls f until the load stops, about every so often.
func (l *load) worker(every time.Duration, f func(client int, random *rand.Rand)) {
	client := int(l.clients.Add(1))
	random := rand.New(rand.NewPCG(l.seed, uint64(client)+100))
	l.workers.Go(func() {
		for l.pause(every/2 + time.Duration(random.Int64N(int64(every)))) {
			f(client, random)
		}
	})
}

// pause waits, and returns false where the load stops.
func (l *load) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.stopping:
		return false
	case <-l.ctx.Done():
		return false
	}
}

// settle lets no further call begin and waits for those under way.
func (l *load) settle() {
	l.stopOnce.Do(func() { close(l.stopping) })
	l.workers.Wait()
}

// end ends everything at once.
func (l *load) end() {
	l.cancel()
	l.settle()
	l.watching.Wait()
	if l.hooks != nil {
		l.hooks.close()
	}
}

// violation takes down that something has happened that must not.
func (l *load) violation(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.violations) < 100 {
		l.violations = append(l.violations, fmt.Sprintf(format, args...))
	}
}

// any returns one of the replicas.
func (l *load) any(random *rand.Rand) *replica { return l.replicas[random.IntN(len(l.replicas))] }

// call makes a call to a replica, within a time, and completes and records its
// operation. f completes the operation's answer.
func (l *load) call(r *replica, o *operation, organization string, timeout time.Duration, f func(context.Context, *operation) error) {
	ctx, cancel := context.WithTimeout(as(l.ctx, organization), timeout)
	defer cancel()
	o.Replica = r.number
	o.Call = l.history.now()
	err := f(ctx, o)
	o.Return = l.history.now()
	l.complete(ctx, r, o, err)
	l.history.add(o)
}

// complete takes the error of a call into its operation, and holds it against what
// callers may be told.
func (l *load) complete(ctx context.Context, r *replica, o *operation, err error) {
	if err == nil {
		o.Outcome = answered
		return
	}
	st := status.Convert(err)
	reason, retry := "", false
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.RetryInfo:
			retry = true
		}
	}
	ours := reason != "" // a server has answered, and not the connection
	o.Code = reason
	returned := o.Return
	switch st.Code() {
	case codes.FailedPrecondition, codes.NotFound, codes.Aborted:
		o.Outcome = refused
		if !ours {
			l.violation("%s of key %s on replica %s: %v has no reason", o.Kind, o.Key, r.settings.Name, err)
		}
		return
	case codes.Unavailable:
		o.Outcome, o.Return = unknown, forever
		if ours && !retry {
			l.violation("%s on replica %s: %v does not say when to try again", o.Kind, r.settings.Name, err)
		}
		if !ours && !l.broken(r, o.Call, returned) {
			l.violation("%s on replica %s lost its connection at %v, and nobody had broken it: %v", o.Kind, r.settings.Name, returned, err)
		}
	case codes.Canceled:
		o.Outcome, o.Return = unknown, forever
	case codes.DeadlineExceeded:
		o.Outcome, o.Return = unknown, forever
		if l.ctx.Err() == nil && !l.broken(r, o.Call, returned) {
			l.violation("%s on replica %s, which ran, had no answer from %v to %v", o.Kind, r.settings.Name, o.Call, returned)
		}
	default:
		o.Outcome, o.Return = unknown, forever
		l.violation("%s of key %s on replica %s: %v is no answer that the contract names", o.Kind, o.Key, r.settings.Name, err)
	}
}

// broken reports whether a replica's process was paused or gone in a time, or had just
// come back.
func (l *load) broken(r *replica, begin, end time.Duration) bool {
	return l.faults.process(r.number, begin, end, 5*time.Second)
}
