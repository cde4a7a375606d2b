package meter

import (
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Stats is how a meter fares. All but the first two count since the start.
type Stats struct {
	// Keys is how many keys have counters in memory, Unflushed how many of them have
	// counts that are not stored yet.
	Keys, Unflushed int
	// Flushes and FailedFlushes count the times that counters were stored, or not;
	// FlushedAt is when they were stored last, by the wall clock, the zero time for
	// never.
	Flushes, FailedFlushes uint64
	FlushedAt              time.Time
	// Asks counts the times that units of a quota were asked of storage, FailedAsks
	// those without an answer.
	Asks, FailedAsks uint64
	// RefusalsDropped is how many refused uses were counted and not put on record, since
	// more were refused between two flushes than are held.
	RefusalsDropped uint64
	// Granted and Returned are units of quotas; Lost are those that could not be
	// returned.
	Granted, Returned, Lost uint64
}

// Stats returns how the meter fares. It is cheap.
func (m *Meter) Stats() Stats {
	m.registry.mu.Lock()
	s := Stats{Keys: len(m.registry.byID), Unflushed: len(m.registry.dirty)}
	m.registry.mu.Unlock()
	s.Flushes, s.FailedFlushes = m.flushes.good.Load(), m.flushes.failed.Load()
	if at := m.flushes.at.Load(); at != 0 {
		s.FlushedAt = time.UnixMicro(at)
	}
	s.RefusalsDropped = m.registry.refusals.droppedCount()
	q := &m.reservations.stats
	s.Asks, s.FailedAsks = q.asks.Load(), q.failedAsks.Load()
	s.Granted, s.Returned, s.Lost = q.granted.Load(), q.back.Load(), q.lost.Load()
	return s
}

// flushCounts counts flushes.
type flushCounts struct {
	good, failed atomic.Uint64
	at           atomic.Int64 // of the last good one, in microseconds of the wall clock
}

func (f *flushCounts) note(err error) {
	if err != nil {
		f.failed.Add(1)
		return
	}
	f.good.Add(1)
	f.at.Store(time.Now().UnixMicro())
}

// quotaCounts counts what was asked of storage about quotas.
type quotaCounts struct {
	asks, failedAsks, granted, back, lost atomic.Uint64
}

// asked counts asks and their grants.
func (q *quotaCounts) asked(grants []apikey.QuotaGrant, asks int, err error) {
	q.asks.Add(uint64(asks))
	if err != nil {
		q.failedAsks.Add(uint64(asks))
		return
	}
	for i := range grants {
		q.granted.Add(uint64(max(grants[i].Units, 0)))
	}
}

// returned counts units that were given back, or lost.
func (q *quotaCounts) returned(returns []apikey.QuotaReturn, err error) {
	to := &q.back
	if err != nil {
		to = &q.lost
	}
	for i := range returns {
		to.Add(uint64(max(returns[i].Units, 0)))
	}
}
