package apikey

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseFormats reads formats as a flag has them.
func parseFormats(t testing.TB, text string) (formats KeyFormats) {
	t.Helper()
	for part := range strings.SplitSeq(text, ",") {
		format, err := ParseKeyFormat(part)
		if err != nil {
			t.Fatal(err)
		}
		formats = append(formats, format)
	}
	return formats
}

func TestKeyFormatsCheck(t *testing.T) {
	t.Parallel()
	const reserved = "is reserved for other tokens and ids"
	for name, c := range map[string]struct{ formats, want string }{
		"the defaults":              {"sk_live=sk_live_:live,sk_test=sk_test_:test", ""},
		"the shortest":              {"a=a_:live", ""},
		"the longest":               {"a=abcdefghij_abcdefghij_a_:live", ""},
		"digits":                    {"k8s-1_a=k8s_9_0_:test", ""},
		"one mode twice":            {"a=a_:live,b=b_:live", ""},
		"the end of another":        {"a=task_live_:live,b=sk_live_:live", ""},
		"the start of what is kept": {"a=api_:live,b=ro_:live,c=rooty_:live", ""},
		"no name":                   {"=a_:live", `number 1 has the name ""; a name has`},
		"a name of a digit":         {"1=a_:live", "number 1 has the name"},
		"a name of upper case":      {"A=a_:live", "number 1 has the name"},
		"a long name":               {strings.Repeat("a", 33) + "=a_:live", "number 1 has the name"},
		"a name twice":              {"a=a_:live,a=b_:live", "number 2 has the name of number 1"},
		"no prefix":                 {"a=:live", `number 1 has the prefix ""; a prefix has`},
		"an underscore alone":       {"a=_:live", `number 1 has the prefix "_"`},
		"no underscore":             {"a=acme:live", "number 1 has the prefix"},
		"two underscores":           {"a=acme__live_:live", "number 1 has the prefix"},
		"two at the end":            {"a=acme__:live", "number 1 has the prefix"},
		"upper case":                {"a=Acme_:live", "number 1 has the prefix"},
		"a digit in front":          {"a=1_:live", "number 1 has the prefix"},
		"a hyphen":                  {"a=a-b_:live", "number 1 has the prefix"},
		"not ASCII":                 {"a=akmé_:live", "number 1 has the prefix"},
		"a long prefix":             {"a=abcdefghij_abcdefghij_ab_:live", "number 1 has the prefix"},
		"a prefix twice":            {"a=a_:live,b=a_:test", "none may be the start of another"},
		"the start of another":      {"a=a_:live,b=a_b_:test", "number 2 has the prefix a_b_, and number 1 a_: none may be the start of another"},
		"another is its start":      {"a=a_b_:live,c=c_:live,b=a_:test", "number 3 has the prefix a_, and number 1 a_b_"},
		"no mode":                   {"a=a_:", `number 1 has the mode ""; a mode is live or test`},
		"an unknown mode":           {"a=a_:production", `number 1 has the mode "production"`},
		"a mode with more":          {"a=a_:live:test", "number 1 has the mode"},
		"a secret for a prefix":     {"a=" + checked("sk_live_") + ":live", `number 1 has the prefix "[redacted]"`},
		"root":                      {"a=root_:live", reserved},
		"begins like a root token":  {"a=root_acme_:live", reserved},
		"an operator's token":       {"a=opt_:live", reserved},
		"a webhook's secret":        {"a=whsec_:live", reserved},
		"the id of a key":           {"a=api_key_:live", reserved},
		"the id of a webhook":       {"a=webhook_x_:live", reserved},
		"the id of an event":        {"a=event_:live", reserved},
		"the id of a delivery":      {"a=delivery_:live", reserved},
		"the id of a failure":       {"a=support_:live", reserved},
		"the id of a request":       {"a=request_:live", reserved},
		"too many":                  {strings.Repeat("a=a_:live,", 32) + "a=a_:live", "must be 1 to 32 formats, not 33"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			if err := parseFormats(t, c.formats).Check(); err != nil {
				got = err.Error()
			}
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("Check of %s is %q, want %q", c.formats, got, c.want)
			}
		})
	}
	if err := (KeyFormats{}).Check(); err == nil {
		t.Error("no format at all is accepted")
	}
}

func TestParseKeyFormat(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "a", "a=b", "a:b", "=", ":", "a:b=c"} {
		if format, err := ParseKeyFormat(text); err == nil {
			t.Errorf("ParseKeyFormat(%q) is %v", text, format)
		}
	}
}

