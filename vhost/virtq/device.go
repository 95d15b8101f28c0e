package virtq

import (
	"fmt"
	"sync/atomic"
)

// Rings are the front end's addresses (Region.User) of a queue's three areas.
type Rings struct{ Desc, Avail, Used uint64 }

// Config is one virtqueue as its device sees it.
type Config struct {
	Size  int   // descriptors, a power of two up to MaxSize
	Rings Rings // where they are
	// Base is the available index to start from when the used ring can't tell.
	Base     uint16
	Write    bool // the device writes to the buffers (net: receiveq), else it reads them
	Indirect bool // INDIRECT_DESC was negotiated

	// Log marks what the device writes, for a live migration. nil: nothing.
	Log *Log
	// LogUsed says that the used ring itself is logged, too, and UsedAddr where
	// its first byte is counted to be (vhost-user: log_guest_addr).
	LogUsed  bool
	UsedAddr uint64

	// Inflight survives this process and says which chains were taken and not
	// returned. nil: not kept.
	Inflight *Inflight
}

// Device is the device's side of a virtqueue.
type Device struct {
	areas
	size, mask uint16
	write      uint16 // descWrite or 0: the direction every buffer must have
	indirect   bool
	fault      Fault  // the ring can't be used any more
	nextAvail  uint16 // free-running index of the next chain to take
	nextUsed   uint16 // free-running index of the next used element
	usedFlags  uint16
	last       *Region // region hit last
	mem        *Memory
	log        *Log
	logUsed    bool
	usedAddr   uint64
	inflight   *Inflight
	resubmit   []uint16 // heads taken before a crash, to be taken again first
	resumed    int      // how many of them were
}

// NewDevice goes on with the queue where its used ring says that the last device
// left it. It writes nothing. Recover or Resume must follow.
func NewDevice(m *Memory, c Config) (*Device, error) {
	if err := checkSize(c.Size); err != nil {
		return nil, err
	}
	var area [3][]byte
	for i, a := range []struct {
		name string
		addr uint64
		n    int
	}{
		{"descriptor table", c.Rings.Desc, DescBytes(c.Size)},
		{"available ring", c.Rings.Avail, AvailBytes(c.Size) - eventIndex},
		{"used ring", c.Rings.Used, UsedBytes(c.Size) - eventIndex},
	} {
		var ok bool
		if area[i], ok = m.User(a.addr, uint64(a.n)); !ok {
			return nil, fmt.Errorf("%s at user address %#x: not within one memory region", a.name, a.addr)
		}
	}
	at, err := mapAreas(c.Size, area[0], area[1], area[2])
	if err != nil {
		return nil, err
	}
	d := &Device{
		areas: at, size: uint16(c.Size), mask: uint16(c.Size - 1), indirect: c.Indirect,
		last: &none, mem: m, log: c.Log, logUsed: c.LogUsed, usedAddr: c.UsedAddr, inflight: c.Inflight,
	}
	if c.Write {
		d.write = descWrite
	}
	word := atomic.LoadUint32(&d.used.word)
	d.nextUsed, d.usedFlags = wordIndex(word), wordFlags(word)&usedNoNotify
	if c.Base-d.nextUsed > d.size && d.nextUsed-c.Base > d.size {
		d.nextUsed = c.Base // more than a ring apart: the used ring was never used
	}
	d.nextAvail = d.nextUsed
	return d, nil
}

// Recover has the chains that an earlier process took and never returned come
// again, as the inflight note says. It is for the first Device of a queue, before
// anything else is done with it; one that goes on after another calls Resume.
func (d *Device) Recover() (err error) {
	if d.inflight == nil {
		return nil
	}
	d.resubmit, err = d.inflight.restore(int(d.size), d.nextUsed)
	d.nextAvail += uint16(len(d.resubmit))
	return err
}

// Resume takes over old's position in the same queue, when a queue goes on with
// another memory or configuration. Nothing taken from old may be outstanding, and
// nobody may use it any more.
func (d *Device) Resume(old *Device) {
	d.nextAvail, d.nextUsed, d.usedFlags = old.nextAvail, old.nextUsed, old.usedFlags
	d.resubmit, d.resumed, d.fault = old.resubmit, old.resumed, old.fault
}

