package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var refusalTests = map[string]func(*testing.T, *fixture){
	"LastUse":            testLastUse,
	"AddressesOfServers": testAddressesOfServers,
	"Refusals":           testRefusals,
	"RefusalsNewest":     testRefusalsNewest,
	"RefusalsOfNoKey":    testRefusalsOfNoKey,
	"RefusalRetention":   testRefusalRetention,
	"RefusalsOver":       testRefusalsOver,
	"OrphanRefusals":     testOrphanRefusals,
}

// counted returns the day and the bytes of addresses.
func counted(c storeClock, addresses ...int) (int64, []byte) {
	var a apikey.Addresses
	day := apikey.AddressDay(c.Now())
	for _, n := range addresses {
		a.Add(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), day)
	}
	return day, a.Bytes()
}

// Of two uses the later one counts, whichever is stored first.
func testLastUse(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	now := f.clock.stored()
	for _, c := range []struct {
		at    time.Time
		ip    string
		agent string
		want  apikey.LastUse
	}{
		{now, "10.0.0.1", "one", apikey.LastUse{IP: "10.0.0.1", UserAgent: "one"}},
		{now.Add(-time.Second), "10.0.0.2", "two", apikey.LastUse{IP: "10.0.0.1", UserAgent: "one"}},
		{now.Add(time.Second), "", "three", apikey.LastUse{UserAgent: "three"}},
		{now.Add(time.Second), "", "", apikey.LastUse{UserAgent: "three"}}, // told by a server that only knows when
	} {
		f.addUsage(t, apikey.UsageCount{KeyID: k.ID, Count: 1, LastUsedAt: c.at, IP: c.ip, UserAgent: c.agent})
		got, err := f.Key(t.Context(), org, k.ID)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "last use", &c.want, got.LastUse)
	}
}

// What several servers count of the addresses of one key becomes one count.
func testAddressesOfServers(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	add := func(want int64, addresses ...int) {
		t.Helper()
		day, bytes := counted(f.clock, addresses...)
		f.addUsage(t, apikey.UsageCount{KeyID: k.ID, Count: 1, LastUsedAt: f.clock.stored(), Addresses: bytes, AddressDay: day})
		got, err := f.Key(t.Context(), org, k.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.LastUse == nil || got.LastUse.Addresses != want || got.LastUse.AddressDay != day {
			t.Errorf("%+v, want %d addresses on day %d", got.LastUse, want, day)
		}
	}
	add(2, 1, 2)
	add(3, 2, 3)
	add(3, 1, 2, 3)
	f.clock.Advance(24 * time.Hour)
	add(1, 3)
}

func (f *fixture) refusals(tb testing.TB, id, before string, limit int) (ids []string, page []apikey.RefusedUse, more bool, total int64) {
	tb.Helper()
	page, more, total, err := f.Refusals(tb.Context(), org, id, before, limit)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range page {
		ids = append(ids, page[i].ID)
	}
	return ids, page, more, total
}

func testRefusals(t *testing.T, f *fixture) {
	k, other := f.create(t, nil), f.create(t, nil)
	now := f.clock.stored()
	uses := []apikey.RefusedUse{
		{At: now, Code: apikey.CodeRevoked, Via: apikey.ViaVerification, IP: "10.0.0.1", UserAgent: "curl/8", Caller: apikey.Actor{Kind: apikey.ActorOperator, ID: "root", Name: "root"}},
		{At: now, Code: apikey.CodeExpired, Via: apikey.ViaAuthentication, Caller: apikey.Actor{Kind: apikey.ActorKey, ID: k.ID, Name: "A key"}},
		{At: now.Add(time.Microsecond), Code: apikey.CodeRateLimited, Via: apikey.ViaVerification, UserAgent: "ü"},
	}
	f.addUsage(t, apikey.UsageCount{KeyID: k.ID, Refused: 5, Refusals: uses}, apikey.UsageCount{KeyID: other.ID, Refused: 1, Refusals: uses[:1]})
	ids, page, more, total := f.refusals(t, k.ID, "", 10)
	if more || total != 5 || len(page) != 3 {
		t.Fatal(page, more, total)
	}
	for i := range page {
		if !apikey.IsID(apikey.RefusalIDPrefix, page[i].ID) {
			t.Errorf("id %q", page[i].ID)
		}
		page[i].ID = ""
	}
	want := slices.Clone(uses)
	slices.Reverse(want)
	wantSame(t, "refusals", want, page)

	// Page after page is the whole.
	for i, before := range append([]string{""}, ids...) {
		got, _, more, _ := f.refusals(t, k.ID, before, 1)
		if i == len(ids) && (len(got) > 0 || more) || i < len(ids) && (!slices.Equal(got, ids[i:i+1]) || more != (i < len(ids)-1)) {
			t.Errorf("after %q: %q, more %t", before, got, more)
		}
	}
	// Keys of others, and none, are one.
	for _, at := range []struct{ organization, id string }{{"org_other", k.ID}, {org, "api_key_none"}} {
		if _, _, _, err := f.Refusals(t.Context(), at.organization, at.id, "", 10); !errors.Is(err, apikey.ErrNotFound) {
			t.Error(at, err)
		}
	}
	// The record goes with its key.
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
		t.Fatal(err)
	}
	if n, err := f.CountRefusals(t.Context()); n != 1 || err != nil {
		t.Errorf("%d left, %v", n, err)
	}
	if _, _, _, err := f.Refusals(t.Context(), org, k.ID, "", 10); !errors.Is(err, apikey.ErrNotFound) {
		t.Error(err)
	}
}

