package fdb

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Pages of any size are Entries, cut in pieces, and what matches of them.
func TestPagesTogetherAreAllEntries(t *testing.T) {
	tb := New(1<<10, DefaultAgeing)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 600 { // each page is a walk of them all
		k := MakeKey([6]byte{2, 0, 0, 0, byte(rng.Uint32()), byte(rng.Uint32())}, uint16(1+rng.IntN(3)))
		tb.Learn(k, at(tb, uint16(rng.IntN(4))))
	}
	all := tb.Entries()
	odd := func(e *Entry) bool { return e.Port%2 == 1 }
	var want []Entry
	for _, e := range all {
		if odd(&e) {
			want = append(want, e)
		}
	}
	for _, n := range []int{1, 2, 100, 512, 100000} {
		for _, c := range []struct {
			match func(*Entry) bool
			want  []Entry
		}{{nil, all}, {odd, want}} {
			var got []Entry
			var after *Entry
			for {
				page := tb.Page(after, n, c.match)
				if len(page) > n {
					t.Fatalf("%d entries on a page of %d", len(page), n)
				}
				got = append(got, page...)
				if len(page) < n {
					break
				}
				after = &page[n-1]
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("pages of %d: %d entries, want %d", n, len(got), len(c.want))
			}
		}
	}
}

// Whatever happens between two pages, a station that stays is on one of them,
// once, and none is on two.
func TestPagesOfATableThatChangesHaveEachStationOnce(t *testing.T) {
	tb := New(1<<12, DefaultAgeing)
	key := func(i int) Key { return MakeKey([6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}, 1) }
	for i := range 1000 {
		wantLearn(t, tb, key(i), 1, Added)
	}
	seen := map[Key]int{}
	var after *Entry
	for round := 0; ; round++ {
		page := tb.Page(after, 100, nil)
		for _, e := range page {
			seen[MakeKey(e.MAC, e.VID)]++
		}
		if len(page) < 100 {
			break
		}
		after = &page[99]
		// Odd ones go, come again, and move; even ones stay.
		for i := 1; i < 1000; i += 2 {
			tb.Delete(key(i))
			tb.Learn(key(i), at(tb, uint16(1+round%2)))
		}
	}
	for i := range 1000 {
		if n := seen[key(i)]; n != 1 {
			t.Errorf("station %d was shown %d times", i, n)
		}
	}
}
