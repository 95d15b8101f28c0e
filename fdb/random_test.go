package fdb

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// pair does everything to a table and to its oracle and compares.
type pair struct {
	t    testing.TB
	tb   *Table
	o    *oracle
	gone []Entry // what gave way
}

func newPair(t testing.TB, tb *Table, max int, ageing uint32) *pair {
	p := &pair{t: t, tb: tb, o: newOracle(max, ageing)}
	tb.OnEvict(func(e Entry) { p.gone = append(p.gone, e) })
	return p
}

const (
	testPorts    = 5
	testStations = 40
)

// testKey is one of the few stations that the tests use, in one of two VLANs.
func testKey(i int) Key {
	i %= 2 * testStations
	return MakeKey([6]byte{0x52, 0x54, 0, 0, 0, byte(i / 2)}, uint16(1+i%2))
}

func (p *pair) learn(k Key, d Dest) {
	p.t.Helper()
	room, here := p.atHome(k)
	must := p.o.mustYield(d.Port)
	if !room {
		must = yields(here, d.Port)
	}
	got, prev := p.tb.Learn(k, d)
	if got == Full && p.o.entries[k] == nil && (!room || p.o.learned() >= p.o.max) {
		if len(must) > 0 {
			p.t.Fatalf("Learn(%v, %v) = full, but one of ports %v has to yield", k, d, must)
		}
		return
	}
	evicted := p.yielded(must)
	want, wantPrev := p.o.learn(k, d, evicted)
	if got != want || prev != wantPrev {
		p.t.Fatalf("Learn(%v, %v) = %v from %d, want %v from %d", k, d, got, prev, want, wantPrev)
	}
}

// yielded has the oracle forget what gave way, which was expired or on one of
// these ports.
func (p *pair) yielded(ports []uint16) bool {
	p.t.Helper()
	gone := p.gone
	p.gone = nil
	for _, e := range gone {
		k := MakeKey(e.MAC, e.VID)
		x := p.o.entries[k]
		if x == nil || x.kind != Dynamic || p.o.entry(k, x) != e {
			p.t.Fatalf("evicted: %+v, which is %+v", e, x)
		}
		if !p.o.expired(x) && !slices.Contains(ports, e.Port) {
			p.t.Fatalf("evicted: %+v, want one of ports %v", e, ports)
		}
		delete(p.o.entries, k)
	}
	if len(gone) > 1 {
		p.t.Fatalf("evicted: %+v", gone)
	}
	return len(gone) == 1
}

// atHome looks for a free slot in the buckets of k, and counts the learned
// entries there by port.
func (p *pair) atHome(k Key) (room bool, here map[uint16]int) {
	here = map[uint16]int{}
	for _, b := range p.tb.homes(k) {
		for i := range p.tb.all[b] {
			switch v := word(p.tb.all[b][i].val.Load()); {
			case !p.tb.live(v):
				room = true
			case v.kind() == Dynamic:
				here[v.port()]++
			}
		}
	}
	return room, here
}

func (p *pair) set(k Key, port uint16, kind Kind) {
	p.t.Helper()
	room, here := p.atHome(k)
	must := yields(here, MaxPorts)
	err := p.tb.Set(k, port, kind)
	p.yielded(must)
	if err != nil {
		if room || p.o.entries[k] != nil || len(here) > 0 {
			p.t.Fatal(err)
		}
		return
	}
	p.o.set(k, port, kind)
}

func (p *pair) delete(k Key) {
	p.t.Helper()
	got, ok := p.tb.Delete(k)
	want, wantOK := p.o.delete(k)
	if got != want || ok != wantOK {
		p.t.Fatalf("Delete(%v) = %v %v, want %v %v", k, got, ok, want, wantOK)
	}
}

func (p *pair) flush(port uint16) {
	p.t.Helper()
	p.o.flush(port)
	if got, want := p.tb.Flush(port), p.o.gens[port]; got != want || p.tb.Gen(port) != want {
		p.t.Fatalf("Flush(%d) = %d, Gen %d, want %d", port, got, p.tb.Gen(port), want)
	}
}

