package measure

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// Bounds are the upper bounds of the buckets that a histogram shows, ascending. What
// is longer than the last is in the count alone.
var Bounds = []time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// The exponential buckets that a histogram shows besides. Bucket i holds the times of
// 2^((i-1)/8) seconds, exclusive, to 2^(i/8), inclusive, which is Prometheus's schema
// 3: a bucket is 9 % wide. Times up to ZeroThreshold, about a microsecond, are
// counted apart, and times beyond the last bucket, of two minutes, in the last.
const (
	Schema        = 3
	ZeroThreshold = 1.0 / (1 << 20) // seconds
	firstIndex    = -20<<Schema + 1
	lastIndex     = 7 << Schema
)

// cells is the common refinement of both kinds of buckets, so that one addition
// counts for both and they always agree.
var cells = newCellTable()

// cellTable tells of each cell where it ends, in nanoseconds, and in which buckets it
// lies. The last cell has no end.
type cellTable struct {
	ends   []int64
	bound  []int // the index of the first of Bounds that is not less; len(Bounds) for none
	native []int // the index of the exponential bucket; firstIndex-1 for the times up to ZeroThreshold
}

func newCellTable() cellTable {
	var t cellTable
	var exponential []int64
	for i := firstIndex - 1; i < lastIndex; i++ {
		exponential = append(exponential, int64(math.Exp2(float64(i)/(1<<Schema))*float64(time.Second)))
	}
	t.ends = slices.Clone(exponential)
	for _, b := range Bounds {
		t.ends = append(t.ends, int64(b))
	}
	slices.Sort(t.ends)
	t.ends = slices.Compact(t.ends)
	for _, end := range append(slices.Clone(t.ends), math.MaxInt64) {
		bound, _ := slices.BinarySearch(Bounds, time.Duration(end))
		native, _ := slices.BinarySearch(exponential, end)
		t.bound = append(t.bound, bound)
		t.native = append(t.native, firstIndex-1+native)
	}
	return t
}

// Histogram is a distribution of times. Its methods are safe for concurrent use.
type Histogram struct {
	counts []atomic.Uint64 // by cell
	sum    atomic.Int64    // in nanoseconds
}

// NewHistogram returns an empty Histogram.
func NewHistogram() *Histogram {
	return &Histogram{counts: make([]atomic.Uint64, len(cells.ends)+1)}
}

// Observe counts a time, as n times of that length. A negative time counts as none.
func (h *Histogram) Observe(d time.Duration, n uint64) {
	d = max(d, 0)
	cell, _ := slices.BinarySearch(cells.ends, int64(d))
	h.counts[cell].Add(n)
	h.sum.Add(int64(d) * int64(n))
}

// Snapshot is what a Histogram has counted.
type Snapshot struct {
	Count uint64
	Sum   time.Duration
	// Buckets holds how many times were at most as long as each of Bounds.
	Buckets []uint64
	// Zero is how many were at most ZeroThreshold, and Native how many there were of
	// each exponential bucket that is not empty.
	Zero   uint64
	Native map[int]uint64
}

// Snapshot returns what was counted. Count is always the sum of the buckets, while Sum
// may miss, or be ahead by, what is observed at the same time.
func (h *Histogram) Snapshot() Snapshot {
	s := Snapshot{Sum: time.Duration(h.sum.Load()), Buckets: make([]uint64, len(Bounds)), Native: make(map[int]uint64)}
	for i := range h.counts {
		n := h.counts[i].Load()
		if n == 0 {
			continue
		}
		s.Count += n
		if b := cells.bound[i]; b < len(Bounds) {
			s.Buckets[b] += n
		}
		if native := cells.native[i]; native < firstIndex {
			s.Zero += n
		} else {
			s.Native[native] += n
		}
	}
	for i := 1; i < len(s.Buckets); i++ {
		s.Buckets[i] += s.Buckets[i-1]
	}
	return s
}
