package virtq

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// The attacks on a ring, one row each. The chain starts with descriptor 0 of a
// ring of 8 whose memory has a second region, not adjacent in this process.
func TestHostileChainsCostTheChain(t *testing.T) {
	const (
		second = testGuest + memBytes // continues the first, for the guest
		table  = bufStart + 0x1000    // of indirect descriptors
	)
	type d struct {
		addr        uint64
		n           uint32
		flags, next uint16
	}
	good := d{testGuest + bufStart, 64, 0, 0}
	long := make([]d, 8)
	for i := range long {
		long[i] = d{good.addr, 64, descNext, uint16(i + 1)}
	}
	long[7] = good
	for _, tc := range []struct {
		name   string
		direct []d // of the ring
		table  []d // at table
		write  bool
		want   Fault
		pieces int
	}{
		{name: "one good buffer", direct: []d{good}, pieces: 1},
		{name: "as many as the queue has", direct: long, pieces: 8},
		{name: "a loop of one", direct: []d{{good.addr, 64, descNext, 0}}, want: FaultLong},
		{name: "a loop of two", direct: []d{{good.addr, 64, descNext, 1}, {good.addr, 64, descNext, 0}}, want: FaultLong},
		{name: "a loop of the whole table", direct: append(long[:7:7], d{good.addr, 64, descNext, 0}), want: FaultLong},
		{name: "next is the queue size", direct: []d{{good.addr, 64, descNext, 8}}, want: FaultNext},
		{name: "next is 65535", direct: []d{{good.addr, 64, descNext, 65535}}, want: FaultNext},
		{name: "next counts only with NEXT", direct: []d{{good.addr, 64, 0, 65535}}, pieces: 1},
		{name: "unknown flags are ignored", direct: []d{{good.addr, 64, 0xfff8, 0}}, pieces: 1},
		{name: "zero length", direct: []d{{good.addr, 0, 0, 0}}, want: FaultEmpty},
		{name: "zero length later", direct: []d{{good.addr, 64, descNext, 1}, {good.addr, 0, 0, 0}}, want: FaultEmpty},
		{name: "address 0", direct: []d{{0, 64, 0, 0}}, want: FaultRange},
		{name: "a user address", direct: []d{{testUser + bufStart, 64, 0, 0}}, want: FaultRange},
		{name: "one byte before memory", direct: []d{{testGuest - 1, 64, 0, 0}}, want: FaultRange},
		{name: "last byte", direct: []d{{second + memBytes - 1, 1, 0, 0}}, pieces: 1},
		{name: "past the last byte", direct: []d{{second + memBytes, 1, 0, 0}}, want: FaultRange},
		{name: "one byte too long", direct: []d{{second + memBytes - 64, 65, 0, 0}}, want: FaultRange},
		{name: "CVE-2018-1059: across two regions", direct: []d{{second - 32, 64, 0, 0}}, want: FaultRange},
		{name: "CVE-2020-10725: later buffer unmapped", direct: []d{{good.addr, 64, descNext, 1}, {1, 64, 0, 0}}, want: FaultRange},
		{name: "address wraps", direct: []d{{^uint64(0) - 31, 64, 0, 0}}, want: FaultRange},
		{name: "4 GiB long", direct: []d{{good.addr, ^uint32(0), 0, 0}}, want: FaultRange},
		{name: "writable where read", direct: []d{{good.addr, 64, descWrite, 0}}, want: FaultDirection},
		{name: "writable after readable", direct: []d{{good.addr, 64, descNext, 1}, {good.addr, 64, descWrite, 0}}, want: FaultDirection},
		{name: "readable where written", direct: []d{good}, write: true, want: FaultDirection},
		{name: "indirect", direct: []d{{testGuest + table, 32, descIndirect, 0}}, table: []d{{good.addr, 64, descNext, 1}, good}, pieces: 2},
		{name: "WRITE on the indirect descriptor itself", direct: []d{{testGuest + table, 16, descIndirect | descWrite, 0}}, table: []d{good}, pieces: 1},
		{name: "a chain, then indirect", direct: []d{{good.addr, 64, descNext, 1}, {testGuest + table, 16, descIndirect, 0}}, table: []d{good}, pieces: 2},
		{name: "indirect with NEXT", direct: []d{{testGuest + table, 16, descIndirect | descNext, 1}, good}, table: []d{good}, want: FaultIndirect},
		{name: "indirect in indirect", direct: []d{{testGuest + table, 16, descIndirect, 0}}, table: []d{{testGuest + table, 16, descIndirect, 0}}, want: FaultIndirect},
		{name: "table of odd size", direct: []d{{testGuest + table, 24, descIndirect, 0}}, table: []d{good, good}, want: FaultIndirect},
		{name: "table of no size", direct: []d{{testGuest + table, 0, descIndirect, 0}}, want: FaultIndirect},
		{name: "table unmapped", direct: []d{{8, 16, descIndirect, 0}}, want: FaultRange},
		{name: "table across two regions", direct: []d{{second - 16, 32, descIndirect, 0}}, want: FaultRange},
		{name: "a loop in the table", direct: []d{{testGuest + table, 32, descIndirect, 0}}, table: []d{{good.addr, 64, descNext, 1}, {good.addr, 64, descNext, 0}}, want: FaultLong},
		{name: "next past the table", direct: []d{{testGuest + table, 32, descIndirect, 0}}, table: []d{{good.addr, 64, descNext, 2}, good}, want: FaultNext},
		{name: "indirect chain longer than the queue", direct: []d{{testGuest + table, 9 * 16, descIndirect, 0}}, table: append(append(long[:7:7], d{good.addr, 64, descNext, 8}), good), want: FaultLong},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := newQueue(t, 8, 0, Config{Indirect: true, Write: tc.write})
			m, err := NewMemory(Region{testGuest, testUser, q.mem}, Region{second, testUser + 1<<32, mapped(t, memBytes)})
			if err != nil {
				t.Fatal(err)
			}
			if q.dev, err = NewDevice(m, Config{Size: 8, Rings: q.rings, Indirect: true, Write: tc.write}); err != nil {
				t.Fatal(err)
			}
			for i, e := range tc.direct {
				q.setDesc(i, e.addr, e.n, e.flags, e.next)
			}
			for i, e := range tc.table {
				x := makeDesc(e.addr, e.n, e.flags, e.next)
				binary.LittleEndian.PutUint64(q.mem[table+16*i:], x.addr)
				binary.LittleEndian.PutUint64(q.mem[table+16*i+8:], x.rest)
			}
			// Between two good ones, which must not be touched by it.
			var flags uint16
			if tc.write {
				flags = descWrite
			}
			if len(tc.direct) == 8 {
				q.offer(0)
			} else {
				q.setDesc(7, good.addr, 64, flags, 0)
				q.offer(7, 0, 7)
			}
			n, err := q.dev.Take(q.batch, 8)
			if err != nil {
				t.Fatalf("the ring broke: %v", err)
			}
			for i := range q.batch.Chains {
				c := &q.batch.Chains[i]
				if c.Head == 7 {
					if c.Fault != 0 || !c.Single() || len(c.First) != 64 {
						t.Errorf("neighbour: %v, %d bytes", c.Fault, len(c.First))
					}
					continue
				}
				got := 1 + len(q.batch.Rest(c))
				if c.Fault != 0 {
					got = 0
					if c.First != nil || len(q.batch.Rest(c)) != 0 || c.Single() {
						t.Errorf("a faulty chain has buffers")
					}
				}
				if c.Fault != tc.want || got != tc.pieces {
					t.Errorf("fault %v in %d pieces, want %v in %d", c.Fault, got, tc.want, tc.pieces)
				}
			}
			q.dev.Return(q.batch)
			if q.dev.UsedIndex() != uint16(n) {
				t.Errorf("returned %d of %d", q.dev.UsedIndex(), n)
			}
		})
	}
}

