package virtq

import (
	"bytes"
	"encoding/binary"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
)

// crash makes a new device on the queue, as after the death of the one before,
// and lists the heads that it takes.
func (q *queue) crash(c Config) []uint16 {
	q.t.Helper()
	c.Size, c.Rings = int(q.drv.size), q.rings
	var err error
	if q.dev, err = NewDevice(q.memory, c); err == nil {
		err = q.dev.Recover()
	}
	if err != nil {
		q.t.Fatal(err)
	}
	q.batch = NewBatch(64, 256)
	if _, err := q.dev.Take(q.batch, 64); err != nil {
		q.t.Fatal(err)
	}
	if _, err := q.dev.Take(q.batch, 64); err != nil { // resubmitted first, then new ones
		q.t.Fatal(err)
	}
	var heads []uint16
	for i := range q.batch.Chains {
		heads = append(heads, q.batch.Chains[i].Head)
	}
	return heads
}

func TestInflightChainsComeAgainAfterACrash(t *testing.T) {
	mem := mapped(t, 4096)[:InflightBytes(8)]
	cfg := func() Config { return Config{Inflight: NewInflight(mem)} }
	q := newQueue(t, 8, 0, cfg())
	q.offerReadable(5)
	if _, err := q.dev.Take(q.batch, 2); err != nil {
		t.Fatal(err)
	}
	q.dev.Return(q.batch)
	if n, err := q.dev.Take(q.batch, 2); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	// Gone with 2 and 3 taken, 0 and 1 returned, 4 never looked at.
	if got := q.crash(cfg()); !slices.Equal(got, []uint16{2, 3, 4}) {
		t.Fatalf("taken again: %v", got)
	}
	q.dev.Return(q.batch)
	q.reap(5)
	if got := q.crash(cfg()); got != nil {
		t.Fatalf("all was returned, and %v came again", got)
	}
	if q.dev.Next() != 5 || q.dev.Used() != 5 {
		t.Errorf("at %d and %d, want 5", q.dev.Next(), q.dev.Used())
	}
}

// The back end before may have worked out of order: what counts is the order in
// which chains were fetched.
func TestInflightChainsComeInTheOrderOfTheirCounters(t *testing.T) {
	mem := mapped(t, 4096)[:InflightBytes(8)]
	q := newQueue(t, 8, 0, Config{Inflight: NewInflight(mem)})
	q.offerReadable(6)
	for head, counter := range map[uint16]uint64{4: 100, 1: 7, 3: 1 << 60} {
		e := mem[16+16*int(head):]
		e[0] = 1
		binary.LittleEndian.PutUint64(e[8:], counter)
	}
	// Taken: 0 to 4. Returned: 0 and 2.
	q.drv.used.word = ringWord(0, 2)
	binary.LittleEndian.PutUint16(mem[14:], 2)
	if got := q.crash(Config{Inflight: NewInflight(mem)}); !slices.Equal(got, []uint16{1, 4, 3, 5}) {
		t.Fatalf("taken again: %v", got)
	}
}

// The process may die at any store of a batch. Whatever was returned to the
// driver must not come again, and whatever was not must.
func TestInflightSurvivesDeathAtEveryStep(t *testing.T) {
	for _, died := range []string{"before the index", "after the index", "while clearing"} {
		t.Run(died, func(t *testing.T) {
			mem := mapped(t, 4096)[:InflightBytes(8)]
			bits := mapped(t, 4096)
			log, err := NewLog(bits)
			if err != nil {
				t.Fatal(err)
			}
			q := newQueue(t, 8, 0, Config{Inflight: NewInflight(mem), Log: log, LogUsed: true})
			q.offerReadable(6)
			q.dev.Take(q.batch, 2)
			q.dev.Return(q.batch)
			q.dev.Take(q.batch, 3)
			dieBeforeTheIndex(t, q, bits)
			if n := q.dev.UsedIndex(); n != 2 {
				t.Fatalf("used index %d: it did not end before it", n)
			}
			want := []uint16{2, 3, 4, 5}
			if died != "before the index" {
				q.drv.used.word = ringWord(0, 5)
				want = []uint16{5}
			}
			if died == "while clearing" {
				mem[16+16*2] = 0
			}
			if got := q.crash(Config{Inflight: NewInflight(mem)}); !slices.Equal(got, want) {
				t.Fatalf("taken again: %v, want %v", got, want)
			}
		})
	}
}

// dieBeforeTheIndex has the device return its batch and end in the last thing it
// does before it stores the index: marking the dirty log, which is taken away.
func dieBeforeTheIndex(t *testing.T, q *queue, log []byte) {
	t.Helper()
	protect := func(prot int) {
		if err := syscall.Mprotect(log, prot); err != nil {
			t.Fatal(err)
		}
	}
	protect(syscall.PROT_NONE)
	defer protect(syscall.PROT_READ | syscall.PROT_WRITE)
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if fault, ok := recover().(interface{ Addr() uintptr }); !ok || fault.Addr()-address(log) >= 4096 {
			t.Fatalf("it did not end at the log: %v", fault)
		}
	}()
	q.dev.Return(q.batch)
}

