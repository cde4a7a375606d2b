package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// plannedRead is a read whose cost must not grow with the database, and what is in the
// plans of its statements on each of them.
type plannedRead struct {
	run              func() error
	sqlite, postgres []string
}

// checkPlans runs each read on a database of c that fill has filled, and looks how the
// database goes about its statements: by the indexes named, without reading a table
// from end to end and without sorting, unless that is named too. inOrder are the tables that
// this is asked of.
func checkPlans(t *testing.T, c store.Config, tables []string, fill func(*fixture), reads func(*fixture) map[string]plannedRead) {
	t.Helper()
	f := &fixture{clock: newClock()}
	c.Now, c.NewID = f.clock.Now, ascendingIDs()
	f.Store = openAndInitialize(t, c)
	fill(f)
	onPostgres := !c.Postgres.IsZero()
	if onPostgres {
		execIn(t, c.Postgres.Reveal(), "ANALYZE")
	}
	trace := f.Trace()
	for name, read := range reads(f) {
		trace.Take()
		if err := read.run(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var plans []string
		for _, query := range trace.Take() {
			prefix, at := "EXPLAIN QUERY PLAN ", 3
			if onPostgres {
				prefix, at = "EXPLAIN ", 0
			}
			var plan []string
			for _, row := range readRows(t, f.Reader(), prefix+query.Text, query.Args...) {
				plan = append(plan, fmt.Sprint(row[at]))
			}
			for _, line := range plan {
				scan := slices.ContainsFunc(tables, func(table string) bool {
					return strings.Contains(line, "Seq Scan on "+table) || strings.HasPrefix(line, "SCAN "+table)
				})
				// What PostgreSQL expects few rows of it may find by the index and sort.
				if scan || strings.Contains(line, "TEMP B-TREE") && !slices.Contains(read.sqlite, line) || strings.Contains(line, "AUTOMATIC") {
					t.Errorf("%s: %s\n%s", name, query.Text, strings.Join(plan, "\n"))
				}
			}
			plans = append(plans, plan...)
		}
		wants := read.sqlite
		if onPostgres {
			wants = read.postgres
		}
		for _, want := range wants {
			if !slices.ContainsFunc(plans, func(line string) bool { return strings.Contains(line, want) }) {
				t.Errorf("%s: %q is not in\n%s", name, want, strings.Join(plans, "\n"))
			}
		}
	}
}

// TestEventPlans looks at the lists of events, in both orders, by actor and by time.
func TestEventPlans(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, c store.Config) {
		checkPlans(t, c, []string{"events"}, func(f *fixture) {
			for i := range 200 {
				f.create(t, func(k *apikey.Key) {
					if i%100 > 0 {
						k.OrganizationID = fmt.Sprintf("org_%d", i%100)
					}
				})
				if err := f.CopyEvents(t.Context(), 100); err != nil {
					t.Fatal(err)
				}
				f.clock.Advance(2 * time.Minute)
			}
		}, func(f *fixture) map[string]plannedRead {
			list := func(filter apikey.EventFilter) func() error {
				return func() error { _, err := f.Events(t.Context(), filter, 20, 10); return err }
			}
			newest := func(filter apikey.EventFilter) func() error {
				return func() error { _, err := f.EventsBefore(t.Context(), filter, 20, 15_000, 10); return err }
			}
			const (
				organization = "INDEX event_organization_id_id (organization_id=? AND id>? AND id<?)"
				actor        = "INDEX event_organization_id_actor_id_id (organization_id=? AND actor_id=? AND id>? AND id<?)"
				anywhere     = "INDEX event_actor_id_id (actor_id=? AND id>? AND id<?)"
				position     = "INTEGER PRIMARY KEY (rowid=?)"
			)
			since, until := f.clock.Now().Add(-3*time.Hour), f.clock.Now().Add(-2*time.Hour)
			return map[string]plannedRead{
				"an organization": {list(apikey.EventFilter{Organization: org}), []string{organization}, []string{"Index Scan using event_organization_id_id"}},
				"its newest":      {newest(apikey.EventFilter{Organization: org}), []string{organization}, []string{"Index Scan Backward using event_organization_id_id"}},
				"an actor": {list(apikey.EventFilter{Organization: org, Actor: "nobody"}), []string{actor},
					[]string{"actor_id_id"}},
				"an actor's newest": {newest(apikey.EventFilter{Organization: org, Actor: "nobody"}), []string{actor},
					[]string{"actor_id_id"}},
				"an actor anywhere":        {list(apikey.EventFilter{Actor: "nobody"}), []string{anywhere}, []string{"event_actor_id_id"}},
				"an actor's newest of all": {newest(apikey.EventFilter{Actor: "nobody"}), []string{anywhere}, []string{"event_actor_id_id"}},
				"a time": {list(apikey.EventFilter{Organization: org, Since: since, Until: until}), []string{position, organization, "COVERING " + organization},
					[]string{"Index Scan using events_pkey on events e", "event_organization_id_id"}},
				"a time's newest": {newest(apikey.EventFilter{Organization: org, Since: since, Until: until}), []string{position, organization},
					[]string{"Index Scan using events_pkey on events e", "event_organization_id_id"}},
				"a time of an actor": {newest(apikey.EventFilter{Organization: org, Actor: "nobody", Since: since}), []string{position, actor},
					[]string{"Index Scan using events_pkey on events e", "actor_id_id"}},
			}
		})
	})
}
