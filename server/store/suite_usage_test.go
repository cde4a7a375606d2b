package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/store"
)

var usageTests = map[string]func(*testing.T, *fixture){
	"AddUsage":            testAddUsage,
	"AddUsageOfPrevious":  testAddUsageOfPrevious,
	"AddUsageInChunks":    testAddUsageInChunks,
	"AddUsageOfOneRow":    testAddUsageOfOneRow,
	"AddUsageTexts":       testAddUsageTexts,
	"AddUsageAtTheTurn":   testAddUsageAtTheTurn,
	"AddUsageOfNoKey":     testAddUsageOfNoKey,
	"AddUsageCancelled":   testAddUsageCancelled,
	"AddUsageTouchesNone": testAddUsageTouchesNone,
}

func (f *fixture) addUsage(t *testing.T, counts ...apikey.UsageCount) {
	t.Helper()
	if n, err := f.AddUsage(t.Context(), counts); n != len(counts) || err != nil {
		t.Fatalf("stored %d of %d, %v", n, len(counts), err)
	}
}

func testAddUsage(t *testing.T, f *fixture) {
	k, other := f.create(t, nil), f.create(t, nil)
	now := f.clock.Now()
	f.addUsage(t)
	wantSame(t, "usage at first", apikey.Usage{}, k.Usage)
	for _, c := range []struct {
		count    int64
		at       time.Time
		total    int64
		lastUsed time.Time
	}{
		{3, now, 3, now},
		{1, now.Add(-time.Hour), 4, now}, // an earlier use comes late
		{1 << 40, now.Add(time.Hour), 1<<40 + 4, now.Add(time.Hour)},
		{0, now.Add(time.Hour), 1<<40 + 4, now.Add(time.Hour)},
	} {
		f.addUsage(t, apikey.UsageCount{KeyID: k.ID, Count: c.count, LastUsedAt: c.at})
		k.Usage = apikey.Usage{TotalRequests: c.total, LastUsedAt: c.lastUsed.UTC().Truncate(time.Microsecond)}
		f.wantKey(t, k)
		bySecret, _, err := f.KeyBySecret(t.Context(), k.Hashes())
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "key by secret", k, bySecret)
		if got := bySecret.Usage.LastUsedAt; got != k.Usage.LastUsedAt {
			t.Errorf("last used at %v", got)
		}
	}
	f.wantKey(t, other)
}