func TestRewindOfResubmittedChains(t *testing.T) {
	mem := mapped(t, 4096)[:InflightBytes(8)]
	q := newQueue(t, 8, 0, Config{Inflight: NewInflight(mem)})
	q.offerReadable(3)
	q.take(3)
	q.crash(Config{Inflight: NewInflight(mem)})
	if q.dev.Next() != 3 || q.dev.Used() != 0 {
		t.Fatalf("at %d and %d, want 3 and 0", q.dev.Next(), q.dev.Used())
	}
	q.dev.Rewind(q.batch, 2)
	if q.dev.Empty() {
		t.Fatal("nothing to take after a rewind")
	}
	if n, err := q.dev.Take(q.batch, 8); n != 2 || err != nil || q.batch.Chains[2].Head != 2 {
		t.Fatalf("Take = %d, %v", n, err)
	}
}

// What was given up was not taken, and comes again in its place.
func TestRewoundChainsAreNotInflight(t *testing.T) {
	mem := mapped(t, 4096)[:InflightBytes(8)]
	q := newQueue(t, 8, 0, Config{Inflight: NewInflight(mem)})
	q.offerReadable(4)
	q.take(4)
	q.dev.Rewind(q.batch, 3)
	if n, err := q.dev.Take(q.batch, 1); n != 1 || err != nil { // 1 has a newer counter than 2 and 3 had
		t.Fatal(n, err)
	}
	if got := q.crash(Config{Inflight: NewInflight(mem)}); !slices.Equal(got, []uint16{0, 1, 2, 3}) {
		t.Errorf("taken again: %v", got)
	}
	if n := len(q.dev.resubmit); n != 2 {
		t.Errorf("%d chains were in flight, want 2: %v", n, q.dev.resubmit)
	}
}

// A queue that goes on with another configuration leaves the note alone, whose
// chains are its own.
func TestResumeLeavesTheInflightNoteAlone(t *testing.T) {
	mem := mapped(t, 4096)[:InflightBytes(8)]
	note := NewInflight(mem)
	q := newQueue(t, 8, 0, Config{Inflight: note})
	q.offerReadable(6)
	if n, err := q.dev.Take(q.batch, 2); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	before := bytes.Clone(mem)
	next, err := NewDevice(q.memory, Config{Size: 8, Rings: q.rings, Inflight: note})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mem, before) {
		t.Error("making the device changed the note while the other still works")
	}
	q.dev.Return(q.batch)
	next.Resume(q.dev)
	q.dev = next
	if n, err := next.Take(q.batch, 1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if got := q.crash(Config{Inflight: NewInflight(mem)}); !slices.Equal(got, []uint16{2, 3, 4, 5}) {
		t.Errorf("taken again: %v", got)
	}
}

// The region is the front end's: nothing in it may be believed.
func TestHostileInflightRegions(t *testing.T) {
	valid := func() []byte {
		mem := make([]byte, InflightBytes(8))
		binary.LittleEndian.PutUint16(mem[8:], 1)
		binary.LittleEndian.PutUint16(mem[10:], 8)
		return mem
	}
	for name, tc := range map[string]struct {
		spoil func([]byte) []byte
		ok    bool
		heads int
	}{
		"valid":             {func(b []byte) []byte { return b }, true, 0},
		"too short":         {func(b []byte) []byte { return b[:16+16*7] }, false, 0},
		"unknown version":   {func(b []byte) []byte { b[8] = 2; return b }, false, 0},
		"other size":        {func(b []byte) []byte { b[10] = 16; return b }, false, 0},
		"head past the end": {func(b []byte) []byte { b[12], b[14] = 200, 250; return b }, true, 0},
		"list is a loop":    {func(b []byte) []byte { b[14] = 0x80; b[16] = 1; return b }, true, 0},
		"all inflight": {func(b []byte) []byte {
			for i := range 8 {
				b[16+16*i] = 0xff
			}
			return b
		}, true, 8},
		"version 0 is fresh": {func(b []byte) []byte { b[8], b[16] = 0, 1; return b }, true, 0},
	} {
		q := newQueue(t, 8, 0, Config{})
		mem := tc.spoil(valid())
		dev, err := NewDevice(q.memory, Config{Size: 8, Rings: q.rings, Inflight: NewInflight(mem)})
		if err == nil {
			err = dev.Recover()
		}
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err == nil {
			if n := len(dev.resubmit); n != tc.heads {
				t.Errorf("%s: %d chains to take again, want %d", name, n, tc.heads)
			}
			for range 20 {
				if n, _ := dev.Take(q.batch, 64); n == 0 {
					break
				}
				dev.Return(q.batch)
			}
		}
	}
}
