package fdb

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// racing reports, for each turn of a loop, that goroutines shall go on racing:
// for a short time, and then until enough has happened, which must not take long.
func racing(t *testing.T, enough func() bool) func() bool {
	start := time.Now()
	return func() bool {
		took := time.Since(start)
		if took > time.Minute {
			t.Fatal("the goroutines don't get anywhere")
		}
		return took < 200*time.Millisecond || !enough()
	}
}

// home is the first of the two ports that station i of the tests below may be
// on; it moves between them. Another station's destination gives itself away.
func home(i int) uint16 { return uint16(2 * (i % 8)) }

// workers starts n goroutines that call f with a number, a source of randomness
// and a count of calls until stop is closed.
func workers(wg *sync.WaitGroup, stop <-chan struct{}, n int, f func(w int, r *rand.Rand)) {
	for w := range n {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 99))
			for {
				select {
				case <-stop:
					return
				default:
					for range 20 {
						f(w, r)
					}
					runtime.Gosched() // there may be fewer cores than goroutines
				}
			}
		})
	}
}

// Everything at once in a table so small that its slots change hands all the
// time: no lookup ever returns another station's port, limits hold, and when
// all is quiet the counts are what a walk finds.
func TestRacingWorkersAndControl(t *testing.T) {
	for _, tb := range []*Table{smallTable(24, 3, 1, 1), smallTable(40, 3, 4, 1), smallTable(30, 3, 16, 1), New(64, 3)} {
		const stations, learners, portLimit = 2 * testStations, 3, 4
		limit := int(tb.max.Load())
		tb.SetPortLimit(home(1), portLimit)
		tb.SetPortLimit(home(1)+1, portLimit)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var results [Off + 1]atomic.Int64

		workers(&wg, stop, learners, func(_ int, r *rand.Rand) {
			i := r.IntN(stations)
			port := home(i) + uint16(r.IntN(8)/7)
			d := Dest{port, tb.Gen(port)}
			r1, prev := tb.Learn(testKey(i), d)
			results[r1].Add(1)
			switch r1 {
			case Moved:
				if prev != home(i)+1-(port-home(i)) {
					t.Errorf("station %d moved to %d from %d", i, port, prev)
				}
			case Off:
				t.Error("learning is off")
			}
		})
		workers(&wg, stop, 2, func(_ int, r *rand.Rand) {
			i := r.IntN(stations)
			if d, ok := tb.Lookup(testKey(i)); ok && d.Port != home(i) && d.Port != home(i)+1 {
				t.Errorf("station %d is on port %d, want %d or the next", i, d.Port, home(i))
			}
			// A worker that moves a station off a port that is being flushed
			// adds one that the limit did not see.
			if n := tb.learned.Load(); int(n) > limit+learners {
				t.Errorf("%d learned entries, limit %d", n, limit)
			}
			if n := tb.PortLen(home(1)); n > portLimit {
				t.Errorf("%d entries on a port with limit %d", n, portLimit)
			}
		})

		r := rand.New(rand.NewPCG(7, 7))
		second := uint32(0)
		for on := racing(t, func() bool { return results[Added].Load() > 50 && results[Moved].Load() > 50 }); on(); {
			i := r.IntN(stations)
			switch r.IntN(12) {
			case 0:
				tb.Flush(home(i))
			case 1:
				tb.FlushMatch(int(home(i)), -1)
			case 2:
				tb.FlushMatch(-1, 1)
			case 3, 4:
				second += uint32(r.IntN(3))
				tb.Advance(second, func(e Entry) {
					if e.Kind != Dynamic {
						t.Errorf("aged: %+v", e)
					}
				})
			case 5:
				if err := tb.Set(testKey(i), home(i), Static); err != nil && len(tb.buckets) > 1000 {
					t.Error(err)
				}
			case 6, 7, 8:
				for i := range stations / 2 {
					tb.Delete(testKey(2*i + r.IntN(2)))
				}
			case 9:
				tb.DropPort(home(i) | 1)
				tb.SetPortLimit(home(1)+1, portLimit)
			case 10:
				for _, e := range tb.Entries() {
					if k := MakeKey(e.MAC, e.VID); k.MAC() != e.MAC {
						t.Errorf("entry %+v", e)
					}
				}
			}
		}
		close(stop)
		wg.Wait()
		checkSlots(t, tb)
		tb.Advance(second+100, nil)
		for i := range stations {
			tb.Delete(testKey(i)) // static ones
		}
		if n := tb.Len(); n != 0 {
			t.Errorf("%d entries left of none", n)
		}
	}
}

