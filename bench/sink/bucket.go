package sink

import (
	"math/bits"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The counting program sorts latencies into buckets the way HdrHistogram does:
// 128 to each power of two, so that a bucket is at most 1/128 of its value wide.
// More would not fit the 32 KiB that a value of a per-CPU map may have.
const (
	subBits    = 7
	subBuckets = 1 << subBits
	maxPower   = 36 // 2^37 ns are over two minutes
	buckets    = (maxPower - subBits + 2) * subBuckets
)

// bucket is the bucket of a latency in nanoseconds: the arithmetic of the
// program in Go, where it can be tested.
func bucket(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	power := bits.Len64(ns) - 1
	i := (power-subBits+1)<<subBits | int(ns>>(power-subBits))&(subBuckets-1)
	return min(i, buckets-1)
}

// lowest is the smallest latency in a bucket, in nanoseconds, and width how
// many different ones it holds.
func lowest(i int) (ns, width uint64) {
	if i < subBuckets {
		return uint64(i), 1
	}
	shift := i>>subBits - 1
	return uint64(subBuckets|i&(subBuckets-1)) << shift, 1 << shift
}

// NewHistogram makes an empty latency histogram, in nanoseconds, 1 ns to two
// minutes with three significant digits: a little finer than the buckets.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 1<<(maxPower+1), 3) }

// fill adds bucket counts to h, each at the middle of its bucket.
func fill(h *hdrhistogram.Histogram, counts []uint64) error {
	for i, n := range counts {
		if n == 0 {
			continue
		}
		low, width := lowest(i)
		if err := h.RecordValues(int64(low+width/2), int64(n)); err != nil {
			return err
		}
	}
	return nil
}
