package servertest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/servertest"
)

// The checker finds what it is there to find.
func TestHistoryCheck(t *testing.T) {
	t.Parallel()
	type seen = servertest.Seen
	log := []servertest.Logged{
		{1, "e1", "a", "api_key.created", "k1"},
		{2, "e2", "b", "api_key.created", "k2"},
		{3, "e3", "a", "api_key.updated", "k1"},
		{4, "e4", "a", "api_key.deleted", "k1"},
		{5, "e5", "b", "api_key.deleted", "k2"},
	}
	good := []seen{{0, ""}, {1, "e1"}, {2, ""}, {3, "e3"}, {3, ""}, {4, "e4"}, {5, ""}}
	for name, c := range map[string]struct {
		seen []seen
		want string
	}{
		"good":               {good, ""},
		"a duplicate":        {slices.Insert(slices.Clone(good), 2, seen{1, "e1"}), "came after"},
		"a swap":             {[]seen{{3, "e3"}, {1, "e1"}, {4, "e4"}, {5, ""}}, "came after"},
		"a loss":             {slices.Delete(slices.Clone(good), 3, 5), "not seen before"},
		"of another":         {slices.Insert(slices.Clone(good), 2, seen{2, "e2"}), "not wanted"},
		"a false heartbeat":  {slices.Insert(slices.Clone(good), 1, seen{1, ""}), "not seen before"},
		"a heartbeat behind": {slices.Insert(slices.Clone(good), 6, seen{3, ""}), "came after"},
		"a false cursor":     {slices.Replace(slices.Clone(good), 3, 4, seen{4, "e3"}), "not in the log there"},
		"beyond the log":     {append(slices.Clone(good), seen{6, "e6"}), "not in the log there"},
		"an early end":       {good[:5], "it ends at"},
	} {
		h := servertest.History{Organization: "a", Seen: c.seen}
		faults := strings.Join(h.Check(log), "\n")
		if (faults == "") != (c.want == "") || !strings.Contains(faults, c.want) {
			t.Errorf("%s: got %q, want %q", name, faults, c.want)
		}
	}
	for name, c := range map[string]struct {
		h    servertest.History
		good bool
	}{
		"from the middle":  {servertest.History{From: 2, Seen: []seen{{2, ""}, {3, "e3"}, {4, "e4"}, {5, "e5"}}}, true},
		"types":            {servertest.History{Types: []string{"api_key.deleted"}, Seen: []seen{{4, "e4"}, {5, "e5"}}}, true},
		"types, one lost":  {servertest.History{Types: []string{"api_key.deleted"}, Seen: []seen{{5, "e5"}}}, false},
		"resources":        {servertest.History{Resources: []string{"k2"}, Seen: []seen{{2, "e2"}, {5, "e5"}}}, true},
		"another resource": {servertest.History{Resources: []string{"k2"}, Seen: []seen{{2, "e2"}, {3, "e3"}, {5, "e5"}}}, false},
	} {
		if faults := c.h.Check(log); (len(faults) == 0) != c.good {
			t.Errorf("%s: %q", name, faults)
		}
	}
}
