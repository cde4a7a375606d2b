package apikey

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestUpdate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		paths   []string
		values  Key
		changes []string
		check   func(k *Key) bool
	}{
		{"nothing", nil, Key{Label: "ignored"}, nil, nil},
		{"label", []string{"label"}, Key{Label: "x"}, []string{"label"}, func(k *Key) bool { return k.Label == "x" }},
		{"the same", []string{"label", "enabled", "metadata", "scopes"},
			Key{Label: "CI", Enabled: true, Metadata: map[string]string{"a": "1", "b": "2"}, Scopes: Scopes{"invoices.read", "payments.read", "invoices.read"}}, nil, nil},
		{"cleared", []string{"description", "owner_id", "rate_limit", "metadata", "scopes", "ip_allow_list", "expires_at"}, Key{},
			[]string{"description", "scopes", "expires_at", "owner_id", "metadata", "rate_limit"}, nil},
		{"order of scopes", []string{"scopes"}, Key{Scopes: Scopes{"payments.read", "invoices.read"}}, []string{"scopes"}, nil},
		{"addresses", []string{"ip_allow_list"}, Key{IPAllowList: allowList(t, "10.0.0.1", "10.0.0.1")}, []string{"ip_allow_list"},
			func(k *Key) bool { return len(k.IPAllowList) == 1 }},
		{"disabled", []string{"enabled"}, Key{}, []string{"enabled", "state"}, nil},
		{"requests", []string{"rate_limit.requests"}, Key{RateLimit: RateLimit{Requests: 5}}, []string{"rate_limit"},
			func(k *Key) bool { return k.RateLimit == RateLimit{5, 60, false} }},
		{"window", []string{"rate_limit.window_seconds"}, Key{RateLimit: RateLimit{Requests: 99, WindowSeconds: 5}}, []string{"rate_limit"},
			func(k *Key) bool { return k.RateLimit == RateLimit{10, 5, false} }},
		{"mode", []string{"rate_limit.mode"}, Key{RateLimit: RateLimit{Requests: 99, Exact: true}}, []string{"rate_limit"},
			func(k *Key) bool { return k.RateLimit == RateLimit{10, 60, true} }},
		{"metadata entry", []string{"metadata.a"}, Key{Metadata: map[string]string{"a": "9"}}, []string{"metadata"},
			func(k *Key) bool { return cmp.Equal(k.Metadata, map[string]string{"a": "9", "b": "2"}) }},
		{"quoted entry", []string{"metadata.`x.``y`"}, Key{Metadata: map[string]string{"x.`y": "9"}}, []string{"metadata"},
			func(k *Key) bool { return k.Metadata["x.`y"] == "9" && len(k.Metadata) == 3 }},
		{"entry taken out", []string{"metadata.`a`"}, Key{}, []string{"metadata"},
			func(k *Key) bool { return cmp.Equal(k.Metadata, map[string]string{"b": "2"}) }},
		{"unknown entry taken out", []string{"metadata.z"}, Key{}, nil, nil},
		{"whole seconds of the same expiry", []string{"expires_at"}, Key{ExpiresAt: noon.Add(4 * week)}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := testKey()
			k.ExpiresAt = k.ExpiresAt.Add(123456 * time.Microsecond)
			before := k
			if err := testRules().Update(&k, Patch{c.paths, c.values}, noon); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.changes, Changes(&before, &k, noon)); diff != "" {
				t.Error(diff)
			}
			if c.check != nil && !c.check(&k) {
				t.Errorf("%+v", k)
			}
			// What was shared with the key before is untouched.
			if !cmp.Equal(before.Metadata, map[string]string{"a": "1", "b": "2"}) {
				t.Errorf("the metadata of before are %v", before.Metadata)
			}
		})
	}
}

func TestUpdateRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		paths  []string
		values Key
		fields []string
	}{
		{"label cleared", []string{"description", "label"}, Key{}, []string{"label"}},
		{"unknown", []string{"label", "colour"}, Key{Label: "x"}, []string{"update_mask"}},
		{"read-only", []string{"mode"}, Key{Mode: ModeTest}, []string{"update_mask"}},
		{"empty path", []string{""}, Key{}, []string{"update_mask"}},
		{"case", []string{"Label"}, Key{Label: "x"}, []string{"update_mask"}},
		{"part of metadata", []string{"metadata."}, Key{}, []string{"update_mask"}},
		{"unquoted dot", []string{"metadata.a.b"}, Key{}, []string{"update_mask"}},
		{"open quote", []string{"metadata.`a"}, Key{}, []string{"update_mask"}},
		{"empty key", []string{"metadata.``"}, Key{Metadata: map[string]string{"": "x"}}, []string{"metadata"}},
		{"unknown part", []string{"rate_limit.burst"}, Key{}, []string{"update_mask"}},
		{"unknown scope", []string{"scopes"}, Key{Scopes: Scopes{"x"}}, []string{"scopes[0]"}},
		{"past", []string{"expires_at"}, Key{ExpiresAt: noon}, []string{"expires_at"}},
		{"one part cleared", []string{"rate_limit.requests"}, Key{}, []string{"rate_limit.requests"}},
		{"both parts cleared", []string{"rate_limit.requests", "rate_limit.window_seconds"}, Key{}, []string{"rate_limit.requests", "rate_limit.window_seconds"}},
		{"several", []string{"label", "colour", "scopes", "expires_at", "rate_limit.requests"}, Key{Scopes: Scopes{"x"}, ExpiresAt: noon},
			[]string{"update_mask", "label", "scopes[0]", "expires_at", "rate_limit.requests"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := testKey()
			before := k
			wantFields(t, testRules().Update(&k, Patch{c.paths, c.values}, noon), c.fields...)
			if diff := cmp.Diff(fmt.Sprintf("%+v", before), fmt.Sprintf("%+v", k)); diff != "" {
				t.Errorf("refused, but changed: %s", diff)
			}
		})
	}
	t.Run("merge over the bound", func(t *testing.T) {
		k := testKey()
		k.Metadata = map[string]string{"big": strings.Repeat("x", 8000)}
		p := Patch{[]string{"metadata.more"}, Key{Metadata: map[string]string{"more": strings.Repeat("y", 300)}}}
		wantFields(t, testRules().Update(&k, p, noon), "metadata")
	})
	t.Run("one part of no limit", func(t *testing.T) {
		k := testKey()
		k.RateLimit = RateLimit{}
		p := Patch{[]string{"rate_limit.requests"}, Key{RateLimit: RateLimit{Requests: 1}}}
		wantFields(t, testRules().Update(&k, p, noon), "rate_limit.window_seconds")
	})
}

// What a patch does not name is not checked, and neither is an expiry that stays.
func TestUpdateChecksWhatChanges(t *testing.T) {
	t.Parallel()
	k := testKey()
	k.Scopes, k.ExpiresAt = Scopes{"gone.from.catalogue"}, noon.Add(-time.Hour)
	if err := testRules().Update(&k, Patch{[]string{"label", "expires_at"}, Key{Label: "x", ExpiresAt: k.ExpiresAt}}, noon); err != nil {
		t.Error(err)
	}
	// Sent back as it was read, with faults that its values have by today's rules.
	k.Label, k.Metadata = "\u200b", map[string]string{"": "x"}
	same := Patch{mutable, k}
	same.Values.Scopes = slices.Clone(k.Scopes)
	sent := k
	if err := testRules().Update(&k, same, noon, FieldProblem{"metadata", "x"}, FieldProblem{"scopes[0]", "x"}, FieldProblem{"label", "x"}); err != nil {
		t.Error(err)
	}
	if changes := Changes(&sent, &k, noon); changes != nil {
		t.Errorf("changed %v", changes)
	}
	wantFields(t, testRules().Update(&k, Patch{[]string{"metadata", "label"}, Key{Label: k.Label}}, noon,
		FieldProblem{"metadata", "x"}, FieldProblem{"scopes[0]", "x"}, FieldProblem{"etag", "x"}), "metadata", "etag")
	k.Label, k.Metadata = "x", nil
	// An expired key may be given a later expiry, and works again.
	before := k
	if err := testRules().Update(&k, Patch{[]string{"expires_at"}, Key{ExpiresAt: noon.Add(time.Hour)}}, noon); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"expires_at", "state"}, Changes(&before, &k, noon)); diff != "" {
		t.Error(diff)
	}
}

// A time finer than what is stored is cut, so that giving it again changes nothing.
func TestUpdateExpiryTwice(t *testing.T) {
	t.Parallel()
	k := testKey()
	p := Patch{[]string{"expires_at"}, Key{ExpiresAt: noon.Add(week + 1999)}}
	for i, want := range [][]string{{"expires_at"}, nil} {
		before := k
		if err := testRules().Update(&k, p, noon); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, Changes(&before, &k, noon)); diff != "" {
			t.Errorf("update %d: %s", i, diff)
		}
		k.ExpiresAt = time.UnixMicro(k.ExpiresAt.UnixMicro()) // as a row keeps it
	}
}