// Memory is the memory the queue lies in.
func (d *Device) Memory() *Memory { return d.mem }

// Holds reports whether an address of this process lies in memory that the front
// end shares with the device: the guest's, the dirty log, the inflight note.
func (d *Device) Holds(addr uintptr) bool {
	return d.mem.Holds(addr) || d.log != nil && d.log.holds(addr) ||
		d.inflight != nil && addr-address(d.inflight.mem) < uintptr(len(d.inflight.mem))
}

// Next is the free-running index of the next chain that Take takes from the
// available ring.
func (d *Device) Next() uint16 { return d.nextAvail }

// Used is the free-running index of the next used element.
func (d *Device) Used() uint16 { return d.nextUsed }

// UsedIndex is the used index as the driver sees it now.
func (d *Device) UsedIndex() uint16 { return wordIndex(atomic.LoadUint32(&d.used.word)) }

// AvailIndex is the driver's available index as it is now, unchecked.
func (d *Device) AvailIndex() uint16 { return wordIndex(atomic.LoadUint32(&d.avail.word)) }

// Empty reports that there is nothing to take. It costs one load.
func (d *Device) Empty() bool {
	return wordIndex(atomic.LoadUint32(&d.avail.word)) == d.nextAvail && d.resumed == len(d.resubmit)
}

// Take appends to b up to n chains, as far as b has room, and says how many. A
// Fault means that the driver broke the ring: nothing can be taken any more.
func (d *Device) Take(b *Batch, n int) (int, error) {
	if d.fault != 0 {
		return 0, d.fault
	}
	// The load acquires: entries and descriptors are read after the index that
	// covers them (2.7.13.3 is the driver's half of it).
	word := atomic.LoadUint32(&d.avail.word)
	n = min(n, b.Room())
	start := len(b.Chains)
	if d.resumed < len(d.resubmit) {
		n = d.takeAgain(b, n)
	} else {
		have := wordIndex(word) - d.nextAvail
		if have > d.size {
			d.fault = FaultAvail
			return 0, d.fault
		}
		n = d.takeNew(b, min(n, int(have)))
	}
	if d.inflight != nil {
		d.inflight.take(b.Chains[start:])
	}
	if n == 0 && d.fault != 0 {
		return 0, d.fault
	}
	return n, nil
}

// takeNew appends up to n chains from the available ring. The loads of one turn
// don't depend on those of another, so their cache misses overlap.
func (d *Device) takeNew(b *Batch, n int) int {
	start := len(b.Chains)
	chains := b.Chains[start : start+n]
	next, r := d.nextAvail, d.last
	for i := range chains {
		head := d.avail.ring[next&d.mask&(MaxSize-1)]
		if head >= d.size {
			d.fault = FaultHead
			n = i
			break
		}
		next++
		c := &chains[i]
		e := d.desc[head&(MaxSize-1)]
		off, length := e.addr-r.Guest, e.len()
		if off >= uint64(len(r.Mem)) {
			r = d.mem.find(e.addr)
			off = e.addr - r.Guest
		}
		c.Head, c.Written, c.Fault, c.again, c.more, c.from = head, 0, 0, false, 0, 0
		if e.flags() == d.write && uint64(length)-1 < uint64(len(r.Mem))-off && off < uint64(len(r.Mem)) {
			c.First = bytesAt(&r.Mem[0], off, length)
			continue
		}
		if !d.walk(b, c, e) {
			n, next = i, next-1
			break
		}
	}
	d.last, d.nextAvail = r, next
	b.Chains = b.Chains[:start+n]
	return n
}

// takeAgain appends up to n chains that an earlier device had taken and not
// returned.
func (d *Device) takeAgain(b *Batch, n int) int {
	n = min(n, len(d.resubmit)-d.resumed)
	for i := range n {
		head := d.resubmit[d.resumed]
		c := Chain{Head: head, again: true}
		if !d.walk(b, &c, d.desc[head&(MaxSize-1)]) {
			return i
		}
		b.Chains = append(b.Chains, c)
		d.resumed++
	}
	return n
}

