package apikey

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func addrOf(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	var a Addresses
	for round := range 3 {
		for n := range uint32(maxFew) {
			if changed := a.Add(addrOf(n), 7); changed != (round == 0) {
				t.Fatalf("round %d: address %d changes: %t", round, n, changed)
			}
		}
	}
	if a.Count() != maxFew || a.Day() != 7 {
		t.Errorf("%d addresses on day %d", a.Count(), a.Day())
	}
	if a.Add(netip.MustParseAddr("::ffff:0.0.0.1"), 7) {
		t.Error("an address in another form is counted again")
	}
	if a.Add(addrOf(99), 6) || a.Count() != maxFew {
		t.Error("a day that is over is counted")
	}
	for n := range uint32(1000) {
		a.Add(addrOf(n), 7)
	}
	if size := len(a.Bytes()); size != registers {
		t.Errorf("%d bytes", size)
	}
	if a.Add(addrOf(1), 8); a.Count() != 1 || len(a.Bytes()) != 8 {
		t.Errorf("the next day begins with %d addresses", a.Count())
	}
	if day := AddressDay(time.Date(1970, 1, 3, 23, 59, 59, 0, time.UTC)); day != 2 {
		t.Error(day)
	}
}

// The estimate is within 15 % nearly always, whatever the addresses are like, and never
// goes down while more come.
func TestAddressesEstimate(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for name, next := range map[string]func(i int) netip.Addr{
		"a network": func(i int) netip.Addr { return addrOf(0x0a000000 + uint32(i)) },
		"anywhere":  func(int) netip.Addr { return addrOf(random.Uint32()) },
		"IPv6": func(i int) netip.Addr {
			b := [16]byte{0x20, 1, 0xd, 0xb8, 7: byte(i), 8: byte(i >> 8), 15: byte(i >> 16)}
			return netip.AddrFrom16(b)
		},
	} {
		var a Addresses
		last, worst := int64(0), 0.0
		for i := range 50_000 {
			a.Add(next(i), 1)
			if a.Count() < last {
				t.Fatalf("%s: %d after %d", name, a.Count(), last)
			}
			last = a.Count()
			worst = max(worst, math.Abs(float64(a.Count())/float64(i+1)-1))
		}
		if worst > 0.2 {
			t.Errorf("%s: %.0f %% off", name, worst*100)
		}
	}
}

// However addresses are divided among servers, merging gives what one server counts.
func TestAddressesMerge(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 5, 16, 17, 30, 300, 3000} {
		var whole Addresses
		parts := make([]Addresses, 3)
		for range n {
			addr := addrOf(random.Uint32())
			whole.Add(addr, 1)
			parts[random.IntN(3)].Add(addr, 1)
		}
		var merged Addresses
		for _, p := range parts {
			merged.Merge(p.Day(), p.Bytes())
			merged.Merge(p.Day(), p.Bytes())
		}
		if merged.Count() != whole.Count() {
			t.Errorf("%d addresses: merged %d, at once %d", n, merged.Count(), whole.Count())
		}
	}
	var a Addresses
	a.Add(addrOf(1), 5)
	a.Merge(4, make([]byte, registers))
	a.Merge(5, make([]byte, 13))
	if a.Count() != 1 {
		t.Error(a.Count())
	}
	if a.Merge(6, nil); a.Count() != 0 || a.Day() != 6 {
		t.Error(a.Count(), a.Day())
	}
}

func FuzzAddressesMerge(f *testing.F) {
	f.Add(int64(1), make([]byte, registers))
	f.Add(int64(2), []byte("12345678"))
	f.Fuzz(func(t *testing.T, day int64, counted []byte) {
		var a Addresses
		a.Add(addrOf(1), 1)
		a.Merge(day, counted)
		a.Add(addrOf(2), a.Day())
		if len(a.Bytes()) > registers || a.Count() < 0 {
			t.Error(a.Count(), len(a.Bytes()))
		}
		again := Addresses{}
		if again.Merge(a.Day(), a.Bytes()); a.Day() >= 0 && len(again.Bytes()) != len(a.Bytes()) {
			t.Error("what was counted is lost")
		}
	})
}
