package meter

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// recordStore keeps what a meter stores.
type recordStore struct {
	away   bool
	counts []apikey.UsageCount
}

func (s *recordStore) AddUsage(_ context.Context, counts []apikey.UsageCount) (int, error) {
	if s.away {
		return 0, errAway
	}
	s.counts = append(s.counts, counts...)
	return len(counts), nil
}

// take returns what was stored of a key, and forgets all.
func (s *recordStore) take(id string) apikey.UsageCount {
	var sum apikey.UsageCount
	for _, c := range s.counts {
		if c.KeyID == id {
			sum.Count, sum.Refused = sum.Count+c.Count, sum.Refused+c.Refused
			sum.Refusals = append(sum.Refusals, c.Refusals...)
			sum.IP, sum.UserAgent, sum.Addresses = c.IP, c.UserAgent, c.Addresses
		}
	}
	s.counts = nil
	return sum
}

var recordNoon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// keyUses are the uses of one key.
type keyUses struct {
	*Meter
	key      apikey.Key
	counters *Counters
}

func usesOf(m *Meter, organization, id string) *keyUses {
	u := &keyUses{Meter: m, key: apikey.Key{ID: id, OrganizationID: organization, Label: "label of " + id, Enabled: true}}
	u.counters = m.Acquire(&u.key)
	return u
}

func (u *keyUses) use(code apikey.Code, n int, by *apikey.CheckRequest) {
	u.Charge(u.counters, 1, by, &apikey.Verification{Key: &u.key, Code: code, At: recordNoon.Add(time.Duration(n) * time.Millisecond)})
}

func flushed(t *testing.T, m *Meter) {
	t.Helper()
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A record of a use holds nothing of the message that the texts in it are parts of.
func TestRecordsHoldNoMessages(t *testing.T) {
	const keys, size = 64, 1 << 20
	m := New(Config{Usage: &recordStore{}})
	inUse := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := inUse()
	for i := range keys {
		u := usesOf(m, "org_a", fmt.Sprintf("k%d", i))
		for n, code := range []apikey.Code{apikey.CodeValid, apikey.CodeRevoked} {
			message := strings.Repeat("x", size)
			u.use(code, n, &apikey.CheckRequest{UserAgent: message[n : n+10]})
		}
	}
	if after := inUse(); after > before+keys*size/4 {
		t.Errorf("%d records hold %d bytes", 2*keys, after-before)
	}
	runtime.KeepAlive(m)
}

// What is stored of a refusal, and of the latest use.
func TestRecordOfUse(t *testing.T) {
	t.Parallel()
	s := new(recordStore)
	m := New(Config{Usage: s, Now: func() time.Time { return recordNoon }})
	k := usesOf(m, "org_a", "api_key_1")
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		t.Fatal(err)
	}
	operator := apikey.Actor{Kind: apikey.ActorOperator, ID: "root", Name: "root"}
	addr := netip.MustParseAddr("fe80::1%zone")
	k.use(apikey.CodeRevoked, 1, &apikey.CheckRequest{Addr: addr, UserAgent: "curl/8\x00 " + secret.Reveal(), Caller: &operator})
	k.use(apikey.CodeExpired, 2, &apikey.CheckRequest{})
	k.use(apikey.CodeValid, 3, &apikey.CheckRequest{Addr: netip.MustParseAddr("10.0.0.1"), UserAgent: "one"})
	k.use(apikey.CodeValid, 4, &apikey.CheckRequest{Addr: netip.MustParseAddr("10.0.0.2"), UserAgent: strings.Repeat("x", 9000)})
	m.Charge(k.counters, 0, &apikey.CheckRequest{}, &apikey.Verification{Key: &k.key, Code: apikey.CodeRevoked, At: recordNoon})
	flushed(t, m)
	got := s.take("api_key_1")
	want := []apikey.RefusedUse{
		{At: recordNoon.Add(time.Millisecond), Code: apikey.CodeRevoked, Via: apikey.ViaVerification, IP: "fe80::1", UserAgent: "curl/8 sk_live_" + apikey.Redacted, Caller: operator},
		{At: recordNoon.Add(2 * time.Millisecond), Code: apikey.CodeExpired, Via: apikey.ViaAuthentication, Caller: apikey.Actor{Kind: apikey.ActorKey, ID: "api_key_1", Name: "label of api_key_1"}},
	}
	if !slices.Equal(got.Refusals, want) || got.Refused != 2 || got.Count != 2 {
		t.Errorf("%+v", got)
	}
	if got.IP != "10.0.0.2" || got.UserAgent != strings.Repeat("x", apikey.MaxUserAgent) || len(got.Addresses) != 16 {
		t.Errorf("last used from %q by %q, %d bytes of addresses", got.IP, got.UserAgent, len(got.Addresses))
	}
	// The same clients again are nothing new, but on another day.
	k.use(apikey.CodeValid, 5, &apikey.CheckRequest{Addr: netip.MustParseAddr("10.0.0.1")})
	flushed(t, m)
	if got := s.take("api_key_1"); got.Addresses != nil || got.IP != "10.0.0.1" || got.UserAgent != "" {
		t.Errorf("%+v", got)
	}
	k.use(apikey.CodeValid, 24*3600*1000, &apikey.CheckRequest{Addr: netip.MustParseAddr("10.0.0.1")})
	flushed(t, m)
	if got := s.take("api_key_1"); len(got.Addresses) != 8 {
		t.Errorf("%+v", got)
	}
	m.RefusePrevious(apikey.Actor{Kind: apikey.ActorKey, ID: "api_key_1"}, &apikey.CheckRequest{}, recordNoon)
	m.RefusePrevious(apikey.Actor{Kind: apikey.ActorKey, ID: "api_key_2"}, &apikey.CheckRequest{}, recordNoon) // not in memory
	flushed(t, m)
	if got := s.take("api_key_1"); got.Refused != 1 || got.Refusals[0].Code != apikey.CodePreviousSecret {
		t.Errorf("%+v", got)
	}
}

