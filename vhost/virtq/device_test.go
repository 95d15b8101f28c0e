package virtq

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestChainsCarryTheirBytesThroughEveryLayout(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789abcdef"), 8)
	for _, size := range []int{1, 2, 8, 256, MaxSize / 2} {
		for pieces := 1; pieces <= min(size, 9); pieces++ {
			for _, indirect := range []bool{false, true} {
				t.Run(fmt.Sprintf("size=%d/pieces=%d/indirect=%v", size, pieces, indirect), func(t *testing.T) {
					q := newQueue(t, size, 0, Config{Indirect: true})
					copy(q.mem[bufStart:], text)
					var bufs []Buf
					for i := range pieces {
						from, to := i*len(text)/pieces, (i+1)*len(text)/pieces
						bufs = append(bufs, q.buf(bufStart+from, to-from, false))
					}
					for range 3 {
						if indirect {
							const table = bufStart + 1<<16
							if _, err := q.drv.AddIndirect(testGuest+table, q.mem[table:table+4096], bufs...); err != nil {
								t.Fatal(err)
							}
						} else {
							q.add(bufs...)
						}
						q.drv.Publish()
						c := &q.take(1)[0]
						if c.Fault != 0 || !bytes.Equal(q.bytesOf(c), text) || q.batch.Size(c) != len(text) {
							t.Fatalf("fault %v, got %q", c.Fault, q.bytesOf(c))
						}
						if c.Single() != (pieces == 1) {
							t.Fatalf("Single() = %v for %d pieces", c.Single(), pieces)
						}
						q.dev.Return(q.batch)
						q.reap(1)
						if q.drv.Free() != size {
							t.Fatalf("%d descriptors free, want all %d", q.drv.Free(), size)
						}
					}
				})
			}
		}
	}
}

// 2.7.6, 2.7.8: idx counts on past 65535 and wraps.
func TestIndicesWrapAt65536(t *testing.T) {
	for _, size := range []int{1, 4, 256} {
		q := newQueue(t, size, 0xfff0, Config{})
		rng := rand.New(rand.NewPCG(1, uint64(size)))
		queued, returned := 0, 0
		var order []uint16
		for queued < 1<<16+100 {
			for range rng.IntN(size) + 1 {
				if q.drv.Free() == 0 {
					break
				}
				order = append(order, q.add(q.buf(bufStart, 1+queued%1000, false)))
				queued++
			}
			q.drv.Publish()
			for {
				n, err := q.dev.Take(q.batch, rng.IntN(64)+1)
				if err != nil {
					t.Fatal(err)
				}
				for i := range q.batch.Chains {
					if c := &q.batch.Chains[i]; c.Head != order[i] || len(c.First) != 1+(returned+i)%1000 {
						t.Fatalf("frame %d: head %d of %d bytes, want %d", returned+i, c.Head, len(c.First), order[i])
					}
				}
				order, returned = order[n:], returned+n
				q.dev.Return(q.batch)
				if n == 0 {
					break
				}
			}
			done := make([]Done, size)
			if _, err := q.drv.Reap(done); err != nil {
				t.Fatal(err)
			}
		}
		if want := 0xfff0 + uint16(queued); q.dev.Next() != want || q.dev.Used() != want || q.dev.UsedIndex() != want || q.dev.AvailIndex() != want {
			t.Errorf("size %d: indices %d, %d, %d, %d, want %d", size, q.dev.Next(), q.dev.Used(), q.dev.UsedIndex(), q.dev.AvailIndex(), want)
		}
	}
}

// 2.7.9: with IN_ORDER the driver hands descriptors out in the order of the
// table and the device returns them in the order they came.
func TestBothSidesKeepOrder(t *testing.T) {
	q := newQueue(t, 8, 0, Config{})
	want := uint16(0)
	for range 100 {
		for range 5 {
			if h := q.add(q.buf(bufStart, 64, false)); h != want {
				t.Fatalf("head %d, want %d", h, want)
			}
			want = (want + 1) % 8
		}
		q.drv.Publish()
		q.take(5)
		q.dev.Return(q.batch)
		for i, d := range q.reap(5) {
			if d.Head != (want-5+uint16(i))%8 {
				t.Fatalf("element %d returns %d", i, d.Head)
			}
		}
	}
}

// 2.7.8: len tells how much was written, to chains of any shape.
func TestReturnTellsWhatWasWritten(t *testing.T) {
	q := newQueue(t, 8, 0, Config{Write: true})
	q.add(q.buf(bufStart, 100, true))
	q.add(q.buf(bufStart+100, 10, true), q.buf(bufStart+200, 20, true))
	q.drv.Publish()
	c := q.take(2)
	c[0].Written, c[1].Written = 77, 30
	q.dev.Return(q.batch)
	if got := q.reap(2); got[0].Len != 77 || got[1].Len != 30 {
		t.Fatalf("lengths %+v", got)
	}
}

