package apikey

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func allowList(t testing.TB, texts ...string) AllowList {
	t.Helper()
	var list AllowList
	for _, text := range texts {
		p, err := ParseAllowed(text)
		if err != nil {
			t.Fatalf("ParseAllowed(%q): %v", text, err)
		}
		list = append(list, p)
	}
	return list
}

func TestParseAllowed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{ // "" where text is refused
		"10.0.0.1":              "10.0.0.1",
		"10.0.0.1/32":           "10.0.0.1",
		"10.0.0.0/8":            "10.0.0.0/8",
		"0.0.0.0/0":             "0.0.0.0/0",
		"2001:db8::1":           "2001:db8::1",
		"2001:DB8:0::0:1":       "2001:db8::1",
		"2001:db8::/32":         "2001:db8::/32",
		"::/0":                  "::/0",
		"::ffff:10.0.0.1":       "10.0.0.1",
		"::ffff:a00:1":          "10.0.0.1",
		"::ffff:10.0.0.1/128":   "10.0.0.1",
		"::ffff:10.0.0.0/104":   "10.0.0.0/8",
		"::ffff:0.0.0.0/96":     "0.0.0.0/0",
		"::ffff:0.0.0.0/95":     "",
		"::ffff:10.0.0.1/104":   "",
		"10.0.0.1/8":            "",
		"2001:db8::1/32":        "",
		"010.0.0.1":             "",
		"10.0.0.01":             "",
		"10.0.0.00/24":          "",
		"::ffff:010.0.0.1":      "",
		"10.0.0.0/08":           "",
		"10.0.0.0/+8":           "",
		"10.0.0.0/-1":           "",
		"10.0.0.0/33":           "",
		"10.0.0.0/":             "",
		"10.0.0.0/255.0.0.0":    "",
		"2001:db8::/129":        "",
		"fe80::1%eth0":          "",
		"fe80::%eth0/64":        "",
		"::ffff:10.0.0.1%eth0":  "",
		"10.0.0.1:80":           "",
		"[2001:db8::1]":         "",
		"[2001:db8::1]:80":      "",
		"10.0.1":                "",
		"167772161":             "",
		"0x0a.0.0.1":            "",
		"10.0.0.1 ":             "",
		" 10.0.0.1":             "",
		"":                      "",
		"localhost":             "",
		"10.0.0.1-10.0.0.9":     "",
		"10.0.0.*":              "",
		"１０.0.0.1":              "",
		"2001:db8::1::":         "",
		strings.Repeat("1", 99): "",
	} {
		p, err := ParseAllowed(text)
		got := ""
		if err == nil {
			got = FormatAllowed(p)
		}
		if got != want {
			t.Errorf("ParseAllowed(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzParseAllowed(f *testing.F) {
	for _, text := range []string{"10.0.0.1", "10.0.0.0/8", "::ffff:10.0.0.0/104", "fe80::1%eth0", "2001:db8::/32", "1.2.3.4:5", "010.0.0.1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseAllowed(text)
		if err != nil {
			return
		}
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			t.Errorf("ParseAllowed(%q) = %v", text, p)
		}
		// What is shown is read back as the same.
		if again, err := ParseAllowed(FormatAllowed(p)); err != nil || again != p {
			t.Errorf("ParseAllowed(FormatAllowed(%v)) = %v, %v", p, again, err)
		}
	})
}

func TestAllows(t *testing.T) {
	t.Parallel()
	list := allowList(t, "10.0.0.0/8", "2001:db8::/32", "192.0.2.1")
	for text, want := range map[string]bool{
		"10.1.2.3":           true,
		"::ffff:10.1.2.3":    true,
		"11.0.0.0":           false,
		"192.0.2.1":          true,
		"192.0.2.2":          false,
		"2001:db8::1":        true,
		"2001:db8::1%eth0":   true,
		"2001:db9::1":        false,
		"::ffff:192.0.2.2":   false,
		"::10.1.2.3":         false,
		"2002:0a01:0203::":   false,
		"64:ff9b::10.1.2.3":  false,
		"::ffff:0:10.1.2.3":  false,
		"0.0.0.0":            false,
		"::ffff:192.0.2.1%x": true,
	} {
		if got := list.Allows(netip.MustParseAddr(text)); got != want {
			t.Errorf("Allows(%s) = %t", text, got)
		}
	}
	unknown := netip.Addr{}
	if list.Allows(unknown) || allowList(t, "0.0.0.0/0", "::/0").Allows(unknown) {
		t.Error("a list allows an unknown address")
	}
	if !(AllowList{}).Allows(unknown) || !AllowList(nil).Allows(netip.MustParseAddr("10.0.0.1")) {
		t.Error("an empty list refuses")
	}
	if allowList(t, "::/0").Allows(netip.MustParseAddr("10.0.0.1")) || allowList(t, "0.0.0.0/0").Allows(netip.IPv6Loopback()) {
		t.Error("all addresses of one family allow the other")
	}
}

