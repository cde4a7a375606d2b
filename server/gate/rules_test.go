package gate

import (
	"strings"
	"testing"
)

func mustRules(t *testing.T, texts ...string) Rules {
	t.Helper()
	rules, err := ParseRules(texts)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestRules(t *testing.T) {
	t.Parallel()
	rules := mustRules(t,
		"GET /products scope=list",
		"GET|POST /products/* scope=one",
		"DELETE /products/** scope=delete&cost=3",
		"ANY /admin/** scope=admin",
		"ANY /",
	)
	for request, want := range map[string]string{
		"GET /products":          "list",
		"HEAD /products":         "list",
		"GET /PRODUCTS":          "list",
		"POST /products":         "-",
		"GET /products/1":        "one",
		"HEAD /products/1":       "one",
		"POST /Products/1":       "one",
		"GET /products/1/2":      "-",
		"DELETE /products":       "delete",
		"DELETE /products/1/2/3": "delete",
		"PURGE /admin":           "admin",
		"GET /aDMIN/x":           "admin",
		"GET /administrators":    "-",
		"OPTIONS /":              "",
		"GET /x":                 "-",
	} {
		method, path, _ := strings.Cut(request, " ")
		got := "-"
		if rule := rules.find(method, path); rule != nil {
			got = strings.Join(rule.needs.scopes, " ")
		}
		if got != want {
			t.Errorf("%s needs %q, want %q", request, got, want)
		}
	}
}

func TestParseRule(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                        "must be methods",
		"GET":                     "must be methods",
		"GET /a b=c d":            "must be methods",
		"get /a":                  "has the method",
		"GET| /a":                 "has the method",
		"GET|ANY /a":              "has the method",
		"GET a":                   "has the path",
		"GET /a/../b":             "has the path",
		"GET /a%2fb":              "has the path",
		"GET //":                  "has the path",
		"GET /a**":                "has the path",
		"GET /**/a":               "has the path",
		"GET /a*":                 "has the path",
		"GET /a scopes=b":         "which is not a parameter",
		"GET /a scope=":           "which must name a scope",
		"GET /a cost=-1":          "which must be a number",
		"GET /a cost=1&cost=2":    "which must be a number",
		"GET /a limit_status=403": "which is not a parameter",
		"GET /a organization=%20": "which may hold only",
		"GET /a %zz":              "needs",
		"GET /a":                  "",
		"GET /** scope=a+b&cost=0&organization=org_1": "",
	} {
		_, err := ParseRule(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ParseRules(make([]string, maxRules+1)); err == nil {
		t.Error("too many rules are taken")
	}
}

func TestParseQuery(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"": "",
		"scope=a&scope=b+c&organization=org_1&cost=2": "",
		"organization=*":                    "",
		"organization=a&organization=b":     "organization must stand once",
		"rules=none":                        "",
		"rules=all":                         "rules must be none",
		"limit_status=403":                  "",
		"limit_status=418":                  "limit_status must be 403 or 429",
		"cost=1000001":                      "cost must be",
		"cost=x":                            "cost must be",
		"Scope=a":                           "Scope is not a parameter",
		"a=b&c=d":                           "a is not a parameter",
		"scope=%zz":                         "not valid",
		"scope=a;b=c":                       "not valid",
		"scope=" + strings.Repeat("a", 129): "scope must have",
		strings.Repeat("a", maxQuery+1):     "longer than",
	} {
		need, err := parseQuery(query)
		if want == "" && (err != nil || need == nil) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.40q: %v, want %q", query, err, want)
		}
	}
	many := strings.Repeat("scope=a&", 200)
	if need, err := parseQuery(many); err != nil || len(need.scopes) != 1 {
		t.Errorf("a scope named twice: %v, %v", need, err)
	}
}

// FuzzParseQuery has no query that asks for less than it says, or for more than may be.
func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{"scope=a&cost=2", "scope=a+b&organization=org_1", "limit_status=403&rules=none", "%", "a;b", "cost=&cost="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		need, err := parseQuery(query)
		if err != nil {
			return
		}
		if len(need.scopes) > maxScopes || need.units() < 0 || need.units() > maxCost || len(need.organization) > 128 {
			t.Errorf("%q asks for %+v", query, need)
		}
		if query != "" && strings.Trim(query, "&") != "" && need.scopes == nil && need.organization == "" && !need.hasCost &&
			need.limitStatus == 0 && !need.withoutRules && !strings.Contains(query, "organization") && !strings.Contains(query, "%") {
			t.Errorf("%q asks for nothing", query)
		}
	})
}
