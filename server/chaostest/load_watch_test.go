package chaostest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// silence is after what time without a heartbeat, of which there is one a second, a
// watcher goes elsewhere.
const silence = 4 * time.Second

// watcher follows the log, now on one replica and now on another, and writes down
// what it sees.
type watcher struct {
	servertest.History
	load   *load
	random *rand.Rand
	after  string
	moves  int
	slow   bool // it is behind the log until the load ends
	// until is the position at which it ends, once ready is closed.
	ready chan struct{}
	until int64
}

// startWatchers starts watchers of all manners.
func (l *load) startWatchers() error {
	cursors, err := l.cursors(l.ctx)
	if err != nil {
		return err
	}
	filters := []servertest.History{
		{Name: "all"},
		{Name: "all from the start"},
		{Name: "one organization", Organization: organizations[0]},
		{Name: "types of another", Organization: organizations[1], Types: []string{"api_key.revoked", "api_key.deleted", "api_key.rotated"}},
		{Name: "nothing", Resources: []string{"api_key_of_nobody"}},
		{Name: "all, slow"},
	}
	for i, f := range filters {
		w := &watcher{History: f, load: l, random: rand.New(rand.NewPCG(l.seed, uint64(i)+1000)), ready: make(chan struct{})}
		w.slow = f.Name == "all, slow"
		if f.Name == "all from the start" {
			w.after = "start"
		}
		l.watchers = append(l.watchers, w)
		l.watching.Go(func() { w.follow(l.ctx, cursors, l.replicas[i%len(l.replicas)]) })
	}
	return nil
}

// endWatchers lets the watchers go on to a position, and waits for them.
func (l *load) endWatchers(position int64) {
	for _, w := range l.watchers {
		w.until = position
		close(w.ready)
	}
	l.watching.Wait()
}

// follow follows the log until it has come to the end.
func (w *watcher) follow(ctx context.Context, cursors *feed.Cursors, r *replica) {
	for ctx.Err() == nil {
		over, err := w.connect(ctx, cursors, r)
		if over {
			return
		}
		if err != nil {
			w.checkEnd(r, err)
			select { // A replica that is gone refuses at once.
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		r = w.load.any(w.random)
		w.moves++
	}
}

// checkEnd holds the end of a stream against what the contract names.
func (w *watcher) checkEnd(r *replica, err error) {
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
	default:
		w.load.violation("the watcher %q on replica %s was ended by %v", w.Name, r.settings.Name, err)
	}
}

// connect follows over one stream, and reports whether that was to the end.
func (w *watcher) connect(ctx context.Context, cursors *feed.Cursors, r *replica) (over bool, err error) {
	ctx, cancel := context.WithCancel(as(ctx, w.Organization))
	defer cancel()
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	stream, err := r.events.WatchEvents(ctx, &apikeysv1.WatchEventsRequest{
		After: w.after, Types: w.Types, ResourceIds: w.Resources, HeartbeatSeconds: proto.Int32(1),
	})
	if err != nil {
		return false, err
	}
	for left := 20 + w.random.IntN(400); left > 0; left-- {
		m, err := stream.Recv()
		if err != nil {
			return false, err
		}
		quiet.Reset(silence)
		position, err := cursors.Open(m.GetCursor(), w.Organization)
		if err != nil {
			return false, fmt.Errorf("the cursor of a message: %w", err)
		}
		if len(w.Seen) == 0 && w.after == "" {
			w.From = position
		}
		w.Seen = append(w.Seen, servertest.Seen{Position: position, ID: m.GetEvent().GetId()})
		w.after = m.GetCursor()
		select {
		case <-w.ready:
			if position >= w.until {
				return true, nil
			}
			continue
		default:
		}
		if w.slow {
			select {
			case <-time.After(time.Duration(w.random.IntN(200)) * time.Millisecond):
			case <-w.ready:
			case <-ctx.Done():
			}
		}
	}
	return false, nil
}
