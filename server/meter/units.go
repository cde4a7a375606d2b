package meter

import (
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// units counts what valid verifications of a key cost, by the hour in which they came
// and the owner that the key had.
type units struct {
	hour         int64 // since 1970
	owner        string
	calls, units int64
	// others is what was counted for other hours and owners, and what a flush could not
	// store.
	others []apikey.UnitCount
}

// count counts a verification at now. It allocates only at the turn of an hour, and
// when the owner changes.
func (u *units) count(owner string, cost int, now time.Time) {
	if hour := now.Unix() / secondsAnHour; hour != u.hour || owner != u.owner {
		u.others = u.take()
		u.hour, u.owner = hour, owner
	}
	u.calls++
	u.units += int64(cost)
}

// take returns what was counted and forgets it.
func (u *units) take() []apikey.UnitCount {
	all := u.others
	if u.calls > 0 {
		all = append(all, apikey.UnitCount{
			Hour: time.Unix(u.hour*secondsAnHour, 0).UTC(), Owner: u.owner, Calls: u.calls, Units: u.units,
		})
	}
	u.calls, u.units, u.others = 0, 0, nil
	return all
}

// putBack counts again what was taken.
func (u *units) putBack(counts []apikey.UnitCount) {
	for _, c := range counts {
		found := false
		for i := range u.others {
			if o := &u.others[i]; o.Owner == c.Owner && o.Hour.Equal(c.Hour) {
				o.Calls, o.Units = o.Calls+c.Calls, o.Units+c.Units
				found = true
			}
		}
		if !found {
			u.others = append(u.others, c)
		}
	}
}
