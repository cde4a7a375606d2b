package apikey

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"time"
)

// Addresses counts the different addresses that a key was used from on one day, in
// 256 bytes at most: exactly while they are few, and then by a HyperLogLog, whose
// estimate has a standard error of 6.5 %. Two of one day can be merged, so that several
// servers count together. The zero Addresses has counted none.
//
// Hashes are not keyed, since two servers have to agree on them: whoever can choose
// addresses at will can make the estimate wrong.
type Addresses struct {
	day   int64 // since 1970
	count int64
	// few are the hashes of the addresses, while they are maxFew at most; ranks are the
	// registers of the HyperLogLog after that.
	few   []uint64
	ranks []byte
}

const (
	maxFew    = 16
	registers = 256

	secondsADay = int64(24 * time.Hour / time.Second)
)

// AddressDay returns the day of t, counted from 1970, in UTC.
func AddressDay(t time.Time) int64 { return t.Unix() / secondsADay }

// Add counts an address that was used on a day, and reports whether it may have been a
// new one. A later day begins anew; an earlier one is over, and is not counted.
func (a *Addresses) Add(addr netip.Addr, day int64) (changed bool) {
	switch {
	case day < a.day:
		return false
	case day > a.day:
		*a = Addresses{day: day, few: a.few[:0]}
	}
	return a.add(hashAddr(addr))
}

// Day returns the day that is counted, from 1970 on.
func (a *Addresses) Day() int64 { return a.day }

// Count returns how many addresses there were.
func (a *Addresses) Count() int64 { return a.count }

func (a *Addresses) add(hash uint64) (changed bool) {
	if a.ranks == nil {
		for _, h := range a.few {
			if h == hash {
				return false
			}
		}
		if len(a.few) < maxFew {
			a.few = append(a.few, hash)
			a.count = int64(len(a.few))
			return true
		}
		a.ranks = make([]byte, registers)
		for _, h := range a.few {
			a.register(h)
		}
		a.few = nil
	}
	if !a.register(hash) {
		return false
	}
	a.estimate()
	return true
}

// register notes a hash in its register: how many zeros follow the bits that choose
// the register, and one.
func (a *Addresses) register(hash uint64) (changed bool) {
	const index = 8 // bits, of registers
	i, rank := hash>>(64-index), byte(min(bits.LeadingZeros64(hash<<index), 64-index)+1)
	if rank <= a.ranks[i] {
		return false
	}
	a.ranks[i] = rank
	return true
}

// estimate sets the count by the registers: the harmonic mean of what they say or,
// while many of them are empty, how many are.
func (a *Addresses) estimate() {
	sum, empty := 0.0, 0
	for _, rank := range a.ranks {
		sum += 1 / float64(uint64(1)<<rank)
		if rank == 0 {
			empty++
		}
	}
	const alpha = 0.7213 / (1 + 1.079/registers)
	n := alpha * registers * registers / sum
	if empty > 0 && n <= 2.5*registers {
		n = registers * math.Log(registers/float64(empty))
	}
	a.count = max(int64(math.Round(n)), a.count, maxFew+1)
}

// Bytes returns what was counted, for [Addresses.Merge].
func (a *Addresses) Bytes() []byte {
	if a.ranks != nil {
		return append([]byte(nil), a.ranks...)
	}
	b := make([]byte, 0, 8*len(a.few))
	for _, h := range a.few {
		b = binary.BigEndian.AppendUint64(b, h)
	}
	return b
}

// Merge adds what was counted on a day by another, as its Bytes. Of two days the later
// one counts. What is not of that form is passed over.
func (a *Addresses) Merge(day int64, counted []byte) {
	switch {
	case day < a.day:
		return
	case day > a.day:
		*a = Addresses{day: day}
	}
	switch {
	case len(counted) == registers:
		if a.ranks == nil {
			few := a.few
			a.ranks, a.few = make([]byte, registers), nil
			for _, h := range few {
				a.register(h)
			}
		}
		const most = 64 - 8 + 1
		for i, rank := range counted {
			a.ranks[i] = max(a.ranks[i], min(rank, most))
		}
		a.estimate()
	case len(counted)%8 == 0 && len(counted) <= 8*maxFew:
		for ; len(counted) > 0; counted = counted[8:] {
			a.add(binary.BigEndian.Uint64(counted))
		}
	}
}

// hashAddr returns a hash of an address, of which every bit depends on every bit of it.
// An IPv4 address and its form as an IPv6 address are one.
func hashAddr(addr netip.Addr) uint64 {
	b := addr.As16()
	return mix(binary.LittleEndian.Uint64(b[8:]) ^ mix(binary.LittleEndian.Uint64(b[:8])+0x9e3779b97f4a7c15))
}

// mix is the finalizer of MurmurHash3.
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
