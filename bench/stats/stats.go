// Package stats turns trials into figures that can be stood behind: medians,
// ratios of paired trials with a bootstrap interval, the order in which
// contenders take turns, and the rules by which a trial is thrown out.
//
// It is pure arithmetic: no clock, no I/O, no global random source. Equal input
// gives equal output, so that a report can be recomputed from its raw values.
// All functions may be called concurrently; none keeps or changes its arguments.
package stats

import (
	"math"
	"math/rand/v2"
	"slices"
)

const (
	// MinPairs is the fewest pairs a ratio is computed from. The interval that
	// a bootstrap draws from fewer is narrower than it says: of five it covers
	// the true median in no more than 94 %, of three in 75 %.
	MinPairs = 6
	// MaxWidth is the widest 95 % interval, as a share of the median, at which
	// a ratio is still printed.
	MaxWidth = 0.15
	// resamples is the number of bootstrap draws: the 2.5 % and 97.5 % points
	// then rest on 50 draws each.
	resamples = 2000
)

// Quantile is the q-th quantile (0 ≤ q ≤ 1) of xs by linear interpolation
// between order statistics. It is NaN for no values.
func Quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Clone(xs)
	slices.Sort(s)
	return sorted(s, q)
}

func sorted(s []float64, q float64) float64 {
	at := q * float64(len(s)-1)
	i := int(at)
	if i >= len(s)-1 {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

// Median is the middle value, or the mean of the two middle ones; NaN for no
// values.
func Median(xs []float64) float64 { return Quantile(xs, 0.5) }

// Interval is the 95 % percentile bootstrap interval of the median of xs, from
// draws that seed alone decides. NaN, NaN for no values.
func Interval(xs []float64, seed uint64) (low, high float64) {
	if len(xs) == 0 {
		return math.NaN(), math.NaN()
	}
	rng := rand.New(rand.NewPCG(seed, 0x6b767377))
	draw := make([]float64, len(xs))
	medians := make([]float64, resamples)
	for i := range medians {
		for j := range draw {
			draw[j] = xs[rng.IntN(len(xs))]
		}
		slices.Sort(draw)
		medians[i] = sorted(draw, 0.5)
	}
	slices.Sort(medians)
	return sorted(medians, 0.025), sorted(medians, 0.975)
}

// Ratio compares a contender with the reference over trials made in the same
// rounds.
type Ratio struct {
	Median float64 // contender / reference
	Low    float64 // 95 % interval
	High   float64
	Pairs  int // rounds in which both trials counted
}

// Paired is the ratio of value[i] to reference[i], pair by pair. A NaN on
// either side, or a reference that is not positive, drops the pair: that is how
// a rejected trial is written. A contender whose median is nothing is in no ratio
// to any reference: no pairs.
func Paired(value, reference []float64, seed uint64) Ratio {
	var rs []float64
	for i := range min(len(value), len(reference)) {
		r := value[i] / reference[i]
		if reference[i] > 0 && !math.IsNaN(r) && !math.IsInf(r, 0) {
			rs = append(rs, r)
		}
	}
	if Median(rs) == 0 {
		return Ratio{}
	}
	low, high := Interval(rs, seed)
	return Ratio{Median: Median(rs), Low: low, High: high, Pairs: len(rs)}
}

// Noisy reports a ratio that must not be printed: too few pairs, or an interval
// wider than MaxWidth of the median, as every one of nothing is.
func (r Ratio) Noisy() bool {
	return r.Pairs < MinPairs || !(r.Median > 0 && r.High-r.Low <= MaxWidth*r.Median)
}

// Order is the turn order of n contenders in one round: forward in even rounds,
// backward in odd ones. Two rounds of two contenders are A B B A; whatever
// drifts steadily over the two rounds cancels out of the pair of ratios.
func Order(n, round int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}
