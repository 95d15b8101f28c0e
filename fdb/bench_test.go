package fdb

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Sizes at which the table is measured: one that fits the first-level caches,
// the default limit, and one that fits no cache.
var benchSizes = []int{1 << 10, 1 << 16, 1 << 20}

// benchTable is a table made for n stations and full, with the keys of stations
// that are in it and of as many that are not, in random order.
func benchTable(b *testing.B, n int) (t *Table, in, out []Key) {
	b.Helper()
	t = New(n, DefaultAgeing)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range 2 * n {
		// The low bits make every address another one.
		mac := [6]byte{0x52, 0x54, byte(r.Uint32()), byte(i >> 16), byte(i >> 8), byte(i)}
		if k := MakeKey(mac, uint16(i>>24)); i%2 == 0 {
			in = append(in, k)
		} else {
			out = append(out, k)
		}
	}
	for i, k := range in {
		if r, _ := t.Learn(k, Dest{Port: uint16(i % 64)}); r != Added {
			b.Fatalf("learn %d of %d: %v", i, n, r)
		}
	}
	r.Shuffle(n, func(i, j int) { in[i], in[j] = in[j], in[i] })
	return t, in, out
}

func bySize(b *testing.B, f func(b *testing.B, t *Table, in, out []Key)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t, in, out := benchTable(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			f(b, t, in, out)
		})
	}
}

func BenchmarkLookupHit(b *testing.B) {
	bySize(b, func(b *testing.B, t *Table, in, _ []Key) {
		for i := range b.N {
			if _, ok := t.Lookup(in[i&(len(in)-1)]); !ok {
				b.Fatal("miss")
			}
		}
	})
}

func BenchmarkLookupMiss(b *testing.B) {
	bySize(b, func(b *testing.B, t *Table, _, out []Key) {
		for i := range b.N {
			if _, ok := t.Lookup(out[i&(len(out)-1)]); ok {
				b.Fatal("hit")
			}
		}
	})
}

// A station that is where it was, within the second it was last heard.
func BenchmarkLearnKnown(b *testing.B) {
	bySize(b, func(b *testing.B, t *Table, in, _ []Key) {
		ports := make(map[Key]Dest)
		dest := make([]Dest, len(in))
		for i, k := range in {
			dest[i], _ = t.Lookup(k)
			ports[k] = dest[i]
		}
		b.ResetTimer()
		for i := range b.N {
			j := i & (len(in) - 1)
			if r, _ := t.Learn(in[j], dest[j]); r != Known {
				b.Fatal(r)
			}
		}
	})
}

// One flow: the same station again and again, as in bulk traffic.
func BenchmarkLearnKnownOneStation(b *testing.B) {
	t, in, _ := benchTable(b, 1<<10)
	d, _ := t.Lookup(in[0])
	b.ResetTimer()
	for range b.N {
		if r, _ := t.Learn(in[0], d); r != Known {
			b.Fatal(r)
		}
	}
}

// A station that moves with every frame.
func BenchmarkLearnMoved(b *testing.B) {
	t, in, _ := benchTable(b, 1<<10)
	for i := range b.N {
		t.Learn(in[0], Dest{Port: uint16(i & 1)})
	}
}

// A station that was not in the table, and the sweep that takes it out again.
func BenchmarkLearnAdded(b *testing.B) {
	t, in, _ := benchTable(b, 1<<16)
	b.ResetTimer()
	for i := range b.N {
		k := in[i&(len(in)-1)]
		b.StopTimer()
		t.Delete(k)
		b.StartTimer()
		if r, _ := t.Learn(k, Dest{Port: 1}); r != Added {
			b.Fatal(r)
		}
	}
}

// An address flood against a full table: no lock, no store.
func BenchmarkLearnFull(b *testing.B) {
	bySize(b, func(b *testing.B, t *Table, _, out []Key) {
		for i := range b.N {
			if r, _ := t.Learn(out[i&(len(out)-1)], Dest{Port: 1}); r != Full {
				b.Fatal(r)
			}
		}
	})
}
