package feed

import (
	"context"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/broken"
)

// The sizes of what a follower takes at a time. They are small because a follower
// whose reader is slow holds on to what it took.
const (
	tailBatch = 32  // entries of the tail, which others hold too
	pageSize  = 128 // events of the log
)

// A Follower reads the log from a position on. It is for one goroutine.
type Follower struct {
	feed     *Feed
	filter   apikey.EventFilter
	notifier *notifier
	position int64
	wakeup   *wakeup           // that it was told to wait for, nil if it was not
	first    *apikey.EventPage // read already, nil if not
	// generation is the log's that it follows.
	generation int
	batch      [tailBatch]*Entry
}

// Follow returns a follower of the events after a position that f wants; of all
// that are kept after apikey.OldestKept. Close ends it.
func (f *Feed) Follow(ctx context.Context, filter apikey.EventFilter, after int64) (*Follower, error) {
	w := &Follower{feed: f, filter: filter, position: after}
	w.notifier = f.acquire(f.organizations, filter.Organization)
	w.generation = f.generationNow()
	if after != apikey.OldestKept {
		return w, nil
	}
	// The position is one that has been read from, or retention could pass it
	// before the first read.
	page, err := f.page(ctx, filter, after)
	if err != nil {
		w.Close()
		return nil, err
	}
	w.position, w.first = page.Floor, &page
	return w, nil
}

// Close ends the follower.
func (w *Follower) Close() { w.feed.release(w.feed.organizations, w.filter.Organization, w.notifier) }

// Position returns how far the follower has read: no event that it wants will come
// at or before it.
func (w *Follower) Position() int64 { return w.position }

// Read returns the next entries, which are good until the next Read. Where it
// returns a channel there are none for now, and the channel is closed when there
// may be; where it returns neither, there may be more to read at once. A position
// behind what is kept is an *apikey.TooOldError; a log that was replaced is ErrReplaced.
func (w *Follower) Read(ctx context.Context) (entries []*Entry, wait <-chan struct{}, err error) {
	if w.first != nil {
		page := w.first
		w.first = nil
		return w.advance(page), nil, nil
	}
	if w.feed.generationNow() != w.generation {
		return nil, nil, ErrReplaced
	}
	entries, wait, ok := w.fromTail()
	if ok {
		return entries, wait, nil
	}
	page, err := w.feed.page(ctx, w.filter, w.position)
	if err != nil {
		return nil, nil, err
	}
	return w.advance(&page), nil, nil
}

// advance moves the position to the end of a page of the log.
func (w *Follower) advance(page *apikey.EventPage) []*Entry {
	entries := make([]*Entry, len(page.Events))
	for i := range page.Events {
		entries[i] = &Entry{Event: page.Events[i]}
	}
	w.position = page.Next
	return entries
}

// fromTail reads from the tail, or says what to wait for; ok is false where the
// position is behind the tail.
func (w *Follower) fromTail() (entries []*Entry, wait <-chan struct{}, ok bool) {
	f := w.feed
	f.mu.RLock()
	defer f.mu.RUnlock()
	if w.wakeup != nil && w.wakeup != w.notifier.next {
		w.position = max(w.position, w.wakeup.before)
	}
	w.wakeup = nil
	if w.notifier.last <= w.position {
		w.position = max(w.position, f.newest)
		w.wakeup = w.notifier.next
		clear(w.batch[:]) // entries that a waiting follower holds must not outlive the tail
		return nil, w.wakeup.done, true
	}
	oldest := f.newest - int64(len(f.tail)) // everything after it is in the tail
	if w.position < oldest {
		if !broken.Is(broken.WatchSkips) {
			return nil, nil, false
		}
		w.position = oldest
	}
	entries = w.batch[:0]
	for _, e := range f.tail[w.position-oldest:] {
		w.position = e.Event.Position
		if w.filter.Wants(&e.Event) {
			if entries = append(entries, e); len(entries) == tailBatch {
				break
			}
		}
	}
	return entries, nil, true
}

// page reads the log once one of the slots is free.
func (f *Feed) page(ctx context.Context, filter apikey.EventFilter, after int64) (apikey.EventPage, error) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
		return f.log.Events(ctx, filter, after, pageSize)
	case <-ctx.Done():
		return apikey.EventPage{}, ctx.Err()
	}
}

// generationNow returns the generation of the log.
func (f *Feed) generationNow() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.generation
}