func TestNothingIsPublishedBeforeReturn(t *testing.T) {
	q := newQueue(t, 8, 0, Config{})
	q.add(q.buf(bufStart, 64, false))
	if !q.dev.Empty() {
		t.Fatal("seen before Publish")
	}
	q.drv.Publish()
	q.take(1)
	q.reap(0)
	q.dev.Return(q.batch)
	q.reap(1)
	q.dev.Return(q.batch) // empty
	q.reap(0)
}

func TestRewindGivesChainsUp(t *testing.T) {
	q := newQueue(t, 8, 0, Config{})
	q.offerReadable(5)
	q.take(5)
	q.dev.Rewind(q.batch, 3)
	q.dev.Return(q.batch)
	q.reap(2)
	if c := q.take(3); c[0].Head != 2 || c[2].Head != 4 {
		t.Fatalf("taken again: %+v", c)
	}
}

func TestTakeKeepsToTheBatchsRoom(t *testing.T) {
	q := newQueue(t, 16, 0, Config{})
	q.batch = NewBatch(4, 2)
	q.offerReadable(10)
	for _, want := range []int{4, 0} {
		if n, err := q.dev.Take(q.batch, 10); n != want || err != nil {
			t.Fatalf("Take = %d, %v, want %d", n, err, want)
		}
	}
	q.dev.Return(q.batch)
	if n, _ := q.dev.Take(q.batch, 3); n != 3 || q.batch.Room() != 1 {
		t.Fatalf("Take = %d, room %d", n, q.batch.Room())
	}
}

// 2.7.7, 2.7.10: flags are hints, and each side says what it wants.
func TestNotificationSuppression(t *testing.T) {
	q := newQueue(t, 8, 0, Config{})
	if !q.drv.WantKick() || !q.dev.WantCall() {
		t.Fatal("a new queue suppresses notifications")
	}
	q.dev.DisableKicks()
	if q.drv.WantKick() || !q.dev.KicksDisabled() {
		t.Fatal("kicks wanted after DisableKicks")
	}
	if q.dev.EnableKicks() || !q.drv.WantKick() {
		t.Fatal("EnableKicks: found something, or kicks not wanted")
	}
	q.dev.DisableKicks()
	q.add(q.buf(bufStart, 64, false))
	q.drv.Publish()
	if !q.dev.EnableKicks() {
		t.Fatal("EnableKicks missed what came before it: no kick comes for that")
	}
	q.drv.DisableCalls()
	if q.dev.WantCall() {
		t.Fatal("calls wanted after DisableCalls")
	}
	if q.drv.EnableCalls() || !q.dev.WantCall() {
		t.Fatal("EnableCalls: found something, or calls not wanted")
	}
	q.take(1)
	q.dev.Return(q.batch)
	if !q.drv.EnableCalls() {
		t.Fatal("EnableCalls missed what came before it")
	}
}

// The flag that an earlier device left must not outlive it unnoticed.
func TestNewDeviceKnowsThatKicksAreOff(t *testing.T) {
	q := newQueue(t, 8, 0, Config{})
	q.dev.DisableKicks()
	dev, err := NewDevice(q.memory, Config{Size: 8, Rings: q.rings})
	if err != nil {
		t.Fatal(err)
	}
	if dev.EnableKicks(); !q.drv.WantKick() {
		t.Fatal("kicks stay off")
	}
}

// A chain that was taken and not returned comes again: the used ring tells where
// a device stopped.
func TestNewDeviceStartsWhereTheUsedRingStands(t *testing.T) {
	q := newQueue(t, 8, 0xfffe, Config{})
	q.offerReadable(6)
	q.take(6)
	q.dev.Rewind(q.batch, 2)
	q.dev.Return(q.batch) // 4 of 6, and then the device is gone
	for _, base := range []uint16{0xfffe, 2, 4} {
		dev, err := NewDevice(q.memory, Config{Size: 8, Rings: q.rings, Base: base})
		if err != nil {
			t.Fatal(err)
		}
		q.batch.Reset()
		if n, err := dev.Take(q.batch, 8); n != 2 || err != nil || q.batch.Chains[0].Head != 4 {
			t.Fatalf("base %d: Take = %d, %v", base, n, err)
		}
	}
}

// A front end may say where to start while the used ring has never been used.
func TestBaseCountsWhenTheUsedRingCantBeRight(t *testing.T) {
	q := newQueue(t, 8, 0, Config{})
	dev, err := NewDevice(q.memory, Config{Size: 8, Rings: q.rings, Base: 100})
	if err != nil || dev.Next() != 100 {
		t.Fatalf("starts at %d, %v, want 100", dev.Next(), err)
	}
}

