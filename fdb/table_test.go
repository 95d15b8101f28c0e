package fdb

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func at(tb *Table, port uint16) Dest { return Dest{port, tb.Gen(port)} }

func wantLearn(t *testing.T, tb *Table, k Key, port uint16, want Result) {
	t.Helper()
	if r, _ := tb.Learn(k, at(tb, port)); r != want {
		t.Fatalf("Learn(%v) on port %d = %v, want %v", k, port, r, want)
	}
}

func wantPort(t *testing.T, tb *Table, k Key, want int) {
	t.Helper()
	d, ok := tb.Lookup(k)
	if !ok {
		d.Port = 0xffff
	}
	if ok != (want >= 0) || ok && int(d.Port) != want {
		t.Fatalf("Lookup(%v) = port %d, found %v; want port %d", k, int16(d.Port), ok, want)
	}
}

func TestKeyHoldsAddressAndVLAN(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		var mac [6]byte
		for i := range mac {
			mac[i] = byte(r.Uint32())
		}
		vid := uint16(r.Uint32())
		k := MakeKey(mac, vid)
		if k.MAC() != mac || k.VID() != vid&0xfff || k>>63 != 1 || k>>60&7 != 0 {
			t.Fatalf("MakeKey(%x, %x) = %x", mac, vid, uint64(k))
		}
	}
	if k := MakeKey([6]byte{0x01, 0x02, 0x03, 0x04, 0x05, 0x06}, 0xabc); k != 0x8abc_0605_0403_0201 {
		t.Errorf("layout: %x", uint64(k))
	}
}

