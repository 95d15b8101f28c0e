package report

import (
	"hash/fnv"
	"math"
	"slices"

	"github.com/kvswitch/kvswitch/bench/stats"
)

// Why a ratio is not to be quoted.
const (
	tooFew   = "too few rounds"
	tooNoisy = "too noisy"
	faulty   = "faulty"
)

// Summarise computes medians and ratios from the values, and judges the aims. It
// may be called again after more were added.
func (r *Report) Summarise() {
	for i := range r.Series {
		s := &r.Series[i]
		xs := values(s.Values)
		s.Median, s.Low, s.High = 0, 0, 0
		if len(xs) > 0 {
			s.Median, s.Low, s.High = stats.Median(xs), slices.Min(xs), slices.Max(xs)
		}
	}
	for i := range r.Series {
		s := &r.Series[i]
		s.Ratio = nil
		if ref := r.reference(s); ref != nil && s.Contender != r.Refer {
			s.Ratio = r.paired(s, ref)
		}
	}
	r.Aims = r.judge()
}

func values(vs []Value) []float64 {
	xs := make([]float64, len(vs))
	for i, v := range vs {
		xs[i] = v.Value
	}
	return xs
}

// reference is the reference's series for the same metric and case.
func (r *Report) reference(s *Series) *Series {
	for i := range r.Series {
		if o := &r.Series[i]; o.Contender == r.Refer && o.Metric == s.Metric && o.Case == s.Case {
			return o
		}
	}
	return nil
}

func spread(vs []Value, last int) []float64 {
	xs := make([]float64, last+1)
	for i := range xs {
		xs[i] = math.NaN()
	}
	for _, v := range vs {
		xs[v.Round] = v.Value
	}
	return xs
}

// seed makes the bootstrap of a series repeatable without being the same for
// all.
func seed(s *Series) uint64 {
	h := fnv.New64a()
	for _, part := range []string{s.Test, s.Name, s.Contender, s.Case.String()} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return h.Sum64()
}
