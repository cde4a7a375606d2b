package apikey

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A use is one thing that a key can be used for. All uses together are what a key
// grants: the model that the properties below compare the rules with.
type use struct {
	scope string
	addr  int // index into smallSpace; -1: unknown
	at    time.Time
	mode  Mode
}

var (
	someScopes = []string{"events.read", "users.update", "api_keys.verify"}
	someTimes  = []time.Time{noon.Add(time.Hour), noon.Add(2 * time.Hour), noon.Add(3 * time.Hour), noon.Add(1000 * week)}
)

// grants lists all uses of k, found by asking the parts that verification asks.
// A scope outside the catalogue stands for those that are added later.
func grants(k *Key) map[use]bool {
	space := smallSpace()
	all := make(map[use]bool)
	for _, scope := range append([]string{"added.later"}, someScopes...) {
		for addr := -1; addr < len(space); addr++ {
			allowed := len(k.IPAllowList) == 0
			if addr >= 0 {
				allowed = allowed || slices.ContainsFunc(k.IPAllowList, func(p netip.Prefix) bool { return p.Contains(space[addr]) })
			}
			if !allowed || !slices.Contains(k.Scopes, scope) && !slices.Contains(k.Scopes, "*") {
				continue
			}
			for _, at := range someTimes {
				if k.ExpiresAt.IsZero() || at.Before(k.ExpiresAt) {
					all[use{scope, addr, at, k.Mode}] = true
				}
			}
		}
	}
	return all
}

// beyond returns a use of k that caller does not have. A live caller may grant
// test keys.
func beyond(k, caller *Key) (use, bool) {
	held := grants(caller)
	for u := range grants(k) {
		v := u
		if caller.Mode == ModeLive {
			v.mode = ModeLive
		}
		if !held[v] {
			return u, true
		}
	}
	return use{}, false
}

// rightsOf returns the rights of whoever calls with k.
func rightsOf(k *Key) *Rights {
	r := (&Verification{Code: CodeValid, Key: k}).Rights()
	return &r
}

func drawKey(t *rapid.T, name string) Key {
	k := Key{
		ID: name, Label: name, Enabled: true,
		Scopes:      rapid.SliceOfN(rapid.SampledFrom(append([]string{"*"}, someScopes...)), 1, 3).Draw(t, name+" scopes"),
		IPAllowList: rapid.SliceOfN(smallPrefix(), 0, 3).Draw(t, name+" addresses"),
		Mode:        rapid.SampledFrom([]Mode{ModeLive, ModeTest}).Draw(t, name+" mode"),
	}
	if rapid.Bool().Draw(t, name+" expires") {
		k.ExpiresAt = rapid.SampledFrom(someTimes).Draw(t, name+" expiry").Add(
			time.Duration(rapid.IntRange(-1, 1).Draw(t, name+" more")) * time.Microsecond)
	}
	return k
}

// Nobody creates or rotates a key that can do what they cannot.
func TestWithinGrantsNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		caller, k := drawKey(t, "caller"), drawKey(t, "key")
		err := rightsOf(&caller).CheckGrant(&k)
		if u, ok := beyond(&k, &caller); ok && err == nil {
			t.Fatalf("granted %+v", u)
		}
		if e := AsError(err); err != nil && (e == nil || e.Reason != ReasonExceedsCaller || e.Kind != KindPermissionDenied) {
			t.Fatalf("refused with %v", err)
		}
	})
}

// What is within is not refused: a part of the caller's own rights always is.
func TestWithinAllowsParts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		caller := drawKey(t, "caller")
		k := caller
		k.ID = "key"
		k.Scopes = caller.Scopes[:rapid.IntRange(0, len(caller.Scopes)).Draw(t, "scopes")]
		if n := len(caller.IPAllowList); n > 0 {
			k.IPAllowList = caller.IPAllowList[:rapid.IntRange(1, n).Draw(t, "addresses")]
			if p := k.IPAllowList[0]; !p.IsSingleIP() && rapid.Bool().Draw(t, "halved") {
				low, high := halves(p)
				k.IPAllowList = append(AllowList{high, low}, k.IPAllowList[1:]...)
			}
		}
		if !caller.ExpiresAt.IsZero() {
			k.ExpiresAt = caller.ExpiresAt.Add(-time.Duration(rapid.IntRange(0, 2).Draw(t, "earlier")) * time.Hour)
		}
		if rapid.Bool().Draw(t, "test") {
			k.Mode = ModeTest
		}
		if err := rightsOf(&caller).CheckGrant(&k); err != nil {
			t.Fatal(err)
		}
	})
}

