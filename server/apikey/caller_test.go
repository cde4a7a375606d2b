package apikey

import (
	"net/netip"
	"testing"
	"time"
)

// A caller that is a key is what its row says now, not what it was when its call
// began; each refusal is the one that the beginning of a call gives.
func TestAdmitKey(t *testing.T) {
	began := Key{ID: "api_key_1", OrganizationID: "org_a", Scopes: Scopes{"*"}, Enabled: true, Mode: ModeLive, Rotations: 3}
	for _, c := range []struct {
		name string
		row  func(k *Key)
		call func(c *Caller)
		want Reason
	}{
		{"as it was", func(*Key) {}, nil, ""},
		{"revoked", func(k *Key) { k.RevokedAt = noon }, nil, ReasonUnauthenticated},
		{"disabled", func(k *Key) { k.Enabled = false }, nil, ReasonUnauthenticated},
		{"expired", func(k *Key) { k.ExpiresAt = noon }, nil, ReasonUnauthenticated},
		{"expires", func(k *Key) { k.ExpiresAt = noon.Add(1) }, nil, ""},
		{"rotated", func(k *Key) { k.Rotations++ }, nil, ReasonUnauthenticated},
		{"rotated with an overlap", func(k *Key) { k.Rotations++; k.PreviousExpiresAt = noon.Add(1) }, nil, ""},
		{"its overlap over", func(k *Key) { k.Rotations++; k.PreviousExpiresAt = noon }, nil, ReasonUnauthenticated},
		{"rotated twice", func(k *Key) { k.Rotations += 2; k.PreviousExpiresAt = noon.Add(1) }, nil, ReasonUnauthenticated},
		{"the current secret is asked for", func(k *Key) { k.Rotations++; k.PreviousExpiresAt = noon.Add(1) }, func(c *Caller) { c.Requirement.CurrentSecret = true }, ReasonPreviousSecret},
		{"a secret to come", func(*Key) {}, func(c *Caller) { c.Generation++ }, ReasonUnauthenticated},
		{"without the scope", func(k *Key) { k.Scopes = Scopes{"api_keys.read"} }, nil, ReasonInsufficientScope},
		{"with the scope alone", func(k *Key) { k.Scopes = Scopes{"api_keys.create"} }, nil, ""},
		{"from elsewhere", func(k *Key) { k.IPAllowList = allowList(t, "198.51.100.0/24") }, nil, ReasonIPNotAllowed},
		{"from an unknown address", func(k *Key) { k.IPAllowList = allowList(t, "192.0.2.0/24") }, func(c *Caller) { c.Addr = netip.Addr{} }, ReasonIPNotAllowed},
		{"from there", func(k *Key) { k.IPAllowList = allowList(t, "192.0.2.0/24") }, nil, ""},
		{"in another organization", func(*Key) {}, func(c *Caller) { c.Organization = "org_b" }, ReasonWrongOrganization},
	} {
		caller := Caller{
			Origin: Origin{Actor: Actor{Kind: ActorKey, ID: began.ID}}, Organization: "org_a", Rights: AllRights(),
			Requirement: Requirement{Scopes: []string{"api_keys.create"}}, Addr: netip.MustParseAddr("192.0.2.1"), Generation: 3,
		}
		if c.call != nil {
			c.call(&caller)
		}
		row := began
		c.row(&row)
		rights, err := caller.Admit(&row, noon)
		if got := AsError(err); err != nil && (got == nil || got.Reason != c.want) || err == nil && c.want != "" {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err != nil && rights.In("org_a") || err == nil && (!rights.In("org_a") || rights.In("org_b")) {
			t.Errorf("%s: %+v", c.name, rights)
		}
		if _, err := caller.Admit(nil, noon); AsError(err) == nil || AsError(err).Reason != ReasonUnauthenticated {
			t.Errorf("%s, gone: %v", c.name, err)
		}
	}
}

// A caller that is no key has the rights that it came with, and none that nobody has
// given it.
func TestAdmitOthers(t *testing.T) {
	ending := AllRights()
	ending.Until = noon
	narrow := Rights{Organization: "org_a", Scopes: Scopes{"api_keys.read"}, Until: Endless}
	for _, c := range []struct {
		name   string
		caller Caller
		good   bool
	}{
		{"zero", Caller{}, false},
		{"an actor alone", Caller{Origin: Origin{Actor: Actor{Kind: ActorOperator, ID: "root"}}, Organization: "org_a"}, false},
		{"the system", *System("job"), true},
		{"an operator", Caller{Origin: Origin{Actor: Actor{Kind: ActorOperator, ID: "root"}}, Organization: "org_a", Rights: AllRights()}, true},
		{"rights that ended", Caller{Organization: "org_a", Rights: ending}, false},
		{"another organization", Caller{Organization: "org_b", Rights: narrow}, false},
		{"no organization", Caller{Rights: narrow}, false},
		{"a scope too many", Caller{Organization: "org_a", Rights: narrow, Requirement: Requirement{Scopes: []string{"api_keys.create"}}}, false},
		{"its scope", Caller{Organization: "org_a", Rights: narrow, Requirement: Requirement{Scopes: []string{"api_keys.read"}}}, true},
	} {
		rights, err := c.caller.Admit(nil, noon)
		if (err == nil) != c.good || c.good != rights.In("org_a") {
			t.Errorf("%s: %+v, %v", c.name, rights, err)
		}
	}
}

// Nobody makes an event that no rule knows, or that time alone brings.
func TestCheckChangeUnknown(t *testing.T) {
	r := AllRights()
	for _, event := range []EventType{"", "api_key.renamed", KeyExpired, KeyExpiring} {
		if err := AsError(r.CheckChange(event, Actor{Kind: ActorOperator, ID: "root"}, &Key{}, nil)); err == nil || err.Reason != ReasonPermissionDenied {
			t.Errorf("%q: %v", event, err)
		}
	}
	if err := r.CheckChange(KeyExpired, System("job").Actor, &Key{ExpiresAt: noon.Add(-time.Hour)}, nil); err != nil {
		t.Error(err)
	}
}
