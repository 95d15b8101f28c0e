package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestMedianAndQuantileOfKnownValues(t *testing.T) {
	for _, tc := range []struct {
		xs   []float64
		q    float64
		want float64
	}{
		{[]float64{7}, 0.5, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{10, 20, 30, 40, 50}, 0.25, 20},
		{[]float64{10, 20, 30, 40, 50}, 0.9, 46},
		{[]float64{10, 20}, 0, 10},
		{[]float64{10, 20}, 1, 20},
	} {
		before := slices.Clone(tc.xs)
		if got := Quantile(tc.xs, tc.q); math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("Quantile(%v, %v) = %v, want %v", tc.xs, tc.q, got, tc.want)
		}
		if !slices.Equal(before, tc.xs) {
			t.Errorf("Quantile changed its argument to %v", tc.xs)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("Median of nothing must be NaN, not a figure")
	}
}

func TestIntervalOfConstantIsThatConstant(t *testing.T) {
	low, high := Interval([]float64{2, 2, 2, 2}, 1)
	if low != 2 || high != 2 {
		t.Errorf("Interval = %v..%v, want 2..2", low, high)
	}
}

func TestIntervalDependsOnlyOnValuesAndSeed(t *testing.T) {
	xs := []float64{1.1, 1.4, 0.9, 1.2, 1.3, 1.0, 1.25}
	l1, h1 := Interval(xs, 42)
	l2, h2 := Interval(xs, 42)
	if l1 != l2 || h1 != h2 {
		t.Errorf("same seed gave %v..%v and %v..%v", l1, h1, l2, h2)
	}
	if m := Median(xs); l1 > m || h1 < m {
		t.Errorf("interval %v..%v does not hold the median %v", l1, h1, m)
	}
	if l1 < slices.Min(xs) || h1 > slices.Max(xs) {
		t.Errorf("interval %v..%v leaves the range of the values", l1, h1)
	}
}

// A 95 % interval that holds the true median in 60 % of experiments is a lie.
// The percentile bootstrap of a median is known to cover a little less than it
// says with so few values.
func TestIntervalCoversTheTrueMedian(t *testing.T) {
	for _, n := range []int{MinPairs, 10, 15} {
		rng := rand.New(rand.NewPCG(7, 7))
		const experiments = 500
		covered := 0
		for i := range experiments {
			xs := make([]float64, n)
			for j := range xs {
				xs[j] = 1.4 + 0.1*rng.NormFloat64()
			}
			if low, high := Interval(xs, uint64(i)); low <= 1.4 && 1.4 <= high {
				covered++
			}
		}
		if share := float64(covered) / experiments; share < 0.88 || share > 0.99 {
			t.Errorf("interval of %d values covered the true median in %.1f %% of experiments, want about 95 %%", n, 100*share)
		}
		t.Logf("%d values: %.1f %%", n, 100*float64(covered)/experiments)
	}
}

func TestPairedDropsRejectedPairs(t *testing.T) {
	nan := math.NaN()
	for _, tc := range []struct {
		name       string
		value, ref []float64
		median     float64
		pairs      int
	}{
		{"all count", []float64{14, 28, 42}, []float64{10, 20, 30}, 1.4, 3},
		{"rejected on either side", []float64{14, nan, 42, 56}, []float64{10, 20, nan, 40}, 1.4, 2},
		{"reference received nothing", []float64{14, 28, 5}, []float64{10, 20, 0}, 1.4, 2},
		{"drift cancels within a pair", []float64{14, 7, 28, 3.5}, []float64{10, 5, 20, 2.5}, 1.4, 4},
		{"unequal lengths", []float64{14, 28}, []float64{10, 20, 30}, 1.4, 2},
		{"nothing now and then", []float64{14, 28, 0}, []float64{10, 20, 30}, 1.4, 3},
		{"nothing ever", []float64{0, 0, 0}, []float64{10, 20, 30}, 0, 0},
	} {
		r := Paired(tc.value, tc.ref, 1)
		if r.Pairs != tc.pairs || math.Abs(r.Median-tc.median) > 1e-9 {
			t.Errorf("%s: %+v, want median %v of %d pairs", tc.name, r, tc.median, tc.pairs)
		}
	}
}

func TestNoisyRatiosAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    Ratio
		want bool
	}{
		{"tight", Ratio{1.4, 1.35, 1.45, 10}, false},
		{"just under 15 %", Ratio{1, 0.93, 1.079, 10}, false},
		{"over 15 %", Ratio{1, 0.92, 1.08, 10}, true},
		{"five pairs", Ratio{1.4, 1.4, 1.4, 5}, true},
		{"six pairs", Ratio{1.4, 1.4, 1.4, 6}, false},
		{"no pairs", Paired(nil, nil, 1), true},
		{"zero median", Ratio{0, 0, 0.1, 10}, true},
		{"nothing at all", Ratio{0, 0, 0, 10}, true},
		{"negative", Ratio{-1, -1, -1, 10}, true},
	} {
		if got := tc.r.Noisy(); got != tc.want {
			t.Errorf("%s: Noisy(%+v) = %v", tc.name, tc.r, got)
		}
	}
}

func TestOrderIsABBA(t *testing.T) {
	var turns []int
	for round := range 4 {
		turns = append(turns, Order(2, round)...)
	}
	if want := []int{0, 1, 1, 0, 0, 1, 1, 0}; !slices.Equal(turns, want) {
		t.Errorf("turns %v, want %v", turns, want)
	}
	// Over a forward and a backward round everybody's mean position is equal,
	// so a steady drift favours nobody.
	const n = 5
	sum := make([]int, n)
	for round := range 2 {
		for at, who := range Order(n, round) {
			sum[who] += at
		}
	}
	for who, s := range sum {
		if s != n-1 {
			t.Errorf("contender %d has position sum %d, want %d", who, s, n-1)
		}
	}
}

func TestDisturbedTrialsAreRejected(t *testing.T) {
	for _, tc := range []struct {
		name string
		d    Disturbance
		want string
	}{
		{"quiet", Disturbance{time.Second, 2, 0, 0}, ""},
		{"at the limits", Disturbance{time.Second, 2, 40 * time.Millisecond, 100 * time.Millisecond}, ""},
		{"stolen", Disturbance{time.Second, 2, 50 * time.Millisecond, 0}, "the hypervisor stole 2.5 %"},
		{"strangers", Disturbance{time.Second, 2, 0, 200 * time.Millisecond}, "other programs used 10.0 %"},
		{"sampling below zero", Disturbance{time.Second, 2, 0, -10 * time.Millisecond}, ""},
	} {
		if got := tc.d.Reject(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
