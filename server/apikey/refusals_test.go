package apikey

import (
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestUserAgent(t *testing.T) {
	t.Parallel()
	secret, err := NewSecret("sk_live_", nil)
	if err != nil {
		t.Fatal(err)
	}
	const token = "a token of no form, but long enough"
	f := NewSecretFinder(DefaultKeyFormats(), token)
	half := secret.Reveal()[:30]
	for text, want := range map[string]string{
		"":         "",
		"curl/8.5": "curl/8.5",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)":              "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)",
		"a\x00b\r\nc\u202ed\u2028e\u200bf":                             "abcdef",
		"bad\xff\xfebytes":                                             "badbytes",
		strings.Repeat("ü", 300):                                       strings.Repeat("ü", 256),
		strings.Repeat("x", 10_000):                                    strings.Repeat("x", 256),
		"x " + secret.Reveal():                                         "x sk_live_" + Redacted,
		secret.Reveal()[:20] + "\x00" + secret.Reveal()[20:]:           "sk_live_" + Redacted,
		strings.Repeat("x", 230) + half:                                strings.Repeat("x", 230) + "sk_live_" + Redacted,
		"x " + token:                                                   Redacted,
		"%73k_live_" + strings.TrimPrefix(secret.Reveal(), "sk_live_"): Redacted,
	} {
		if got := f.UserAgent(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzUserAgent(f *testing.F) {
	f.Add("curl/8.5")
	f.Add("a\x00b\xff\u202e")
	f.Fuzz(func(t *testing.T, text string) {
		got := (*SecretFinder)(nil).UserAgent(text)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > MaxUserAgent || HoldsSecret(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q", got)
		}
	})
}

func TestAddressText(t *testing.T) {
	t.Parallel()
	if got := AddressText(netip.Addr{}); got != "" {
		t.Error(got)
	}
	for text, want := range map[string]string{"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "10.0.0.1", "fe80::1%a secret": "fe80::1"} {
		if got := AddressText(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}
