package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// TestQueryPlans runs each read whose cost must not grow with the database, takes
// the queries that it made, and picks SQLite how it goes about them: by the index
// named, without a scan and without sorting.
func TestQueryPlans(t *testing.T) {
	const (
		primary      = "k USING INDEX sqlite_autoindex_api_keys_1"
		organization = "INDEX apikey_organization_id_id (organization_id=? AND id>?"
		owner        = "INDEX apikey_organization_id_owner_id_id (organization_id=? AND owner_id=? AND id>?"
		notice       = "INDEX apikey_notice_at_id (notice_at"
		term         = "SEARCH t USING PRIMARY KEY (organization_id=? AND term=? AND key_id>?)"
		usage        = "INDEX sqlite_autoindex_api_key_usage_1 (id=?)"
		quota        = "INDEX sqlite_autoindex_api_key_quotas_1 (id=?)"
		current      = "INDEX api_keys_secret_hash_key (secret_hash=?)"
		previous     = "INDEX apikey_previous_hash (previous_hash=?)"
	)
	c := newClock()
	s := openSQLite(t, store.Config{Now: c.Now})
	f := &fixture{Store: s, clock: c}
	var last apikey.Key
	for range 3 {
		last = f.create(t, func(k *apikey.Key) { k.ExpiresAt = c.stored().Add(time.Hour) })
	}
	c.Advance(time.Hour)
	maker := f.create(t, func(k *apikey.Key) { k.Scopes, k.ExpiresAt = apikey.Scopes{"*"}, c.stored().Add(time.Hour) })
	trace := s.Trace()
	list := func(filter store.KeyFilter) func() error {
		return func() error {
			_, _, err := s.Keys(t.Context(), filter, "api_key_", 100)
			return err
		}
	}
	for name, q := range map[string]struct {
		run  func() error
		want []string // each is in the plan of some query
	}{
		"list":            {list(store.KeyFilter{Organization: org}), []string{organization + ")", usage}},
		"list of owner":   {list(store.KeyFilter{Organization: org, OwnerID: "a"}), []string{owner + ")", usage}},
		"list of a maker": {list(store.KeyFilter{Organization: org, CreatedBy: "a"}), []string{"INDEX apikey_organization_id_created_by_id_id (organization_id=? AND created_by_id=? AND id>?)", usage}},
		"list of all":     {list(store.KeyFilter{}), []string{primary + " (id>?)", usage}},
		"list of states":  {list(store.KeyFilter{Organization: org, State: apikey.StateActive}), []string{"COVERING " + organization + ")", organization + ")"}},
		"list of labels":  {list(store.KeyFilter{Organization: org, OwnerID: "a", Label: "x"}), []string{"COVERING " + owner + ")", owner + ")"}},
		"list by times": {list(store.KeyFilter{Organization: org, UnusedSince: c.Now()}),
			[]string{organization + ")", usage}},
		"list of what expires": {list(store.KeyFilter{Organization: org, ExpiresBefore: c.Now().Add(2 * time.Hour)}),
			[]string{"COVERING INDEX apikey_organization_id_expires_at_id (organization_id=? AND expires_at<?)", "(id=?"}},
		"list of what is expired": {list(store.KeyFilter{Organization: org, State: apikey.StateExpired}),
			[]string{"COVERING INDEX apikey_organization_id_expires_at_id (organization_id=? AND expires_at<?)", "(id=?"}},
		"list of the revoked":     {list(store.KeyFilter{Organization: org, State: apikey.StateRevoked}), []string{"INDEX apikey_revoked (organization_id=? AND id>?)"}},
		"list of the disabled":    {list(store.KeyFilter{Organization: org, State: apikey.StateDisabled}), []string{"INDEX apikey_disabled (organization_id=? AND id>?)"}},
		"list of previous in use": {list(store.KeyFilter{Organization: org, PreviousInUse: true}), []string{"COVERING INDEX apikey_organization_id_previous_expires_at_id (organization_id=? AND previous_expires_at>?)"}},
		"list of a scope":         {list(store.KeyFilter{Organization: org, Scope: "a"}), []string{term, "k USING INDEX sqlite_autoindex_api_keys_1 (id=?)"}},
		"list of a scope, backwards": {list(store.KeyFilter{Organization: org, Scope: "a", Descending: true}),
			[]string{strings.Replace(term, ">", "<", 1), "k USING INDEX sqlite_autoindex_api_keys_1 (id=?)"}},
		"list of metadata": {list(store.KeyFilter{Organization: org, Metadata: map[string]string{"a": "b", "c": "d"}, Scope: "a"}), []string{term, "k USING INDEX sqlite_autoindex_api_keys_1 (id=?)"}},
		"list of a secret": {list(store.KeyFilter{Organization: org, Secret: apikey.SecretPart{Head: last.Secret.Mask[:11]}}),
			[]string{"INDEX apikey_secret_mask (secret_mask>? AND secret_mask<?)", "INDEX apikey_previous_mask (previous_mask>? AND previous_mask<?)"}},
		"list by creation":        {list(store.KeyFilter{Organization: org, CreatedAfter: c.Now(), CreatedBefore: c.Now()}), []string{"INDEX apikey_organization_id_id (organization_id=? AND id>? AND id<?)"}},
		"list backwards":          {list(store.KeyFilter{Organization: org, Descending: true}), []string{"INDEX apikey_organization_id_id (organization_id=? AND id<?)"}},
		"list of an owner in all": {list(store.KeyFilter{OwnerID: "a"}), []string{primary + " (id>?)"}},
		"key": {func() error {
			_, err := s.Key(t.Context(), org, last.ID)
			return err
		}, []string{usage}},
		"key by secret": {func() error {
			_, _, err := s.KeyBySecret(t.Context(), last.Hashes())
			return err
		}, []string{"MULTI-INDEX OR", current, previous, usage, quota}},
		"keys by secrets": {func() error {
			for _, n := range store.LoadSizes {
				if _, _, err := s.KeysBySecret(t.Context(), make([]apikey.Hash, n)); err != nil {
					return err
				}
			}
			return nil
		}, []string{"MULTI-INDEX OR", current, previous, usage, quota}},
		"notices": {func() error {
			_, _, err := s.PublishNotices(t.Context(), 10, rules.Notice)
			return err
		}, []string{notice + ">?)", notice + "<?)"}},
		"usage": {func() error {
			_, err := s.AddUsage(t.Context(), []apikey.UsageCount{{KeyID: last.ID}, {KeyID: "b"}})
			return err
		}, []string{"INDEX sqlite_autoindex_api_keys_1 (id=?)"}},
		"update": {func() error {
			_, err := f.update(t.Context(), last.ID, func(k *apikey.Key) { k.Label += "x" })
			return err
		}, []string{"INDEX sqlite_autoindex_api_keys_1 (id=?)"}},
		"a key that creates": {func() error {
			_, err := s.CreateKey(t.Context(), calling(&maker), func(now time.Time) (apikey.Key, error) {
				k, err := benchmarkKey(now)
				k.ExpiresAt = maker.ExpiresAt
				return k, err
			})
			return err
		}, []string{"INDEX sqlite_autoindex_api_keys_1 (id=?)"}},
		"delete": {func() error {
			k, err := f.tryCreate(t, t.Context(), nil)
			if err != nil {
				return err
			}
			return s.DeleteKey(t.Context(), operator, org, k.ID)
		}, []string{"INDEX sqlite_autoindex_api_keys_1 (id=?)", "api_key_usage USING INDEX sqlite_autoindex_api_key_usage_1 (id=?)"}},
	} {
		t.Run(name, func(t *testing.T) {
			trace.Take()
			if err := q.run(); err != nil {
				t.Fatal(err)
			}
			var plans []string
			for _, query := range trace.Take() {
				plan := explain(t, s, query)
				for _, line := range plan {
					// The revision is one row; nothing else that is stored is read from
					// end to end.
					constant := line == "SCAN CONSTANT ROW" || line == "SCAN e EXISTS VIRTUAL TABLE INDEX 1:" || // JSON of the row
						strings.HasSuffix(line, "VALUES CLAUSE")
					scan := strings.HasPrefix(line, "SCAN ") && line != "SCAN revisions" && !constant
					if scan || strings.Contains(line, "TEMP B-TREE") || strings.Contains(line, "AUTOMATIC") {
						t.Errorf("%s\n%s", query.Text, strings.Join(plan, "\n"))
					}
				}
				plans = append(plans, plan...)
			}
			for _, want := range q.want {
				if !slices.ContainsFunc(plans, func(line string) bool { return strings.Contains(line, want) }) {
					t.Errorf("%q is not in\n%s", want, strings.Join(plans, "\n"))
				}
			}
		})
	}
}

