package meter

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// TestUnitsByOwner counts over changes of the owner and the turn of an hour, and puts
// back what could not be stored.
func TestUnitsByOwner(t *testing.T) {
	t.Parallel()
	hour := time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC)
	var u units
	u.count("ann", 2, hour)
	u.count("ann", 3, hour.Add(time.Minute))
	u.count("bob", 1, hour.Add(time.Minute))
	u.count("ann", 1, hour.Add(time.Hour))
	want := []apikey.UnitCount{{Hour: hour, Owner: "ann", Calls: 2, Units: 5}, {Hour: hour, Owner: "bob", Calls: 1, Units: 1}, {Hour: hour.Add(time.Hour), Owner: "ann", Calls: 1, Units: 1}}
	taken := u.take()
	if diff := cmp.Diff(want, taken); diff != "" {
		t.Errorf("units (-want +got)\n%s", diff)
	}
	u.putBack(taken)
	u.putBack(want[:1])
	u.count("ann", 4, hour.Add(time.Hour))
	want[0].Calls, want[0].Units = 4, 10
	want = append(want, apikey.UnitCount{Hour: hour.Add(time.Hour), Owner: "ann", Calls: 1, Units: 4})
	if diff := cmp.Diff(want, u.take()); diff != "" {
		t.Errorf("units put back (-want +got)\n%s", diff)
	}
	if left := u.take(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
