package chaostest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/servertest"
)

// op returns an operation on the key k through a replica, which was called and answered
// at two times in milliseconds; an end of 0 is none.
func op(kind string, replica int, call, end int64, change ...func(*operation)) *operation {
	o := &operation{Kind: kind, Replica: replica, Key: "k", Call: time.Duration(call) * time.Millisecond, Return: time.Duration(end) * time.Millisecond, Outcome: answered, Enabled: true}
	if end == 0 {
		o.Return, o.Outcome = forever, unknown
	}
	for _, f := range change {
		f(o)
	}
	return o
}

func code(c string) func(*operation)     { return func(o *operation) { o.Code = c } }
func secret(number int) func(*operation) { return func(o *operation) { o.Secret = number } }
func units(n int64) func(*operation)     { return func(o *operation) { o.Cost, o.Code = n, "valid" } }
func isRefused(o *operation)             { o.Outcome = refused }
func overlapping(o *operation)           { o.Overlap = true }
func disabling(o *operation)             { o.Enabled = false }

// The register accepts what the contract allows and finds what it forbids.
func TestKeyModel(t *testing.T) {
	t.Parallel()
	created := op("create", 0, 0, 10)
	revoked := op("revoke", 0, 100, 110)
	for name, c := range map[string]struct {
		operations []*operation
		good       bool
	}{
		"a life": {[]*operation{created, op("verify", 1, 20, 30, code("valid")), revoked, op("verify", 0, 120, 130, code("revoked"))}, true},
		"valid on the same replica after the revoke":             {[]*operation{created, revoked, op("verify", 0, 111, 130, code("valid"))}, false},
		"valid elsewhere within a second":                        {[]*operation{created, revoked, op("verify", 1, 1000, 1010, code("valid"))}, true},
		"valid elsewhere after a second":                         {[]*operation{created, revoked, op("verify", 1, 1111, 1120, code("valid"))}, false},
		"valid again elsewhere":                                  {[]*operation{created, revoked, op("verify", 1, 200, 210, code("revoked")), op("verify", 1, 220, 230, code("valid"))}, false},
		"called before the revoke, answered long after":          {[]*operation{created, revoked, op("verify", 0, 105, 3000, code("valid"))}, true},
		"a revoke without an answer that was made":               {[]*operation{created, op("revoke", 0, 100, 0), op("verify", 0, 500, 510, code("revoked"))}, true},
		"a revoke without an answer that was not made":           {[]*operation{created, op("revoke", 0, 100, 0), op("verify", 0, 5000, 5010, code("valid"))}, true},
		"a revoke that is undone":                                {[]*operation{created, op("revoke", 0, 100, 0), op("verify", 0, 500, 510, code("revoked")), op("verify", 0, 600, 610, code("valid"))}, false},
		"not found after the creation, elsewhere":                {[]*operation{created, op("verify", 2, 20, 30, code("not_found"))}, false},
		"the secret before a rotation":                           {[]*operation{created, op("rotate", 0, 100, 110, secret(1)), op("verify", 0, 120, 130, secret(0), code("valid"))}, false},
		"the same with an overlap":                               {[]*operation{created, op("rotate", 0, 100, 110, secret(1), overlapping), op("verify", 0, 120, 130, secret(0), code("valid"))}, true},
		"an update of a revoked key":                             {[]*operation{created, revoked, op("update", 1, 120, 130)}, false},
		"an update of a revoked key, refused":                    {[]*operation{created, revoked, op("update", 1, 120, 130, isRefused)}, true},
		"an update of a good key, refused":                       {[]*operation{created, op("update", 1, 120, 130, isRefused)}, false},
		"one secret known before the other, elsewhere":           {[]*operation{created, op("rotate", 0, 100, 110, secret(1)), op("verify", 1, 120, 130, secret(1), code("valid")), op("verify", 1, 140, 150, secret(0), code("valid"))}, true},
		"the same on the replica of the rotation":                {[]*operation{created, op("rotate", 1, 100, 110, secret(1)), op("verify", 1, 120, 130, secret(1), code("valid")), op("verify", 1, 140, 150, secret(0), code("valid"))}, false},
		"disabled, then enabled elsewhere":                       {[]*operation{created, op("update", 0, 50, 60, disabling), op("update", 1, 70, 80), op("verify", 1, 90, 95, code("valid")), op("verify", 0, 1200, 1210, code("valid"))}, true},
		"read elsewhere before what was answered":                {[]*operation{created, revoked, op("get", 1, 120, 130, code("active"))}, false},
		"deleted and read":                                       {[]*operation{created, op("delete", 0, 50, 60), op("get", 1, 70, 80, code("active"))}, false},
		"two overlapping changes that take effect in turn there": {[]*operation{created, op("update", 0, 50, 90, disabling), op("update", 1, 55, 95), op("verify", 0, 100, 110, code("disabled")), op("get", 0, 120, 130, code("active"))}, true},
	} {
		faults := checkKeys(c.operations, 3, "")
		if (len(faults) == 0) != c.good {
			t.Errorf("%s: %q", name, faults)
		}
	}
}

