package store_test

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkMemory tells what a process holds after a collection that has stored
// many keys and uses a tenth of them.
func BenchmarkMemory(b *testing.B) {
	stored := storedKeys(b)
	for b.Loop() {
		runtime.GC()
		before := heap()
		s := newStand(b, stored, stored/10)
		if err := s.meter.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		debug.FreeOSMemory()
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB-heap")
		b.ReportMetric(resident(b)/(1<<20), "MiB-resident")
		runtime.KeepAlive(s)
	}
}

// BenchmarkMemoryFlood tells what a process holds more after a flood of well-formed
// secrets that nobody has, each another, and 1,000 keys in use between them.
func BenchmarkMemoryFlood(b *testing.B) {
	n := sizeOf(b, floodEnv, 100_000)
	s := newStand(b, 1000, 1000)
	flood := func(n int) time.Duration {
		took := together(b, callers, n, func(i int) {
			secret, _ := newSecret(b)
			s.notFound(b, secret.Reveal())
			if i%100 == 0 {
				s.valid(b, i)
			}
		})
		if err := s.meter.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		return took
	}
	flood(20_000) // so that connections and pools have what they will have
	for b.Loop() {
		before := heap()
		took := flood(n)
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB-more")
		b.ReportMetric(float64(n)/took.Seconds(), "unknown/s")
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// resident returns how many bytes of the process are in memory, as far as the
// system says.
func resident(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	pages, err := strconv.ParseFloat(fields[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * float64(os.Getpagesize())
}