func TestIndirectIsRefusedUnlessNegotiated(t *testing.T) {
	q := newQueue(t, 8, 0, Config{})
	const table = bufStart + 0x1000
	if _, err := q.drv.AddIndirect(testGuest+table, q.mem[table:table+16], q.buf(bufStart, 64, false)); err != nil {
		t.Fatal(err)
	}
	q.drv.Publish()
	if c := q.take(1); c[0].Fault != FaultIndirect {
		t.Errorf("fault %v", c[0].Fault)
	}
}

func TestChainWithMoreBuffersThanTheBatchHoldsIsRefused(t *testing.T) {
	q := newQueue(t, 64, 0, Config{})
	q.batch = NewBatch(8, 10)
	bufs := make([]Buf, 11)
	for i := range bufs {
		bufs[i] = q.buf(bufStart, 64, false)
	}
	q.add(bufs...)
	q.add(append(bufs, bufs[0])...)
	q.add(bufs[0])
	q.drv.Publish()
	if c := q.take(1); c[0].Fault != 0 || !q.batch.Full() { // the second might fit into an empty batch
		t.Errorf("fault %v, full %v", c[0].Fault, q.batch.Full())
	}
	q.dev.Return(q.batch)
	if c := q.take(2); c[0].Fault != FaultLong || c[1].Fault != 0 {
		t.Errorf("faults %v, %v", c[0].Fault, c[1].Fault)
	}
}