// A budget is never granted twice.
func TestBudgetModel(t *testing.T) {
	t.Parallel()
	b := &budget{kind: spentOnce, key: "k", limit: 5}
	good := []*operation{op("spend", 0, 0, 10, units(3)), op("spend", 1, 0, 0, units(3)), op("spend", 2, 5, 15, units(2)), op("spend", 2, 16, 17, units(2), code("quota_exceeded"))}
	if faults := checkBudgets(good, []*budget{b}, 1, ""); len(faults) > 0 {
		t.Errorf("good: %q", faults)
	}
	bad := append(slices.Clone(good), op("spend", 1, 100, 110, units(1)))
	if faults := checkBudgets(bad, []*budget{b}, 1, ""); len(faults) == 0 {
		t.Error("six units of five are not found")
	}
	b.kind = refilled
	if faults := checkBudgets(bad, []*budget{b}, 2, ""); len(faults) > 0 {
		t.Errorf("refilled at midnight: %q", faults)
	}
}

// A rate limit holds between any two times.
func TestRateModel(t *testing.T) {
	t.Parallel()
	burst := []*operation{op("spend", 0, 0, 10, units(6)), op("spend", 1, 0, 10, units(4))}
	if fault := checkRate("r", append(slices.Clone(burst), op("spend", 2, 490, 510, units(5))), 10, time.Second); fault != "" {
		t.Errorf("good: %s", fault)
	}
	if fault := checkRate("r", append(slices.Clone(burst), op("spend", 2, 90, 110, units(5))), 10, time.Second); fault == "" {
		t.Error("five units after 0.1 s are not found")
	}
	if fault := checkRate("r", append(slices.Clone(burst), op("spend", 2, 90, 900, units(5))), 10, time.Second); fault != "" {
		t.Errorf("slow: %s", fault)
	}
}

func event(position int64, kind, resource, label string) logged {
	return logged{Logged: servertest.Logged{Position: position, ID: "e" + string(rune('0'+position)), Organization: "org_a", Type: kind, Resource: resource}, label: label, enabled: true}
}

func labelled(text string) func(*operation) { return func(o *operation) { o.Label = text } }

// The log has each change once, in the order of the answers.
func TestLogModel(t *testing.T) {
	t.Parallel()
	log := []logged{event(1, "api_key.created", "k", ""), event(2, "api_key.updated", "k", "one"), event(3, "api_key.updated", "k", "two"), event(4, "api_key.revoked", "k", "")}
	history := []*operation{
		op("create", 0, 0, 10), op("update", 0, 20, 40, labelled("one")), op("update", 1, 30, 35, labelled("two")),
		op("revoke", 1, 50, 60), op("revoke", 1, 70, 80), op("update", 1, 90, 99, labelled("three"), isRefused),
	}
	for name, c := range map[string]struct {
		change func(log []logged, history []*operation) ([]logged, []*operation)
		want   string
	}{
		"good":   {func(l []logged, h []*operation) ([]logged, []*operation) { return l, h }, ""},
		"a gap":  {func(l []logged, h []*operation) ([]logged, []*operation) { l[3].Position = 5; return l, h }, "a gap"},
		"a loss": {func(l []logged, h []*operation) ([]logged, []*operation) { return l[:3], h }, "is not in the log"},
		"a double": {func(l []logged, h []*operation) ([]logged, []*operation) {
			return append(l, event(5, "api_key.revoked", "k", "")), h
		}, "has 2 events"},
		"a refused one": {func(l []logged, h []*operation) ([]logged, []*operation) {
			return append(l, event(5, "api_key.updated", "k", "three")), h
		}, "was refused"},
		"the wrong order": {func(l []logged, h []*operation) ([]logged, []*operation) {
			return l, append(h[:2:2], op("update", 1, 11, 15, labelled("two")), h[3])
		}, "no order"},
		"unknown, made": {func(l []logged, h []*operation) ([]logged, []*operation) {
			return l, append(h[:3:3], op("revoke", 1, 50, 0))
		}, ""},
		"unknown, not made": {func(l []logged, h []*operation) ([]logged, []*operation) {
			return l[:3], append(h[:3:3], op("revoke", 1, 50, 0))
		}, ""},
	} {
		l, h := c.change(slices.Clone(log), slices.Clone(history))
		faults := strings.Join(checkLog(h, l, ""), "\n")
		if (faults == "") != (c.want == "") || !strings.Contains(faults, c.want) {
			t.Errorf("%s: got %q, want %q", name, faults, c.want)
		}
	}
}

