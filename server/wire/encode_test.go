package wire_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// TestAppendVerification holds the encoder to what protobuf makes of the message,
// and sees every field of the message at least once: a field that is new there
// has to be drawn here.
func TestAppendVerification(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := drawVerification(t)
		want := wire.Verification(&v)
		if n := len(wire.AppendVerification(nil, &v)); n != proto.Size(want) {
			t.Errorf("%d bytes, protobuf takes %d", n, proto.Size(want))
		}
		encoded := wire.AppendVerification([]byte("before"), &v)
		got := new(apikeysv1.VerifyApiKeyResponse)
		if err := proto.Unmarshal(encoded[len("before"):], got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("the encoding says something else (-message +encoding):\n%s", diff)
		}
		if size := proto.Size(want); len(encoded)-len("before") != size {
			t.Errorf("%d bytes, protobuf takes %d", len(encoded)-len("before"), size)
		}
		if size := proto.Size(want); v.Key != nil && size > v.Key.MessageSize() {
			t.Errorf("%d bytes, estimated at most %d", size, v.Key.MessageSize())
		}
	})
	// How much a check draws is for flags to say, so the fields are looked for in
	// examples that are always the same.
	seen := make(map[protoreflect.FullName]bool)
	drawn := rapid.Custom(drawVerification)
	for seed := range 100 {
		v := drawn.Example(seed)
		noteFields(wire.Verification(&v).ProtoReflect(), seen)
	}
	// From where a key was used last is told by reads of the key alone.
	if lastUse := fieldOf(&apikeysv1.ApiKey{}, "last_use"); seen[lastUse.FullName()] {
		t.Error("a verification tells of the last use")
	} else {
		seen[lastUse.FullName()] = true
		for i := range lastUse.Message().Fields().Len() {
			seen[lastUse.Message().Fields().Get(i).FullName()] = true
		}
	}
	wantFields(t, (&apikeysv1.VerifyApiKeyResponse{}).ProtoReflect().Descriptor(), seen)
}

func fieldOf(m proto.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.ProtoReflect().Descriptor().Fields().ByName(name)
}

// noteFields notes the fields that m has, those of messages within it included.
func noteFields(m protoreflect.Message, seen map[protoreflect.FullName]bool) {
	m.Range(func(f protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		seen[f.FullName()] = true
		if f.Message() != nil && !f.IsList() && !f.IsMap() {
			noteFields(value.Message(), seen)
		}
		return true
	})
}

func wantFields(t *testing.T, m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) {
	t.Helper()
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if !seen[f.FullName()] {
			t.Errorf("%s was never drawn", f.FullName())
		}
		if f.Message() != nil && !f.IsList() && !f.IsMap() {
			wantFields(t, f.Message(), seen)
		}
	}
}

// drawVerification draws anything that verify could find, and more.
func drawVerification(t *rapid.T) apikey.Verification {
	v := apikey.Verification{
		Code: rapid.SampledFrom([]apikey.Code{
			apikey.CodeMalformed, apikey.CodeNotFound, apikey.CodeRevoked, apikey.CodeDisabled, apikey.CodeExpired,
			apikey.CodeIPNotAllowed, apikey.CodeInsufficientScope, apikey.CodeRateLimited, apikey.CodeQuotaExceeded,
			apikey.CodeValid,
		}).Draw(t, "code"),
		At: drawTime(t, "at"),
	}
	if rapid.Bool().Draw(t, "unknown") {
		return v
	}
	k := drawStoredKey(t)
	v.Key = &k
	if rapid.Bool().Draw(t, "cached") {
		v.Encoded = wire.EncodeKey(&k)
		shared := k.SharingTexts(v.Encoded)
		if diff := cmp.Diff(k, shared, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("with shared texts (-want +got)\n%s", diff)
		}
		v.Key = &shared
	}
	v.Previous = rapid.Bool().Draw(t, "previous")
	v.Usage = apikey.Usage{TotalRequests: drawNumber(t, "total"), LastUsedAt: drawTime(t, "last used"), Previous: apikey.PreviousUsage{
		Rotation: k.Rotations - rapid.Int64Range(0, 1).Draw(t, "rotations since"), Requests: drawNumber(t, "previous total"), LastUsedAt: drawTime(t, "previous last used"),
	}}
	if k.RateLimit != (apikey.RateLimit{}) {
		v.Limit = apikey.LimitStatus{
			Limit: k.RateLimit.Requests, Remaining: rapid.IntRange(0, k.RateLimit.Requests).Draw(t, "remaining"),
			ResetAt: drawTime(t, "reset at"),
		}
	}
	if k.Quota.Limit > 0 && rapid.Bool().Draw(t, "quota was looked at") {
		v.Quota = apikey.QuotaStatus{
			Limit: k.Quota.Limit, Remaining: rapid.Int64Range(0, k.Quota.Limit).Draw(t, "quota remaining"),
			RefillAt: drawTime(t, "refill at"),
		}
	}
	v.RetryAfter = time.Duration(rapid.Int64Range(0, int64(40*24*time.Hour)).Draw(t, "retry after"))
	return v
}