// testAddUsageOfPrevious counts uses of a previous secret: those of one rotation are
// added up, and those of a secret that a later one has ended are neither shown nor
// mixed with its own.
func testAddUsageOfPrevious(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	now := f.clock.Now().UTC().Truncate(time.Microsecond)
	rotate := func() {
		t.Helper()
		_, secret := newSecret(t)
		var err error
		if k, err = f.rotate(t, k.ID, secret, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	total := int64(0)
	add := func(rotation, count int64, at time.Time, want apikey.PreviousUsage) {
		t.Helper()
		total += count
		f.addUsage(t, apikey.UsageCount{
			KeyID: k.ID, Count: count, LastUsedAt: now, Previous: apikey.PreviousUsage{Rotation: rotation, Requests: count, LastUsedAt: at},
		})
		k.Usage = apikey.Usage{TotalRequests: total, LastUsedAt: now, Previous: want}
		f.wantKey(t, k)
		bySecret, _, err := f.KeyBySecret(t.Context(), k.Hashes())
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "key by secret", k, bySecret)
	}
	rotate()
	wantSame(t, "after the first rotation", apikey.PreviousUsage{Rotation: 1}, k.Usage.Previous)
	add(1, 3, now, apikey.PreviousUsage{Rotation: 1, Requests: 3, LastUsedAt: now})
	add(1, 2, now.Add(-time.Hour), apikey.PreviousUsage{Rotation: 1, Requests: 5, LastUsedAt: now})
	rotate()
	wantSame(t, "after the second rotation", apikey.PreviousUsage{Rotation: 2}, k.Usage.Previous)
	k.Usage.TotalRequests, k.Usage.LastUsedAt = total, now
	f.wantKey(t, k)
	add(1, 7, now, apikey.PreviousUsage{Rotation: 2}) // a late flush
	add(2, 4, now, apikey.PreviousUsage{Rotation: 2, Requests: 4, LastUsedAt: now})
	add(1, 7, now, apikey.PreviousUsage{Rotation: 2, Requests: 4, LastUsedAt: now})
	add(2, 1, now.Add(time.Hour), apikey.PreviousUsage{Rotation: 2, Requests: 5, LastUsedAt: now.Add(time.Hour)})
}

func testAddUsageInChunks(t *testing.T, f *fixture) {
	const n = 2*store.UsageChunk + 1
	f.copies(t, f.create(t, nil), n)
	counts := make([]apikey.UsageCount, n)
	for i := range counts { // in no order
		counts[i] = apikey.UsageCount{KeyID: copyID((i * 7) % n), Count: int64((i*7)%n) + 1, LastUsedAt: f.clock.Now()}
	}
	f.addUsage(t, counts...)
	for _, i := range []int{0, store.UsageChunk - 1, store.UsageChunk, n - 1} {
		k, err := f.Key(t.Context(), org, copyID(i))
		if err != nil || k.Usage.TotalRequests != int64(i)+1 {
			t.Errorf("key %d was used %d times, %v", i, k.Usage.TotalRequests, err)
		}
	}
	if got, err := f.Counters(t.Context()); got != n || err != nil {
		t.Errorf("%d counters, %v", got, err)
	}
}

// testAddUsageOfOneRow counts in one flush what belongs to the same rows: two hours of a
// day, two owners of a key in an hour, and what an earlier flush could not store.
func testAddUsageOfOneRow(t *testing.T, f *fixture) {
	k, other := f.create(t, nil), f.create(t, nil)
	day := apikey.Daily.Start(f.clock.stored())
	outcome := func(hour int, n int64) apikey.OutcomeCount {
		return apikey.OutcomeCount{Hour: day.Add(time.Duration(hour) * time.Hour), Code: apikey.CodeValid, Count: n}
	}
	units := func(hour int, owner string, calls int64) apikey.UnitCount {
		return apikey.UnitCount{Hour: day.Add(time.Duration(hour) * time.Hour), Owner: owner, Calls: calls, Units: 10 * calls}
	}
	f.addUsage(t,
		apikey.UsageCount{
			KeyID: other.ID, OrganizationID: org, Outcomes: []apikey.OutcomeCount{outcome(9, 32)}, Units: []apikey.UnitCount{units(9, "ann", 32)},
		},
		apikey.UsageCount{
			KeyID: k.ID, OrganizationID: org,
			Outcomes: []apikey.OutcomeCount{outcome(10, 1), outcome(9, 2), outcome(10, 4), outcome(10, 8)},
			Units:    []apikey.UnitCount{units(10, "ann", 1), units(9, "ann", 2), units(10, "bob", 4), units(10, "ann", 8)},
		})
	date := day.Format("01-02 ")
	wantSame(t, "hours", map[string]int64{date + "09 valid": 2, date + "10 valid": 13}, f.usage(t, k.ID, apikey.Hourly))
	wantSame(t, "days", map[string]int64{date + "00 valid": 15}, f.usage(t, k.ID, apikey.Daily))
	wantSame(t, "the organization's hours", map[string]int64{date + "09 valid": 34, date + "10 valid": 13}, f.usage(t, "", apikey.Hourly))
	wantSame(t, "the organization's days", map[string]int64{date + "00 valid": 47}, f.usage(t, "", apikey.Daily))
	nine, ten, midnight := day.Add(9*time.Hour).Format("02T15 ")+org, day.Add(10*time.Hour).Format("02T15 ")+org, day.Format("02T15 ")+org
	for _, c := range []struct {
		group apikey.UsageGroup
		of    apikey.Granularity
		want  []string
	}{
		{apikey.ByKey, apikey.Hourly, []string{nine + " " + k.ID + " 2/20", nine + " " + other.ID + " 32/320", ten + " " + k.ID + " 13/130"}},
		{apikey.ByKey, apikey.Daily, []string{midnight + " " + k.ID + " 15/150", midnight + " " + other.ID + " 32/320"}},
		{apikey.ByOwner, apikey.Hourly, []string{nine + " ann 34/340", ten + " ann 9/90", ten + " bob 4/40"}},
		{apikey.ByOwner, apikey.Daily, []string{midnight + " ann 43/430", midnight + " bob 4/40"}},
		{apikey.ByOrganization, apikey.Hourly, []string{nine + "  34/340", ten + "  13/130"}},
		{apikey.ByOrganization, apikey.Daily, []string{midnight + "  47/470"}},
	} {
		period := apikey.Period{Granularity: c.of, Since: day, Until: day.Add(24 * time.Hour)}
		wantSame(t, "units by "+string(c.group), c.want, f.unitsOf(t, store.UnitFilter{Organization: org, Group: c.group, Period: period}, 100))
	}
}

// testAddUsageAtTheTurn counts valid verifications of several keys in one flush, of one
// hour and of the next, beside refused ones: each is in the rows of its own hour and of
// the day.
func testAddUsageAtTheTurn(t *testing.T, f *fixture) {
	day := apikey.Daily.Start(f.clock.stored())
	period := func(g apikey.Granularity) apikey.Period {
		return apikey.Period{Granularity: g, Since: day, Until: day.Add(24 * time.Hour)}
	}
	use := func(id string, hour int, calls int64) apikey.UsageCount {
		at := day.Add(time.Duration(hour) * time.Hour)
		return apikey.UsageCount{
			KeyID: id, OrganizationID: org, Count: calls, LastUsedAt: at,
			Outcomes: []apikey.OutcomeCount{{Hour: at, Code: apikey.CodeValid, Count: calls}},
			Units:    []apikey.UnitCount{{Hour: at, Owner: "ann", Calls: calls, Units: 10 * calls}},
		}
	}
	a, b, c := f.create(t, nil), f.create(t, nil), f.create(t, nil)
	refused := use(c.ID, 9, 4)
	refused.Outcomes = append(refused.Outcomes, apikey.OutcomeCount{Hour: day.Add(9 * time.Hour), Code: apikey.CodeExpired, Count: 3})
	f.addUsage(t, use(a.ID, 9, 1), use(b.ID, 10, 2), refused)
	f.addUsage(t, use(a.ID, 9, 8), use(b.ID, 9, 16), use(c.ID, 9, 32))
	nine, ten, midnight := day.Add(9*time.Hour).Format("01-02 15 "), day.Add(10*time.Hour).Format("01-02 15 "), day.Format("01-02 15 ")
	for _, k := range []struct {
		key           *apikey.Key
		total         int64
		hours, days   map[string]int64
		units, byDays []string
	}{
		{&a, 9, map[string]int64{nine + "valid": 9}, map[string]int64{midnight + "valid": 9}, []string{"09 9/90"}, []string{"00 9/90"}},
		{&b, 18, map[string]int64{nine + "valid": 16, ten + "valid": 2}, map[string]int64{midnight + "valid": 18}, []string{"09 16/160", "10 2/20"}, []string{"00 18/180"}},
		{&c, 36, map[string]int64{nine + "valid": 36, nine + "expired": 3}, map[string]int64{midnight + "valid": 36, midnight + "expired": 3}, []string{"09 36/360"}, []string{"00 36/360"}},
	} {
		wantSame(t, "hours", k.hours, f.usage(t, k.key.ID, apikey.Hourly))
		wantSame(t, "days", k.days, f.usage(t, k.key.ID, apikey.Daily))
		for g, want := range map[apikey.Granularity][]string{apikey.Hourly: k.units, apikey.Daily: k.byDays} {
			for i, text := range want {
				hour, counts, _ := strings.Cut(text, " ")
				want[i] = day.Format("02T") + hour + " " + org + " " + k.key.ID + " " + counts
			}
			wantSame(t, "units", want, f.unitsOf(t, store.UnitFilter{Organization: org, Group: apikey.ByKey, Name: k.key.ID, Period: period(g)}, 10))
		}
		if got, err := f.Key(t.Context(), org, k.key.ID); err != nil || got.Usage.TotalRequests != k.total {
			t.Errorf("used %d times, want %d, %v", got.Usage.TotalRequests, k.total, err)
		}
	}
	wantSame(t, "owners", []string{day.Format("02T15 ") + org + " ann 63/630"},
		f.unitsOf(t, store.UnitFilter{Organization: org, Group: apikey.ByOwner, Period: period(apikey.Daily)}, 10))
	wantSame(t, "the organization's", map[string]int64{midnight + "valid": 63, midnight + "expired": 3}, f.usage(t, "", apikey.Daily))
}

// testAddUsageTexts stores texts that mean something where values are written as text.
func testAddUsageTexts(t *testing.T, f *fixture) {
	var counts []apikey.UsageCount
	agents := []string{`a "quoted" \ name`, `"`, `\`, `\"`, `{a,b}`, "NULL", "é'; --", ""}
	for i, agent := range agents {
		k := f.create(t, nil)
		counts = append(counts, apikey.UsageCount{
			KeyID: k.ID, OrganizationID: org, Count: 1, LastUsedAt: f.clock.stored(), IP: fmt.Sprintf("2001:db8::%d", i+1), UserAgent: agent,
			Units: []apikey.UnitCount{{Hour: at(f.clock, 0), Owner: agent + ".", Calls: 1, Units: 1}},
		})
	}
	f.addUsage(t, counts...)
	for i, c := range counts {
		k, err := f.Key(t.Context(), org, c.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "last use", &apikey.LastUse{IP: c.IP, UserAgent: agents[i]}, k.LastUse)
		period := apikey.Period{Granularity: apikey.Hourly, Since: at(f.clock, 0), Until: at(f.clock, time.Hour)}
		filter := store.UnitFilter{Organization: org, Group: apikey.ByOwner, Name: agents[i] + ".", Period: period}
		wantSame(t, "units", []string{at(f.clock, 0).Format("02T15 ") + org + " " + agents[i] + ". 1/1"}, f.unitsOf(t, filter, 10))
	}
}

// testAddUsageOfNoKey counts uses of keys that are gone: nothing is left behind.
func testAddUsageOfNoKey(t *testing.T, f *fixture) {
	k, gone := f.create(t, nil), f.create(t, nil)
	if err := f.DeleteKey(t.Context(), operator, org, gone.ID); err != nil {
		t.Fatal(err)
	}
	use := func(id string) apikey.UsageCount {
		return apikey.UsageCount{KeyID: id, Count: 1, LastUsedAt: f.clock.Now()}
	}
	f.addUsage(t, use(gone.ID))
	f.addUsage(t, use("never"), use(gone.ID), use(k.ID), use(""))
	if n, err := f.Counters(t.Context()); n != 1 || err != nil {
		t.Errorf("%d counters, %v", n, err)
	}
	if k, err := f.Key(t.Context(), org, k.ID); err != nil || k.Usage.TotalRequests != 1 {
		t.Errorf("used %d times, %v", k.Usage.TotalRequests, err)
	}
}

// testAddUsageCancelled ends a flush between two chunks: what it says is stored
// is, and the rest can be given again.
func testAddUsageCancelled(t *testing.T, f *fixture) {
	const n = store.UsageChunk + 5
	f.copies(t, f.create(t, nil), n)
	counts := make([]apikey.UsageCount, n)
	for i := range counts {
		counts[i] = apikey.UsageCount{KeyID: copyID(i), Count: 1, LastUsedAt: f.clock.Now()}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stored, err := f.AddUsage(ctx, counts)
	if stored != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("stored %d, %v", stored, err)
	}
	if got, err := f.Counters(t.Context()); got != 0 || err != nil {
		t.Errorf("%d counters, %v", got, err)
	}
	f.addUsage(t, counts[stored:]...)
	if got, err := f.Counters(t.Context()); got != n || err != nil {
		t.Errorf("%d counters, %v", got, err)
	}
}

// testAddUsageTouchesNone says that counting is no change of a key.
func testAddUsageTouchesNone(t *testing.T, f *fixture) {
	var commits int
	f.OnCommit(func(store.Commit) { commits++ })
	k := f.create(t, nil)
	f.addUsage(t, apikey.UsageCount{KeyID: k.ID, Count: 1, LastUsedAt: f.clock.Now()})
	f.wantEvents(t, 0, apikey.KeyCreated)
	if commits != 1 {
		t.Errorf("told of %d commits", commits)
	}
	used, err := f.Key(t.Context(), org, k.ID)
	if err != nil || used.Version != 1 || !used.UpdatedAt.IsZero() {
		t.Errorf("got %+v, %v", used, err)
	}
	wantSame(t, "changes", []string(nil), apikey.Changes(&k, &used, f.clock.Now()))
}

var settingTests = map[string]func(*testing.T, *fixture){
	"Ready":      testReady,
	"Settings":   testSettings,
	"Tokens":     testTokens,
	"UsesPepper": testUsesPepper,
}

func testReady(t *testing.T, f *fixture) {
	if err := f.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Ready(t.Context()); err == nil {
		t.Error("a closed store is ready")
	}
	_, err := f.tryCreate(t, t.Context(), nil)
	wantUnavailable(t, err)
}

func testSettings(t *testing.T, f *fixture) {
	f.create(t, nil)
	settings := map[string]string{"database_id": "2", "check/pepper/p_1": "é'"}
	if err := f.Initialize(t.Context(), settings, nil); err != nil {
		t.Fatal(err)
	}
	got, err := f.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "settings", map[string]string{"database_id": "1", "check/pepper/p_1": "é'"}, got)
	f.create(t, nil)
	f.wantEvents(t, 0, apikey.KeyCreated, apikey.KeyCreated) // the revision went on
}

// token makes an operator token of a number.
func (f *fixture) token(i byte, pepper string) keyring.OperatorToken {
	return keyring.OperatorToken{
		ID: fmt.Sprintf("operator_%d", i), Hash: apikey.Hash{i}, PepperID: pepper, CreatedAt: f.clock.stored(),
	}
}

func testTokens(t *testing.T, f *fixture) {
	want := func(what string, want ...keyring.OperatorToken) {
		t.Helper()
		got, err := f.RootTokens(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, what, want, got)
	}
	want("none at first")
	first, second := f.token(1, "p_1"), f.token(2, "p_1")
	if err := f.Initialize(t.Context(), map[string]string{"a": "b"}, &first); err != nil {
		t.Fatal(err)
	}
	want("the first", first)
	// A token that cannot be stored keeps the settings out, too.
	if err := f.Initialize(t.Context(), map[string]string{"c": "d"}, &first); err == nil {
		t.Error("the same token twice")
	}
	if settings, err := f.Settings(t.Context()); err != nil || settings["a"] != "b" || settings["c"] != "" {
		t.Errorf("settings %v, %v", settings, err)
	}
	if err := f.ReplaceRootTokens(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	want("replaced", second)
	f.wantEvents(t, 0)
}

func testUsesPepper(t *testing.T, f *fixture) {
	used := func(id string, want bool) {
		t.Helper()
		if got, err := f.UsesPepper(t.Context(), id); got != want || err != nil {
			t.Errorf("%s: %v, %v", id, got, err)
		}
	}
	used("p_1", false)
	k := f.create(t, nil)
	used("p_1", true)
	used("p_2", false)
	if _, err := f.rotate(t, k.ID, apikey.StoredSecret{Hash: apikey.Hash{1}, PepperID: "p_2", Mask: "m"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	used("p_1", true) // its secret works still
	used("p_2", true)
	if _, err := f.rotate(t, k.ID, apikey.StoredSecret{Hash: apikey.Hash{2}, PepperID: "p_2", Mask: "m"}, 0); err != nil {
		t.Fatal(err)
	}
	used("p_1", false)
	if err := f.ReplaceRootTokens(t.Context(), f.token(1, "p_3")); err != nil {
		t.Fatal(err)
	}
	used("p_3", true)
}
