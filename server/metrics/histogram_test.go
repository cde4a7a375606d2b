package metrics

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/apikeys-dev/apikeys/server/measure"
)

// A histogram is gathered with both kinds of buckets, as the library's own would be.
func TestHistogram(t *testing.T) {
	t.Parallel()
	of := measure.NewHistogram()
	own := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "test_seconds", Help: "A test.", Buckets: bounds(), NativeHistogramBucketFactor: 1.1,
		NativeHistogramZeroThreshold: measure.ZeroThreshold,
	})
	for _, d := range []time.Duration{0, 500, 5 * time.Microsecond, 5 * time.Microsecond, 30 * time.Microsecond, time.Millisecond, 7 * time.Millisecond, 3 * time.Second, 20 * time.Second} {
		of.Observe(d, 1)
		own.Observe(d.Seconds())
	}
	want, got := gather(t, own), gather(t, &timing{desc("test_seconds", "A test."), of})
	want.CreatedTimestamp = nil
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Error(diff)
	}
}

// One that is empty is a native histogram too.
func TestEmptyHistogram(t *testing.T) {
	t.Parallel()
	got := gather(t, &timing{desc("test_seconds", "A test."), measure.NewHistogram()})
	if got.GetSampleCount() != 0 || len(got.GetPositiveSpan()) != 1 || len(got.GetBucket()) != len(measure.Bounds) {
		t.Errorf("got %v", got)
	}
}

func bounds() (seconds []float64) {
	for _, b := range measure.Bounds {
		seconds = append(seconds, b.Seconds())
	}
	return seconds
}

func gather(t *testing.T, c prometheus.Collector) *dto.Histogram {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetHistogram()
}