// Whatever comes, in whatever parts and order: of each key the newest are kept, and
// all are counted.
func testRefusalsNewest(t *testing.T, f *fixture) {
	random := rand.New(rand.NewPCG(7, 8))
	begin := f.clock.stored()
	keys := []apikey.Key{f.create(t, nil), f.create(t, nil), f.create(t, nil)}
	times, totals := make([][]int, len(keys)), make([]int64, len(keys))
	next := 0
	for range 12 {
		var counts []apikey.UsageCount
		for i, k := range keys {
			n := random.IntN([]int{60, 10, apikey.MaxRefusals + 1}[i])
			c := apikey.UsageCount{KeyID: k.ID, Refused: int64(n + random.IntN(50))}
			for range n {
				// Servers store one after the other what came at the same time.
				next += random.IntN(5)
				at := next + random.IntN(2)*100
				times[i] = append(times[i], at)
				c.Refusals = append(c.Refusals, apikey.RefusedUse{At: begin.Add(time.Duration(at) * time.Millisecond), Code: apikey.CodeRevoked, Via: apikey.ViaVerification})
			}
			totals[i] += c.Refused
			counts = append(counts, c)
		}
		f.addUsage(t, counts...)
		for i, k := range keys {
			slices.Sort(times[i])
			want := times[i][max(len(times[i])-apikey.MaxRefusals, 0):]
			_, page, more, total := f.refusals(t, k.ID, "", 1000)
			var got []int
			for j := range page {
				got = append(got, int(page[j].At.Sub(begin).Milliseconds()))
			}
			slices.Reverse(got)
			if more || total != totals[i] || !slices.Equal(got, want) {
				t.Fatalf("key %d: %d of %d (more %t), %v, want %v", i, total, totals[i], more, got, want)
			}
		}
	}
}

// Of a key that was deleted after its last refusal nothing is kept.
func testRefusalsOfNoKey(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	use := []apikey.RefusedUse{{At: f.clock.stored(), Code: apikey.CodeRevoked, Via: apikey.ViaVerification}}
	f.addUsage(t,
		apikey.UsageCount{KeyID: "api_key_gone", Refused: 1, Refusals: use, Addresses: make([]byte, 8), LastUsedAt: f.clock.stored()},
		apikey.UsageCount{KeyID: k.ID, Refusals: use})
	if n, err := f.CountRefusals(t.Context()); n != 1 || err != nil {
		t.Errorf("%d are kept, %v", n, err)
	}
	// A count can come a second after its refusal.
	if _, page, _, total := f.refusals(t, k.ID, "", 10); len(page) != 1 || total != 0 {
		t.Error(page, total)
	}
	got, err := f.Key(t.Context(), org, k.ID)
	if err != nil || got.LastUse != nil || !got.Usage.LastUsedAt.IsZero() {
		t.Errorf("a refusal is a use: %+v, %v", got, err)
	}
}

func testRefusalRetention(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	begin := f.clock.stored()
	for i := range 6 {
		f.addUsage(t, apikey.UsageCount{KeyID: k.ID, Refused: 1, Refusals: []apikey.RefusedUse{
			{At: begin.Add(time.Duration(i) * time.Hour), Code: apikey.CodeRevoked, Via: apikey.ViaVerification},
		}})
	}
	for _, c := range []struct {
		before time.Duration
		limit  int
		want   int
	}{{0, 10, 0}, {3 * time.Hour, 2, 2}, {3 * time.Hour, 2, 1}, {3 * time.Hour, 2, 0}, {100 * time.Hour, 10, 3}} {
		if n, err := f.DeleteRefusalsBefore(t.Context(), begin.Add(c.before).Truncate(time.Millisecond), c.limit); n != c.want || err != nil {
			t.Errorf("before %v: deleted %d, %v, want %d", c.before, n, err, c.want)
		}
	}
	// They stay counted.
	if _, page, _, total := f.refusals(t, k.ID, "", 10); len(page) != 0 || total != 6 {
		t.Error(page, total)
	}
}

