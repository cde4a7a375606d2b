package feed

// bell tells those who wait that the log has something new for them. It exists
// while somebody has it, and is guarded by the feed's mu.
type bell struct {
	holders int
	// last is the position of the newest event that the bell is about, as far as
	// the feed has read, or a later one.
	last int64
	next *ring
}

// ring is one ringing of a bell: its channel is closed when it rings.
type ring struct {
	done chan struct{}
	// before is how far the feed had read when the bell rang. Of what the bell is
	// about, nothing lies between there and the moment when a holder began to wait.
	before int64
}

// ring wakes the holders for an event at position, which the feed read together
// with all after before. It rings once for those.
func (b *bell) ring(position, before int64) {
	rung := b.last > before
	if b.last = position; rung {
		return
	}
	b.next.before = before
	close(b.next.done)
	b.next = &ring{done: make(chan struct{})}
}

// take returns the bell of a name, which hang gives back.
func (f *Feed) take(bells map[string]*bell, name string) *bell {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := bells[name]
	if b == nil {
		// What was before nobody has looked at: it may have been about this.
		b = &bell{last: f.newest, next: &ring{done: make(chan struct{})}}
		bells[name] = b
	}
	b.holders++
	return b
}

// hang gives a bell back.
func (f *Feed) hang(bells map[string]*bell, name string, b *bell) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.holders--; b.holders == 0 {
		delete(bells, name)
	}
}

// A Listener hears when something happens to one resource.
type Listener struct {
	feed     *Feed
	resource string
	bell     *bell
}

// Listen returns a listener to a resource. Close ends it.
func (f *Feed) Listen(resource string) *Listener {
	return &Listener{f, resource, f.take(f.resources, resource)}
}

// Changed returns a channel that is closed at the next event about the resource.
// Whoever takes it before looking at the resource misses nothing.
func (l *Listener) Changed() <-chan struct{} {
	l.feed.mu.RLock()
	defer l.feed.mu.RUnlock()
	return l.bell.next.done
}

// Close ends the listener.
func (l *Listener) Close() { l.feed.hang(l.feed.resources, l.resource, l.bell) }
