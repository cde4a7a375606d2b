package apikey

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const week = 7 * 24 * time.Hour

var liveFormat = DefaultKeyFormats()[0]

func testRules() Rules {
	return Rules{Catalogue: DefaultScopes(), Formats: DefaultKeyFormats(), ExpiringNotice: week}
}

// testKey is a valid key with something in every field.
func testKey() Key {
	return Key{
		ID: "api_key_1", OrganizationID: "org_1", Label: "CI", Description: "builds",
		Scopes: Scopes{"invoices.read", "payments.read"}, ExpiresAt: noon.Add(4 * week), CreatedAt: noon.Add(-week),
		Enabled: true, Mode: ModeLive, OwnerID: "team", Metadata: map[string]string{"a": "1", "b": "2"},
		RateLimit: RateLimit{Requests: 10, WindowSeconds: 60}, Version: 1, NoticeAt: noon.Add(3 * week),
		Secret: StoredSecret{Hash: Hash{1}, PepperID: "p", Mask: "one"},
	}
}

// wantFields fails unless err is invalid in exactly these fields.
func wantFields(t *testing.T, err error, fields ...string) {
	t.Helper()
	var got []string
	if e := AsError(err); e != nil && e.Kind == KindInvalid {
		for _, f := range e.Fields {
			got = append(got, f.Field)
		}
	} else if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	if diff := cmp.Diff(fields, got); diff != "" {
		t.Errorf("faulty fields (-want +got):\n%s", diff)
	}
}

// wantReason fails unless err is an Error of this kind and reason.
func wantReason(t *testing.T, err error, kind Kind, reason Reason) {
	t.Helper()
	if e := AsError(err); e == nil || e.Kind != kind || e.Reason != reason {
		t.Errorf("error = %v, want kind %d, %s", err, kind, reason)
	}
}

