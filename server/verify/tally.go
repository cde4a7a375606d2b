package verify

import (
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// outcomes are the codes that are counted, in the order of a tally's counts.
var outcomes = [...]apikey.Code{
	apikey.CodeValid, apikey.CodeRateLimited, apikey.CodeQuotaExceeded, apikey.CodeInsufficientScope,
	apikey.CodeIPNotAllowed, apikey.CodeExpired, apikey.CodeDisabled, apikey.CodeRevoked,
	apikey.CodeNotFound, apikey.CodeMalformed,
}

// tally counts outcomes by the hour in which they came.
type tally struct {
	hour   int64 // since 1970, of counts
	counts [len(outcomes)]uint32
	// others is what does not fit into counts: other hours, and what a flush could
	// not store.
	others []apikey.OutcomeCount
}

const secondsAnHour = int64(time.Hour / time.Second)

// count counts an outcome at now. It allocates only at the turn of an hour. A
// code that is not one of the outcomes is not counted.
func (t *tally) count(code apikey.Code, now time.Time) {
	if hour := now.Unix() / secondsAnHour; hour != t.hour {
		t.others = t.take()
		t.hour = hour
	}
	for i := range outcomes {
		if outcomes[i] == code {
			t.counts[i]++
			return
		}
	}
}

// take returns what was counted and forgets it.
func (t *tally) take() []apikey.OutcomeCount {
	all := t.others
	for i, n := range t.counts {
		if n > 0 {
			all = append(all, apikey.OutcomeCount{
				Hour: time.Unix(t.hour*secondsAnHour, 0).UTC(), Code: outcomes[i], Count: int64(n),
			})
		}
	}
	t.counts, t.others = [len(outcomes)]uint32{}, nil
	return all
}

// putBack counts again what was taken.
func (t *tally) putBack(counts []apikey.OutcomeCount) {
	for _, c := range counts {
		found := false
		for i := range t.others {
			if o := &t.others[i]; o.Code == c.Code && o.Hour.Equal(c.Hour) {
				o.Count += c.Count
				found = true
			}
		}
		if !found {
			t.others = append(t.others, c)
		}
	}
}
