package deliver

import (
	"container/heap"
	"container/list"
	"time"
)

// health is what is known of a webhook's endpoint by its latest outcome.
type health int

const (
	healthy health = iota
	unknown
	failing
	healthStates
)

// endpoint is the place that one webhook's deliveries go to, with its share of the room.
type endpoint struct {
	id       string
	due      time.Time // when to ask for it next; zero: nothing that is known of
	inFlight int
	// window is how many attempts may be under way. It is halved by each failure
	// and grows by one with each success, and begins small, so that an endpoint
	// which comes back is not buried under what has piled up, and one that hangs
	// takes little until that is known.
	window int
	health health // by the latest outcome
	// organization and host are the keys of its shares, empty while they are unknown.
	organization, host string

	prefetched int  // claims that wait for room
	quick      bool // whether the latest attempt succeeded, and quickly
	// While the queue is asked: how many attempts it is asked for that there is room for,
	// and whether for more.
	asked       int
	prefetching bool

	turn uint64 // when it became ready
	idle int    // scans since it had something

	later int           // its place in scheduler.later, -1 where it is not there
	ready *list.Element // its place in scheduler.ready, nil where it is not there
}

// waits reports whether something of e is due that may be claimed, at its time.
func (e *endpoint) waits() bool {
	return !e.due.IsZero() && (e.inFlight < e.window || e.mayPrefetch())
}

// The kinds of outcomes, as far as an endpoint is concerned.
type outcomeKind int

const (
	outcomeNone outcomeKind = iota
	outcomeSucceeded
	outcomeFailed
	outcomeQuick // succeeded within quickAttempt
)

// dueHeap is a heap of endpoints by when they are due.
type dueHeap []*endpoint

var _ heap.Interface = (*dueHeap)(nil)

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].later, h[j].later = i, j
}

// Push adds an endpoint at the end.
func (h *dueHeap) Push(x any) {
	e := x.(*endpoint)
	e.later = len(*h)
	*h = append(*h, e)
}

// Pop takes the last endpoint away.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	e.later = -1
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
