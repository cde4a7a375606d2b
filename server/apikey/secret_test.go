package apikey

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// secretForm is the form that a secret of any prefix has.
var secretForm = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*_[0-9A-Za-z]{49}$`)

// The checksums of these were made with zlib's crc32.
var vectors = []string{
	"sk_live_00000000000000000000000000000000000000000001Vxh1Z",
	"sk_test_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz0kHg2e",
	"sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2LOcWk",
	"sk_test_zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJ2eA32S",
	"sk_live_000000000000000000000000000000000000000003900DIEU", // a checksum that begins with zeros
	"a_00000000000000000000000000000000000000000001uFOfg",
	"abcdefghij_abcdefghij_a_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg3mMDgQ",
	"k8s_9x_zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJ0k83q6",
}

func TestParseSecretVectors(t *testing.T) {
	t.Parallel()
	for _, text := range vectors {
		s, ok := ParseSecret(text)
		if !ok || s.Reveal() != text {
			t.Errorf("ParseSecret(%q) = %q, %t", text, s.Reveal(), ok)
		}
	}
}

// checked returns a text of a prefix with a right checksum.
func checked(prefix string) string {
	return string(appendChecksum([]byte(prefix + strings.Repeat("7", randomLength))))
}

func TestParseSecretRefuses(t *testing.T) {
	t.Parallel()
	good := vectors[2]
	for name, text := range map[string]string{
		"empty":             "",
		"prefix alone":      "sk_live_",
		"one short":         good[:len(good)-1],
		"one long":          good + "0",
		"other mode":        strings.Replace(good, "sk_live_", "sk_test_", 1),
		"unknown mode":      strings.Replace(good, "sk_live_", "sk_prod_", 1),
		"upper-case prefix": strings.Replace(good, "sk_live_", "SK_LIVE_", 1),
		"space in front":    " " + good[:len(good)-1],
		"not base62":        good[:20] + "-" + good[21:],
		"not ASCII":         good[:20] + "é" + good[22:],
		"two swapped":       good[:20] + good[21:22] + good[20:21] + good[22:],
		"huge":              strings.Repeat("a", 1<<20),
		"no prefix":         checked(""),
		"underscore alone":  checked("_"),
		"one too long":      checked("abcdefghij_abcdefghij_ab_"),
		"first a digit":     checked("1a_"),
		"two underscores":   checked("a__b_"),
		"upper case":        checked("Acme_"),
		"not ASCII in it":   checked("akmé_"),
		"an access token":   checked("root_"),
		"another token":     checked("opt_"),
		"begins like one":   checked("root_acme_"),
		"like a webhook's":  checked("whsec_"),
		"like an id":        checked("api_key_"),
	} {
		if s, ok := ParseSecret(text); ok || s.Reveal() != "" {
			t.Errorf("%s: ParseSecret(%.80q) was accepted", name, text)
		}
	}
}

func TestNewSecretForm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.SampledFrom([]string{"sk_live_", "sk_test_", "a_", "acme_v2_", "abcdefghij_abcdefghij_a_"}).Draw(t, "prefix")
		// A random source of at least 4 characters, since one that yields nothing but
		// refused bytes never ends.
		seed := rapid.SliceOfN(rapid.Byte(), 64, 512).Filter(func(b []byte) bool {
			return bytes.ContainsFunc(b[:64], func(r rune) bool { return r&63 < 62 })
		}).Draw(t, "seed")
		s, err := NewSecret(prefix, &cycle{seed, 0})
		if err != nil {
			t.Fatal(err)
		}
		text := s.Reveal()
		if !secretForm.MatchString(text) || len(text) != len(prefix)+49 || !strings.HasPrefix(text, prefix) {
			t.Fatalf("NewSecret(%s) = %q", prefix, text)
		}
		if again, ok := ParseSecret(text); !ok || again.Reveal() != text {
			t.Fatalf("ParseSecret(%q) = %q, %t", text, again.Reveal(), ok)
		}
		if want := text[:len(prefix)+12] + "..." + text[len(text)-5:]; s.Mask() != want {
			t.Fatalf("Mask() = %q, want %q", s.Mask(), want)
		}
		// One wrong character is always noticed.
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		wrong := []byte(text)
		wrong[at] = rapid.Byte().Filter(func(b byte) bool { return b != text[at] }).Draw(t, "wrong")
		if _, ok := ParseSecret(string(wrong)); ok {
			t.Fatalf("ParseSecret(%q) was accepted, with a wrong character at %d", wrong, at)
		}
	})
}

// cycle reads the same bytes over and over.
type cycle struct {
	text []byte
	next int
}

func (c *cycle) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.text[c.next%len(c.text)]
		c.next++
	}
	return len(p), nil
}

// Characters are equally likely: with 62 of them, 430,000 draws and a fair
// source, chi-squared stays below 130 in all but a few of a million runs.
func TestNewSecretIsUnbiased(t *testing.T) {
	t.Parallel()
	counts := make(map[byte]float64)
	const secrets = 10_000
	for range secrets {
		s, err := NewSecret("sk_live_", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []byte(s.Reveal()[8:51]) {
			counts[c]++
		}
	}
	want, chi := float64(secrets*43)/62, 0.0
	for _, c := range []byte(base62) {
		chi += (counts[c] - want) * (counts[c] - want) / want
	}
	if chi > 130 {
		t.Errorf("chi-squared = %.0f over %d characters", chi, len(counts))
	}
}

func TestNewSecretWithoutRandomness(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	if s, err := NewSecret("sk_live_", iotest.ErrReader(broken)); !errors.Is(err, broken) || s.Reveal() != "" {
		t.Errorf("NewSecret = %q, %v", s.Reveal(), err)
	}
}

func FuzzParseSecret(f *testing.F) {
	for _, text := range vectors {
		f.Add(text)
		f.Add(text[1:])
	}
	f.Add("")
	f.Add(strings.Repeat("\xff", 57))
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := ParseSecret(text)
		if !ok {
			return
		}
		if s.Reveal() != text || !secretForm.MatchString(text) || len(text) > 73 || isReserved(text) {
			t.Errorf("ParseSecret(%q) was accepted as %q", text, s.Reveal())
		}
		if !MayBeSecret(text) || !HasSecretForm(text) || !HoldsSecret("x"+text+"x") || Excerpt(text) != Redacted {
			t.Errorf("ParseSecret(%q) was accepted, and others do not know it", text)
		}
	})
}

// BenchmarkIsSecret is what a look-up that finds nothing in memory pays for the form
// of a secret.
func BenchmarkIsSecret(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if !IsSecret(vectors[0]) {
			b.Fatal("no secret")
		}
	}
}

// The secrets of every request are looked at, so that must leave no garbage.
func TestLookingAtSecretsAllocatesNothing(t *testing.T) {
	text := vectors[0]
	if n := testing.AllocsPerRun(100, func() { _ = MayBeSecret(text) && HasSecretForm(text) && IsSecret(text) }); n != 0 {
		t.Errorf("looking at a secret allocates %v times", n)
	}
}

func TestZeroSecret(t *testing.T) {
	t.Parallel()
	var s Secret
	if s.Reveal() != "" || s.Mask() != "" || fmt.Sprintf("<%v>", s) != "<>" {
		t.Errorf("the zero Secret is %q, shown as %v", s.Reveal(), s)
	}
}

func ExampleSecret() {
	s, ok := ParseSecret("sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2LOcWk")
	fmt.Println(ok)
	fmt.Printf("%v %s %d\n", s, s, s)
	_, ok = ParseSecret("sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg000000")
	fmt.Println(ok)
	// Output:
	// true
	// sk_live_0123456789AB...LOcWk sk_live_0123456789AB...LOcWk sk_live_0123456789AB...LOcWk
	// false
}