func TestKeyFormatsChoose(t *testing.T) {
	t.Parallel()
	all := parseFormats(t, "old=sk_live_:live,new=acme_:live,try=acme_test_x_:test")
	for name, c := range map[string]struct {
		formats KeyFormats
		format  string
		mode    Mode
		want    string // the prefix
		problem *FieldProblem
	}{
		"the first of the mode":    {all, "", ModeLive, "sk_live_", nil},
		"of the other mode":        {all, "", ModeTest, "acme_test_x_", nil},
		"without a mode":           {all, "", "", "sk_live_", nil},
		"by its name":              {all, "new", ModeLive, "acme_", nil},
		"by its name alone":        {all, "new", "", "acme_", nil},
		"unknown":                  {all, "sk_live", "", "", &FieldProblem{"key_format", "is not a key format of this server; these are: old, new, try"}},
		"of another mode":          {all, "try", ModeLive, "", &FieldProblem{"key_format", "is of the mode test, and the key's is live"}},
		"of another than none":     {all, "try", "", "", &FieldProblem{"key_format", "is of the mode test, and the key's is live"}},
		"a mode without a format":  {all[:2], "", ModeTest, "", &FieldProblem{"mode", "is test, for which this server has no key format"}},
		"the default without one":  {all[2:], "", "", "", &FieldProblem{"mode", "is live, for which this server has no key format"}},
		"a format for another one": {all[:2], "new", ModeTest, "", &FieldProblem{"key_format", "is of the mode live, and the key's is test"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, problem := c.formats.Choose(c.format, c.mode)
			if got.Prefix != c.want || !cmp.Equal(problem, c.problem) {
				t.Errorf("Choose(%q, %q) is %v, %v", c.format, c.mode, got, problem)
			}
		})
	}
}

func TestKeyFormatsNext(t *testing.T) {
	t.Parallel()
	all := parseFormats(t, "old=sk_live_:live,new=acme_:live,try=acme_test_x_:test")
	for name, c := range map[string]struct {
		formats KeyFormats
		format  string
		mode    Mode
		want    string
	}{
		"its own":                    {all, "new", ModeLive, "acme_"},
		"its own is gone":            {all[:1], "new", ModeLive, "sk_live_"},
		"its own has another mode":   {all, "try", ModeLive, "sk_live_"},
		"none of its mode is left":   {all[:2], "try", ModeTest, ""},
		"none was ever":              {all, "", ModeTest, "acme_test_x_"},
		"its own has another prefix": {parseFormats(t, "a=b_:live,new=c_:live"), "new", ModeLive, "c_"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.formats.Next(&Key{Format: c.format, Mode: c.mode}); got.Prefix != c.want {
				t.Errorf("Next is %v", got)
			}
		})
	}
	k := testKey()
	k.Mode = ModeTest
	wantReason(t, testRules().Rotate(&k, KeyFormat{}, StoredSecret{}, 0, noon), KindFailedPrecondition, ReasonNoKeyFormat)
	k.RevokedAt = noon
	wantReason(t, testRules().Rotate(&k, KeyFormat{}, StoredSecret{}, 0, noon), KindFailedPrecondition, ReasonRevoked)
}

// TestPartOfASecretIsMasked has a part of a secret, which has no form, masked for
// every format that the finder is told of.
func TestPartOfASecretIsMasked(t *testing.T) {
	t.Parallel()
	finder := NewSecretFinder(parseFormats(t, "a=acme_live_:live"))
	for prefix, known := range map[string]bool{"acme_live_": true, "sk_live_": true, "sk_test_": true, "root_": true, "acme_test_": false} {
		part := checked(prefix)[:len(prefix)+16]
		want := part
		if known {
			want = prefix + Redacted
		}
		if got := finder.Redact("see " + part); got != "see "+want {
			t.Errorf("of %s there is %q", part, got)
		}
		if got := finder.Excerpt(part); got != want {
			t.Errorf("the excerpt of %s is %q", part, got)
		}
		if got := finder.Redact("see " + checked(prefix)); strings.Contains(got, "7777") {
			t.Errorf("of a whole secret there is %q", got)
		}
	}
}

// FuzzKeyFormats holds the check of formats against a plain reading of the rule.
func FuzzKeyFormats(f *testing.F) {
	for _, text := range []string{"sk_live=sk_live_:live", "a=a__:live", "a=root_x_:test", "a==:", "é=é_:live", "a=a_:live:live"} {
		f.Add(text)
	}
	form := regexp.MustCompile(`^([a-z][a-z0-9_-]{0,31})=([a-z][a-z0-9]*(?:_[a-z0-9]+)*_):(live|test)$`)
	reserved := regexp.MustCompile(`^(root|opt|whsec|api_key|webhook|event|delivery|support|request)_`)
	f.Fuzz(func(t *testing.T, text string) {
		format, err := ParseKeyFormat(text)
		if err == nil {
			err = KeyFormats{format}.Check()
		}
		parts := form.FindStringSubmatch(text)
		want := parts != nil && len(parts[2]) <= 24 && !reserved.MatchString(parts[2])
		if (err == nil) != want {
			t.Fatalf("%q: %v", text, err)
		}
		if err != nil {
			return
		}
		if want := (KeyFormat{parts[1], parts[2], Mode(parts[3])}); format != want {
			t.Errorf("%q is %v", text, format)
		}
		secret, err := NewSecret(format.Prefix, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, ok := ParseSecret(secret.Reveal()); !ok || again.Mask() != secret.Mask() {
			t.Errorf("a secret of %v is not one", format)
		}
	})
}