// A slot that changes hands between two stations as fast as it can, with
// readers and learners of both.
func TestSlotReuseNeverShowsAnotherStation(t *testing.T) {
	tb := smallTable(8, DefaultAgeing, 1, 1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var found, added atomic.Int64
	workers(&wg, stop, 3, func(w int, r *rand.Rand) {
		i := r.IntN(2)
		if d, ok := tb.Lookup(testKey(i)); ok {
			found.Add(1)
			if int(d.Port) != i {
				t.Errorf("station %d found on port %d", i, d.Port)
			}
		}
		if w == 0 {
			switch r, _ := tb.Learn(testKey(i), Dest{Port: uint16(i)}); r {
			case Added:
				added.Add(1)
			case Known:
			default:
				t.Errorf("station %d: %v", i, r)
			}
		}
	})
	second := uint32(0)
	for on := racing(t, func() bool { return found.Load() > 100 && added.Load() > 100 }); on(); {
		for i := range 2 {
			tb.Delete(testKey(i))
			second++ // so that every Learn stores
			tb.Advance(second/16, nil)
		}
	}
	close(stop)
	wg.Wait()
	checkSlots(t, tb)
}

// Workers that go on learning with the generation of before the flush.
func TestLateLearnDoesNotUndoAFlush(t *testing.T) {
	tb := New(0, DefaultAgeing)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var gen atomic.Uint32
	var stale, moved atomic.Int64
	workers(&wg, stop, 2, func(_ int, r *rand.Rand) {
		i := r.IntN(testStations)
		g := uint16(gen.Load())
		switch r, _ := tb.Learn(testKey(i), Dest{1, g}); r {
		case Stale:
			stale.Add(1)
		case Moved:
			moved.Add(1)
		}
		tb.Learn(testKey(i), Dest{2, 0}) // moves to and fro
	})
	for on := racing(t, func() bool { return stale.Load() > 10 && moved.Load() > 10 }); on(); {
		g := tb.Flush(1)
		// Workers still use the old generation here.
		for i := range testStations {
			if d, ok := tb.Lookup(testKey(i)); ok && d.Port == 1 {
				t.Fatalf("station %d found on port 1 after its flush", i)
			}
		}
		if n := tb.PortLen(1); n != 0 {
			t.Fatalf("%d entries on port 1 after its flush", n)
		}
		gen.Store(uint32(g))
	}
	close(stop)
	wg.Wait()
	checkSlots(t, tb)
}

// What a worker read of a slot can't be mistaken for what is there after the
// slot changed hands, even if it is the same again to the bit.
func TestSlotThatChangedHandsHasAnotherIncarnation(t *testing.T) {
	tb := smallTable(8, DefaultAgeing, 1, 1)
	a, b := testKey(0), testKey(1)
	for i := range 1<<incBits - 1 {
		wantLearn(t, tb, a, 1, Added)
		s, v := tb.find(a)
		tb.Delete(a)
		for range i % 3 {
			wantLearn(t, tb, b, 1, Added)
			tb.Delete(b)
		}
		wantLearn(t, tb, b, 1, Added)
		s2, v2 := tb.find(b)
		if s2 != s {
			t.Fatal("the slot was not used again")
		}
		if v.same(v2) || s.val.CompareAndSwap(uint64(v), uint64(v)) {
			t.Fatalf("round %d: %x passes for %x", i, v, v2)
		}
		tb.Delete(b)
	}
}

// Workers that pull one station to and fro between two ports, so that most of
// their stores come too late.
func TestContendedMovesAreCountedOnce(t *testing.T) {
	tb := New(0, DefaultAgeing)
	var wg sync.WaitGroup
	var moved [2]atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			for i := range 50_000 {
				port := uint16(w+i) % 2
				if r, prev := tb.Learn(testKey(0), Dest{Port: port}); r == Moved {
					moved[port].Add(1)
					if prev != 1-port {
						t.Errorf("moved to %d from %d", port, prev)
					}
				}
			}
		})
	}
	wg.Wait()
	checkSlots(t, tb)
	if d := moved[0].Load() - moved[1].Load(); d < -1 || d > 1 {
		t.Errorf("%d moves to port 0, %d to port 1", moved[0].Load(), moved[1].Load())
	}
}

// Many workers hear the same new stations at once: each is added once.
func TestStationIsAddedOnce(t *testing.T) {
	tb := New(0, DefaultAgeing)
	const n = 20000
	var wg sync.WaitGroup
	var added, moved atomic.Int64
	for w := range uint16(4) {
		wg.Go(func() {
			for i := range n {
				switch r, _ := tb.Learn(MakeKey([6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}, 1), Dest{Port: w % 2}); r {
				case Added:
					added.Add(1)
				case Moved:
					moved.Add(1)
				case Known:
				default:
					t.Errorf("station %d: %v", i, r)
				}
			}
		})
	}
	wg.Wait()
	if added.Load() != n || tb.Len() != n || tb.PortLen(0)+tb.PortLen(1) != n {
		t.Errorf("%d added, %d moved, Len %d, on ports %d and %d; want %d", added.Load(), moved.Load(), tb.Len(), tb.PortLen(0), tb.PortLen(1), n)
	}
	checkSlots(t, tb)
}