func TestNames(t *testing.T) {
	k := MakeKey([6]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}, 0)
	for got, want := range map[string]string{
		fmt.Sprint(k):                      "52:54:00:12:34:56",
		fmt.Sprint(MakeKey(k.MAC(), 10)):   "52:54:00:12:34:56 vlan 10",
		fmt.Sprint(Dynamic, Static, Local): "dynamic static local",
		fmt.Sprint(Known, Added, Moved, Full, PortFull, Fixed, Stale, Off): "known added moved full port-full fixed stale off",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStationMovesWithItsFirstFrame(t *testing.T) {
	tb := New(0, DefaultAgeing)
	k := testKey(0)
	wantPort(t, tb, k, -1)
	wantLearn(t, tb, k, 3, Added)
	wantPort(t, tb, k, 3)
	if r, prev := tb.Learn(k, at(tb, 4)); r != Moved || prev != 3 {
		t.Fatalf("Learn = %v from %d, want moved from 3", r, prev)
	}
	wantPort(t, tb, k, 4)
	if tb.PortLen(3) != 0 || tb.PortLen(4) != 1 || tb.Len() != 1 {
		t.Errorf("Len %d, on ports %d and %d", tb.Len(), tb.PortLen(3), tb.PortLen(4))
	}
}

func TestVLANsLearnApart(t *testing.T) {
	tb := New(0, DefaultAgeing)
	mac := [6]byte{2, 0, 0, 0, 0, 1}
	for vid := range uint16(4096) {
		wantLearn(t, tb, MakeKey(mac, vid), vid%7, Added)
	}
	for vid := range uint16(4096) {
		wantPort(t, tb, MakeKey(mac, vid), int(vid%7))
	}
}

func TestStaticAndLocalEntriesStayAndDoNotAge(t *testing.T) {
	for _, kind := range []Kind{Static, Local} {
		tb := New(0, 10)
		tb.Advance(0, nil)
		k := testKey(1)
		wantLearn(t, tb, k, 2, Added)
		if err := tb.Set(k, 1, kind); err != nil {
			t.Fatal(err)
		}
		wantLearn(t, tb, k, 2, Fixed)
		wantLearn(t, tb, k, 1, Known)
		tb.Flush(1)
		tb.FlushMatch(-1, -1)
		tb.Advance(1000, func(e Entry) { t.Errorf("aged: %+v", e) })
		tb.SetAgeing(0)
		wantPort(t, tb, k, 1)
		if e := tb.Entries(); len(e) != 1 || e[0] != (Entry{MAC: k.MAC(), VID: k.VID(), Port: 1, Kind: kind}) {
			t.Errorf("Entries = %+v", e)
		}
		// Its destination passes for the port's present generation.
		if d, _ := tb.Lookup(k); d != at(tb, 1) {
			t.Errorf("Lookup = %v, want %v", d, at(tb, 1))
		}
		if e, ok := tb.Delete(k); !ok || e.Kind != kind {
			t.Errorf("Delete = %+v, %v", e, ok)
		}
		wantPort(t, tb, k, -1)
	}
}

func TestRemovedPortLeavesNothing(t *testing.T) {
	tb := New(0, DefaultAgeing)
	wantLearn(t, tb, testKey(1), 1, Added)
	wantLearn(t, tb, testKey(2), 2, Added)
	tb.Set(testKey(3), 1, Static)
	tb.Set(testKey(4), 1, Local)
	tb.SetPortLimit(1, 1)
	old := at(tb, 1)
	tb.DropPort(1)
	for i, want := range []int{-1, -1, 2, -1, -1} {
		wantPort(t, tb, testKey(i), want)
	}
	if r, _ := tb.Learn(testKey(5), old); r != Stale {
		t.Errorf("learned for the removed port: %v", r)
	}
	for i := 10; i < 20; i++ { // the limit went too
		wantLearn(t, tb, testKey(i), 1, Added)
	}
	checkSlots(t, tb)
}

func TestDropLocalLeavesEverythingElse(t *testing.T) {
	tb := New(0, DefaultAgeing)
	wantLearn(t, tb, testKey(1), 1, Added)
	tb.Set(testKey(2), 1, Static)
	tb.Set(testKey(3), 1, Local)
	tb.Set(testKey(4), 1, Local)
	tb.Set(testKey(5), 2, Local)
	tb.DropLocal(1, func(k Key) bool { return k != testKey(4) })
	for i, want := range []int{-1, 1, 1, -1, 1, 2} {
		wantPort(t, tb, testKey(i), want)
	}
	checkSlots(t, tb)
}

// mayNotEvict has a port cause all the evictions that it may.
func mayNotEvict(tb *Table, port uint16) {
	for tb.spend(port, clock(tb.head.clock.Load())) {
	}
}

// What the kernel's bridge_fdb_learning_limit selftest asks: only learned
// entries count, and an entry that changes its kind changes the count.
func TestLimitsCountOnlyLearnedEntries(t *testing.T) {
	tb := New(4, DefaultAgeing)
	tb.SetPortLimit(1, 3)
	mayNotEvict(tb, 2)
	for i := range 8 {
		if err := tb.Set(testKey(i), 1, Static); err != nil {
			t.Fatal(err)
		}
	}
	for i := 10; i < 13; i++ {
		wantLearn(t, tb, testKey(i), 1, Added)
	}
	wantLearn(t, tb, testKey(13), 1, PortFull)
	wantLearn(t, tb, testKey(13), 2, Added)
	wantLearn(t, tb, testKey(14), 2, Full)
	// What is known goes on being refreshed and found, and moves.
	wantLearn(t, tb, testKey(10), 1, Known)
	wantPort(t, tb, testKey(10), 1)
	wantLearn(t, tb, testKey(11), 2, Moved)
	// But not to a port that is full: port 1 has 2 of 3.
	wantLearn(t, tb, testKey(11), 1, Moved)
	wantLearn(t, tb, testKey(13), 1, PortFull)
	wantPort(t, tb, testKey(13), 2)
	// A learned entry made static no longer counts.
	if err := tb.Set(testKey(13), 2, Static); err != nil {
		t.Fatal(err)
	}
	wantLearn(t, tb, testKey(14), 2, Added)
	wantLearn(t, tb, testKey(15), 2, Full)
	tb.Flush(1)
	wantLearn(t, tb, testKey(15), 1, Added)
	checkSlots(t, tb)
}

func TestLoweredLimitsTakeNothingAway(t *testing.T) {
	tb := New(100, DefaultAgeing)
	for i := range 20 {
		wantLearn(t, tb, testKey(i), 1, Added)
	}
	tb.SetPortLimit(1, 5)
	if err := tb.SetMax(10); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		wantLearn(t, tb, testKey(i), 1, Known)
		wantPort(t, tb, testKey(i), 1)
	}
	mayNotEvict(tb, 2)
	wantLearn(t, tb, testKey(20), 2, Full)
	if err := tb.SetMax(100); err != nil {
		t.Fatal(err)
	}
	wantLearn(t, tb, testKey(20), 1, PortFull)
	tb.SetPortLimit(1, 0)
	wantLearn(t, tb, testKey(20), 1, Added)

	if err := New(70000, 1).SetMax(200000); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("raised past the table's size: %v", err)
	}
	if err := tb.SetMax(0); err == nil {
		t.Error("a table for 100 took the default limit")
	}
}

