package fdb

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Readers in C look where the table puts its stations, find what it finds and
// refresh what it would, whatever was done to it.
func TestReadersInCAnswerAsTheTableDoes(t *testing.T) {
	eachReader(t, 16, func(t *testing.T, r *reader) {
		rounds := 60
		if testing.Short() {
			rounds = 6
		}
		for seed := range rounds {
			rnd := rand.New(rand.NewPCG(uint64(seed), 11))
			p := newPair(t, r.table(64, 10), 64, 10)
			p.advance(0)
			for range 40 {
				ops := make([]byte, 3*(1+rnd.IntN(8)))
				for i := range ops {
					ops[i] = byte(rnd.Uint32())
				}
				p.run(ops)
				r.compare(p, rnd)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	})
}

// compare asks r about random stations and compares its answers with the
// table's. What r has heard is told the oracle, too.
func (r *reader) compare(p *pair, rnd *rand.Rand) {
	t, tb := p.t, p.tb
	t.Helper()
	want := make([]question, len(r.q))
	asked := map[Key]bool{}
	for i := range r.q {
		q := question{op: uint64(askLookup + rnd.IntN(3)), port: uint64(rnd.IntN(testPorts))}
		k := testKey(rnd.Int())
		for q.op == askHeard && asked[k] { // once, for want is of before
			k = testKey(rnd.Int())
		}
		q.key = uint64(k)
		r.q[i] = q
		s, v := tb.find(k)
		d, found := tb.Lookup(k)
		switch q.op {
		case askLookup:
			if found {
				q.answer, q.also = uint64(v), 1<<d.Port
			}
			if d.Port != v.port() || found && v.kind() == Dynamic && v.gen() != d.Gen {
				t.Fatalf("Lookup(%v) = %v, but the value is %x", k, d, uint64(v))
			}
		case askHeard:
			asked[k] = true
			if found && uint64(v.port()) == q.port {
				q.answer = 1
				if v.kind() == Dynamic {
					v = v&^secMask | word(clock(tb.head.clock.Load()).now())
					p.o.learn(k, d, false)
				}
			}
			defer func() {
				if s != nil && word(s.val.Load()) != v {
					t.Errorf("%v heard on port %d: %x, want %x", k, q.port, s.val.Load(), uint64(v))
				}
			}()
		case askHomes:
			h := tb.homes(k)
			q.answer, q.also = uint64(h[0])<<32|uint64(h[1]), uint64(h[2])
		}
		want[i] = q
	}
	// What is heard must not change what is looked up behind it.
	for i, q := range r.q {
		if q.op == askLookup && asked[Key(q.key)] {
			r.q[i].op, want[i] = askHomes, question{}
		}
	}
	r.ask(1)
	for i, q := range r.q {
		if want[i] != (question{}) && q != want[i] {
			t.Errorf("asked for %v: %x, want %x", Key(q.key), q, want[i])
		}
	}
}

// The same with writers at work. Where nothing was done to a station while it
// was asked for, both answers are the same; at all times it is on a port that
// it was on, and what was moved or removed doesn't come back by a refresh.
func TestReadersInCRaceWriters(t *testing.T) {
	eachReader(t, 16, func(t *testing.T, r *reader) {
		const stations, writers = 2 * testStations, 2
		tb := r.table(100, DefaultAgeing)
		var turns [stations]atomic.Uint64 // odd while somebody changes the station
		var all atomic.Uint64             // odd while somebody changes many
		stop := make(chan struct{})
		var wg sync.WaitGroup
		end := sync.OnceFunc(func() { close(stop); wg.Wait() })
		defer end() // before the memory goes, whatever happens
		var results [Off + 1]atomic.Int64
		workers(&wg, stop, writers, func(w int, rnd *rand.Rand) {
			i := rnd.IntN(stations/writers)*writers + w // nobody else's
			k := testKey(i)
			turns[i].Add(1)
			defer turns[i].Add(1)
			if rnd.IntN(4) == 0 {
				tb.Delete(k)
				if d, ok := tb.Lookup(k); ok {
					t.Errorf("station %d is back on port %d after it was removed", i, d.Port)
				}
				return
			}
			d := at(tb, home(i)+uint16(rnd.IntN(2)))
			result, _ := tb.Learn(k, d)
			results[result].Add(1)
			if got, ok := tb.Lookup(k); result <= Moved && ok && got.Port != d.Port {
				t.Errorf("station %d is on port %d after it moved to %d", i, got.Port, d.Port)
			}
		})
		wg.Go(func() {
			for second := uint32(0); ; second++ {
				select {
				case <-stop:
					return
				default:
				}
				all.Add(1)
				if second%8 == 0 {
					tb.Flush(uint16(second/8) % 16)
				}
				tb.Advance(second, nil) // so that there is something to refresh
				all.Add(1)
				for range 50 {
					syscall.Nanosleep(&syscall.Timespec{Nsec: 1000}, nil)
				}
			}
		})

		rnd := rand.New(rand.NewPCG(3, 3))
		var before [questions][3]uint64
		now := func(i int) [3]uint64 { return [3]uint64{all.Load(), turns[i].Load(), tb.Evictions()} }
		still, found, heard := 0, 0, 0
		for on := racing(t, func() bool {
			return still > 200 && found > 100 && heard > 100 && results[Added].Load() > 100 && results[Moved].Load() > 100
		}); on(); {
			var who [questions]int
			for i := range r.q {
				who[i] = rnd.IntN(stations)
				r.q[i] = question{op: uint64(askLookup + rnd.IntN(2)), key: uint64(testKey(who[i])), port: uint64(home(who[i]))}
				before[i] = now(who[i])
			}
			r.ask(50)
			for i, q := range r.q {
				tb.mu.Lock() // nobody evicts
				d, ok := tb.Lookup(Key(q.key))
				quiet := before[i] == now(who[i]) && before[i][0]%2 == 0 && before[i][1]%2 == 0
				tb.mu.Unlock()
				if q.op == askHeard {
					heard += int(q.answer)
					continue
				}
				if q.also&^(3<<home(who[i])) != 0 {
					t.Fatalf("station %d was found on ports %b", who[i], q.also)
				}
				if q.answer != 0 {
					found++
				}
				if quiet {
					still++
					if ok != (q.answer != 0) || ok && word(q.answer).port() != d.Port {
						t.Fatalf("station %d: %x, but Lookup = %v %v", who[i], q.answer, d, ok)
					}
				}
			}
		}
		end()
		checkSlots(t, tb)
	})
}

// neighbours are two stations that use the same slot of an empty table.
func neighbours(tb *Table) (a, b Key) {
	a = testKey(0)
	for i := 1; ; i++ {
		b = MakeKey(macOf(uint64(2<<40+i)), 1)
		if tb.homes(a)[0] == tb.homes(b)[0] {
			return a, b
		}
	}
}

// What happened to an entry since a reader found it is not undone by its
// refresh.
func TestReadersInCRefreshOnlyWhatTheyRead(t *testing.T) {
	eachReader(t, 8, func(t *testing.T, r *reader) {
		for name, change := range map[string]func(tb *Table, a, b Key){
			"nothing":   func(*Table, Key, Key) {},
			"refreshed": func(tb *Table, a, _ Key) { tb.Learn(a, at(tb, 1)) },
			"moved":     func(tb *Table, a, _ Key) { tb.Learn(a, at(tb, 2)) },
			"removed":   func(tb *Table, a, _ Key) { tb.Delete(a) },
			"made static": func(tb *Table, a, _ Key) {
				if err := tb.Set(a, 1, Static); err != nil {
					t.Fatal(err)
				}
			},
			"replaced":                 func(tb *Table, a, b Key) { tb.Delete(a); tb.Learn(b, at(tb, 1)) },
			"learned anew":             func(tb *Table, a, _ Key) { tb.Delete(a); tb.Learn(a, at(tb, 1)) },
			"flushed and learned anew": func(tb *Table, a, _ Key) { tb.Flush(1); tb.Learn(a, at(tb, 1)) },
		} {
			tb := r.table(40, DefaultAgeing)
			tb.Advance(0, nil)
			a, b := neighbours(tb)
			wantLearn(t, tb, a, 1, Added)
			tb.Advance(7, nil)
			found := r.one(question{op: askFind, key: uint64(a)})
			s, v := tb.find(a)
			if word(found.answer) != v || v == 0 {
				t.Fatalf("%s: found %x, want %x", name, found.answer, uint64(v))
			}
			change(tb, a, b)
			want := s.val.Load()
			if name == "nothing" {
				want += 7
			}
			found.op = askRefresh
			r.one(found)
			if got := s.val.Load(); got != want {
				t.Errorf("%s: %x after the refresh, want %x", name, got, want)
			}
		}
	})
}

// One station's slot is given to another and back while a reader looks for it,
// at every one of its loads: it never takes the other's port for its own.
func TestReaderInCIsNeverMistakenInASlotThatChangesHands(t *testing.T) {
	r := hostReader(t, 8, "-DSTEPPED")
	// To the point of the lookup, counted in loads, before which each is done.
	run := func(when [4]int) (q question, loads int) {
		tb := r.table(40, DefaultAgeing)
		a, b := neighbours(tb)
		wantLearn(t, tb, a, 1, Added)
		todo := []func(){
			func() { tb.Delete(a) },
			func() { wantLearn(t, tb, b, 2, Added) },
			func() { tb.Delete(b) },
			func() { wantLearn(t, tb, a, 3, Added) },
		}
		r.step = func() {
			for i, do := range todo {
				if when[i] == loads {
					do()
				}
			}
			loads++
		}
		return r.one(question{op: askLookup, key: uint64(a)}), loads
	}
	_, loads := run([4]int{99, 99, 99, 99})
	seen := map[uint64]int{}
	for i := range loads + 1 {
		for j := i; j <= loads; j++ {
			for k := j; k <= loads; k++ {
				for l := k; l <= loads; l++ {
					q, _ := run([4]int{i, j, k, l})
					seen[q.answer>>portShift]++
					if q.answer>>portShift == 2 {
						t.Fatalf("found on the other's port, with the changes before loads %d %d %d %d", i, j, k, l)
					}
				}
			}
		}
	}
	t.Logf("%d loads; found on ports: %v", loads, seen)
	if seen[0] == 0 || seen[1] == 0 || seen[3] == 0 {
		t.Errorf("found on ports %v: want all of none, 1 and 3", seen)
	}
}

// A station that is heard between a reader's looks at clock and entry is new,
// not as old as can be.
func TestReadersInCTakeAnEntryFromAfterTheirClockForNew(t *testing.T) {
	eachReader(t, 8, func(t *testing.T, r *reader) {
		tb := r.table(40, DefaultAgeing)
		for _, second := range []uint32{1, secMask + 1} { // and where it wraps
			tb.head.clock.Store(uint64(makeClock(second, DefaultAgeing)))
			tb.Delete(testKey(0))
			wantLearn(t, tb, testKey(0), 1, Added)
			tb.head.clock.Store(uint64(makeClock(second-1, DefaultAgeing)))
			if q := r.one(question{op: askLookup, key: uint64(testKey(0))}); q.answer == 0 {
				t.Errorf("stored at second %d: not found", second)
			}
		}
	})
}
