package api

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/broken"
	"github.com/apikeys-dev/apikeys/server/feed"
)

// defaultHeartbeat is how long a stream is silent where the request does not say.
const defaultHeartbeat = 15 * time.Second

// operatorInterval is how often the token of an operator with an open stream is
// checked again: no event tells of the end of a root token, nor, in time, of a change
// that another server made of a token.
const operatorInterval = time.Second

// WatchEvents follows the log.
func (s *events) WatchEvents(req *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
	ctx := stream.Context()
	call := callOf(ctx)
	actor := call.caller.Actor
	actor.Name = "" // It may change while the stream is open.
	if !s.streams.begin(actor) {
		return apikey.Errorf(apikey.KindExhausted, reasonTooManyStreams,
			"There are %d streams of this caller already, which is the most; end one first.", s.streams.most)
	}
	defer s.streams.end(actor)
	follower, err := s.follow(ctx, req, &call.caller)
	if err != nil {
		return err
	}
	w := &watcher{
		events: s, stream: stream, follower: follower, call: call, organization: call.caller.Organization, among: call.caller.Among(),
		heartbeat: defaultHeartbeat, start: time.Now(),
	}
	if n := req.GetHeartbeatSeconds(); n > 0 {
		w.heartbeat = time.Duration(n) * time.Second
	}
	if w.organization == "" {
		w.view = feed.ViewAll
	}
	return w.supervise(ctx)
}

// follow returns the follower that a request asks for.
func (s *events) follow(ctx context.Context, req *apikeysv1.WatchEventsRequest, caller *apikey.Caller) (*feed.Follower, error) {
	found := faultsOf(ctx)
	organization := caller.Organization
	filter := found.eventFilter(caller, req)
	place := s.cursorOf(req.GetAfter(), organization)
	var after int64
	var err error
	switch place.text {
	case "": // The newest event, which is read below.
	case fromStart:
		after = apikey.OldestKept
	default:
		after, err = place.position(0)
	}
	if err := found.with(err); err != nil {
		return nil, err
	}
	if place.text == fromStart {
		return s.feed.Follow(ctx, filter, after)
	}
	// From the log, not from the feed, which may be a moment behind it.
	floor, newest, err := s.store.EventBounds(ctx)
	switch {
	case err != nil:
		return nil, err
	case place.text == "":
		after = newest
	case after > newest:
		return nil, aheadError(place)
	case after < floor:
		return nil, s.readError(&apikey.TooOldError{Floor: floor}, organization)
	}
	return s.feed.Follow(ctx, filter, after)
}

// streams counts the open streams of each caller.
type streams struct {
	most int

	mu   sync.Mutex
	open map[apikey.Actor]int
}

// begin reports whether a caller may open one more stream; it counts until end.
func (s *streams) begin(caller apikey.Actor) bool {
	caller.Name = "" // It may change while a stream is open.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[caller] >= s.most {
		return false
	}
	s.open[caller]++
	return true
}

func (s *streams) end(caller apikey.Actor) {
	caller.Name = ""
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[caller]--; s.open[caller] == 0 {
		delete(s.open, caller)
	}
}

// watcher is one stream. One goroutine follows the log and sends; the one of the
// call stands by, so that it can end a stream whose client takes nothing, or
// whose credential has ended, while a send is blocked.
type watcher struct {
	events       *events
	stream       grpc.ServerStream
	follower     *feed.Follower
	call         *call  // for the one who stands by
	organization string // whose events are sent; empty for all, or for among
	among        []string
	view         feed.View
	heartbeat    time.Duration

	start time.Time
	// sending is when the send under way began, in nanoseconds since start; 0
	// between sends, and over once no more may begin.
	sending atomic.Int64
}

// over is the value of watcher.sending after which nothing is sent.
const over = -1

// supervise runs the stream and returns why it ended.
func (w *watcher) supervise(ctx context.Context) error {
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	// The stream may be used until this function returns. A send that is blocked
	// outlives it for a moment, and ends with the stream.
	defer w.sending.Store(over)
	changed := w.changes()
	defer changed.Close()

	wakeup := changed.Changed()
	// A change between the authentication and the subscription would go unnoticed.
	if err := w.recheck(ctx); err != nil {
		w.follower.Close()
		return err
	}
	go func() { ended <- w.follow(following) }()
	timer := time.NewTimer(w.nextLook())
	defer timer.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-wakeup:
			wakeup = changed.Changed()
		case <-timer.C:
		}
		if w.blocked() >= w.events.slowClientTimeout {
			return apikey.Errorf(apikey.KindExhausted, reasonSlowConsumer,
				"The client took nothing for %s; go on after the last cursor.", w.events.slowClientTimeout)
		}
		if err := w.recheck(ctx); err != nil {
			return err
		}
		timer.Reset(w.nextLook())
	}
}

