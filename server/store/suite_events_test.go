package store_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var eventTests = map[string]func(*testing.T, *fixture){
	"EventPages":     testEventPages,
	"EventsNewest":   testEventsNewest,
	"EventTimes":     testEventTimes,
	"EventBound":     testEventBound,
	"EventRetention": testEventRetention,
	"EmptyLog":       testEmptyLog,
}

// readEvents reads one page and returns the positions on it.
func (f *fixture) readEvents(tb testing.TB, filter apikey.EventFilter, after int64, limit int) ([]int64, apikey.EventPage) {
	tb.Helper()
	page, err := f.Events(tb.Context(), filter, after, limit)
	if err != nil {
		tb.Fatal(err)
	}
	var positions []int64
	for _, e := range page.Events {
		if !filter.Wants(&e) {
			tb.Errorf("%+v does not want %+v", filter, e)
		}
		positions = append(positions, e.Position)
	}
	return positions, page
}

func testEventPages(t *testing.T, f *fixture) {
	// Positions 1 to 6: odd ones of org, even ones of another.
	var ids []string
	for i := range 6 {
		k := f.create(t, func(k *apikey.Key) {
			if i%2 == 1 {
				k.OrganizationID = "org_other"
			}
		})
		ids = append(ids, k.ID)
	}
	if err := f.DeleteKey(t.Context(), operator, org, ids[0]); err != nil { // position 7
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		filter apikey.EventFilter
		after  int64
		limit  int
		want   []int64
		next   int64
		more   bool
	}{
		"all":                  {apikey.EventFilter{}, 0, 10, []int64{1, 2, 3, 4, 5, 6, 7}, 7, false},
		"from the oldest":      {apikey.EventFilter{}, apikey.OldestKept, 10, []int64{1, 2, 3, 4, 5, 6, 7}, 7, false},
		"short page":           {apikey.EventFilter{}, 2, 3, []int64{3, 4, 5}, 5, true},
		"full last page":       {apikey.EventFilter{}, 4, 3, []int64{5, 6, 7}, 7, false},
		"after the newest":     {apikey.EventFilter{}, 7, 3, nil, 7, false},
		"ahead":                {apikey.EventFilter{}, 9, 3, nil, 9, false},
		"organization":         {apikey.EventFilter{Organization: "org_other"}, 0, 2, []int64{2, 4}, 4, true},
		"organization, last":   {apikey.EventFilter{Organization: "org_other"}, 0, 3, []int64{2, 4, 6}, 7, false},
		"organization unknown": {apikey.EventFilter{Organization: "org_none"}, 0, 3, nil, 7, false},
		"type":                 {apikey.EventFilter{Types: []apikey.EventType{apikey.KeyDeleted}}, 0, 3, []int64{7}, 7, false},
		"resource":             {apikey.EventFilter{ResourceIDs: ids[:2]}, 1, 3, []int64{2, 7}, 7, false},
		"all three": {apikey.EventFilter{
			Organization: org, Types: []apikey.EventType{apikey.KeyCreated}, ResourceIDs: ids[:3],
		}, 0, 3, []int64{1, 3}, 7, false},
	} {
		got, page := f.readEvents(t, c.filter, c.after, c.limit)
		if !slices.Equal(got, c.want) || page.Next != c.next || page.More != c.more || page.Floor != 0 || page.Newest != 7 {
			t.Errorf("%s: got %v and %+v, want %v, next %d, more %t", name, got, page, c.want, c.next, c.more)
		}
	}
}

// A page looks at so many rows only, and says how far it came.
func testEventBound(t *testing.T, f *fixture) {
	f.create(t, nil)
	if err := f.CopyEvents(t.Context(), store.MaxExamined+9); err != nil {
		t.Fatal(err)
	}
	rare := apikey.EventFilter{Types: []apikey.EventType{apikey.KeyDeleted}}
	if got, page := f.readEvents(t, rare, 5, 10); got != nil || page.Next != store.MaxExamined+5 || !page.More {
		t.Error(got, page.Next, page.More)
	}
	if got, page := f.readEvents(t, rare, store.MaxExamined+5, 10); got != nil || page.Next != store.MaxExamined+10 || page.More {
		t.Error(got, page.Next, page.More)
	}
}

