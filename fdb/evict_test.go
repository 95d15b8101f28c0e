package fdb

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// stationOf is a station of a port; no other has it.
func stationOf(port uint16, i int) Key {
	return MakeKey(macOf(2<<40|uint64(port)<<24|uint64(i)), 1)
}

// full makes a table of the default size whose ports hold as many stations as
// they are given, the limit in all.
func full(t *testing.T, stations map[uint16]int) *Table {
	t.Helper()
	tb, sum := New(0, DefaultAgeing), 0
	tb.Advance(0, nil)
	for port, n := range stations {
		for i := range n {
			wantLearn(t, tb, stationOf(port, i), port, Added)
		}
		sum += n
	}
	if sum != DefaultMax {
		t.Fatalf("%d stations", sum)
	}
	return tb
}

// A guest sends 65,536 frames a second with a source of its own each.
func TestFloodPushesOutItsOwnStationsOnly(t *testing.T) {
	const guests, known, flood = 64, 200, 0
	tb := New(0, DefaultAgeing)
	for port := uint16(1); port < guests; port++ {
		for i := range known {
			wantLearn(t, tb, stationOf(port, i), port, Added)
		}
	}
	tb.OnEvict(func(e Entry) {
		if e.Port != flood {
			t.Fatalf("evicted: %+v", e)
		}
	})
	seconds := 4
	if testing.Short() || raced {
		seconds = 2
	}
	fresh := known
	for second := range seconds {
		tb.Advance(uint32(second), nil)
		for i := range 1 << 16 {
			tb.Learn(stationOf(flood, second<<16+i), Dest{Port: flood})
		}
		// New stations are learned from their first frame, a thousand a second.
		for i := range 16 * (guests - 1) {
			port := uint16(1 + i%(guests-1))
			wantLearn(t, tb, stationOf(port, fresh+i/(guests-1)), port, Added)
		}
		fresh += 16
	}
	for port := uint16(1); port < guests; port++ {
		for i := range fresh {
			wantPort(t, tb, stationOf(port, i), int(port))
		}
	}
	if n := tb.Len(); n != DefaultMax {
		t.Errorf("%d entries", n)
	}
	t.Logf("%d evictions", tb.Evictions())
	checkSlots(t, tb)
}

// An uplink has nearly all there is. A guest gets its share and no more.
func TestPortThatHoldsMostLosesAShareAtMost(t *testing.T) {
	const uplink, guest = 1, 2
	stations := map[uint16]int{uplink: DefaultMax - 62}
	for port := uint16(3); port < 65; port++ {
		stations[port] = 1
	}
	tb := full(t, stations)
	const share = DefaultMax / 64
	for second := range uint32(4) {
		tb.Advance(second, nil)
		for i := range 4096 {
			tb.Learn(stationOf(guest, int(second)<<12+i), Dest{Port: guest})
		}
	}
	if n := tb.PortLen(guest); n != share {
		t.Errorf("the guest has %d, its share is %d", n, share)
	}
	if n, want := tb.PortLen(uplink), DefaultMax-62-share; n != want {
		t.Errorf("the uplink has %d, want %d", n, want)
	}
	for port := uint16(3); port < 65; port++ {
		wantPort(t, tb, stationOf(port, 0), int(port))
	}
}

func TestStationThatWasNotHeardForLongestGoes(t *testing.T) {
	tb := full(t, map[uint16]int{1: DefaultMax})
	tb.Advance(100, nil)
	for i := 0; i < DefaultMax; i += 2 {
		wantLearn(t, tb, stationOf(1, i), 1, Known)
	}
	old, young := 0, 0
	tb.OnEvict(func(e Entry) {
		if e.Age == 100 {
			old++
		} else {
			young++
		}
	})
	for i := range 1000 {
		wantLearn(t, tb, stationOf(2, i), 2, Added)
	}
	// All of the eight that are looked at were just heard: once in 256.
	if old+young != 1000 || young > 50 {
		t.Errorf("%d old entries and %d that were just heard gave way", old, young)
	}
}

// Where each of many ports has little, some entry of the right port is found
// nearly always.
func TestEvictionFindsThePortsEntriesNearby(t *testing.T) {
	stations := map[uint16]int{}
	for port := range uint16(64) {
		stations[port] = DefaultMax / 64
	}
	tb := full(t, stations)
	learned := 0
	for i := range 500 {
		if r, _ := tb.Learn(stationOf(100, i), Dest{Port: 100}); r == Added {
			learned++
		}
	}
	if learned < 480 {
		t.Errorf("%d of 500 learned by their first frame", learned)
	}
	if n := tb.PortLen(100); n != learned || tb.Len() != DefaultMax {
		t.Errorf("port has %d, table %d", n, tb.Len())
	}
}

// Ports are many: the one that holds most is not looked for each time.
func TestHeaviestOfManyPortsIsFound(t *testing.T) {
	tb := smallTable(2000, DefaultAgeing, 1<<10, 1<<7)
	for port := range uint16(1000) {
		wantLearn(t, tb, stationOf(port, 0), port, Added)
	}
	for i := 1; i <= 1000; i++ {
		wantLearn(t, tb, stationOf(777, i), 777, Added)
	}
	tb.OnEvict(func(e Entry) {
		if e.Port != 777 {
			t.Fatalf("evicted: %+v", e)
		}
	})
	for port := uint16(1000); port < 1500; port++ {
		wantLearn(t, tb, stationOf(port, 0), port, Added)
	}
}

