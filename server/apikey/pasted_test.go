package apikey

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// fixedReader is randomness that is always the same.
type fixedReader byte

func (r fixedReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r) + byte(i)
	}
	return len(p), nil
}

func madeToken(tb testing.TB, prefix string) string {
	tb.Helper()
	token, err := RandomToken(prefix, fixedReader(7))
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

const rootToken = "a root token / 100% without a form"

func TestSecretIn(t *testing.T) {
	t.Parallel()
	key := madeToken(t, "sk_live_")
	hook := "whsec_" + strings.Repeat("Ab+/", 10) + "abc="
	escaped := func(text string) string {
		var out strings.Builder
		for _, c := range []byte(text) {
			fmt.Fprintf(&out, "%%%02x", c)
		}
		return out.String()
	}
	layers := key
	for range 50 {
		layers = url.QueryEscape(strings.Replace(layers, "_", "%5F", 1))
	}
	finder := NewSecretFinder(nil, rootToken, "short")
	for name, c := range map[string]struct {
		text        string
		form, token bool // whether it holds a secret of a form, and the token without one
	}{
		"a key":                        {key, true, false},
		"in a sentence":                {"see " + key + ", please", true, false},
		"with characters around it":    {"x" + key + "x", true, false},
		"of another prefix":            {madeToken(t, "acme_prod_"), true, false},
		"of the shortest prefix":       {madeToken(t, "a_"), true, false},
		"of the longest prefix":        {madeToken(t, "abcdefghij_abcdefghij_a_"), true, false},
		"of a prefix with digits":      {madeToken(t, "k8s_"), true, false},
		"an access token":              {madeToken(t, "root_"), true, false},
		"another access token":         {madeToken(t, "opt_"), true, false},
		"as RFC 8959 writes it":        {"secret-token:" + key, true, false},
		"in a URL":                     {"https://example.com/hook?key=" + key, true, false},
		"percent-encoded":              {"https://example.com/hook?key=" + strings.ReplaceAll(key, "_", "%5F"), true, false},
		"wholly percent-encoded":       {escaped(key), true, false},
		"encoded twice":                {url.QueryEscape(escaped(key)), true, false},
		"encoded fifty times":          {layers, true, false},
		"a webhook's secret":           {hook, true, false},
		"without padding":              {strings.TrimRight(hook, "="), true, false},
		"a webhook's secret, encoded":  {url.QueryEscape(hook), true, false},
		"the root token":               {rootToken, false, true},
		"the root token inside a text": {"my " + rootToken + "!", false, true},
		"the root token, encoded":      {url.PathEscape(rootToken), false, true},
		"the root token, mostly":       {rootToken[1:] + rootToken[:1], false, false},
		"no text":                      {"", false, false},
		"a short token is none":        {"this is short, and so no token at all", false, false},
		"a typing error":               {key[:20] + "0" + key[21:], false, false},
		"another prefix than it had":   {"sk_test_" + key[8:], false, false},
		"a part":                       {key[:len(key)-1], false, false},
		"without its prefix":           {key[8:], false, false},
		"a mask":                       {key[:20] + "..." + key[len(key)-5:], false, false},
		"an upper-case prefix":         {strings.ToUpper(key[:8]) + key[8:], false, false},
		"another vendor's secret":      {"whsec_" + strings.Repeat("A", 32), false, false},
		"an id":                        {"api_key_01997c1e-6f0a-7bb3-8e51-2f5d8a7c1b90", false, false},
		"percent signs":                {strings.Repeat("%", 60) + "%4%zz%", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := HoldsSecret(c.text); got != c.form {
				t.Errorf("HoldsSecret(%q) is %v", c.text, got)
			}
			if got := finder.In(c.text); got != (c.form || c.token) {
				t.Errorf("In(%q) is %v", c.text, got)
			}
		})
	}
}

// TestSecretIsFound hides secrets in texts: they are found wherever they stand and
// however often they were encoded, and no excerpt shows anything of them.
func TestSecretIsFound(t *testing.T) {
	t.Parallel()
	finder := NewSecretFinder(nil, rootToken)
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.StringMatching(`[a-z][a-z0-9]{0,10}(_[a-z0-9]{1,5}){0,2}_`).Draw(t, "prefix")
		token, err := RandomToken(prefix, rapidReader{t})
		if err != nil {
			t.Fatal(err)
		}
		secret := rapid.SampledFrom([]string{token, rootToken, "whsec_" + token[len(prefix):len(prefix)+43] + "="}).Draw(t, "secret")
		text := rapid.StringMatching(`[^%]{0,80}`).Draw(t, "before") + " " + secret + rapid.StringMatching(`( .{0,80})?`).Draw(t, "after")
		for range rapid.IntRange(0, 6).Draw(t, "layers") {
			text = url.PathEscape(text)
		}
		if !finder.In(text) {
			t.Fatalf("%q is not found in %q", secret, text)
		}
		if got := finder.Excerpt(text); got != Redacted {
			t.Fatalf("the excerpt of %q is %q", text, got)
		}
	})
}

// rapidReader is randomness that rapid draws.
type rapidReader struct{ t *rapid.T }

func (r rapidReader) Read(p []byte) (int, error) {
	return copy(p, rapid.SliceOfN(rapid.Byte(), len(p), len(p)).Draw(r.t, "random")), nil
}

func FuzzExcerpt(f *testing.F) {
	for _, text := range []string{
		"", "label", "previous_secret_expires_at", "a\x00b\nc\x7f\u0085\u202e\u200b\ufeff", "\xff\xfe", "日本語",
		strings.Repeat("x", 41), strings.Repeat("\x01", 9), madeToken(f, "sk_live_"), madeToken(f, "sk_live_")[:40], "%73%6b_live_", rootToken,
	} {
		f.Add(text)
	}
	finder := NewSecretFinder(nil, rootToken)
	f.Fuzz(func(t *testing.T, text string) {
		got := finder.Excerpt(text)
		if n := utf8.RuneCountInString(got); n > MaxExcerpt || !utf8.ValidString(got) {
			t.Errorf("%d characters: %q", n, got)
		}
		if strings.ContainsFunc(got, func(c rune) bool { return !unicode.IsPrint(c) }) {
			t.Errorf("not printable: %q", got)
		}
		if finder.In(got) || RedactSecrets(got) != got {
			t.Errorf("holds a secret: %q", got)
		}
	})
}

func TestExcerpt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"rate_limit.requests":      "rate_limit.requests",
		"a\nb\x00\u202e":           `a\u000ab\u0000\u202e`,
		"\xff":                     `\ufffd`,
		"\U000e0001":               `\ue0001`,
		strings.Repeat("x", 40):    strings.Repeat("x", 40),
		strings.Repeat("x", 41):    strings.Repeat("x", 20) + "...",
		strings.Repeat("日", 5000):  strings.Repeat("日", 20) + "...",
		"sk_live_abcdefghijklmnop": "sk_live_" + Redacted,
		// A token of an issuer, and what is left of one.
		"bad eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln": "bad eyJ" + Redacted,
		"eyJhbGciOiJFUzI1NiJ9.eyJz":                     "eyJ" + Redacted,
		"eyJhbGciOi":                                    "eyJhbGciOi",
	} {
		if got := Excerpt(text); got != want {
			t.Errorf("the excerpt of %q is %q, want %q", text, got, want)
		}
	}
}
