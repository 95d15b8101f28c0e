package fdb

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Sizes at which the table is measured: one station, what fits the first-level
// cache, what fits the second, and what fits none.
var benchSizes = []int{1, 1000, 100_000, 1_000_000}

// next is the index after i of n: a division would cost as much as a lookup.
func next(i, n int) int {
	if i++; i == n {
		return 0
	}
	return i
}

// benchKeys are n stations that are in the table, in random order, and n that
// are not.
func benchKeys(n int) (in, out []Key) {
	for i := range n {
		in = append(in, MakeKey(macOf(0x5254<<32|uint64(2*i)), 1))
		out = append(out, MakeKey(macOf(0x5254<<32|uint64(2*i+1)), 1))
	}
	r := rand.New(rand.NewPCG(1, uint64(n)))
	r.Shuffle(n, func(i, j int) { in[i], in[j] = in[j], in[i] })
	return in, out
}

// bySize runs f with a table that is full to its limit. Station in[i] is on
// port i%64.
func bySize(b *testing.B, f func(b *testing.B, tb *Table, in, out []Key)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in, out := benchKeys(n)
			tb := New(n, DefaultAgeing)
			for i, k := range in {
				if r, _ := tb.Learn(k, Dest{Port: uint16(i % 64)}); r != Added {
					b.Fatalf("learn %d of %d: %v", i, n, r)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			f(b, tb, in, out)
		})
	}
}

func BenchmarkLookupHit(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, in, _ []Key) {
		i := 0
		for range b.N {
			if _, ok := tb.Lookup(in[i]); !ok {
				b.Fatal("miss")
			}
			i = next(i, len(in))
		}
	})
}

func BenchmarkLookupMiss(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, _, out []Key) {
		i := 0
		for range b.N {
			if _, ok := tb.Lookup(out[i]); ok {
				b.Fatal("hit")
			}
			i = next(i, len(out))
		}
	})
}

// The same by the map under a mutex.
func BenchmarkLookupHitOracle(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in, _ := benchKeys(n)
			o := newOracle(n, DefaultAgeing)
			for _, k := range in {
				o.set(k, 1, Dynamic)
			}
			b.ResetTimer()
			i := 0
			for range b.N {
				if _, ok := o.lookup(in[i]); !ok {
					b.Fatal("miss")
				}
				i = next(i, len(in))
			}
		})
	}
}

// A station that is where it was, within the second in which it was heard.
func BenchmarkLearnKnown(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, in, _ []Key) {
		i := 0
		for range b.N {
			if r, _ := tb.Learn(in[i], Dest{Port: uint16(i % 64)}); r != Known {
				b.Fatal(r)
			}
			i = next(i, len(in))
		}
	})
}

// The same by all cores at once: nothing that is shared is written.
func BenchmarkLearnKnownParallel(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, in, _ []Key) {
		b.RunParallel(func(pb *testing.PB) {
			for j := rand.IntN(len(in)); pb.Next(); j = next(j, len(in)) {
				if r, _ := tb.Learn(in[j], Dest{Port: uint16(j % 64)}); r != Known {
					b.Error(r)
				}
			}
		})
	})
}

// The first frame of a station in a second, and of one that moved.
func BenchmarkLearnRefreshed(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, in, _ []Key) {
		i := 0
		for range b.N {
			if i == 0 {
				c := clock(tb.head.clock.Load()) // Advance without the sweep
				tb.head.clock.Store(uint64(makeClock(c.now()+1, c.limit())))
			}
			tb.Learn(in[i], Dest{Port: uint16(i % 64)})
			i = next(i, len(in))
		}
	})
}

func BenchmarkLearnMoved(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, in, _ []Key) {
		i, port := 0, uint16(64)
		for range b.N {
			tb.Learn(in[i], Dest{Port: port})
			if i = next(i, len(in)); i == 0 {
				port ^= 1
			}
		}
	})
}

// A station that goes and comes again.
func BenchmarkDeleteAndLearn(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, in, _ []Key) {
		i := 0
		for range b.N {
			tb.Delete(in[i])
			if r, _ := tb.Learn(in[i], Dest{Port: 1}); r != Added {
				b.Fatal(r)
			}
			i = next(i, len(in))
		}
	})
}

// An address flood against a table at its limit, beyond the evictions that it
// may cause: no lock, no store.
func BenchmarkLearnFull(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, _, out []Key) {
		mayNotEvict(tb, 1)
		i := 0
		for range b.N {
			if r, _ := tb.Learn(out[i], Dest{Port: 1}); r != Full {
				b.Fatal(r)
			}
			i = next(i, len(out))
		}
	})
}

// A new station in a table at its limit: another one gives way.
func BenchmarkLearnEvicting(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, in, out []Key) {
		i := 0
		for range b.N {
			tb.ports[1].evictions.Store(0)
			tb.Learn(out[i], Dest{Port: 1})
			if i = next(i, len(out)); i == 0 {
				in, out = out, in
			}
		}
		b.ReportMetric(float64(tb.Evictions())/float64(b.N), "evictions/op")
	})
}

// What the owner pays once a second for a table at its limit.
func BenchmarkAdvance(b *testing.B) {
	bySize(b, func(b *testing.B, tb *Table, _, _ []Key) {
		for range b.N {
			tb.Advance(0, nil)
		}
	})
}