// changes returns a subscription to the resource that the rights of the stream come
// from. Where the rights come from no resource, nothing ever wakes the subscription.
func (w *watcher) changes() *feed.Subscription {
	return w.events.feed.Subscribe(w.call.caller.Resource())
}

// recheck authenticates the caller again. Where that is impossible the stream ends
// too: a client can come back, while an event that was sent cannot be taken back.
func (w *watcher) recheck(ctx context.Context) error {
	caller, err := w.call.recheck(ctx)
	if err == nil {
		w.call.caller = caller
		if caller.Organization != w.organization || (w.among == nil) != (caller.Among() == nil) || !slices.Equal(caller.Among(), w.among) {
			return errOtherOrganizations
		}
		return nil
	}
	if known := apikey.AsError(err); known == nil || known.Kind == apikey.KindUnavailable {
		return fmt.Errorf("%w: %w", errNotRechecked, err)
	}
	return err
}

var errNotRechecked = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable,
	"The credential of the stream could not be checked; go on after the last cursor.")

// errOtherOrganizations ends a stream whose caller now acts in other organizations than
// those that the stream is of.
var errOtherOrganizations = apikey.Errorf(apikey.KindPermissionDenied, apikey.ReasonWrongOrganization,
	"The credential of the stream is now for other organizations; go on after the last cursor.")

// blocked returns how long the send under way has waited for the client.
func (w *watcher) blocked() time.Duration {
	began := time.Duration(w.sending.Load())
	if began <= 0 {
		return 0
	}
	return time.Since(w.start) - began
}

// nextLook returns how long until the stream can have a reason to end that wakes
// nobody.
func (w *watcher) nextLook() time.Duration {
	wait := w.events.slowClientTimeout - w.blocked()
	caller := &w.call.caller
	if caller.Resource() == "" || caller.HasToken() || w.events.feed.Broken() { // Nothing tells of its end.
		wait = min(wait, operatorInterval)
	}
	if now := w.events.now(); caller.Rights.Until.After(now) {
		wait = min(wait, caller.Rights.Until.Sub(now))
	}
	return max(wait, time.Millisecond)
}

// follow sends what the log holds for the stream until ctx ends or a send fails.
func (w *watcher) follow(ctx context.Context) (err error) {
	defer func() { catch(recover(), &err) }()
	defer w.follower.Close()
	// The first heartbeat tells at once that the stream stands, and from where.
	if err := w.beat(); err != nil {
		return err
	}
	beat := time.NewTimer(w.heartbeat)
	defer beat.Stop()
	due := false
	for {
		entries, wait, err := w.follower.Read(ctx)
		if err != nil {
			return w.events.readError(err, w.organization)
		}
		for _, e := range entries {
			if err := w.sendEntry(e); err != nil {
				return err
			}
		}
		switch {
		case len(entries) > 0:
			beat.Reset(w.heartbeat)
		case due:
			if err := w.beat(); err != nil {
				return err
			}
			beat.Reset(w.heartbeat)
		}
		due = false
		if wait == nil {
			wait = atOnce // There is more: only look whether something else is due.
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
			due = true
		case <-wait:
		}
	}
}

// atOnce is a channel that nobody has to wait for.
var atOnce = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// beat sends a heartbeat: everything up to its cursor has been sent.
func (w *watcher) beat() error {
	position := w.follower.Position()
	if broken.Is(broken.HeartbeatEarly) {
		position = w.events.feed.Newest() + 1
	}
	cursor := w.events.cursors.Seal(position, w.organization)
	return w.send(&apikeysv1.WatchEventsResponse{Cursor: cursor})
}

// sendEntry sends an event, whose bytes and message all streams of the same view share.
func (w *watcher) sendEntry(e *feed.Entry) error {
	shared := e.Form(w.view, w.events.sharedMessage(w.organization)).(*sharedMessage)
	if !w.call.wire.Wired() {
		m, err := shared.message()
		if err != nil {
			return err
		}
		return w.send(m)
	}
	if _, err := shared.encoded(); err != nil {
		return err
	}
	return w.send(shared)
}

// errGone is the end of a stream whose client takes no more.
var errGone = canceledError

// send hands m to the transport. It is noted when it began, for the one who stands
// by.
func (w *watcher) send(m any) error {
	began := max(int64(time.Since(w.start)), 1)
	if !w.sending.CompareAndSwap(0, began) {
		return errGone
	}
	if err := w.stream.SendMsg(m); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	w.sending.CompareAndSwap(began, 0)
	return nil
}
