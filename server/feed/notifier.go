package feed

// notifier tells those who wait that the log has something new for them: for an
// organization, for all organizations, or for a resource. It exists while somebody
// has acquired it, and is guarded by the feed's mu.
type notifier struct {
	holders int
	// last is the position of the newest event that the notifier is about, as far
	// as the feed has read, or a later one.
	last int64
	next *wakeup
}

// wakeup is what the holders of a notifier wait for: its channel is closed when
// something new comes.
type wakeup struct {
	done chan struct{}
	// before is how far the feed had read when it woke the holders. Of what the
	// notifier is about, nothing lies between there and the moment when a holder
	// began to wait.
	before int64
}

// notify wakes the holders for an event at position, which the feed read together
// with all after before. It wakes once for those.
func (n *notifier) notify(position, before int64) {
	woken := n.last > before
	if n.last = position; woken {
		return
	}
	n.next.before = before
	close(n.next.done)
	n.next = &wakeup{done: make(chan struct{})}
}

// acquire returns the notifier of a name, for release.
func (f *Feed) acquire(notifiers map[string]*notifier, name string) *notifier {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := notifiers[name]
	if n == nil {
		// What was before nobody has looked at: it may have been about this.
		n = &notifier{last: f.newest, next: &wakeup{done: make(chan struct{})}}
		notifiers[name] = n
	}
	n.holders++
	return n
}

// release gives a notifier back; the last holder's release ends it.
func (f *Feed) release(notifiers map[string]*notifier, name string, n *notifier) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.holders--; n.holders == 0 {
		delete(notifiers, name)
	}
}

// A Subscription tells when something happens to one resource.
type Subscription struct {
	feed     *Feed
	resource string
	notifier *notifier
}

// Subscribe returns a subscription to a resource. Close ends it.
func (f *Feed) Subscribe(resource string) *Subscription {
	return &Subscription{f, resource, f.acquire(f.resources, resource)}
}

// Changed returns a channel that is closed at the next event about the resource.
// Whoever takes it before looking at the resource misses nothing.
func (s *Subscription) Changed() <-chan struct{} {
	s.feed.mu.RLock()
	defer s.feed.mu.RUnlock()
	return s.notifier.next.done
}

// Close ends the subscription.
func (s *Subscription) Close() { s.feed.release(s.feed.resources, s.resource, s.notifier) }