func TestAllowListWithin(t *testing.T) {
	t.Parallel()
	list := func(texts string) AllowList { return allowList(t, strings.Fields(texts)...) }
	for _, c := range []struct {
		inner, outer string
		want         bool
	}{
		{"", "", true},
		{"10.0.0.1", "", true},
		{"", "10.0.0.0/8", false},
		{"", "0.0.0.0/0 ::/0", false}, // an empty list allows unknown addresses too
		{"10.0.0.0/8", "10.0.0.0/8", true},
		{"10.0.0.1", "10.0.0.0/8", true},
		{"10.0.0.0/8", "10.0.0.1", false},
		{"10.0.0.0/8", "10.0.0.0/9 10.128.0.0/9", true},
		{"10.0.0.0/8", "10.128.0.0/9 10.64.0.0/10 10.0.0.0/10", true},
		{"10.0.0.0/8", "10.0.0.0/9 10.128.0.0/10", false},
		{"0.0.0.0/0", "0.0.0.0/1 128.0.0.0/1", true},
		{"0.0.0.0/0", "::/0", false},
		{"::/0", "0.0.0.0/0", false},
		{"::/0", "::/1 8000::/1", true},
		{"192.0.2.0/31", "192.0.2.0 192.0.2.1", true},
		{"2001:db8::/127", "2001:db8:: 2001:db8::1", true},
		{"2001:db8::/126", "2001:db8:: 2001:db8::1", false},
		{"::ffff:10.0.0.1", "10.0.0.0/8", true},
		{"10.0.0.1 11.0.0.1", "10.0.0.0/8", false},
	} {
		if got := list(c.inner).Within(list(c.outer)); got != c.want {
			t.Errorf("[%s] within [%s] = %t", c.inner, c.outer, got)
		}
	}
}

// The hardest list to cover: each range is held by the pieces around a hole that
// is itself cut up. It must not take time exponential in the lengths.
func TestAllowListWithinIsBounded(t *testing.T) {
	t.Parallel()
	var outer AllowList
	p := netip.MustParsePrefix("::/0")
	for range 100 {
		low, high := halves(p)
		outer, p = append(outer, high), low
	}
	inner := make(AllowList, 100)
	for i := range inner {
		inner[i] = netip.MustParsePrefix("::/0")
	}
	if inner.Within(outer) {
		t.Error("covered in spite of a hole")
	}
	if !inner.Within(append(outer, p)) {
		t.Error("not covered by all of its parts")
	}
}

// smallPrefix draws ranges of a space of 32 IPv4 and 32 IPv6 addresses, which a
// test can count through.
func smallPrefix() *rapid.Generator[netip.Prefix] {
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		addr := rapid.SampledFrom(smallSpace()).Draw(t, "addr")
		p, _ := addr.Prefix(addr.BitLen() - rapid.IntRange(0, 5).Draw(t, "host bits"))
		return p
	})
}

func smallSpace() []netip.Addr {
	var all []netip.Addr
	for _, first := range []string{"192.0.2.32", "2001:db8::20"} {
		a := netip.MustParseAddr(first)
		for range 32 {
			all, a = append(all, a), a.Next()
		}
	}
	return all
}

func TestAllowListWithinCounted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		inner := AllowList(rapid.SliceOfN(smallPrefix(), 1, 4).Draw(t, "inner"))
		outer := AllowList(rapid.SliceOfN(smallPrefix(), 1, 12).Draw(t, "outer"))
		want := true
		for _, a := range smallSpace() {
			if inner.Allows(a) && !outer.Allows(a) {
				want = false
			}
		}
		if got := inner.Within(outer); got != want {
			t.Fatalf("%v within %v = %t", inner, outer, got)
		}
	})
}

func TestUniquePrefixes(t *testing.T) {
	t.Parallel()
	list := allowList(t, "10.0.0.1", "192.0.2.0/24", "::ffff:10.0.0.1", "10.0.0.1/32")
	got := fmt.Sprint(Unique(list))
	if diff := cmp.Diff("[10.0.0.1/32 192.0.2.0/24]", got); diff != "" {
		t.Error(diff)
	}
}

func ExampleParseAllowed() {
	for _, text := range []string{"::ffff:10.0.0.1", "10.0.0.0/8", "10.0.0.1/8", "fe80::1%eth0"} {
		p, err := ParseAllowed(text)
		if err != nil {
			fmt.Println(text, err)
			continue
		}
		fmt.Println(text, "is", FormatAllowed(p))
	}
	// Output:
	// ::ffff:10.0.0.1 is 10.0.0.1
	// 10.0.0.0/8 is 10.0.0.0/8
	// 10.0.0.1/8 must not have bits set behind the prefix; the range is 10.0.0.0/8
	// fe80::1%eth0 must not have a zone
}
