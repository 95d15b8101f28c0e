package fdb

import "testing"

func TestEntryAgesAfterItsTimeAndIsReportedOnce(t *testing.T) {
	for _, start := range []uint32{0, 12345, 1<<32 - 5} { // clocks that stand anywhere, and wrap
		tb := New(0, 10)
		now := start
		aged := map[Key]int{}
		pass := func(seconds int) {
			for range seconds {
				now++
				tb.Advance(now, func(e Entry) { aged[MakeKey(e.MAC, e.VID)]++ })
			}
		}
		tb.Advance(now, nil)
		wantLearn(t, tb, testKey(0), 1, Added)
		wantLearn(t, tb, testKey(2), 1, Added)
		pass(10)
		wantPort(t, tb, testKey(0), 1)
		if e := tb.Entries(); len(e) != 2 || e[0].Age != 10 {
			t.Fatalf("Entries = %+v", e)
		}
		wantLearn(t, tb, testKey(2), 1, Known) // is heard again
		pass(1)
		wantPort(t, tb, testKey(0), -1)
		wantPort(t, tb, testKey(2), 1)
		pass(sweepParts)
		if tb.Len() != 1 || aged[testKey(0)] != 1 || len(aged) != 1 {
			t.Fatalf("start %d: Len %d, aged %v", start, tb.Len(), aged)
		}
		pass(10)
		if tb.Len() != 0 || aged[testKey(2)] != 1 {
			t.Fatalf("start %d: Len %d, aged %v", start, tb.Len(), aged)
		}
	}
}

func TestClockThatJumpsAgesEverythingAtOnce(t *testing.T) {
	tb := New(0, MaxAgeing)
	tb.Advance(0, nil)
	for i, now := range []uint32{1 << 22, 1<<22 + MaxAgeing + 1, 1 << 31, 3 << 30} {
		wantLearn(t, tb, testKey(0), 1, Added)
		n := 0
		tb.Advance(now, func(Entry) { n++ })
		if n != 1 || tb.Len() != 0 {
			t.Errorf("jump %d: %d aged, Len %d", i, n, tb.Len())
		}
	}
}

// A walk may hold a clock from before the second in which an entry was stored.
func TestEntryStoredAfterTheClockWasReadIsNew(t *testing.T) {
	for _, now := range []uint32{0, 5, secMask} {
		c, w := makeClock(now, 10), makeWord(1, 0, Dynamic, now+1)
		if c.age(w) != 0 || c.expired(w) {
			t.Errorf("at %d: age %d, expired %v", now, c.age(w), c.expired(w))
		}
	}
	// As old as any entry gets, across the wrap of the second.
	c, w := makeClock(2*MaxAgeing+10, MaxAgeing+1), makeWord(1, 0, Dynamic, 1)
	if c.age(w) != 2*MaxAgeing+9 || !c.expired(w) {
		t.Errorf("age %d, expired %v", c.age(w), c.expired(w))
	}
}

func TestClockThatGoesBackStandsStill(t *testing.T) {
	tb := New(0, 10)
	tb.Advance(1000, nil)
	wantLearn(t, tb, testKey(0), 1, Added)
	tb.Advance(5, nil)
	tb.Advance(1005, nil)
	if e := tb.Entries(); len(e) != 1 || e[0].Age != 5 {
		t.Errorf("Entries = %+v", e)
	}
}

func TestAgeingTimeHoldsForEntriesAlreadyThere(t *testing.T) {
	tb := New(0, 300)
	tb.Advance(0, nil)
	wantLearn(t, tb, testKey(0), 1, Added)
	tb.Advance(20, nil)
	tb.SetAgeing(15) // as during a topology change
	wantPort(t, tb, testKey(0), -1)
	tb.SetAgeing(300)
	wantPort(t, tb, testKey(0), 1)
	tb.SetAgeing(1 << 31)
	if tb.Ageing() != MaxAgeing {
		t.Errorf("Ageing = %d", tb.Ageing())
	}
	wantPort(t, tb, testKey(0), 1)
}

func TestAgeingTimeZeroFloods(t *testing.T) {
	tb := New(0, 300)
	wantLearn(t, tb, testKey(0), 1, Added)
	tb.SetAgeing(0)
	wantPort(t, tb, testKey(0), -1)
	wantLearn(t, tb, testKey(0), 1, Off)
	wantLearn(t, tb, testKey(1), 1, Off)
	if tb.Ageing() != 0 || len(tb.Entries()) != 0 {
		t.Errorf("Ageing %d, Entries %v", tb.Ageing(), tb.Entries())
	}
}

// A switch that has nothing to do must cost nothing: the sweep looks at what is
// in the table, however large that is.
func TestSweepLooksAtWhatIsThereOnly(t *testing.T) {
	for _, max := range []int{DefaultMax, 1 << 20} {
		tb := New(max, 300)
		second := uint32(0)
		sweepAll := func() (looked int) {
			for range sweepParts {
				second++
				c, step := tb.tick(second)
				looked += tb.sweep(c, int(step), nil)
			}
			return looked
		}
		sweepAll()
		if n := sweepAll(); n != 0 {
			t.Errorf("limit %d: looked at %d buckets of an empty table", max, n)
		}
		for i := range 2 * testStations {
			wantLearn(t, tb, testKey(i), 1, Added)
		}
		if n := sweepAll(); n == 0 || n > 2*testStations {
			t.Errorf("limit %d: looked at %d buckets for %d stations", max, n, 2*testStations)
		}
		if n := tb.FlushMatch(-1, -1); n != 2*testStations {
			t.Errorf("limit %d: flushed %d of %d stations", max, n, 2*testStations)
		}
		sweepAll() // finds the buckets empty
		if n := sweepAll(); n != 0 {
			t.Errorf("limit %d: looked at %d buckets after all has gone", max, n)
		}
	}
}