// Chains that fit one by one all come, however many buffers they have together.
func TestChainsOfManyBuffersComeInSeveralBatches(t *testing.T) {
	q := newQueue(t, 64, 0, Config{})
	q.batch = NewBatch(64, 25)
	for range 9 { // 63 descriptors
		bufs := make([]Buf, 7)
		for i := range bufs {
			bufs[i] = q.buf(bufStart, 64, false)
		}
		q.add(bufs...)
	}
	q.drv.Publish()
	var batches []int
	for left := 9; left > 0; {
		n, err := q.dev.Take(q.batch, 64)
		if err != nil || n == 0 {
			t.Fatalf("Take = %d, %v with %d left", n, err, left)
		}
		for i := range q.batch.Chains {
			if c := &q.batch.Chains[i]; c.Fault != 0 || q.batch.Size(c) != 7*64 {
				t.Errorf("fault %v, %d bytes", c.Fault, q.batch.Size(c))
			}
		}
		batches = append(batches, n)
		left -= n
		q.dev.Return(q.batch)
	}
	if want := []int{4, 4, 1}; !slices.Equal(batches, want) { // six pieces each, and 25 of them
		t.Errorf("batches of %v chains, want %v", batches, want)
	}
	q.reap(9)
}

// A batch that gave chains up has room for as many again as if it had never held
// them, and none of their buffers is taken for another chain's.
func TestRewindGivesUpTheBuffersToo(t *testing.T) {
	q := newQueue(t, 64, 0, Config{})
	q.batch = NewBatch(64, 4)
	two := []Buf{q.buf(bufStart, 10, false), q.buf(bufStart+10, 20, false)}
	q.add(two...)
	q.add(q.buf(bufStart, 64, false))
	for range 3 {
		q.add(two...)
	}
	q.drv.Publish()
	for range 100 {
		for keep := range 5 {
			for range 2 {
				if _, err := q.dev.Take(q.batch, 5-len(q.batch.Chains)); err != nil || len(q.batch.Chains) != 5 {
					t.Fatalf("%d chains kept: %d chains, %v", keep, len(q.batch.Chains), err)
				}
				for i := range q.batch.Chains {
					if n := q.batch.Size(&q.batch.Chains[i]); n != 30 && i != 1 || n != 64 && i == 1 {
						t.Fatalf("%d chains kept: chain %d has %d bytes", keep, i, n)
					}
				}
				q.dev.Rewind(q.batch, 5-keep)
			}
			q.dev.Rewind(q.batch, keep)
		}
	}
	if q.batch.Walked() != 0 || len(q.batch.pieces) != 0 {
		t.Errorf("an empty batch counts %d descriptors and %d buffers", q.batch.Walked(), len(q.batch.pieces))
	}
}

// CVE-2019-3900: bad chains may cost their driver as much as it likes, and
// nobody else more than a batch of good ones.
func TestBadChainsAreABoundedWork(t *testing.T) {
	const size = 1024
	q := newQueue(t, size, 0, Config{})
	q.batch = NewBatch(64, 1024)
	for i := range uint16(size) { // one loop through all descriptors
		q.setDesc(int(i), testGuest+bufStart, 64, descNext, (i+1)%size)
	}
	heads := make([]uint16, 64)
	q.offer(heads...)
	taken := 0
	for rounds := 0; taken < 64; rounds++ {
		n, err := q.dev.Take(q.batch, 64)
		if err != nil || n == 0 {
			t.Fatalf("Take = %d, %v", n, err)
		}
		if w := q.batch.Walked(); w > 2*size+64 {
			t.Fatalf("%d descriptors read for one batch", w)
		}
		for _, c := range q.batch.Chains {
			if c.Fault != FaultLong {
				t.Fatalf("fault %v", c.Fault)
			}
		}
		taken += n
		q.dev.Return(q.batch)
	}
}