// readNewest is readEvents from the newest on.
func (f *fixture) readNewest(tb testing.TB, filter apikey.EventFilter, after, before int64, limit int) ([]int64, apikey.EventPage) {
	tb.Helper()
	page, err := f.EventsBefore(tb.Context(), filter, after, before, limit)
	if err != nil {
		tb.Fatal(err)
	}
	var positions []int64
	for _, e := range page.Events {
		if !filter.Wants(&e) {
			tb.Errorf("%+v does not want %+v", filter, e)
		}
		positions = append(positions, e.Position)
	}
	return positions, page
}

func testEventsNewest(t *testing.T, f *fixture) {
	for i := range 6 { // odd positions of org, even ones of another
		f.create(t, func(k *apikey.Key) {
			if i%2 == 1 {
				k.OrganizationID = "org_other"
			}
		})
	}
	for name, c := range map[string]struct {
		filter        apikey.EventFilter
		after, before int64
		limit         int
		want          []int64
		next          int64
		more          bool
	}{
		"all":              {apikey.EventFilter{}, apikey.OldestKept, 0, 10, []int64{6, 5, 4, 3, 2, 1}, 0, false},
		"a page":           {apikey.EventFilter{}, 0, 0, 2, []int64{6, 5}, 5, true},
		"the next":         {apikey.EventFilter{}, 0, 5, 2, []int64{4, 3}, 3, true},
		"the last":         {apikey.EventFilter{}, 0, 3, 2, []int64{2, 1}, 0, false},
		"after one":        {apikey.EventFilter{}, 4, 0, 10, []int64{6, 5}, 4, false},
		"after the newest": {apikey.EventFilter{}, 6, 0, 10, nil, 6, false},
		"before the first": {apikey.EventFilter{}, 0, 1, 10, nil, 0, false},
		"organization":     {apikey.EventFilter{Organization: org}, 0, 5, 10, []int64{3, 1}, 0, false},
		"type":             {apikey.EventFilter{Types: []apikey.EventType{apikey.KeyDeleted}}, 0, 0, 10, nil, 0, false},
	} {
		got, page := f.readNewest(t, c.filter, c.after, c.before, c.limit)
		if !slices.Equal(got, c.want) || page.Next != c.next || page.More != c.more || page.Newest != 6 {
			t.Errorf("%s: got %v and %+v, want %v, next %d, more %t", name, got, page, c.want, c.next, c.more)
		}
	}
	// Here too a page looks at so many rows only.
	if err := f.CopyEvents(t.Context(), store.MaxExamined); err != nil {
		t.Fatal(err)
	}
	rare := apikey.EventFilter{Types: []apikey.EventType{apikey.KeyDeleted}}
	if got, page := f.readNewest(t, rare, 0, 0, 10); got != nil || page.Next != 7 || !page.More {
		t.Error(got, page.Next, page.More)
	}
	if got, page := f.readNewest(t, rare, 0, 7, 10); got != nil || page.Next != 0 || page.More {
		t.Error(got, page.Next, page.More)
	}
}

