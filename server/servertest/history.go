package servertest

import (
	"fmt"
	"slices"
)

// Logged is an event of the log, as the log is read when everything is over.
type Logged struct {
	// Position is its place. Later events have greater ones.
	Position                         int64
	ID, Organization, Type, Resource string
}

// Seen is a message that a watcher received.
type Seen struct {
	// Position is that of the message's cursor.
	Position int64
	// ID is the event's, empty in a heartbeat.
	ID string
}

// A History is all that one watcher saw, over all its connections.
type History struct {
	Name string
	// Organization, Types and Resources are what it asked for; empty means all.
	Organization     string
	Types, Resources []string
	// From is the position after which it began to watch.
	From int64
	Seen []Seen
}

// wants reports whether the watcher asked for e. It reads the contract anew, and
// not with the server's own filter, which is to be checked.
func (h *History) wants(e Logged) bool {
	return (h.Organization == "" || h.Organization == e.Organization) &&
		(len(h.Types) == 0 || slices.Contains(h.Types, e.Type)) &&
		(len(h.Resources) == 0 || slices.Contains(h.Resources, e.Resource))
}

// Check holds a history against the log, oldest event first, and returns what is
// wrong with it. What it has seen is
//
//   - ordered and unique: each event once, in the order of the log
//   - complete and resumable: no wanted event is missing, across all cuts
//   - filter-exact: no event came that was not wanted
//   - heartbeat-honest: no wanted event at or before a heartbeat came after it
//
// up to its last message, and the last message is at the end of the log.
func (h *History) Check(log []Logged) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, h.Name+": "+fmt.Sprintf(format, args...))
	}
	at := h.From
	next := 0 // in log: the first event after at
	skip := func(position int64, each func(Logged)) {
		for ; next < len(log) && log[next].Position <= position; next++ {
			each(log[next])
		}
	}
	skip(at, func(Logged) {})
	for _, m := range h.Seen {
		if m.Position < at || m.Position == at && m.ID != "" {
			fault("%+v came after position %d", m, at)
			continue
		}
		there := m.ID == ""
		skip(m.Position, func(e Logged) {
			switch {
			case e.Position == m.Position && e.ID == m.ID:
				there = true
				if !h.wants(e) {
					fault("%+v was not wanted", e)
				}
			case h.wants(e):
				fault("%+v was not seen before %+v", e, m)
			}
		})
		if !there {
			fault("%+v is not in the log there", m)
		}
		at = m.Position
	}
	if n := len(log); n > 0 && at < log[n-1].Position {
		fault("it ends at %d, the log at %d", at, log[n-1].Position)
	}
	return faults
}