func (p *pair) flushMatch(port, vid int) {
	p.t.Helper()
	want := p.o.remove(func(k Key, e *known) bool {
		return e.kind == Dynamic && !p.o.expired(e) &&
			(port < 0 || e.port == uint16(port)) && (vid < 0 || k.VID() == uint16(vid))
	})
	if got := p.tb.FlushMatch(port, vid); got != want {
		p.t.Fatalf("FlushMatch(%d, %d) = %d, want %d", port, vid, got, want)
	}
}

func (p *pair) dropPort(port uint16) {
	p.tb.DropPort(port)
	p.o.flush(port)
	p.o.remove(func(_ Key, e *known) bool { return e.port == port })
	p.o.limits[port] = 0
}

func (p *pair) setAgeing(seconds uint32) {
	p.tb.SetAgeing(seconds)
	p.o.ageing = seconds
}

// advance moves both clocks and lets the oracle forget what the table reports.
func (p *pair) advance(seconds uint32) {
	p.t.Helper()
	p.o.now += seconds
	p.tb.Advance(p.o.now+1e9, func(got Entry) {
		k := MakeKey(got.MAC, got.VID)
		e := p.o.entries[k]
		if e == nil || !p.o.expired(e) {
			p.t.Fatalf("reported aged at %d: %+v, which is %+v", p.o.now, got, e)
		}
		if want := p.o.entry(k, e); got != want {
			p.t.Fatalf("reported aged: %+v, want %+v", got, want)
		}
		delete(p.o.entries, k)
	})
	for k, e := range p.o.entries {
		if !p.o.expired(e) {
			e.overdue = 0
		} else if e.overdue += int(max(seconds, 1)); e.overdue >= sweepParts+1 {
			p.t.Fatalf("%v expired %d sweeps ago and was not reported", k, e.overdue)
		}
	}
}

// check compares all that can be seen from outside.
func (p *pair) check() {
	p.t.Helper()
	for i := range 2 * testStations {
		k := testKey(i)
		d, ok := p.tb.Lookup(k)
		port, want := p.o.lookup(k)
		if ok != want || ok && (d.Port != port || d.Gen != p.o.gens[port]) {
			p.t.Fatalf("Lookup(%v) = %v %v, want port %d generation %d %v", k, d, ok, port, p.o.gens[port], want)
		}
	}
	if got, want := p.tb.Entries(), p.o.list(); !slices.Equal(got, want) {
		p.t.Fatalf("Entries:\n got %v\nwant %v", got, want)
	}
	if got, want := p.tb.Len(), len(p.o.entries); got != want {
		p.t.Fatalf("Len = %d, want %d", got, want)
	}
	for port := range uint16(testPorts) {
		if got, want := p.tb.PortLen(port), p.o.learnedOn(port); got != want {
			p.t.Fatalf("PortLen(%d) = %d, want %d", port, got, want)
		}
	}
	checkSlots(p.t, p.tb)
}

// checkSlots looks inside: every count is what a walk finds, no station has two
// slots, and every entry is where it is looked for.
func checkSlots(t testing.TB, tb *Table) {
	t.Helper()
	var learned, fixed int64
	var spilled uint64
	ports := map[uint16]int{}
	seen := map[Key]bool{}
	for b := range tb.all {
		if used := tb.used[b/64].Load()>>(b%64)&1 == 1; !used && !tb.all[b].empty() {
			t.Fatalf("bucket %d is not empty, but not marked as used", b)
		}
		for i := range tb.all[b] {
			s := &tb.all[b][i]
			k, v := Key(s.key.Load()), word(s.val.Load())
			if v.kind() == free {
				continue
			}
			if b >= len(tb.buckets) {
				spilled++
			}
			if homes := tb.homes(k); !slices.Contains(homes[:], b) {
				t.Fatalf("%v is in bucket %d, not in one of %v", k, b, homes)
			}
			if seen[k] {
				t.Fatalf("%v has two slots", k)
			}
			seen[k] = true
			switch {
			case v.kind() != Dynamic:
				fixed++
			case tb.live(v):
				learned++
				ports[v.port()]++
			}
		}
	}
	if tb.learned.Load() != learned || tb.fixed.Load() != fixed || tb.head.spilled.Load() != spilled {
		t.Fatalf("counted learned %d fixed %d spilled %d, there are %d %d %d",
			tb.learned.Load(), tb.fixed.Load(), tb.head.spilled.Load(), learned, fixed, spilled)
	}
	for port := range uint16(32) { // more than the tests use
		if tb.PortLen(port) != ports[port] {
			t.Fatalf("counted %d entries on port %d, there are %d", tb.PortLen(port), port, ports[port])
		}
	}
}