func drawStoredKey(t *rapid.T) apikey.Key {
	text := func(name string) string { return rapid.StringN(0, 200, 300).Draw(t, name) }
	k := apikey.Key{
		ID: text("id"), OrganizationID: text("organization"), Label: text("label"), Description: text("description"),
		Scopes:    rapid.SliceOfN(rapid.String(), 0, 5).Draw(t, "scopes"),
		ExpiresAt: drawTime(t, "expires at"), CreatedAt: drawTime(t, "created at"), UpdatedAt: drawTime(t, "updated at"),
		CreatedBy: apikey.Actor{Kind: rapid.SampledFrom([]apikey.ActorKind{"", apikey.ActorOperator, apikey.ActorPerson, apikey.ActorKey}).Draw(t, "creator's kind"), ID: text("creator"), Name: text("creator's name")},
		Enabled:   rapid.Bool().Draw(t, "enabled"), OwnerID: text("owner"), ExternalID: text("external"), Format: text("format"),
		Mode:      rapid.SampledFrom([]apikey.Mode{apikey.ModeLive, apikey.ModeTest}).Draw(t, "mode"),
		Metadata:  rapid.MapOfN(rapid.String(), rapid.String(), 0, 4).Draw(t, "metadata"),
		RevokedAt: drawTime(t, "revoked at"),
		RevokeReason: rapid.SampledFrom([]apikey.RevokeReason{
			apikey.RevokeUnspecified, apikey.RevokeKeyCompromise, apikey.RevokeSuperseded,
			apikey.RevokeNoLongerNeeded, apikey.RevokePrivilegeWithdrawn,
		}).Draw(t, "reason"),
		Secret:            apikey.StoredSecret{Mask: text("mask")},
		PreviousExpiresAt: drawTime(t, "previous expires at"),
		Rotations:         2,
		Version:           rapid.Int64Range(1, 1<<62).Draw(t, "version"),
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "addresses") {
		name := fmt.Sprint("address ", i)
		address := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, name)))
		if rapid.Bool().Draw(t, name+" is IPv6") {
			address = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name)))
		}
		k.IPAllowList = append(k.IPAllowList, netip.PrefixFrom(address, rapid.IntRange(0, address.BitLen()).Draw(t, name+" bits")))
	}
	if rapid.Bool().Draw(t, "limited") {
		k.RateLimit = apikey.RateLimit{
			Requests: rapid.IntRange(1, 1_000_000).Draw(t, "requests"), WindowSeconds: rapid.IntRange(1, 86_400).Draw(t, "window"),
		}
	}
	if rapid.Bool().Draw(t, "has a quota") {
		k.Quota = apikey.Quota{
			Limit: rapid.Int64Range(1, 1<<40).Draw(t, "quota"), Remaining: drawNumber(t, "stored remaining"),
			Refill:    rapid.SampledFrom([]apikey.Refill{apikey.RefillNone, apikey.RefillDaily, apikey.RefillMonthly}).Draw(t, "refill"),
			RefillDay: rapid.IntRange(0, 31).Draw(t, "refill day"),
		}
	}
	return k
}

func drawNumber(t *rapid.T, name string) int64 { return rapid.Int64Range(0, 1<<62).Draw(t, name) }

// drawTime draws the zero time, and times of all lengths of encoding.
func drawTime(t *rapid.T, name string) time.Time {
	if rapid.Bool().Draw(t, name+" is absent") {
		return time.Time{}
	}
	return time.UnixMicro(rapid.Int64Range(-1e15, 4e15).Draw(t, name)).UTC()
}

// BenchmarkAppendVerification is the answer of a verification as bytes. Its floor
// is the same made as messages and marshalled.
func BenchmarkAppendVerification(b *testing.B) {
	k := apikey.Key{
		ID: "api_key_0197c0f1-9589-7990-b421-4b806f637b0c", OrganizationID: "org_default", Label: "Benchmark",
		Scopes: apikey.Scopes{"invoices.read", "payments.read"}, CreatedAt: time.Now(), Enabled: true, Mode: apikey.ModeLive,
		OwnerID: "user_1", Metadata: map[string]string{"team": "billing"},
		Secret: apikey.StoredSecret{Mask: "sk_live_MDE5N2MwZWMt...GdwdA"}, Version: 1,
	}
	v := apikey.Verification{Code: apikey.CodeValid, Key: &k, Encoded: wire.EncodeKey(&k), Usage: apikey.Usage{TotalRequests: 3, LastUsedAt: time.Now()}, At: time.Now()}
	var least, spent time.Duration
	const turn = 1000
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		for range turn {
			if _, err := proto.Marshal(wire.Verification(&v)); err != nil {
				b.Fatal(err)
			}
		}
		between := time.Now()
		for range turn {
			_ = wire.AppendVerification(nil, &v)
		}
		least += between.Sub(start)
		spent += time.Since(between)
	}
	b.ReportMetric(float64(least)/float64(spent), "x-of-floor")
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*turn), "ns/answer")
	b.ReportMetric(float64(least.Nanoseconds())/float64(b.N*turn), "ns/floor")
}
