package virtq

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// Driver is the driver's side of a virtqueue: it owns the descriptor table and
// the available ring, offers buffers, and takes them back. The addresses it
// writes into descriptors are the caller's business; it never looks at them.
//
// It does not trust the device either: an element that returns what was not
// offered is an error.
type Driver struct {
	areas
	size, mask uint16
	nextAvail  uint16 // free-running index of the next entry to fill
	nextUsed   uint16 // free-running index of the next element to look at
	availFlags uint16
	free, last uint16   // ends of the list of free descriptors, linked by next
	nfree      uint16   // how many there are
	next       []uint16 // the links, kept where the device can't write
	length     []uint16 // descriptors in the chain that starts here; 0: not offered
}

// Buf is one buffer of a chain, by the address that the device knows it by.
type Buf struct {
	Addr  uint64
	Len   uint32
	Write bool // the device writes to it
}

// Done is a chain that the device returned.
type Done struct {
	Head uint16 // as Add gave it
	Len  uint32 // bytes that the device says it wrote
}

var (
	// ErrFull: not enough free descriptors.
	ErrFull = errors.New("virtqueue is full")
	// ErrDevice: the device returned a chain that it did not have.
	ErrDevice = errors.New("device returned a chain that was not offered to it")
)

// NewDriver sets up an empty queue in the three areas, which are
// DescBytes(size), AvailBytes(size) and UsedBytes(size) long and outside Go's
// heap. They start from index base, which is 0 for a new queue.
func NewDriver(size int, desc, avail, used []byte, base uint16) (*Driver, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	at, err := mapAreas(size, desc, avail, used)
	if err != nil {
		return nil, fmt.Errorf("set up virtqueue: %w", err)
	}
	d := &Driver{
		areas: at, size: uint16(size), mask: uint16(size - 1), nextAvail: base, nextUsed: base,
		last: uint16(size - 1), nfree: uint16(size), next: make([]uint16, size), length: make([]uint16, size),
	}
	for i := range d.next {
		d.next[i] = uint16(i + 1)
	}
	atomic.StoreUint32(&at.avail.word, ringWord(0, base))
	atomic.StoreUint32(&at.used.word, ringWord(0, base))
	return d, nil
}

// Free is the number of free descriptors.
func (d *Driver) Free() int { return int(d.nfree) }

// Add offers a chain, which the device sees after Publish, and returns its head.
func (d *Driver) Add(bufs ...Buf) (uint16, error) {
	if len(bufs) == 0 || len(bufs) > int(d.nfree) {
		return 0, ErrFull
	}
	head := d.free
	at := head
	for i, b := range bufs {
		flags, next := uint16(0), uint16(0)
		if b.Write {
			flags = descWrite
		}
		if i < len(bufs)-1 {
			flags, next = flags|descNext, d.next[at]
		}
		d.desc[at&(MaxSize-1)] = makeDesc(b.Addr, b.Len, flags, next)
		d.free, at = d.next[at], d.next[at]
	}
	d.offer(head, uint16(len(bufs)))
	return head, nil
}

// AddIndirect offers a chain that lies in a table of its own: table is the
// memory for it, 16 bytes for each buffer, and addr what the device knows it by.
func (d *Driver) AddIndirect(addr uint64, table []byte, bufs ...Buf) (uint16, error) {
	if len(bufs) == 0 || len(bufs)*descLen > len(table) || d.nfree == 0 {
		return 0, ErrFull
	}
	t := asDescs(table)
	for i, b := range bufs {
		flags, next := uint16(0), uint16(0)
		if b.Write {
			flags = descWrite
		}
		if i < len(bufs)-1 {
			flags, next = flags|descNext, uint16(i+1)
		}
		t[i] = makeDesc(b.Addr, b.Len, flags, next)
	}
	head := d.free
	d.free = d.next[head]
	d.desc[head&(MaxSize-1)] = makeDesc(addr, uint32(len(bufs)*descLen), descIndirect, 0)
	d.offer(head, 1)
	return head, nil
}

// offer puts a chain of n descriptors into the available ring.
func (d *Driver) offer(head, n uint16) {
	d.length[head] = n
	d.nfree -= n
	d.avail.ring[d.nextAvail&d.mask&(MaxSize-1)] = head
	d.nextAvail++
}

// Publish makes every chain added so far available, with one store. It releases:
// whoever sees the index sees descriptors and entries.
func (d *Driver) Publish() {
	atomic.StoreUint32(&d.avail.word, ringWord(d.availFlags, d.nextAvail))
}

// WantKick reports whether the device wants to be notified. It follows Publish,
// whose store is the full barrier that must stand in between.
func (d *Driver) WantKick() bool {
	return wordFlags(atomic.LoadUint32(&d.used.word))&usedNoNotify == 0
}

// DisableCalls tells the device not to notify. It is a hint.
func (d *Driver) DisableCalls() {
	d.availFlags = availNoInterrupt
	d.Publish()
}

// EnableCalls asks the device to notify, and reports whether it returned
// something already.
func (d *Driver) EnableCalls() bool {
	d.availFlags = 0
	d.Publish()
	return wordIndex(atomic.LoadUint32(&d.used.word)) != d.nextUsed
}

// Reap takes back up to len(done) chains and frees their descriptors.
func (d *Driver) Reap(done []Done) (int, error) {
	// The load acquires: elements and buffers are read after the index.
	have := wordIndex(atomic.LoadUint32(&d.used.word)) - d.nextUsed
	if have > d.size {
		return 0, ErrDevice
	}
	n := min(len(done), int(have))
	for i := range done[:n] {
		e := d.used.ring[d.nextUsed&d.mask&(MaxSize-1)]
		if e.id >= uint32(d.size) || d.length[e.id] == 0 {
			return i, ErrDevice
		}
		head := uint16(e.id)
		done[i] = Done{head, e.len}
		d.nextUsed++
		d.release(head)
	}
	return n, nil
}

// release appends a chain's descriptors to the free list. First in, first out: a
// queue whose buffers come back in order hands descriptors out in the order of
// the table, as IN_ORDER wants (2.7.9).
func (d *Driver) release(head uint16) {
	n := d.length[head]
	d.length[head] = 0
	last := head
	for range n - 1 {
		last = d.next[last]
	}
	if d.nfree == 0 {
		d.free = head
	} else {
		d.next[d.last] = head
	}
	d.last = last
	d.nfree += n
}