// An update never lets its caller add a use that the caller does not have, and
// never hands out again the whole of a key that is wider.
func TestUpdateWithinAddsNothing(t *testing.T) {
	t.Parallel()
	rules := Rules{Catalogue: someScopes, Formats: DefaultKeyFormats()}
	rapid.Check(t, func(t *rapid.T) {
		caller, before, values := drawKey(t, "caller"), drawKey(t, "key"), drawKey(t, "values")
		before.Enabled = rapid.Bool().Draw(t, "was enabled")
		values.Enabled = rapid.Bool().Draw(t, "is enabled")
		paths := rapid.SliceOfNDistinct(
			rapid.SampledFrom([]string{"label", "scopes", "ip_allow_list", "expires_at", "enabled"}), 1, 5, rapid.ID).Draw(t, "paths")
		after := before
		if err := rules.Update(&after, Patch{paths, values}, noon); err != nil {
			t.Fatal(err)
		}
		if err := rightsOf(&caller).CheckUpdate(&after, Actor{Kind: ActorKey, ID: caller.ID}, Changes(&before, &after, noon)); err != nil {
			return
		}
		if after.Enabled && !before.Enabled || !after.ExpiresAt.Equal(before.ExpiresAt) {
			if u, ok := beyond(&after, &caller); ok {
				t.Fatalf("%v handed out %+v", paths, u)
			}
		}
		// One right at a time: a field that was not changed may be wider than the
		// caller's, since the caller did not make it so.
		for _, change := range Changes(&before, &after, noon) {
			k := caller
			switch change {
			case "scopes":
				k.Scopes = after.Scopes
			case "ip_allow_list":
				k.IPAllowList = after.IPAllowList
			}
			if u, ok := beyond(&k, &caller); ok {
				t.Fatalf("%s granted %+v", change, u)
			}
		}
	})
}

func TestUpdateWithin(t *testing.T) {
	t.Parallel()
	narrow := Key{ID: "caller", Scopes: Scopes{"events.read"}, Mode: ModeTest, IPAllowList: allowList(t, "10.0.0.0/8"), ExpiresAt: noon.Add(week)}
	for _, c := range []struct {
		name    string
		change  func(k *Key)
		changes string
		want    Reason
	}{
		{"label of a wider key", func(*Key) {}, "label", ""},
		{"metadata and limits of a wider key", func(*Key) {}, "metadata rate_limit owner_id", ""},
		{"disabling a wider key", func(k *Key) { k.Enabled = false }, "enabled state", ""},
		{"enabling a wider key", func(*Key) {}, "enabled state", ReasonExceedsCaller},
		{"an earlier expiry of a wider key", func(k *Key) { k.ExpiresAt = noon.Add(time.Hour) }, "expires_at", ReasonExceedsCaller},
		{"scopes within", func(k *Key) { k.Scopes = Scopes{"events.read"} }, "scopes", ""},
		{"scopes beyond", func(*Key) {}, "scopes", ReasonExceedsCaller},
		{"no scopes", func(k *Key) { k.Scopes = nil }, "scopes", ""},
		{"addresses within", func(k *Key) { k.IPAllowList = allowList(t, "10.1.0.0/16") }, "ip_allow_list", ""},
		{"no addresses", func(*Key) {}, "ip_allow_list", ReasonExceedsCaller},
		{"its own limits", func(k *Key) { k.ID = "caller" }, "rate_limit", ReasonOwnLimits},
		{"its own label", func(k *Key) { k.ID = "caller" }, "label", ""},
	} {
		k := Key{ID: "other", Scopes: Scopes{"*"}, Mode: ModeLive, Enabled: true}
		c.change(&k)
		var got Reason
		if e := AsError(rightsOf(&narrow).CheckUpdate(&k, Actor{Kind: ActorKey, ID: narrow.ID}, strings.Fields(c.changes))); e != nil {
			got = e.Reason
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func ExampleRights_CheckGrant() {
	caller := Verification{Code: CodeValid, Key: &Key{Scopes: Scopes{"events.read"}, Mode: ModeTest}}
	rights := caller.Rights()
	fmt.Println(rights.CheckGrant(&Key{Scopes: Scopes{"*"}, Mode: ModeLive}))
	fmt.Println(rights.CheckGrant(&Key{Mode: ModeTest}))
	// Output:
	// It would hold more than the credential that you call with: scopes, mode.
	// <nil>
}
