package meter

import (
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestStats(t *testing.T) {
	t.Parallel()
	m, s, _ := newAwayMeter()
	key := apikey.Key{ID: "api_key_1"}
	m.Charge(m.Acquire(&key), 1, &apikey.CheckRequest{}, &apikey.Verification{Key: &key, Code: apikey.CodeValid, At: time.Now()})
	if got := m.Stats(); got != (Stats{Keys: 1, Unflushed: 1}) {
		t.Errorf("got %+v", got)
	}
	s.away.Store(true)
	if err := m.Flush(t.Context()); err == nil {
		t.Error("no error")
	}
	if got := m.Stats(); got != (Stats{Keys: 1, Unflushed: 1, FailedFlushes: 1}) {
		t.Errorf("got %+v", got)
	}
	s.away.Store(false)
	if err := m.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	got := m.Stats()
	if got.FlushedAt.IsZero() {
		t.Error("it was never stored")
	}
	got.FlushedAt = time.Time{}
	if got != (Stats{Keys: 1, Flushes: 1, FailedFlushes: 1}) {
		t.Errorf("got %+v", got)
	}
	var q quotaCounts
	q.asked([]apikey.QuotaGrant{{Units: 3}, {Units: 4}}, 2, nil)
	q.asked(nil, 1, errAway)
	q.returned([]apikey.QuotaReturn{{Units: 2}}, nil)
	q.returned([]apikey.QuotaReturn{{Units: 5}}, errAway)
	if q.asks.Load() != 3 || q.failedAsks.Load() != 1 || q.granted.Load() != 7 || q.back.Load() != 2 || q.lost.Load() != 5 {
		t.Errorf("got %+v", &q)
	}
}