// Of all keys together the oldest go first.
func testRefusalsOver(t *testing.T, f *fixture) {
	keys := []apikey.Key{f.create(t, nil), f.create(t, nil)}
	begin := f.clock.stored()
	for i := range 20 {
		f.addUsage(t, apikey.UsageCount{KeyID: keys[i%2].ID, Refused: 1, Refusals: []apikey.RefusedUse{
			{At: begin.Add(time.Duration(i) * time.Second), Code: apikey.CodeRevoked, Via: apikey.ViaVerification, UserAgent: fmt.Sprint(i)},
		}})
	}
	for _, c := range []struct{ most, limit, want int }{{20, 10, 0}, {13, 5, 5}, {13, 5, 2}, {13, 5, 0}} {
		if n, err := f.DeleteRefusalsOver(t.Context(), c.most, c.limit); n != c.want || err != nil {
			t.Errorf("over %d: deleted %d, %v, want %d", c.most, n, err, c.want)
		}
	}
	if _, page, _, _ := f.refusals(t, keys[0].ID, "", 100); len(page) != 6 || page[5].UserAgent != "8" {
		t.Error(page)
	}
}

// TestRefusalPlans looks at the list of refusals and at what bounds them.
func TestRefusalPlans(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, c store.Config) {
		var first apikey.Key
		checkPlans(t, c, []string{"api_key_refusals", "api_keys"}, func(f *fixture) {
			for i := range 150 {
				k := f.create(t, nil)
				if i == 0 {
					first = k
				}
				count := apikey.UsageCount{KeyID: k.ID, Refused: 100}
				for j := range 100 {
					count.Refusals = append(count.Refusals, apikey.RefusedUse{
						At: f.clock.Now().Add(time.Duration(i*100+j) * time.Second), Code: apikey.CodeRevoked, Via: apikey.ViaVerification,
					})
				}
				f.addUsage(t, count)
			}
		}, func(f *fixture) map[string]plannedRead {
			const record, all = "INDEX apikeyrefusal_key_id_id (key_id=?", "sqlite_autoindex_api_key_refusals_1 (id<?)"
			return map[string]plannedRead{
				"list": {func() error {
					_, _, _, err := f.Refusals(t.Context(), org, first.ID, apikey.RefusalIDPrefix+"f", 10)
					return err
				}, []string{record + " AND id<?)", "api_key_refusal_totals USING INDEX sqlite_autoindex_api_key_refusal_totals_1 (id=?)"},
					[]string{"apikeyrefusal_key_id_id"}},
				"retention": {func() error {
					_, err := f.DeleteRefusalsBefore(t.Context(), f.clock.Now().Add(10*time.Second), 5)
					return err
				}, []string{all}, []string{"api_key_refusals_pkey"}},
			}
		})
	})
}

// What a flush leaves of a key that was deleted meanwhile is deleted, and nothing else.
func testOrphanRefusals(t *testing.T, f *fixture) {
	refused := func(id string) {
		t.Helper()
		f.addUsage(t, apikey.UsageCount{KeyID: id, Refused: 1, Refusals: []apikey.RefusedUse{{At: f.clock.stored(), Code: apikey.CodeRevoked, Via: apikey.ViaVerification}}})
	}
	kept, gone := f.create(t, nil), f.create(t, nil)
	refused(kept.ID)
	refused(gone.ID)
	// As if the key had been deleted behind the look of the flush.
	if err := f.ExecOnWriter(t.Context(), "DELETE FROM api_keys WHERE id = '"+gone.ID+"'"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		if n, err := f.DeleteOrphanRefusals(t.Context(), 10); err != nil || n != want {
			t.Errorf("%d deleted, %v; want %d", n, err, want)
		}
	}
	if n, err := f.CountRefusals(t.Context()); err != nil || n != 1 {
		t.Errorf("%d left, %v", n, err)
	}
	if _, page, _, total := f.refusals(t, kept.ID, "", 10); len(page) != 1 || total != 1 {
		t.Errorf("%d of %d of the key that is there", len(page), total)
	}
}
