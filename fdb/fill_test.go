package fdb

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// sequences are ways in which the addresses of many stations come: at random,
// counted up in every byte, and one address in all VLANs.
var sequences = map[string]func(r *rand.Rand, i int) Key{
	"random":      func(r *rand.Rand, _ int) Key { return MakeKey(macOf(r.Uint64()), uint16(r.Uint32())) },
	"sequential":  func(_ *rand.Rand, i int) Key { return MakeKey(macOf(0x5254<<32+uint64(i)), 1) },
	"first bytes": func(_ *rand.Rand, i int) Key { return MakeKey(macOf(uint64(i)<<25), 1) },
	"by 4096":     func(_ *rand.Rand, i int) Key { return MakeKey(macOf(uint64(i)<<12), 1) },
	"by 257":      func(_ *rand.Rand, i int) Key { return MakeKey(macOf(uint64(i)*257), 1) },
	"VLANs":       func(_ *rand.Rand, i int) Key { return MakeKey(macOf(0x5254<<32+uint64(i>>12)), uint16(i)) },
}

// macOf is the address that reads as the number n.
func macOf(n uint64) [6]byte {
	return [6]byte{byte(n >> 40), byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// A limit is a promise: that many stations fit, whatever their addresses, and
// the switch's own address in every VLAN beside them.
func TestTableHoldsAsManyStationsAsItsLimit(t *testing.T) {
	sizes := []int{1, 100, DefaultMax}
	if !testing.Short() && !raced {
		// As far as New lets a table be filled, and one that fits no cache.
		sizes = append(sizes, 9<<9-reserve, 9<<13-reserve, 1<<20)
	}
	for name, key := range sequences {
		for _, n := range sizes {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				tb := New(n, DefaultAgeing)
				own := [6]byte{0x02, 0xff, 0xff, 0xff, 0xff, 0xff}
				for vid := uint16(1); vid < 4095; vid++ {
					if err := tb.Set(MakeKey(own, vid), 0, Local); err != nil {
						t.Fatal(err)
					}
				}
				r := rand.New(rand.NewPCG(3, uint64(n)))
				again := rand.New(rand.NewPCG(3, uint64(n)))
				d := at(tb, 1)
				for i := range n {
					if res, _ := tb.Learn(key(r, i), d); res != Added && res != Known {
						t.Fatalf("station %d of %d: %v", i, n, res)
					}
				}
				for i := range n {
					if _, ok := tb.Lookup(key(again, i)); !ok {
						t.Fatalf("station %d of %d is not found", i, n)
					}
				}
				t.Logf("%d of %d entries in the overflow", tb.head.spilled.Load(), tb.Len())
			})
		}
	}
}

// 9 of 16 slots are promised; this is how far it really goes.
func TestTableIsThreeFifthsFullBeforeAStationDoesNotFit(t *testing.T) {
	for name, key := range sequences {
		t.Run(name, func(t *testing.T) {
			tb := smallTable(MaxEntries, DefaultAgeing, 1<<12, 1<<9)
			r := rand.New(rand.NewPCG(5, 5))
			slots := 4 * len(tb.buckets)
			for i := range slots {
				if tb.Learn(key(r, i), at(tb, 1)); tb.Evictions() > 0 {
					break
				}
			}
			t.Logf("%.0f %% of %d slots", 100*float64(tb.Len())/float64(slots), slots)
			if tb.Len()*5 < slots*3 {
				t.Errorf("no room for station %d in %d slots", tb.Len(), slots)
			}
		})
	}
}

// Addresses that meet in a few buckets of one table are spread by another: to
// choose them a guest would have to know the table's secret. And if one knew it,
// it would not keep others' stations out of these buckets, nor push them out.
func TestCollidingAddressesCollideInOneTableOnly(t *testing.T) {
	tb, other := smallTable(1000, DefaultAgeing, 256, 32), smallTable(1000, DefaultAgeing, 256, 32)
	i := uint64(0)
	meet := func() (k Key) {
		for {
			i++
			k = MakeKey(macOf(2<<40|i), 1)
			if h := tb.homes(k); h[0] <= 3 && h[1] <= 3 {
				return k
			}
		}
	}
	flood := func() {
		for range 400 {
			k := meet()
			wantLearn(t, tb, k, 1, Added)
			wantLearn(t, other, k, 1, Added)
			wantPort(t, tb, k, 1)
		}
	}
	flood()
	if n := tb.PortLen(1); n > 4*4+32*4 {
		t.Errorf("%d stations in 4 buckets: do they collide?", n)
	}
	if n := other.PortLen(1); n != 400 {
		t.Errorf("%d stations in the other table", n)
	}
	var mine []Key
	for i := range 3 {
		mine = append(mine, meet())
		wantLearn(t, tb, mine[i], 2, Added)
	}
	flood()
	for _, k := range mine {
		wantPort(t, tb, k, 2)
	}
	for i := range 2 * testStations {
		wantLearn(t, tb, testKey(i), 3, Added) // elsewhere
	}
	checkSlots(t, tb)
}
