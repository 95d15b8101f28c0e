package virtq

import (
	"bytes"
	"syscall"
	"testing"
)

// Guest physical and front-end addresses never coincide in these tests, so that
// one taken for the other is found out.
const (
	testGuest = 0x4000_0000
	testUser  = 0x7f00_0000_0000
)

// queue is a virtqueue in mapped memory with both its ends.
type queue struct {
	t      testing.TB
	mem    []byte
	memory *Memory
	rings  Rings
	drv    *Driver
	dev    *Device
	batch  *Batch
}

// Layout of mem: the three areas, then buffers from bufStart on.
const (
	memBytes = 1 << 20
	bufStart = 1 << 19
)

func mapped(t testing.TB, n int) []byte {
	t.Helper()
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(b) })
	return b
}

func newQueue(t testing.TB, size int, base uint16, c Config) *queue {
	t.Helper()
	q := &queue{t: t, mem: mapped(t, memBytes), batch: NewBatch(64, 256)}
	var err error
	if q.memory, err = NewMemory(Region{testGuest, testUser, q.mem}); err != nil {
		t.Fatal(err)
	}
	avail := DescBytes(size)
	used := (avail + AvailBytes(size) + 63) &^ 63
	q.rings = Rings{testUser, testUser + uint64(avail), testUser + uint64(used)}
	q.drv, err = NewDriver(size, q.mem[:avail], q.mem[avail:used], q.mem[used:bufStart], base)
	if err != nil {
		t.Fatal(err)
	}
	c.Size, c.Rings, c.Base = size, q.rings, base
	if q.dev, err = NewDevice(q.memory, c); err == nil {
		err = q.dev.Recover()
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// buf is a buffer of n bytes at off, as the driver offers it.
func (q *queue) buf(off, n int, write bool) Buf {
	return Buf{testGuest + uint64(off), uint32(n), write}
}

func (q *queue) add(bufs ...Buf) uint16 {
	q.t.Helper()
	head, err := q.drv.Add(bufs...)
	if err != nil {
		q.t.Fatal(err)
	}
	return head
}

// offerReadable makes n chains of one buffer each available, for the device to
// read.
func (q *queue) offerReadable(n int) {
	q.t.Helper()
	for range n {
		q.add(q.buf(bufStart, 64, false))
	}
	q.drv.Publish()
}

func (q *queue) take(want int) []Chain {
	q.t.Helper()
	n, err := q.dev.Take(q.batch, 64)
	if err != nil || n != want {
		q.t.Fatalf("Take = %d, %v, want %d", n, err, want)
	}
	return q.batch.Chains
}

func (q *queue) reap(want int) []Done {
	q.t.Helper()
	done := make([]Done, 256)
	n, err := q.drv.Reap(done)
	if err != nil || n != want {
		q.t.Fatalf("Reap = %d, %v, want %d", n, err, want)
	}
	return done[:n]
}

// bytesOf is all that a chain holds.
func (q *queue) bytesOf(c *Chain) []byte {
	b := bytes.Clone(c.First)
	for _, p := range q.batch.Rest(c) {
		b = append(b, p...)
	}
	return b
}

// setDesc writes a descriptor behind the driver's back.
func (q *queue) setDesc(i int, addr uint64, n uint32, flags, next uint16) {
	q.drv.desc[i] = makeDesc(addr, n, flags, next)
}

// offer makes a head available behind the driver's back.
func (q *queue) offer(heads ...uint16) {
	d := q.drv
	for _, h := range heads {
		d.avail.ring[d.nextAvail&d.mask] = h
		d.nextAvail++
	}
	d.Publish()
}