func TestPortsEvictionsASecondAreLimited(t *testing.T) {
	tb := full(t, map[uint16]int{1: DefaultMax})
	fresh := DefaultMax
	evict := func(port uint16, want uint64) {
		t.Helper()
		before := tb.Evictions()
		for range 2 * evictionsPerSecond {
			tb.Learn(stationOf(port, fresh), Dest{Port: port})
			fresh++
		}
		if got := tb.Evictions() - before; got != want {
			t.Errorf("port %d caused %d evictions, want %d", port, got, want)
		}
	}
	evict(2, evictionsPerSecond)
	evict(2, 0)
	evict(3, evictionsPerSecond) // another port's are its own
	tb.Advance(1, nil)
	evict(2, evictionsPerSecond)
	evict(1, evictionsPerSecond) // own ones, too
}

func TestStaticAndLocalEntriesDoNotGiveWay(t *testing.T) {
	tb := smallTable(4, DefaultAgeing, 8, 1)
	for i := range 16 {
		if err := tb.Set(stationOf(1, i), 1, Static+Kind(i%2)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 500 {
		tb.Learn(stationOf(2, i), Dest{Port: 2})
		tb.Learn(stationOf(3, i), Dest{Port: 3})
	}
	for i := range 16 {
		wantPort(t, tb, stationOf(1, i), 1)
	}
	checkSlots(t, tb)
}

// A port that has nothing to give up and may take from nobody is refused.
func TestFullTableOfFewTakesTurnsFairly(t *testing.T) {
	tb := New(2, 10)
	tb.Advance(0, nil)
	wantLearn(t, tb, testKey(0), 1, Added)
	wantLearn(t, tb, testKey(1), 2, Added)
	wantLearn(t, tb, testKey(2), 3, Full)  // 1 and 1: none has more than its share
	wantLearn(t, tb, testKey(3), 2, Added) // its own
	wantPort(t, tb, testKey(0), 1)
	wantPort(t, tb, testKey(1), -1)
	wantPort(t, tb, testKey(3), 2)
}

// What has expired and was not swept yet goes first, whoever's it is.
func TestExpiredEntriesGoFirst(t *testing.T) {
	tb := New(8, 10)
	tb.Advance(0, nil)
	for port := uint16(2); port < 5; port++ {
		wantLearn(t, tb, stationOf(port, 0), port, Added)
	}
	tb.tick(11) // and no sweep
	for i := range 5 {
		wantLearn(t, tb, stationOf(1, i), 1, Added)
	}
	tb.OnEvict(func(e Entry) {
		if e.Port == 1 || e.Age != 11 {
			t.Errorf("evicted: %+v", e)
		}
	})
	for i := range 3 {
		wantLearn(t, tb, stationOf(9, i), 9, Added)
	}
	if n := tb.Evictions(); n != 3 {
		t.Errorf("%d evictions", n)
	}
	checkSlots(t, tb)
}

// Between the hand's look at an entry and its end a worker may move it.
func TestEntryThatMovesAwayStays(t *testing.T) {
	tb := New(0, DefaultAgeing)
	wantLearn(t, tb, testKey(0), 1, Added)
	s, v := tb.find(testKey(0))
	wantLearn(t, tb, testKey(0), 2, Moved)
	tb.mu.Lock()
	out := tb.displace(found{0, s, v})
	tb.mu.Unlock()
	if out != (gone{}) || tb.Evictions() != 0 {
		t.Errorf("evicted: %+v", out)
	}
	wantPort(t, tb, testKey(0), 2)
}

func TestStaticEntryMakesRoomForItself(t *testing.T) {
	tb := smallTable(100, DefaultAgeing, 1, 1)
	for i := range 5 {
		wantLearn(t, tb, testKey(i), 1, Added)
	}
	for i := 5; i < 8; i++ {
		wantLearn(t, tb, testKey(i), 2, Added)
	}
	var gone []Entry
	tb.OnEvict(func(e Entry) { gone = append(gone, e) })
	if err := tb.Set(testKey(10), 3, Static); err != nil {
		t.Fatal(err)
	}
	wantPort(t, tb, testKey(10), 3)
	if len(gone) != 1 || gone[0].Port != 1 {
		t.Errorf("gave way: %+v", gone)
	}
	checkSlots(t, tb)
}

// Floods by some workers, and others whose stations must be there all the time.
func TestRacingFloodsHurtNobodyElse(t *testing.T) {
	const known, floods = 50, 2
	tb := smallTable(400, MaxAgeing, 512, 64)
	for port := uint16(10); port < 14; port++ {
		for i := range known {
			wantLearn(t, tb, stationOf(port, i), port, Added)
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var checked, moved atomic.Int64
	workers(&wg, stop, floods, func(w int, r *rand.Rand) {
		tb.Learn(stationOf(uint16(w), r.IntN(1<<20)), Dest{Port: uint16(w)})
		// The same stations on another port of theirs, so that some move while
		// they are to give way.
		if r, _ := tb.Learn(stationOf(9, r.IntN(400)), Dest{Port: uint16(w)}); r == Moved {
			moved.Add(1)
		}
	})
	workers(&wg, stop, 2, func(_ int, r *rand.Rand) {
		port := uint16(10 + r.IntN(4))
		k := stationOf(port, r.IntN(known))
		if d, ok := tb.Lookup(k); !ok || d.Port != port {
			t.Errorf("%v was pushed out", k)
		}
		checked.Add(1)
	})
	second := uint32(0)
	for on := racing(t, func() bool { return tb.Evictions() > 500 && checked.Load() > 1000 && moved.Load() > 20 }); on(); {
		second++
		tb.Advance(second/64, nil)
	}
	close(stop)
	wg.Wait()
	checkSlots(t, tb)
}