// A generation is 16 bits. An entry must not come back to life when its number
// comes round, nor be counted in it.
func TestGenerationsThatComeRoundBringNothingBack(t *testing.T) {
	tb := New(0, DefaultAgeing)
	for i := range 10 {
		wantLearn(t, tb, testKey(i), 1, Added)
	}
	first := tb.Gen(1)
	for i := range 1 << 16 {
		tb.Flush(1)
		if _, ok := tb.Lookup(testKey(i % 10)); ok {
			t.Fatalf("found after %d flushes", i+1)
		}
	}
	if tb.Gen(1) != first || tb.PortLen(1) != 0 {
		t.Errorf("generation %d, want %d; PortLen %d", tb.Gen(1), first, tb.PortLen(1))
	}
	checkSlots(t, tb)
}

func TestFlushMatchTakesDynamicEntriesOfPortAndVLAN(t *testing.T) {
	for _, c := range []struct{ port, vid, want int }{{-1, -1, 4}, {1, -1, 2}, {-1, 2, 2}, {1, 2, 1}, {3, -1, 0}, {-1, 9, 0}} {
		tb := New(0, DefaultAgeing)
		for i := range 4 {
			wantLearn(t, tb, testKey(i), uint16(1+i/2), Added) // VLANs 1 and 2 in turn
		}
		tb.Set(testKey(4), 1, Static)
		tb.Set(testKey(5), 1, Local)
		if got := tb.FlushMatch(c.port, c.vid); got != c.want {
			t.Errorf("FlushMatch(%d, %d) = %d, want %d", c.port, c.vid, got, c.want)
		}
		if got := len(tb.Entries()); got != 6-c.want {
			t.Errorf("FlushMatch(%d, %d) left %d entries", c.port, c.vid, got)
		}
		checkSlots(t, tb)
	}
}

func TestFlushVLANsTakesTheEntriesOfThePortThere(t *testing.T) {
	tb := New(0, DefaultAgeing)
	for i := range 8 {
		wantLearn(t, tb, testKey(i), uint16(1+i/4), Added) // VLANs 1 and 2 in turn
	}
	tb.Set(testKey(8), 1, Static) // in the same VLAN as testKey(0)
	tb.Set(testKey(9), 1, Static)
	tb.Set(testKey(10), 1, Local)
	vid := testKey(0).VID()
	if n := tb.FlushVLANs(1, func(v uint16) bool { return v == vid }); n != 3 {
		t.Errorf("FlushVLANs = %d, want 3", n)
	}
	for i := range 11 {
		want := 1 + i/4
		switch i {
		case 0, 2, 8:
			want = -1
		case 9, 10:
			want = 1
		}
		wantPort(t, tb, testKey(i), want)
	}
	checkSlots(t, tb)
}