// A driver whose available ring makes no sense can't be followed any more.
func TestHostileIndicesBreakTheRing(t *testing.T) {
	for _, size := range []int{1, 8, 256} {
		for name, tc := range map[string]struct {
			spoil func(*queue)
			taken int
			want  Fault
		}{
			"index jumps ahead by one too many": {func(q *queue) { q.drv.avail.word = ringWord(0, uint16(size+1)) }, 0, FaultAvail},
			"index goes back":                   {func(q *queue) { q.drv.avail.word = ringWord(0, 0xffff) }, 0, FaultAvail},
			"head is the queue size":            {func(q *queue) { q.offer(uint16(size)) }, 0, FaultHead},
			"head is 65535":                     {func(q *queue) { q.offer(65535) }, 0, FaultHead},
		} {
			t.Run(fmt.Sprintf("size=%d/%s", size, name), func(t *testing.T) {
				q := newQueue(t, size, 0, Config{})
				tc.spoil(q)
				for range 3 {
					if n, err := q.dev.Take(q.batch, 64); n != tc.taken || err != tc.want {
						t.Fatalf("Take = %d, %v, want %d, %v", n, err, tc.taken, tc.want)
					}
				}
				if tc.want.Error() == "" {
					t.Error("no words for it")
				}
			})
		}
	}
	q := newQueue(t, 8, 0, Config{})
	q.setDesc(0, testGuest+bufStart, 64, 0, 0)
	q.offer(0, 0, 9, 0)
	q.take(2) // the good ones before it
	if n, err := q.dev.Take(q.batch, 64); n != 0 || err != FaultHead {
		t.Errorf("Take = %d, %v", n, err)
	}
}

// CVE-2020-14375: what was checked must be what is used. A second thread
// rewrites descriptors and indices all the while; whatever comes out must lie in
// memory.
func TestDescriptorsRewrittenDuringProcessing(t *testing.T) {
	q := newQueue(t, 256, 0, Config{Indirect: true})
	rounds := 20000
	if testing.Short() {
		rounds = 2000
	}
	var stop atomic.Bool
	var written atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := uint32(1); !stop.Load(); i++ {
			written.Add(1)
			i = i*1664525 + 1013904223
			e := &q.drv.desc[i>>24]
			switch i >> 8 & 7 {
			case 0:
				atomic.StoreUint64(&e.addr, uint64(i)<<32|uint64(i))
			case 1:
				atomic.StoreUint64(&e.addr, testGuest+bufStart)
			case 2:
				atomic.StoreUint64(&e.rest, uint64(i)<<32|0xffffffff)
			case 3:
				atomic.StoreUint64(&e.rest, 64|descNext<<32|uint64(i>>24)<<48)
			case 4:
				atomic.StoreUint64(&e.addr, testGuest+memBytes-32)
			case 5:
				atomic.StoreUint64(&e.rest, 64|descIndirect<<32)
			default:
				atomic.StoreUint64(&e.rest, 64)
			}
		}
	}()
	for written.Load() < 1<<14 { // until it has been round the table, the test tests nothing
		runtime.Gosched()
	}
	good, bad := 0, 0
	// On a busy machine the two may hardly run at a time: then it takes longer.
	for i, end := 0, time.Now().Add(20*time.Second); i < rounds || (good == 0 || bad == 0) && time.Now().Before(end); i++ {
		if i%256 == 0 {
			runtime.Gosched()
		}
		for j := range 64 {
			q.drv.avail.ring[(q.dev.Next()+uint16(j))&255] = uint16(i*7+j) & 255
		}
		atomic.StoreUint32(&q.drv.avail.word, ringWord(0, q.dev.Next()+64))
		n, err := q.dev.Take(q.batch, 64)
		if n == 0 || err != nil {
			t.Fatalf("Take = %d, %v", n, err)
		}
		for k := range q.batch.Chains {
			c := &q.batch.Chains[k]
			if c.Fault != 0 {
				bad++
				continue
			}
			good++
			for _, p := range append(q.batch.Rest(c), c.First) {
				off, ok := offsetIn(q.mem, p)
				if !ok || off+uint64(len(p)) > memBytes || len(p) == 0 {
					t.Fatalf("buffer of %d bytes at offset %#x, in memory: %v", len(p), off, ok)
				}
			}
		}
		q.dev.Return(q.batch)
	}
	stop.Store(true)
	<-ended
	if good == 0 || bad == 0 {
		t.Errorf("%d good chains and %d bad ones: the test tests nothing", good, bad)
	}
}
