package apikey

import (
	"strings"
	"testing"
	"time"
)

func TestState(t *testing.T) {
	t.Parallel()
	past, now, future := noon.Add(-1), noon, noon.Add(1)
	for _, c := range []struct {
		revoked, expires time.Time
		enabled          bool
		want             State
	}{
		{time.Time{}, time.Time{}, true, StateActive},
		{time.Time{}, future, true, StateActive},
		{time.Time{}, now, true, StateExpired},
		{time.Time{}, past, true, StateExpired},
		{time.Time{}, past, false, StateDisabled},
		{time.Time{}, future, false, StateDisabled},
		{past, past, false, StateRevoked},
		{past, time.Time{}, true, StateRevoked},
	} {
		k := Key{RevokedAt: c.revoked, ExpiresAt: c.expires, Enabled: c.enabled}
		if got := k.State(now); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// Every field of the resource that a change can move is named by Changes, in the
// resource's order, and nothing else is.
func TestChanges(t *testing.T) {
	t.Parallel()
	base := testKey()
	for _, c := range []struct {
		want   string
		change func(k *Key)
	}{
		{"label", func(k *Key) { k.Label += "x" }},
		{"description", func(k *Key) { k.Description = "" }},
		{"secret", func(k *Key) { k.Secret.Hash[0]++ }},
		{"scopes", func(k *Key) { k.Scopes = nil }},
		{"ip_allow_list", func(k *Key) { k.IPAllowList = allowList(t, "::1") }},
		{"expires_at", func(k *Key) { k.ExpiresAt = time.Time{} }},
		{"expires_at state", func(k *Key) { k.ExpiresAt = noon }},
		{"enabled state", func(k *Key) { k.Enabled = false }},
		{"owner_id", func(k *Key) { k.OwnerID = "" }},
		{"metadata", func(k *Key) { k.Metadata = nil }},
		{"rate_limit", func(k *Key) { k.RateLimit.Requests++ }},
		{"state revoked_at revoke_reason", func(k *Key) { testRules().Revoke(k, RevokeSuperseded, noon) }},
		{"previous_secret_expires_at", func(k *Key) { k.PreviousExpiresAt = noon }},
		{"", func(k *Key) { k.UpdatedAt, k.Version, k.Usage = noon, 7, Usage{TotalRequests: 1, LastUsedAt: noon} }},
		{"", func(k *Key) { k.ExpiresAt = k.ExpiresAt.In(time.FixedZone("", 3600)) }},
		{"", func(k *Key) { k.IPAllowList = AllowList{} }},
	} {
		k := testKey()
		c.change(&k)
		if got := strings.Join(Changes(&base, &k, noon), " "); got != c.want {
			t.Errorf("changes = %q, want %q", got, c.want)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		held, asked string
		want        bool
	}{
		{"", "", true},
		{"", "events.read", false},
		{"events.read", "", true},
		{"events.read", "events.read", true},
		{"events.read", "events.read events.read", true},
		{"events.read", "events", false},
		{"events", "events.read", false},
		{"events.read", "EVENTS.READ", false},
		{"events.read", "events.read users.update", false},
		{"*", "anything.at.all *", true},
		{"events.read", "*", false},
		{strings.Join(DefaultScopes(), " "), "*", false}, // all of today are not those of tomorrow
	} {
		if got := Scopes(strings.Fields(c.held)).HasAll(strings.Fields(c.asked)); got != c.want {
			t.Errorf("[%.40s] has [%s] = %t", c.held, c.asked, got)
		}
	}
	if got := Unique(DefaultScopes()); len(got) != 34 || len(DefaultScopes()) != 34 {
		t.Errorf("%d default scopes, %d different ones", len(DefaultScopes()), len(got))
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	last := ""
	for range 10_000 {
		id := NewID(IDPrefix)
		if !IsID(IDPrefix, id) || id <= last {
			t.Fatalf("NewID = %q after %q", id, last)
		}
		last = id
	}
	for _, wrong := range []string{
		"", IDPrefix, last[len(IDPrefix):], strings.ToUpper(last), IDPrefix + strings.ToUpper(last[len(IDPrefix):]),
		EventIDPrefix + last[len(IDPrefix):], last + "0", last[:len(last)-1], " " + last,
		IDPrefix + strings.ReplaceAll(last[len(IDPrefix):], "-", "") + "0000", IDPrefix + strings.Repeat("g", 36),
	} {
		if IsID(IDPrefix, wrong) {
			t.Errorf("IsID(%q)", wrong)
		}
	}
}

func TestValidateOrganizationID(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "org_default", "A.b:c-d_9", strings.Repeat("x", 128)} {
		if err := ValidateOrganizationID(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "*", "a b", "a/b", "ü", "a\n", "a\x00", strings.Repeat("x", 129)} {
		if ValidateOrganizationID(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