func TestWhatCannotBeSetIsRefused(t *testing.T) {
	good := [6]byte{2, 0, 0, 0, 0, 1}
	for name, c := range map[string]struct {
		mac  [6]byte
		port uint16
		kind Kind
	}{
		"broadcast":    {[6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 1, Static},
		"multicast":    {[6]byte{1, 0, 0x5e, 0, 0, 1}, 1, Static},
		"zero address": {[6]byte{}, 1, Local},
		"port":         {good, MaxPorts, Static},
		"dynamic":      {good, 1, Dynamic},
		"no kind":      {good, 1, 0},
		"unknown kind": {good, 1, 7},
	} {
		tb := New(0, DefaultAgeing)
		err := tb.Set(MakeKey(c.mac, 1), c.port, c.kind)
		if err == nil || strings.Contains(err.Error(), "\n") || tb.Len() != 0 {
			t.Errorf("%s: error %v, %d entries", name, err, tb.Len())
		}
	}
}

func TestFullTableRefusesStaticEntriesAndKeepsTheOthers(t *testing.T) {
	tb := smallTable(100, DefaultAgeing, 1, 1)
	for i := range 8 {
		if err := tb.Set(testKey(i), 1, Static); err != nil {
			t.Fatalf("entry %d of 8: %v", i, err)
		}
	}
	if err := tb.Set(testKey(8), 1, Static); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("error %v", err)
	}
	if err := tb.Set(testKey(7), 2, Local); err != nil {
		t.Errorf("in place of another: %v", err)
	}
	wantLearn(t, tb, testKey(8), 1, Full)
	for i := range 7 {
		wantPort(t, tb, testKey(i), 1)
	}
	wantPort(t, tb, testKey(7), 2)
	checkSlots(t, tb)
}

func TestPortsThatDoNotExistAreHarmless(t *testing.T) {
	tb := New(0, DefaultAgeing)
	wantLearn(t, tb, testKey(0), 0, Added)
	if r, _ := tb.Learn(testKey(1), Dest{Port: MaxPorts}); r != Stale {
		t.Errorf("Learn = %v", r)
	}
	if tb.Gen(MaxPorts) != 0 || tb.Flush(MaxPorts) != 0 || tb.PortLen(MaxPorts) != 0 {
		t.Error("port 4096 has something")
	}
	tb.SetPortLimit(MaxPorts, 1)
	tb.DropPort(MaxPorts)
	wantLearn(t, tb, testKey(0), MaxPorts-1, Moved)
	wantPort(t, tb, testKey(0), MaxPorts-1)
}

func TestBucketIsACacheLine(t *testing.T) {
	if n := reflect.TypeFor[Bucket]().Size(); n != 64 {
		t.Errorf("a bucket is %d bytes", n)
	}
	for _, tb := range append(testTables(), New(0, 1), New(1<<20, 1)) {
		if p := reflect.ValueOf(&tb.all[0]).Pointer(); p%64 != 0 {
			t.Errorf("%d buckets begin at %x", len(tb.all), p)
		}
	}
}

func TestHotCallsDoNotAllocate(t *testing.T) {
	tb := New(0, DefaultAgeing)
	in, out := testKey(0), testKey(1)
	tb.Learn(in, Dest{Port: 1})
	second, port := uint32(0), uint16(1)
	small := New(10, DefaultAgeing)
	small.OnEvict(func(Entry) {})
	for name, f := range map[string]func(){
		"lookup hit":  func() { tb.Lookup(in) },
		"lookup miss": func() { tb.Lookup(out) },
		"known":       func() { tb.Learn(in, at(tb, port)) },
		"refreshed":   func() { second++; tb.Advance(second, nil); tb.Learn(in, at(tb, port)) },
		"moved":       func() { port ^= 3; tb.Learn(in, at(tb, port)) },
		"added":       func() { tb.Delete(testKey(2)); tb.Learn(testKey(2), at(tb, 1)) },
		"flushed":     func() { tb.Flush(9) },
		"evicting":    func() { second++; tb.Advance(second, nil); small.Learn(testKey(int(second)), at(small, 3)) },
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if small.Evictions() == 0 {
		t.Error("nothing was evicted")
	}
}
