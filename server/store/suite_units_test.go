package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var unitTests = map[string]func(*testing.T, *fixture){
	"Units":          testUnits,
	"UnitsOfBefore":  testUnitsOfBefore,
	"UnitsRetention": testUnitsRetention,
}

// unitsOf lists usage in pages, a text a row.
func (f *fixture) unitsOf(t *testing.T, filter store.UnitFilter, limit int) (all []string) {
	t.Helper()
	for after, more := (apikey.UsagePlace{}), true; more; {
		var rows []apikey.UsageRow
		var err error
		if rows, more, err = f.Store.Units(t.Context(), filter, after, limit); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			all = append(all, fmt.Sprintf("%s %s %s %d/%d", time.UnixMicro(r.Start).UTC().Format("02T15"), r.Organization, r.Name, r.Calls, r.Units))
			after = r.UsagePlace
		}
	}
	return all
}

// testUnits adds units of several keys, owners and hours: each row has them once, in any
// pages, and stays when the key goes.
func testUnits(t *testing.T, f *fixture) {
	hour := apikey.Daily.Start(f.clock.stored()).Add(10 * time.Hour)
	a, b := f.create(t, nil), f.create(t, nil)
	count := func(key, organization, owner string, hours, calls, units int) apikey.UsageCount {
		return apikey.UsageCount{KeyID: key, OrganizationID: organization, Count: int64(calls), LastUsedAt: f.clock.stored(),
			Units: []apikey.UnitCount{{Hour: hour.Add(time.Duration(hours) * time.Hour), Owner: owner, Calls: int64(calls), Units: int64(units)}}}
	}
	for _, counts := range [][]apikey.UsageCount{
		{count(a.ID, org, "ann", 0, 2, 5), count(b.ID, org, "ann", 0, 1, 1), count("gone", "org_other", "ann", 0, 1, 9)},
		{count(a.ID, org, "bob", 0, 1, 4), count(b.ID, org, "ann", 1, 3, 3)},
	} {
		if _, err := f.AddUsage(t.Context(), counts); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.DeleteKey(t.Context(), operator, org, b.ID); err != nil {
		t.Fatal(err)
	}
	period := apikey.Period{Granularity: apikey.Hourly, Since: hour, Until: hour.Add(3 * time.Hour)}
	first, second := hour.Format("02T15"), hour.Add(time.Hour).Format("02T15")
	for _, limit := range []int{1, 2, 100} {
		wantSame(t, "owners", []string{first + " org_default ann 3/6", first + " org_default bob 1/4", second + " org_default ann 3/3"},
			f.unitsOf(t, store.UnitFilter{Organization: org, Group: apikey.ByOwner, Period: period}, limit))
		wantSame(t, "one owner", []string{first + " org_default ann 3/6", second + " org_default ann 3/3"},
			f.unitsOf(t, store.UnitFilter{Organization: org, Group: apikey.ByOwner, Name: "ann", Period: period}, limit))
		wantSame(t, "keys", []string{first + " org_default " + a.ID + " 3/9", first + " org_default " + b.ID + " 1/1", second + " org_default " + b.ID + " 3/3"},
			f.unitsOf(t, store.UnitFilter{Organization: org, Group: apikey.ByKey, Period: period}, limit))
		wantSame(t, "organizations", []string{first + " org_default  4/10", first + " org_other  1/9", second + " org_default  3/3"},
			f.unitsOf(t, store.UnitFilter{Group: apikey.ByOrganization, Period: period}, limit))
		wantSame(t, "some organizations", []string{first + " org_other  1/9"},
			f.unitsOf(t, store.UnitFilter{Among: []string{"org_other"}, Group: apikey.ByOrganization, Period: period}, limit))
	}
	day := apikey.Period{Granularity: apikey.Daily, Since: apikey.Daily.Start(hour), Until: apikey.Daily.Start(hour).Add(24 * time.Hour)}
	wantSame(t, "days", []string{day.Since.Format("02T15") + " org_default  7/13"},
		f.unitsOf(t, store.UnitFilter{Organization: org, Group: apikey.ByOrganization, Period: day}, 10))
}

// testUnitsOfBefore counts as a server does that knows of no units: until when that was
// is told.
func testUnitsOfBefore(t *testing.T, f *fixture) {
	hour := apikey.Hourly.Start(f.clock.stored())
	k := f.create(t, nil)
	period := apikey.Period{Granularity: apikey.Hourly, Since: hour.Add(-time.Hour), Until: hour.Add(5 * time.Hour)}
	add := func(hours int, units bool) {
		t.Helper()
		c := apikey.UsageCount{KeyID: k.ID, OrganizationID: org, Count: 1, LastUsedAt: f.clock.stored(),
			Outcomes: []apikey.OutcomeCount{{Hour: hour.Add(time.Duration(hours) * time.Hour), Code: apikey.CodeValid, Count: 1}, {Hour: hour, Code: apikey.CodeMalformed, Count: 1}}}
		if units {
			c.Units = []apikey.UnitCount{{Hour: c.Outcomes[0].Hour, Calls: 1, Units: 1}}
		}
		if _, err := f.AddUsage(t.Context(), []apikey.UsageCount{c}); err != nil {
			t.Fatal(err)
		}
	}
	until := func(want time.Time) {
		t.Helper()
		if got, err := f.UncountedUntil(t.Context(), org, period); err != nil || !got.Equal(want) {
			t.Errorf("counted without units until %v, %v, want %v", got, err, want)
		}
	}
	until(time.Time{})
	add(3, true)
	until(time.Time{})
	add(0, false)
	until(hour.Add(time.Hour))
	add(1, false)
	add(1, true)
	until(hour.Add(2 * time.Hour))
	period.Since = hour.Add(2 * time.Hour)
	until(time.Time{})
}

// testUnitsRetention deletes what has ended before a time, a few rows at a time.
func testUnitsRetention(t *testing.T, f *fixture) {
	hour := apikey.Hourly.Start(f.clock.stored())
	for i := range 5 {
		if _, err := f.AddUsage(t.Context(), []apikey.UsageCount{{KeyID: "k", OrganizationID: org,
			Units: []apikey.UnitCount{{Hour: hour.Add(time.Duration(i) * time.Hour), Owner: "o", Calls: 1, Units: 1}}}}); err != nil {
			t.Fatal(err)
		}
	}
	deleted := 0
	for n := 4; n == 4; {
		var err error
		if n, err = f.DeleteUnitsBefore(t.Context(), apikey.Hourly, hour.Add(3*time.Hour+time.Minute), 4); err != nil {
			t.Fatal(err)
		}
		deleted += n
	}
	rows := f.unitsOf(t, store.UnitFilter{Organization: org, Group: apikey.ByOwner, Period: apikey.Period{Granularity: apikey.Hourly, Since: hour, Until: hour.Add(9 * time.Hour)}}, 10)
	if deleted != 9 || len(rows) != 2 {
		t.Errorf("%d rows deleted, and left %q", deleted, rows)
	}
}