func TestResumeGoesOnInOtherMemory(t *testing.T) {
	q := newQueue(t, 8, 0, Config{})
	q.offerReadable(4)
	q.take(4)
	q.dev.Rewind(q.batch, 1)
	q.dev.Return(q.batch)
	q.dev.DisableKicks()
	// The same content at other addresses of this process.
	moved := mapped(t, len(q.mem))
	copy(moved, q.mem)
	m, err := NewMemory(Region{testGuest, testUser, moved})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := NewDevice(m, Config{Size: 8, Rings: q.rings})
	if err != nil {
		t.Fatal(err)
	}
	dev.Resume(q.dev)
	clear(q.mem)
	if n, err := dev.Take(q.batch, 8); n != 1 || err != nil || q.batch.Chains[0].Head != 3 {
		t.Fatalf("Take = %d, %v", n, err)
	}
	if !dev.KicksDisabled() || !m.Holds(address(q.batch.Chains[0].First)) || dev.Memory() != m {
		t.Fatal("not what was resumed, or not where")
	}
}

func TestNewDeviceRefuses(t *testing.T) {
	mem := mapped(t, 1<<16)
	m, err := NewMemory(Region{testGuest, testUser, mem})
	if err != nil {
		t.Fatal(err)
	}
	good := Config{Size: 8, Rings: Rings{testUser, testUser + 0x200, testUser + 0x400}}
	if _, err := NewDevice(m, good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"size 0":                         func(c *Config) { c.Size = 0 },
		"size 3":                         func(c *Config) { c.Size = 3 },
		"size past 32768":                func(c *Config) { c.Size = 65536 },
		"negative size":                  func(c *Config) { c.Size = -8 },
		"descriptor table misaligned":    func(c *Config) { c.Rings.Desc += 8 },
		"available ring misaligned to 4": func(c *Config) { c.Rings.Avail += 2 },
		"used ring misaligned to 4":      func(c *Config) { c.Rings.Used += 2 },
		"descriptor table unmapped":      func(c *Config) { c.Rings.Desc = 0 },
		"guest address for a user one":   func(c *Config) { c.Rings.Used = testGuest },
		"available ring past the end":    func(c *Config) { c.Rings.Avail = testUser + 1<<16 - 16 },
		"used ring past the end":         func(c *Config) { c.Rings.Used = testUser + 1<<16 - 64 },
		"address wraps":                  func(c *Config) { c.Rings.Used = ^uint64(0) - 3 },
	} {
		c := good
		spoil(&c)
		if _, err := NewDevice(m, c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDriverRefusesWhatItDidNotOffer(t *testing.T) {
	for name, e := range map[string]usedElem{
		"past the table": {8, 0},
		"32-bit id":      {1 << 16, 0},
		"never offered":  {5, 0},
	} {
		q := newQueue(t, 8, 0, Config{})
		q.add(q.buf(bufStart, 64, false))
		q.drv.Publish()
		q.drv.used.ring[0] = e
		q.drv.used.word = ringWord(0, 1)
		if _, err := q.drv.Reap(make([]Done, 4)); !errors.Is(err, ErrDevice) {
			t.Errorf("%s: %v", name, err)
		}
	}
	q := newQueue(t, 8, 0, Config{})
	q.drv.used.word = ringWord(0, 9)
	if _, err := q.drv.Reap(make([]Done, 4)); !errors.Is(err, ErrDevice) {
		t.Errorf("index jump: %v", err)
	}
	for range 8 {
		q.add(q.buf(bufStart, 64, false))
	}
	if _, err := q.drv.Add(q.buf(bufStart, 64, false)); !errors.Is(err, ErrFull) {
		t.Errorf("ninth of eight: %v", err)
	}
	if _, err := q.drv.AddIndirect(0, make([]byte, 16), q.buf(bufStart, 1, false)); !errors.Is(err, ErrFull) {
		t.Errorf("ninth of eight, indirect: %v", err)
	}
}

func TestTakeAndReturnAllocateNothing(t *testing.T) {
	q := newQueue(t, 256, 0, Config{Indirect: true})
	done := make([]Done, 64)
	if n := testing.AllocsPerRun(100, func() {
		for i := range 32 {
			if i%4 == 0 {
				q.drv.Add(q.buf(bufStart, 12, false), q.buf(bufStart+64, 200, false))
			} else {
				q.drv.Add(q.buf(bufStart, 76, false))
			}
		}
		q.drv.Publish()
		if n, err := q.dev.Take(q.batch, 64); n != 32 || err != nil {
			t.Fatal(n, err)
		}
		q.dev.Return(q.batch)
		q.drv.Reap(done)
	}); n != 0 {
		t.Errorf("%v allocations for a batch", n)
	}
}