// TestMostUsedPlan says how the one read goes about it whose cost does grow: each
// part of the period is a range of an index, nothing before or after it is read,
// and what is sorted is what was found: first by key, then, one row a key, by how
// often.
func TestMostUsedPlan(t *testing.T) {
	const part = "SEARCH usage_buckets USING INDEX usagebucket_organization_id_width_start (organization_id=? AND width=? AND start>? AND start<?)"
	c := newClock()
	s := openSQLite(t, store.Config{Now: c.Now})
	trace := s.Trace()
	for name, q := range map[string]struct {
		since time.Duration
		want  []string
	}{
		"hours": {-2 * time.Hour, []string{part, "USE TEMP B-TREE FOR GROUP BY", "USE TEMP B-TREE FOR ORDER BY"}},
		"hours, days and hours": {-72 * time.Hour, []string{"MULTI-INDEX OR", "INDEX 1", part, "INDEX 2", part, "INDEX 3", part,
			"USE TEMP B-TREE FOR GROUP BY", "USE TEMP B-TREE FOR ORDER BY"}},
	} {
		trace.Take()
		p := apikey.Period{Granularity: apikey.Hourly, Since: at(c, q.since), Until: at(c, 0)}
		if _, err := s.MostUsed(t.Context(), org, p, 10); err != nil {
			t.Fatal(err)
		}
		wantSame(t, name, q.want, explain(t, s, trace.Take()[0]))
	}
}

// explain returns the lines of SQLite's plan of a query.
func explain(t *testing.T, s *store.Store, q store.Query) (lines []string) {
	t.Helper()
	if strings.HasPrefix(q.Text, "SAVEPOINT") {
		return nil
	}
	for _, row := range readRows(t, s.Reader(), "EXPLAIN QUERY PLAN "+q.Text, q.Args...) {
		lines = append(lines, row[3].(string))
	}
	return lines
}