// Rewind gives up the last n chains of b, as if they had not been taken. Their
// buffers go with them, and with b's last chain all that Take noted in b: what
// stayed would count against every later batch.
func (d *Device) Rewind(b *Batch, n int) {
	if n <= 0 {
		return
	}
	for range n {
		c := &b.Chains[len(b.Chains)-1]
		if c.more > 0 {
			b.pieces = b.pieces[:c.from]
		}
		if c.again {
			d.resumed--
		} else {
			d.nextAvail--
			if d.inflight != nil {
				d.inflight.untake(c.Head)
			}
		}
		b.Chains = b.Chains[:len(b.Chains)-1]
	}
	if len(b.Chains) == 0 {
		b.Reset()
	}
}

// Return hands all chains of b back to the driver, oldest first, which satisfies
// IN_ORDER (2.7.9), publishes them with one store, and empties b.
func (d *Device) Return(b *Batch) {
	if len(b.Chains) == 0 {
		b.Reset()
		return
	}
	next := d.nextUsed
	for i := range b.Chains {
		c := &b.Chains[i]
		d.used.ring[next&d.mask&(MaxSize-1)] = usedElem{uint32(c.Head), c.Written}
		next++
	}
	if d.inflight != nil {
		d.inflight.link(b.Chains)
	}
	if d.log != nil {
		d.logWritten(b)
	}
	d.nextUsed = next
	d.publish()
	if d.inflight != nil {
		d.inflight.done(b.Chains, next)
	}
	b.Reset()
}

// publish stores flags and index. The store releases: whoever sees the index
// sees the buffers and elements written before. It is also the full barrier that
// must stand between the index and the load of the driver's flags in WantCall.
func (d *Device) publish() {
	atomic.StoreUint32(&d.used.word, ringWord(d.usedFlags, d.nextUsed))
	if d.log != nil && d.logUsed {
		d.log.mark(d.usedAddr, usedHeader)
	}
}

// WantCall reports whether the driver wants to be notified of what was returned.
// It follows Return.
func (d *Device) WantCall() bool {
	return wordFlags(atomic.LoadUint32(&d.avail.word))&availNoInterrupt == 0
}

// DisableKicks tells the driver that the device looks by itself (2.7.10). It is
// a hint: kicks may still come.
func (d *Device) DisableKicks() {
	if d.usedFlags != usedNoNotify {
		d.usedFlags = usedNoNotify
		d.publish()
	}
}

// EnableKicks asks the driver to kick when it makes chains available, and
// reports whether some are there already: for them no kick may come.
func (d *Device) EnableKicks() bool {
	if d.usedFlags != 0 {
		d.usedFlags = 0
		d.publish()
	}
	// The store above is a full barrier: either the driver sees the flag after
	// its index was stored, and kicks, or its index is seen here.
	return !d.Empty()
}

// KicksDisabled reports which of the two was called last.
func (d *Device) KicksDisabled() bool { return d.usedFlags == usedNoNotify }

// logWritten marks what was written to the buffers of b and to the used elements
// that return them. It follows the writes: a page marked before them could be
// sent, and its mark cleared, in between.
func (d *Device) logWritten(b *Batch) {
	for i := range b.Chains {
		c := &b.Chains[i]
		left := d.logBuffer(c.First, int(c.Written))
		for _, p := range b.Rest(c) {
			left = d.logBuffer(p, left)
		}
		if d.logUsed {
			slot := uint64((d.nextUsed + uint16(i)) & d.mask)
			d.log.mark(d.usedAddr+usedHeader+slot*usedEntry, usedEntry)
		}
	}
}

// logBuffer marks the first n bytes of a buffer, or all of it, and says how many
// of n are left for the next one.
func (d *Device) logBuffer(buf []byte, n int) (left int) {
	n, left = min(n, len(buf)), n-min(n, len(buf))
	if n > 0 {
		if addr, ok := d.mem.guestAddr(buf); ok {
			d.log.mark(addr, uint64(n))
		}
	}
	return left
}