// Deliveries are those that the log demands, each once.
func TestDeliveryModel(t *testing.T) {
	t.Parallel()
	webhooks := []*subscribed{{id: "w", organization: "org_a", types: []string{"api_key.created"}}}
	disabled := event(3, "webhook.updated", "w", "")
	disabled.enabled = false
	log := []logged{event(1, "webhook.created", "w", ""), event(2, "api_key.created", "k", ""), disabled, event(4, "api_key.created", "l", "")}
	row := deliveryRow{id: "d", webhook: "w", event: "e2", state: "delivered"}
	first, again := receipt{"d", "w", time.Second, 200}, receipt{"d", "w", 2 * time.Second, 200}
	for name, c := range map[string]struct {
		rows     []deliveryRow
		received []receipt
		fault    bool // around
		want     string
	}{
		"good":                    {[]deliveryRow{row}, []receipt{{"d", "w", 0, 500}, first}, false, ""},
		"none":                    {nil, nil, false, "was not made"},
		"one too many":            {[]deliveryRow{row, {id: "x", webhook: "w", event: "e4"}}, []receipt{first}, false, "is not demanded"},
		"never received":          {[]deliveryRow{row}, nil, false, "has not acknowledged"},
		"sent again":              {[]deliveryRow{row}, []receipt{first, again}, false, "sent again"},
		"sent again after a kill": {[]deliveryRow{row}, []receipt{first, again}, true, ""},
		"of nobody":               {[]deliveryRow{row}, []receipt{first, {"y", "w", 0, 200}}, false, "is not stored"},
	} {
		received := make(map[string][]receipt)
		for _, r := range c.received {
			received[r.delivery] = append(received[r.delivery], r)
		}
		faults := strings.Join(checkDeliveries(webhooks, log, c.rows, received, func(time.Duration) bool { return c.fault }), "\n")
		if (faults == "") != (c.want == "") || !strings.Contains(faults, c.want) {
			t.Errorf("%s: got %q, want %q", name, faults, c.want)
		}
	}
}

// A secret works until its end and no longer.
func TestExpiryModel(t *testing.T) {
	t.Parallel()
	ending := func(o *operation) { o.Expires = 5 * time.Second }
	for name, c := range map[string]struct {
		verified *operation
		good     bool
	}{
		"before":              {op("expiring", 0, 100, 110, ending, code("valid")), true},
		"after":               {op("expiring", 0, 6100, 6110, ending, code("expired")), true},
		"refused before":      {op("expiring", 0, 100, 110, ending, code("expired")), false},
		"valid after":         {op("expiring", 0, 6100, 6110, ending, code("valid")), false},
		"valid just after":    {op("expiring", 0, 5900, 5910, ending, code("valid")), true},
		"refused just before": {op("expiring", 0, 4000, 4100, ending, code("expired")), true},
	} {
		if faults := checkExpiry([]*operation{c.verified}); (len(faults) == 0) != c.good {
			t.Errorf("%s: %q", name, faults)
		}
	}
	if faults := checkNotices([]*operation{op("expire", 0, 0, 10)}, []logged{event(1, "api_key.created", "k", "")}); len(faults) != 1 {
		t.Errorf("a notice that is missing: %q", faults)
	}
}

// The log tells which of the calls without an answer were made.
func TestResolve(t *testing.T) {
	t.Parallel()
	log := []logged{event(1, "api_key.created", "k", ""), event(2, "api_key.updated", "k", "made"), event(3, "api_key.updated", "k", "later")}
	history := []*operation{
		op("create", 0, 0, 10), op("update", 0, 20, 0, labelled("made")), op("update", 0, 20, 0, labelled("not made")),
		op("update", 1, 30, 40, labelled("later")), op("rotate", 1, 50, 0), op("revoke", 1, 50, 0),
	}
	got := resolve(history, log)
	if len(got) != 3 || got[1].Label != "made" || got[1].Return != 40*time.Millisecond || got[2].Label != "later" {
		t.Errorf("got %d operations, the second %+v", len(got), got[1])
	}
}