func TestCreateCompletes(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("", 3600)
	asked := Key{
		Label: "CI", Enabled: true, Scopes: Scopes{"events.read", "*", "events.read"},
		IPAllowList: allowList(t, "10.0.0.1", "::ffff:10.0.0.1"),
		ExpiresAt:   noon.Add(2*week + 1999*time.Nanosecond).In(berlin),
	}
	got, err := testRules().Create(asked, noon)
	if err != nil {
		t.Fatal(err)
	}
	want := Key{
		Label: "CI", Enabled: true, Scopes: Scopes{"events.read", "*"}, Mode: ModeLive, Format: "sk_live", CreatedAt: noon, Version: 1,
		IPAllowList: allowList(t, "10.0.0.1"),
		ExpiresAt:   noon.Add(2*week + time.Microsecond), NoticeAt: noon.Add(week + time.Microsecond),
	}
	if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); diff != "" {
		t.Error(diff)
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	many := make(map[string]string)
	for i := range 51 {
		many[fmt.Sprint(i)] = ""
	}
	for _, c := range []struct {
		name   string
		change func(k *Key)
		fields []string
	}{
		{"nothing", func(*Key) {}, nil},
		{"no label", func(k *Key) { k.Label = "" }, []string{"label"}},
		{"unknown scope", func(k *Key) { k.Scopes = Scopes{"events.read", "x.y"} }, []string{"scopes[1]"}},
		{"two unknown", func(k *Key) { k.Scopes = Scopes{"a", "b"} }, []string{"scopes[0]", "scopes[1]"}},
		{"part of a scope", func(k *Key) { k.Scopes = Scopes{"events"} }, []string{"scopes[0]"}},
		{"all scopes", func(k *Key) { k.Scopes = Scopes{"*"} }, nil},
		{"expires now", func(k *Key) { k.ExpiresAt = noon }, []string{"expires_at"}},
		{"expires less than a unit later", func(k *Key) { k.ExpiresAt = noon.Add(999) }, []string{"expires_at"}},
		{"expires a unit later", func(k *Key) { k.ExpiresAt = noon.Add(time.Microsecond) }, nil},
		{"no expiry", func(k *Key) { k.ExpiresAt = time.Time{} }, nil},
		{"last year", func(k *Key) { k.ExpiresAt = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, nil},
		{"year 10000", func(k *Key) { k.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, []string{"expires_at"}},
		{"50 entries", func(k *Key) { delete(many, "0"); k.Metadata = many }, nil},
		{"51 entries", func(k *Key) { many["0"] = ""; k.Metadata = many }, []string{"metadata"}},
		{"no key", func(k *Key) { k.Metadata = map[string]string{"": "x"} }, []string{"metadata"}},
		{"64 characters", func(k *Key) { k.Metadata = map[string]string{strings.Repeat("ü", 64): ""} }, nil},
		{"65 characters", func(k *Key) {
			k.Metadata = map[string]string{strings.Repeat("u", 65): "", strings.Repeat("v", 65): ""}
		}, []string{"metadata"}},
		{"8 KiB", func(k *Key) { k.Metadata = map[string]string{"k": strings.Repeat("v", 8191)} }, nil},
		{"over 8 KiB", func(k *Key) { k.Metadata = map[string]string{"k": strings.Repeat("v", 8192)} }, []string{"metadata"}},
		{"least limit", func(k *Key) { k.RateLimit = RateLimit{Requests: 1, WindowSeconds: 1} }, nil},
		{"largest limit", func(k *Key) { k.RateLimit = RateLimit{Requests: 1_000_000, WindowSeconds: 86_400} }, nil},
		{"no requests", func(k *Key) { k.RateLimit = RateLimit{Requests: 0, WindowSeconds: 1} }, []string{"rate_limit.requests"}},
		{"no window", func(k *Key) { k.RateLimit = RateLimit{Requests: 1, WindowSeconds: 0} }, []string{"rate_limit.window_seconds"}},
		{"too much", func(k *Key) { k.RateLimit = RateLimit{Requests: 1_000_001, WindowSeconds: 86_401} }, []string{"rate_limit.requests", "rate_limit.window_seconds"}},
		{"all at once", func(k *Key) { k.Label, k.Scopes, k.ExpiresAt = "", Scopes{"a"}, noon }, []string{"label", "scopes[0]", "expires_at"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := testKey()
			c.change(&k)
			_, err := testRules().Create(k, noon)
			wantFields(t, err, c.fields...)
		})
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	r, k := testRules(), testKey()
	second, third := StoredSecret{Hash: Hash{2}, Mask: "two"}, StoredSecret{Hash: Hash{3}, Mask: "three"}
	if err := r.Rotate(&k, liveFormat, second, time.Hour, noon); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Hash{{2}, {1}}, k.Hashes()); diff != "" {
		t.Error(diff)
	}
	if !k.PreviousWorks(noon.Add(time.Hour-1)) || k.PreviousWorks(noon.Add(time.Hour)) {
		t.Error("the overlap is not an hour")
	}
	// During an overlap the older secret is ended on purpose.
	wantReason(t, r.Rotate(&k, liveFormat, third, time.Minute, noon.Add(time.Second)), KindConflict, ReasonRotating)
	wantReason(t, r.Rotate(&k, liveFormat, third, 0, noon.Add(time.Hour-1)), KindConflict, ReasonRotating)
	if diff := cmp.Diff([]Hash{{2}, {1}}, k.Hashes()); diff != "" {
		t.Error("refused, but changed:", diff)
	}
	k.EndPrevious()
	if err := r.Rotate(&k, liveFormat, third, time.Minute, noon.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Hash{{3}, {2}}, k.Hashes()); diff != "" {
		t.Error(diff)
	}
	k.EndPrevious()
	// Without an overlap only the new one is left.
	if err := r.Rotate(&k, liveFormat, second, 0, noon.Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Hash{{2}}, k.Hashes()); diff != "" || k.PreviousWorks(noon) || !k.PreviousExpiresAt.IsZero() {
		t.Error(diff, k.PreviousExpiresAt)
	}
}

func TestRotateNeverPastExpiry(t *testing.T) {
	t.Parallel()
	r, k := testRules(), testKey()
	k.ExpiresAt = noon.Add(time.Hour)
	if err := r.Rotate(&k, liveFormat, StoredSecret{Hash: Hash{2}, Mask: "two"}, MaxOverlap, noon); err != nil {
		t.Fatal(err)
	}
	if !k.PreviousExpiresAt.Equal(k.ExpiresAt) {
		t.Errorf("the previous secret works until %v, the key until %v", k.PreviousExpiresAt, k.ExpiresAt)
	}
	// A later expiry of the key does not lengthen the old secret's time; an earlier
	// one shortens it.
	before := k.PreviousExpiresAt
	for _, expiry := range []time.Duration{2 * time.Hour, time.Minute} {
		p := Patch{Paths: []string{"expires_at"}, Values: Key{ExpiresAt: noon.Add(expiry)}}
		if err := r.Update(&k, p, noon); err != nil {
			t.Fatal(err)
		}
		if want := min(before.Sub(noon), expiry); k.PreviousExpiresAt.Sub(noon) != want {
			t.Errorf("the previous secret works for %v, want %v", k.PreviousExpiresAt.Sub(noon), want)
		}
	}
}

func TestRotateRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		change  func(k *Key)
		overlap time.Duration
		reason  Reason // "" where it is allowed
	}{
		{"disabled", func(k *Key) { k.Enabled = false }, 0, ""},
		{"expired", func(k *Key) { k.ExpiresAt = noon }, 0, ReasonExpired},
		{"disabled and expired", func(k *Key) { k.Enabled, k.ExpiresAt = false, noon }, 0, ReasonExpired},
		{"revoked", func(k *Key) { k.RevokedAt = noon }, 0, ReasonRevoked},
		{"revoked and expired", func(k *Key) { k.RevokedAt, k.ExpiresAt = noon, noon }, 0, ReasonRevoked},
		{"longest overlap", func(*Key) {}, MaxOverlap, ""},
		{"too long an overlap", func(*Key) {}, MaxOverlap + time.Second, ReasonInvalidArgument},
		{"negative overlap", func(*Key) {}, -time.Second, ReasonInvalidArgument},
	} {
		k := testKey()
		c.change(&k)
		before := k
		err := testRules().Rotate(&k, liveFormat, StoredSecret{Hash: Hash{2}, Mask: "two"}, c.overlap, noon)
		var got Reason
		if e := AsError(err); e != nil {
			got = e.Reason
		}
		if got != c.reason {
			t.Errorf("%s: %v, want %q", c.name, err, c.reason)
		}
		if err != nil && len(Changes(&before, &k, noon)) > 0 {
			t.Errorf("%s: refused, and changed", c.name)
		}
		if k.Enabled != before.Enabled {
			t.Errorf("%s: enabled = %t", c.name, k.Enabled)
		}
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	r, k := testRules(), testKey()
	r.Revoke(&k, RevokeKeyCompromise, noon)
	if k.State(noon) != StateRevoked || k.RevokeReason != RevokeKeyCompromise || !k.NoticeAt.IsZero() {
		t.Errorf("revoked: %+v", k)
	}
	// Again is no change.
	before := k
	r.Revoke(&k, RevokeSuperseded, noon.Add(time.Hour))
	if got := Changes(&before, &k, noon); len(got) > 0 {
		t.Errorf("revoking again changed %v", got)
	}
	wantReason(t, r.Update(&k, Patch{Paths: []string{"label"}, Values: Key{Label: "x"}}, noon), KindFailedPrecondition, ReasonRevoked)
	wantReason(t, r.Rotate(&k, liveFormat, StoredSecret{}, 0, noon), KindFailedPrecondition, ReasonRevoked)
	if got := Changes(&before, &k, noon); len(got) > 0 {
		t.Errorf("refused, but changed %v", got)
	}
}

// The notices of a key's expiry, as time and changes go on.
func TestNotices(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) time.Time { return noon.Add(d) }
	for _, c := range []struct {
		name   string
		expiry time.Duration
		off    bool
		want   time.Duration // until the first notice; 0: none
	}{
		{"far", 8 * week, false, 7 * week},
		{"just over the lead", week + time.Microsecond, false, time.Microsecond},
		{"exactly the lead", week, false, -1}, // due at once
		{"just under the lead", week - time.Microsecond, false, week - time.Microsecond},
		{"disabled", 8 * week, true, 0},
	} {
		k := testKey()
		k.ExpiresAt, k.Enabled = at(c.expiry), !c.off
		k, err := testRules().Create(k, noon)
		if err != nil {
			t.Fatal(err)
		}
		want := time.Time{}
		if c.want != 0 {
			want = at(max(c.want, 0))
		}
		if !k.NoticeAt.Equal(want) {
			t.Errorf("%s: NoticeAt = %v, want %v", c.name, k.NoticeAt, want)
		}
	}

	r := testRules()
	k, err := r.Create(testKey(), noon)
	if err != nil {
		t.Fatal(err)
	}
	if event, changes := r.Notice(&k, at(3*week)); event != KeyExpiring || changes != nil || !k.NoticeAt.Equal(k.ExpiresAt) {
		t.Errorf("first notice %s, %v; then %v", event, changes, k.NoticeAt)
	}
	// The same value again announces nothing a second time, not even by disabling
	// and enabling.
	for _, p := range []Patch{
		{[]string{"expires_at"}, Key{ExpiresAt: k.ExpiresAt}},
		{[]string{"enabled"}, Key{Enabled: false}},
		{[]string{"enabled"}, Key{Enabled: true}},
	} {
		if err := r.Update(&k, p, at(3*week+time.Hour)); err != nil {
			t.Fatal(err)
		}
		if want := k.Enabled; want != k.NoticeAt.Equal(k.ExpiresAt) || want == k.NoticeAt.IsZero() {
			t.Errorf("after %v, enabled = %t: NoticeAt = %v", p.Paths, k.Enabled, k.NoticeAt)
		}
	}
	if event, changes := r.Notice(&k, k.ExpiresAt); event != KeyExpired || !cmp.Equal(changes, []string{"state"}) || !k.NoticeAt.IsZero() {
		t.Errorf("last notice %s, %v; then %v", event, changes, k.NoticeAt)
	}
	// A new value is announced anew.
	if err := r.Update(&k, Patch{[]string{"expires_at"}, Key{ExpiresAt: at(9 * week)}}, at(5*week)); err != nil {
		t.Fatal(err)
	}
	if !k.NoticeAt.Equal(at(8 * week)) {
		t.Errorf("NoticeAt = %v", k.NoticeAt)
	}
	// A server that slept through both gives the last only.
	if event, _ := r.Notice(&k, at(20*week)); event != KeyExpired {
		t.Errorf("notice %s", event)
	}
}