// Of a key the newest are kept, in their order, and all are counted; while storage is
// away, too.
func TestRefusalsOfOneKey(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 99, 100, 101, 250, 1234} {
		s := new(recordStore)
		m := New(Config{Usage: s})
		k := usesOf(m, "org_a", "api_key_1")
		for i := range n {
			k.use(apikey.CodeRevoked, i, &apikey.CheckRequest{})
			if i%40 == 39 {
				s.away = true
				if err := m.Flush(t.Context()); err == nil {
					t.Fatal("it is away")
				}
				s.away = false
			}
		}
		flushed(t, m)
		got := s.take("api_key_1")
		if len(got.Refusals) != min(n, apikey.MaxRefusals) || got.Refused != int64(n) {
			t.Fatalf("%d of %d are kept, %d counted", len(got.Refusals), n, got.Refused)
		}
		for i := range got.Refusals {
			if want := recordNoon.Add(time.Duration(n-len(got.Refusals)+i) * time.Millisecond); !got.Refusals[i].At.Equal(want) {
				t.Fatalf("refusal %d of %d is of %v, want %v", i, n, got.Refusals[i].At, want)
			}
		}
		if m.registry.refusals.held != 0 || len(m.registry.refusals.organizations) != 0 {
			t.Error("something stays in memory")
		}
	}
}

// A flood of one organization keeps to its bound and takes nothing of what others have;
// many organizations share the room.
func TestRefusalsUnderAFlood(t *testing.T) {
	t.Parallel()
	s := new(recordStore)
	m := New(Config{Usage: s})
	quiet := usesOf(m, "org_quiet", "api_key_quiet")
	for i := range 50 {
		quiet.use(apikey.CodeRevoked, i, &apikey.CheckRequest{})
	}
	check := func() {
		t.Helper()
		r := &m.registry.refusals
		held, queued := 0, 0
		for _, o := range r.organizations {
			queued += len(o.queue)
			for _, k := range o.keys {
				held += len(k.records)
			}
		}
		if held != r.held || queued != r.held || held > maxHeld {
			t.Fatalf("%d are held, %d queued, %d noted", held, queued, r.held)
		}
	}
	for i := range 300 {
		k := usesOf(m, "org_loud", fmt.Sprintf("api_key_loud_%d", i))
		for j := range 40 {
			k.use(apikey.CodeRevoked, j, &apikey.CheckRequest{})
		}
		check()
	}
	for i := range 3000 {
		usesOf(m, fmt.Sprintf("org_%d", i), fmt.Sprintf("api_key_%d", i)).use(apikey.CodeRevoked, 0, &apikey.CheckRequest{})
	}
	check()
	flushed(t, m)
	kept := make(map[string]int)
	total := int64(0)
	for _, c := range s.counts {
		kept[c.OrganizationID] += len(c.Refusals)
		total += c.Refused
	}
	// The share of the quiet one is its 50 as long as there are few organizations.
	stored := 0
	for _, n := range kept {
		stored += n
	}
	if dropped := m.Stats().RefusalsDropped; dropped == 0 || int64(dropped)+int64(stored) != total {
		t.Errorf("%d dropped and %d stored of %d", dropped, stored, total)
	}
	if len(kept) < 3001 || kept["org_quiet"] < 1 || kept["org_loud"] > maxHeld || total != 50+300*40+3000 {
		t.Errorf("%d organizations, %d of the quiet one, %d of the loud one, %d counted", len(kept), kept["org_quiet"], kept["org_loud"], total)
	}

	s = new(recordStore)
	few := New(Config{Usage: s})
	quiet = usesOf(few, "org_quiet", "api_key_quiet")
	for i := range 50 {
		quiet.use(apikey.CodeRevoked, i, &apikey.CheckRequest{})
	}
	for i := range 300 {
		k := usesOf(few, "org_loud", fmt.Sprintf("api_key_loud_%d", i))
		for j := range 40 {
			k.use(apikey.CodeRevoked, j, &apikey.CheckRequest{})
		}
	}
	flushed(t, few)
	if got := s.take("api_key_quiet"); len(got.Refusals) != 50 {
		t.Errorf("the loud one pushed out all but %d", len(got.Refusals))
	}
}