// Events are found by their time, in both orders, where the clock was set back too.
func testEventTimes(t *testing.T, f *fixture) {
	begin := f.clock.stored()
	for _, step := range []time.Duration{time.Minute, time.Minute, -3 * time.Second, time.Minute, time.Minute, 0} {
		f.create(t, nil) // made at 0s, 60s, 120s, 117s, 177s, 237s
		f.clock.Advance(step)
	}
	at := func(seconds int) time.Time {
		if seconds < 0 {
			return time.Time{}
		}
		return begin.Add(time.Duration(seconds) * time.Second)
	}
	for _, c := range []struct {
		since, until int
		want         []int64
	}{
		{-1, -1, []int64{1, 2, 3, 4, 5, 6}},
		{0, -1, []int64{1, 2, 3, 4, 5, 6}},
		{1, -1, []int64{2, 3, 4, 5, 6}},
		{118, -1, []int64{3, 5, 6}},
		{120, 121, []int64{3}},
		{116, 119, []int64{4}},
		{-1, 120, []int64{1, 2, 4}},
		{-1, 118, []int64{1, 2, 4}},
		{-1, 0, nil},
		{238, -1, nil},
		{61, 100, nil},
		{60, 178, []int64{2, 3, 4, 5}},
	} {
		filter := apikey.EventFilter{Since: at(c.since), Until: at(c.until)}
		if got, page := f.readEvents(t, filter, apikey.OldestKept, 10); !slices.Equal(got, c.want) || page.More {
			t.Errorf("%d to %d: %v, more %t", c.since, c.until, got, page.More)
		}
		got, page := f.readNewest(t, filter, 0, 0, 10)
		if slices.Reverse(got); !slices.Equal(got, c.want) || page.More {
			t.Errorf("%d to %d, from the newest: %v, more %t", c.since, c.until, got, page.More)
		}
	}
}

func testEventRetention(t *testing.T, f *fixture) {
	begin := f.clock.stored()
	for range 6 {
		f.create(t, nil)
		f.clock.Advance(time.Hour)
	}
	deleteBefore := func(before time.Time, limit, want int) {
		t.Helper()
		if n, err := f.DeleteEventsBefore(t.Context(), before, limit); n != want || err != nil {
			t.Errorf("deleted %d, %v, want %d", n, err, want)
		}
	}
	deleteBefore(begin, 10, 0)
	deleteBefore(begin.Add(3*time.Hour), 2, 2)
	deleteBefore(begin.Add(3*time.Hour), 2, 1)
	deleteBefore(begin.Add(3*time.Hour), 2, 0)
	if floor, newest, err := f.EventBounds(t.Context()); floor != 3 || newest != 6 || err != nil {
		t.Error(floor, newest, err)
	}
	for after, kept := range map[int64]bool{0: false, 2: false, 3: true, 4: true, apikey.OldestKept: true} {
		_, err := f.Events(t.Context(), apikey.EventFilter{}, after, 10)
		tooOld, ok := errors.AsType[*apikey.TooOldError](err)
		if ok == kept || ok && tooOld.Floor != 3 {
			t.Errorf("after %d: %v", after, err)
		}
	}
	// All of them can go, but not their numbers.
	deleteBefore(begin.Add(time.Hour*100), 10, 3)
	if floor, newest, err := f.EventBounds(t.Context()); floor != 6 || newest != 6 || err != nil {
		t.Error(floor, newest, err)
	}
	f.create(t, nil)
	if got, page := f.readEvents(t, apikey.EventFilter{}, 6, 10); fmt.Sprint(got) != "[7]" || page.Floor != 6 {
		t.Error(got, page)
	}
}

func testEmptyLog(t *testing.T, f *fixture) {
	if got, page := f.readEvents(t, apikey.EventFilter{}, apikey.OldestKept, 10); got != nil || page.Next != 0 || page.More {
		t.Error(got, page)
	}
}

// BenchmarkDeleteEvents measures one batch of retention, which holds the writer.
func BenchmarkDeleteEvents(b *testing.B) {
	const batch = 200
	s := openSQLite(b, store.Config{})
	if _, err := s.CreateKey(b.Context(), operator, benchmarkKey); err != nil {
		b.Fatal(err)
	}
	left := 0
	var spent time.Duration
	for b.Loop() {
		if left == 0 {
			left = 40
			if err := s.CopyEvents(b.Context(), batch*left); err != nil {
				b.Fatal(err)
			}
		}
		begin := time.Now()
		if n, err := s.DeleteEventsBefore(b.Context(), time.Now().Add(time.Hour), batch); n != batch || err != nil {
			b.Fatal(n, err)
		}
		spent += time.Since(begin)
		left--
	}
	b.ReportMetric(float64(spent.Microseconds())/1000/float64(b.N), "ms/batch")
}