// run does what the bytes say, three to an operation.
func (p *pair) run(ops []byte) {
	p.t.Helper()
	for ; len(ops) >= 3; ops = ops[3:] {
		op, a, b := ops[0], int(ops[1]), int(ops[2])
		k, port := testKey(a), uint16(b%testPorts)
		switch op % 32 {
		default:
			p.learn(k, Dest{port, p.o.gens[port]})
		case 0:
			p.learn(k, Dest{port, p.o.gens[port] - 1 - uint16(b/testPorts)})
		case 1:
			p.set(k, port, Static)
		case 2:
			p.set(k, port, Local)
		case 3, 4:
			p.delete(k)
		case 5:
			p.flush(port)
		case 6:
			p.flushMatch(b%(testPorts+1)-1, a%4-1)
		case 7:
			if a < 64 {
				p.dropPort(port)
			}
		case 8:
			p.tb.SetPortLimit(port, a%16-2)
			p.o.limits[port] = max(a%16-2, 0)
		case 9:
			p.tb.max.Store(int64(1 + a%64)) // SetMax minds the size
			p.o.max = 1 + a%64
		case 10:
			p.setAgeing([]uint32{0, 1, 2, 10, 300, MaxAgeing}[a%6])
		case 11, 12, 13, 14:
			p.advance(uint32(b % 4))
		case 15:
			p.advance(uint32(a * b))
		}
		p.check()
	}
}

// smallTable has numbers of buckets and overflow buckets that are powers of two.
func smallTable(max int, ageing uint32, buckets, overflow int) *Table {
	return newTable(Memory{new(Head), make([]Bucket, buckets+overflow)}, max, ageing, buckets)
}

// Tables with so few buckets that stations meet in them, spill and don't fit,
// and one as New makes it.
func testTables() []*Table {
	return []*Table{
		smallTable(64, 10, 1, 1), smallTable(64, 10, 4, 1), smallTable(64, 10, 16, 2), smallTable(64, 10, 32, 1), New(64, 10),
	}
}

func TestTableDoesWhatAMapUnderAMutexDoes(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	for i, tb := range testTables() {
		t.Run(fmt.Sprintf("buckets=%d", len(tb.buckets)), func(t *testing.T) {
			if len(tb.buckets) > 1000 {
				rounds /= 10 // Entries and checkSlots walk it all
			}
			for seed := range rounds {
				r := rand.New(rand.NewPCG(uint64(seed), uint64(i)))
				ops := make([]byte, 3*100)
				for i := range ops {
					ops[i] = byte(r.Uint32())
				}
				tb := smallTable(64, 10, len(tb.buckets), len(tb.all)-len(tb.buckets))
				p := newPair(t, tb, 64, 10)
				p.advance(0)
				p.run(ops)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func FuzzOperations(f *testing.F) {
	f.Add([]byte{20, 1, 1, 20, 2, 1, 5, 0, 1, 20, 1, 1, 11, 0, 3, 1, 2, 2, 3, 2, 0, 15, 9, 9})
	f.Add([]byte{9, 1, 0, 20, 1, 1, 20, 2, 2, 8, 3, 1, 20, 3, 1, 6, 0, 0, 7, 0, 1, 10, 0, 0, 20, 5, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 3*300 {
			ops = ops[:3*300]
		}
		for _, n := range []int{1, 8} {
			p := newPair(t, smallTable(64, 10, n, 1), 64, 10)
			p.advance(0)
			p.run(ops)
		}
	})
}