func TestUnquote(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a": "a", "a-b": "a-b", "`a`": "a", "`a.b`": "a.b", "````": "`", "`a``b`": "a`b", "``": "", "`a```": "a`",
	} {
		if got, ok := unquote(text); !ok || got != want {
			t.Errorf("unquote(%s) = %q, %t", text, got, ok)
		}
	}
	for _, text := range []string{"", "`", "```", "`a", "a`", "`a`b`", "a.b", "`a``", "`a`.b", "a`b"} {
		if got, ok := unquote(text); ok {
			t.Errorf("unquote(%s) = %q", text, got)
		}
	}
}

func FuzzUnquote(f *testing.F) {
	for _, text := range []string{"", "a", "a.b", "`", "``", "a`b", "`a`", "`a``b`"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, ok := unquote(quote(text)); !ok || got != text {
			t.Errorf("unquote(quote(%q)) = %q, %t", text, got, ok)
		}
		// Whatever is taken in quotes is what quoting its meaning gives: no key has
		// two quoted forms.
		if got, ok := unquote(text); ok && strings.HasPrefix(text, "`") && quote(got) != text {
			t.Errorf("unquote(%q) = %q", text, got)
		}
	})
}

// FuzzUpdatePath gives paths that no client should.
func FuzzUpdatePath(f *testing.F) {
	for _, path := range []string{"label", "metadata", "metadata.a", "metadata.`a.b`", "rate_limit.requests", "id", "*", "."} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		k := testKey()
		before := k
		values := testKey()
		values.ID, values.Secret, values.Mode = "other", StoredSecret{Hash: Hash{9}}, ModeTest
		err := testRules().Update(&k, Patch{[]string{path}, values}, noon)
		if k.ID != before.ID || k.Secret != before.Secret || k.Mode != before.Mode || k.OrganizationID != before.OrganizationID {
			t.Errorf("%q changed what is fixed", path)
		}
		if changes := Changes(&before, &k, noon); err != nil && len(changes) > 0 {
			t.Errorf("%q is refused (%v), but changed %v", path, err, changes)
		}
	})
}

// Any sequence of patches: what is named is set, what is not stays, a second
// time changes nothing.
func TestUpdateProperties(t *testing.T) {
	t.Parallel()
	fields := []string{"label", "description", "scopes", "ip_allow_list", "expires_at", "enabled", "owner_id", "metadata", "rate_limit"}
	rapid.Check(t, func(t *rapid.T) {
		k := testKey()
		for range rapid.IntRange(1, 4).Draw(t, "patches") {
			p := Patch{
				Paths: rapid.SliceOfNDistinct(rapid.SampledFrom(fields), 0, len(fields), rapid.ID).Draw(t, "paths"),
				Values: Key{
					Label: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "label"), Enabled: rapid.Bool().Draw(t, "enabled"),
					Scopes:    rapid.SliceOfN(rapid.SampledFrom([]string{"events.read", "users.update"}), 0, 3).Draw(t, "scopes"),
					ExpiresAt: noon.Add(time.Duration(rapid.IntRange(1, 3).Draw(t, "expiry")) * week),
					Metadata:  rapid.MapOf(rapid.SampledFrom([]string{"a", "c"}), rapid.Just("v")).Draw(t, "metadata"),
				},
			}
			before := k
			if err := testRules().Update(&k, p, noon); err != nil {
				t.Fatal(err)
			}
			named := strings.Join(p.Paths, " ") + " state"
			for _, changed := range Changes(&before, &k, noon) {
				if !strings.Contains(named, changed) {
					t.Fatalf("%v changed %s", p.Paths, changed)
				}
			}
			again := k
			if err := testRules().Update(&again, p, noon); err != nil || len(Changes(&k, &again, noon)) > 0 {
				t.Fatalf("the second time changed %v, %v", Changes(&k, &again, noon), err)
			}
		}
	})
}

func ExampleRules_Update() {
	rules := Rules{Catalogue: DefaultScopes(), Formats: DefaultKeyFormats(), ExpiringNotice: 7 * 24 * time.Hour}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	before := Key{Label: "CI", Enabled: true, Metadata: map[string]string{"cost.center": "17"}}
	after := before
	err := rules.Update(&after, Patch{
		Paths:  []string{"description", "metadata.`cost.center`"},
		Values: Key{Description: "builds"},
	}, now)
	fmt.Println(Changes(&before, &after, now), after.Metadata, err)

	err = rules.Update(&after, Patch{Paths: []string{"label"}}, now)
	fmt.Println(err)
	// Output:
	// [description metadata] map[] <nil>
	// label is required and must not be empty
}
