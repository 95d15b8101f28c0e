package fdb

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// usedBuckets has a bit for each bucket of a table, which is set before the first
// of its slots is filled, and cleared by the sweep that finds them all free.
// Walks go by it, so that they cost what the table holds and not what it could
// hold: the sweep of an idle switch looks at the buckets of its few stations,
// and at one word for 64 of the others.
type usedBuckets []atomic.Uint64

func newUsedBuckets(n int) usedBuckets { return make(usedBuckets, (n+63)/64) }

// set and clear are called with the table's mu held.
func (u usedBuckets) set(b int) {
	w, bit := &u[b/64], uint64(1)<<(b%64)
	if v := w.Load(); v&bit == 0 {
		w.Store(v | bit)
	}
}

func (u usedBuckets) clear(b int) {
	w := &u[b/64]
	w.Store(w.Load() &^ (1 << (b % 64)))
}

// in are the used buckets of the 64 that word w of u stands for.
func (u usedBuckets) in(w int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for left := u[w].Load(); left != 0; left &= left - 1 {
			if !yield(64*w + bits.TrailingZeros64(left)) {
				return
			}
		}
	}
}

// next is the first used bucket from b on among the 64 of b's word; if there is
// none, the bucket that the next word begins with, and false.
func (u usedBuckets) next(b int) (int, bool) {
	if left := u[b/64].Load() >> (b % 64); left != 0 {
		return b + bits.TrailingZeros64(left), true
	}
	if w := b/64 + 1; w < len(u) {
		return 64 * w, false
	}
	return 0, false
}

// all are all used buckets.
func (u usedBuckets) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for w := range u {
			for b := range u.in(w) {
				if !yield(b) {
					return
				}
			}
		}
	}
}
