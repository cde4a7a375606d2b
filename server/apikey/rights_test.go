package apikey

import (
	"testing"
	"time"
)

// Rights that nobody has set allow nothing, whatever is looked at, and so do those
// of a verification that is not valid.
func TestZeroRights(t *testing.T) {
	t.Parallel()
	live := Key{OrganizationID: "org_a", Scopes: Scopes{"*"}, Mode: ModeLive}
	for name, r := range map[string]Rights{
		"zero":    {},
		"refused": (&Verification{Code: CodeExpired, Key: &live}).Rights(),
		"unknown": (&Verification{Code: CodeNotFound}).Rights(),
		"no code": (&Verification{Key: &live}).Rights(),
	} {
		err := AsError(r.CheckGrant(&Key{Scopes: Scopes{"events.read"}, Mode: ModeTest, IPAllowList: allowList(t, "10.0.0.1"), ExpiresAt: noon}))
		if err == nil || err.Details["exceeded"] != "scopes,ip_allow_list,expires_at,mode" {
			t.Errorf("%s: %v", name, err)
		}
		if r.In("org_a") || r.In("") || r.In(AllOrganizations) || r.Scopes.Has("events.read") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// An operator may grant everything, in every organization.
func TestAllRights(t *testing.T) {
	t.Parallel()
	r := AllRights()
	for _, k := range []Key{
		{Scopes: Scopes{"*"}, Mode: ModeLive}, {Mode: ModeTest, ExpiresAt: time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)},
	} {
		if err := r.CheckGrant(&k); err != nil {
			t.Error(err)
		}
	}
	if !r.In("org_a") {
		t.Error("not in org_a")
	}
}

// The rights of a previous secret end with its overlap, or with the key where that
// is sooner; a key acts in its own organization alone.
func TestRightsOfPreviousSecret(t *testing.T) {
	t.Parallel()
	overlap := noon.Add(time.Hour)
	for _, c := range []struct {
		name      string
		expiresAt time.Time
		previous  bool
		want      time.Time
	}{
		{"current, no end", time.Time{}, false, Endless},
		{"current, ends", noon.Add(week), false, noon.Add(week)},
		{"previous, no end", time.Time{}, true, overlap},
		{"previous, ends later", noon.Add(week), true, overlap},
		{"previous, ends before", noon.Add(time.Minute), true, noon.Add(time.Minute)},
	} {
		v := Verification{Code: CodeValid, Previous: c.previous, Key: &Key{
			OrganizationID: "org_a", Mode: ModeLive, Scopes: Scopes{"events.read"}, ExpiresAt: c.expiresAt, PreviousExpiresAt: overlap,
		}}
		r := v.Rights()
		if !r.Until.Equal(c.want) || !r.In("org_a") || r.In("org_b") || r.In(AllOrganizations) {
			t.Errorf("%s: %+v", c.name, r)
		}
		child := Key{Mode: ModeLive, Scopes: v.Key.Scopes, ExpiresAt: c.want}
		if c.want == Endless {
			child.ExpiresAt = time.Time{}
		}
		if err := r.CheckGrant(&child); err != nil {
			t.Errorf("%s: as long as the caller: %v", c.name, err)
		}
		if c.want != Endless {
			for _, later := range []time.Time{{}, c.want.Add(time.Microsecond)} {
				child.ExpiresAt = later
				if err := AsError(r.CheckGrant(&child)); err == nil || err.Details["exceeded"] != "expires_at" {
					t.Errorf("%s: until %v: %v", c.name, later, err)
				}
			}
		}
	}
}
