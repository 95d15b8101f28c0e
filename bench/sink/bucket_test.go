package sink

import (
	"math/rand/v2"
	"testing"
)

func TestBucketsAreContiguousAndNarrow(t *testing.T) {
	for i := range buckets {
		low, width := lowest(i)
		if bucket(low) != i || bucket(low+width-1) != i {
			t.Fatalf("bucket %d is said to hold %d–%d, but those are sorted into %d and %d",
				i, low, low+width-1, bucket(low), bucket(low+width-1))
		}
		if i > 0 && bucket(low-1) != i-1 {
			t.Fatalf("%d ns, just below bucket %d, is in bucket %d", low-1, i, bucket(low-1))
		}
		if width > 1 && low/width < subBuckets {
			t.Fatalf("bucket %d is %d wide at %d ns", i, width, low)
		}
	}
	if bucket(1<<63) != buckets-1 {
		t.Errorf("centuries are in bucket %d, want the last", bucket(1<<63))
	}
}

func TestHistogramKeepsPercentiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	counts := make([]uint64, buckets)
	for range 100_000 {
		counts[bucket(uint64(10_000+rng.IntN(10_000)))]++ // uniform, 10–20 µs
	}
	h := NewHistogram()
	if err := fill(h, counts); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ q, want float64 }{{50, 15_000}, {90, 19_000}, {99, 19_900}} {
		if got := float64(h.ValueAtQuantile(tc.q)); got < 0.99*tc.want || got > 1.01*tc.want {
			t.Errorf("p%v = %v ns, want %v within a bucket", tc.q, got, tc.want)
		}
	}
	if h.TotalCount() != 100_000 {
		t.Errorf("%d samples, want 100000", h.TotalCount())
	}
}
