package measure

import (
	"math"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCounters(t *testing.T) {
	t.Parallel()
	c := NewCounters(3)
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for range 100 {
				c.Add(1, 2, uint32(i))
			}
		})
	}
	all.Wait()
	for i, want := range []uint64{0, 64 * 100 * 2, 0} {
		if got := c.Value(i); got != want {
			t.Errorf("count %d is %d, want %d", i, got, want)
		}
	}
}

// Each time is in the buckets that the definitions of both kinds put it in.
func TestHistogramBuckets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(100*time.Second)).Draw(t, "d"))
		if rapid.Bool().Draw(t, "at a bound") {
			d = rapid.SampledFrom(Bounds).Draw(t, "bound") + time.Duration(rapid.IntRange(-1, 1).Draw(t, "off"))
		}
		h := NewHistogram()
		h.Observe(d, 3)
		s := h.Snapshot()
		if s.Count != 3 || s.Sum != 3*d {
			t.Fatalf("%v: count %d, sum %v", d, s.Count, s.Sum)
		}
		for i, b := range Bounds {
			want := uint64(0)
			if d <= b {
				want = 3
			}
			if s.Buckets[i] != want {
				t.Fatalf("%v: bucket %v has %d", d, b, s.Buckets[i])
			}
		}
		if d.Seconds() <= ZeroThreshold {
			if s.Zero != 3 || len(s.Native) != 0 {
				t.Fatalf("%v: %d in the zero bucket, %v", d, s.Zero, s.Native)
			}
			return
		}
		if s.Zero != 0 || len(s.Native) != 1 {
			t.Fatalf("%v: %d in the zero bucket, %v", d, s.Zero, s.Native)
		}
		for i, n := range s.Native {
			// A nanosecond is lost where a bound is no whole number of them.
			low, high := math.Exp2(float64(i-1)/8)-1e-9, math.Exp2(float64(i)/8)+1e-9
			if sec := d.Seconds(); n != 3 || sec < low || sec > high {
				t.Fatalf("%v: %d in bucket %d, %g to %g seconds", d, n, i, low, high)
			}
		}
	})
}

func TestHistogramEnds(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	h.Observe(-time.Second, 1)
	h.Observe(time.Hour, 1)
	s := h.Snapshot()
	if s.Count != 2 || s.Zero != 1 || s.Native[lastIndex] != 1 || s.Sum != time.Hour || s.Buckets[len(Bounds)-1] != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestNoAllocations(t *testing.T) {
	c, h := NewCounters(3), NewHistogram()
	if n := testing.AllocsPerRun(100, func() { c.Add(1, 1, 7); h.Observe(time.Millisecond, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	h := NewHistogram()
	b.ReportAllocs()
	for b.Loop() {
		h.Observe(123*time.Microsecond, 1)
	}
}
