package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/server/measure"
)

// desc describes a metric.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// timing shows a histogram as a metric of its own.
type timing struct {
	desc *prometheus.Desc
	of   *measure.Histogram
}

var _ prometheus.Collector = (*timing)(nil)

// Describe describes the metric.
func (t *timing) Describe(to chan<- *prometheus.Desc) { to <- t.desc }

// Collect shows the histogram as it is.
func (t *timing) Collect(to chan<- prometheus.Metric) { to <- newHistogram(t.desc, t.of.Snapshot()) }

// histogram is a snapshot as a metric, with the fixed buckets and the exponential ones
// of a native histogram: the library makes constants of either kind, not of both.
type histogram struct {
	desc     *prometheus.Desc
	snapshot measure.Snapshot
	labels   []*dto.LabelPair
}

var _ prometheus.Metric = (*histogram)(nil)

func newHistogram(d *prometheus.Desc, s measure.Snapshot, values ...string) *histogram {
	return &histogram{d, s, prometheus.MakeLabelPairs(d, values)}
}

// Desc returns the description.
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// Write writes the metric.
func (h *histogram) Write(to *dto.Metric) error {
	s := &h.snapshot
	out := &dto.Histogram{
		SampleCount:   proto.Uint64(s.Count),
		SampleSum:     proto.Float64(s.Sum.Seconds()),
		Schema:        proto.Int32(measure.Schema),
		ZeroThreshold: proto.Float64(measure.ZeroThreshold),
		ZeroCount:     proto.Uint64(s.Zero),
	}
	for i, n := range s.Buckets {
		out.Bucket = append(out.Bucket, &dto.Bucket{
			UpperBound: proto.Float64(measure.Bounds[i].Seconds()), CumulativeCount: proto.Uint64(n),
		})
	}
	indices := make([]int, 0, len(s.Native))
	for i := range s.Native {
		indices = append(indices, i)
	}
	slices.Sort(indices)
	// Runs of neighbours are spans, each with how far it is from the end of the one
	// before; the counts are the differences from one to the next.
	next, last := 0, int64(0)
	for _, i := range indices {
		if len(out.PositiveSpan) == 0 || i != next {
			out.PositiveSpan = append(out.PositiveSpan, &dto.BucketSpan{Offset: proto.Int32(int32(i - next)), Length: proto.Uint32(0)})
		}
		span := out.PositiveSpan[len(out.PositiveSpan)-1]
		span.Length = proto.Uint32(span.GetLength() + 1)
		n := int64(s.Native[i])
		out.PositiveDelta = append(out.PositiveDelta, n-last)
		next, last = i+1, n
	}
	if len(out.PositiveSpan) == 0 && s.Zero == 0 {
		// An empty span tells a native histogram from one that is none.
		out.PositiveSpan = []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(0)}}
	}
	to.Histogram, to.Label = out, h.labels
	return nil
}
