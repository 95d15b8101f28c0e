package vhostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// Sizes of the rings and of their buffers. With mergeable buffers (virtio 1.2,
// 5.1.6.4) a 64 KiB frame takes 17 of them, and one is enough for every frame
// of an ordinary MTU.
const (
	ringSize   = 256
	bufferLen  = 4096
	headerLen  = frame.VnetHdrMrgRxbufLen
	maxBuffers = (headerLen+frame.MaxLen)/bufferLen + 1
	rxRing     = 0
	txRing     = 1
)

const (
	featureMrgRxbuf = 1 << 15
	featureVersion1 = 1 << 32
)

// Rings drive /dev/vhost-net as a guest's driver does: a thread of the kernel
// moves frames between two rings in our memory and a tap of our own, so that a
// batch costs a store, and a kick when that thread sleeps, in place of a read or
// write for each frame.
//
// They show that a descriptor that Open gives is one that frames pass through,
// and they are what was weighed as a port of the switch, a way to the host's
// stack without reads and writes. It is none: on Debian's kernel 6.1, emulated,
// with two processors, they carried 0.4 to 0.9 times what a plain tap (package
// tap) does towards the host, in each of five runs at 64 and at 1514 bytes; from
// the host 0.76 times in the median of these runs, and more in two of ten.
// vhost_net hands each frame to the tap in a thread of its own, so the work is
// the same, and a wake-up and a second copy come on top.
// TestRingsAgainstPlainTap measures it again.
type Rings struct {
	mem  []byte // areas and buffers of both rings; the kernel's view of it is the same
	dev  device
	kick [2]*sysio.EventFD
	call *sysio.EventFD
	rx   receiver
	tx   transmitter
}

// receiver is the side that belongs to the worker.
type receiver struct {
	ring    *virtq.Driver
	bufs    []byte
	base    uint64           // where bufs begins
	slot    [ringSize]uint16 // buffer of the chain with that head
	done    [ringSize]virtq.Done
	next, n int      // done[next:n] is reaped and not yet lent
	lent    []uint16 // buffers lent since the last Release
	rest    [][]byte // Frame.Rest of the frames lent
	armed   bool
	failed  error
}

// transmitter is shared by those who send.
type transmitter struct {
	mu     sync.Mutex
	ring   *virtq.Driver
	bufs   []byte
	base   uint64             // where bufs begins
	slots  [ringSize][]uint16 // buffers of the chain with that head
	free   []uint16
	done   [ringSize]virtq.Done
	chain  [maxBuffers]virtq.Buf
	failed error
}

// NewRings starts vhost_net on tap, the descriptor of a tap with virtio-net
// headers of 12 bytes (IFF_VNET_HDR, TUNSETVNETHDRSZ). The tap stays the
// caller's, and must not be read or written while the Rings live.
func NewRings(tap int) (*Rings, error) { return newRings(Path, tap) }

func newRings(path string, tap int) (_ *Rings, err error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &Rings{dev: -1}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor: %w", err)
	}
	r.dev = device(fd)
	for _, e := range []**sysio.EventFD{&r.kick[rxRing], &r.kick[txRing], &r.call} {
		if *e, err = sysio.NewEventFD(); err != nil {
			return nil, err
		}
	}
	if err := r.dev.setOwner(); err != nil {
		return nil, err
	}
	if err := r.dev.setFeatures(featureMrgRxbuf | featureVersion1); err != nil {
		return nil, err
	}
	if err := r.layOut(); err != nil {
		return nil, err
	}
	for ring := range uint32(2) {
		if err := r.dev.setBackend(ring, tap); err != nil {
			return nil, err
		}
	}
	r.kick[rxRing].Signal()
	return r, nil
}

// page is the alignment of every area, more than any of them needs.
const page = 4096

// layOut maps the memory, makes the rings, and offers all receive buffers.
func (r *Rings) layOut() (err error) {
	const buffers = ringSize * bufferLen
	areas := []int{virtq.DescBytes(ringSize), virtq.AvailBytes(ringSize), virtq.UsedBytes(ringSize)}
	total := 2 * buffers
	for _, n := range areas {
		total += 2 * roundUp(n)
	}
	if r.mem, err = sysio.MapAnonymous(total); err != nil {
		return err
	}
	if err := r.dev.setMemory(r.mem); err != nil {
		return err
	}
	left := r.mem
	cut := func(n int) []byte {
		b := left[:n:n]
		left = left[roundUp(n):]
		return b
	}
	r.rx.bufs, r.tx.bufs = cut(buffers), cut(buffers)
	r.rx.base, r.tx.base = address(r.rx.bufs), address(r.tx.bufs)
	for i, ring := range []**virtq.Driver{&r.rx.ring, &r.tx.ring} {
		desc, avail, used := cut(areas[0]), cut(areas[1]), cut(areas[2])
		if *ring, err = virtq.NewDriver(ringSize, desc, avail, used, 0); err != nil {
			return err
		}
		// Nobody waits for frames to have been sent: buffers are taken back when
		// the next ones are needed.
		call := -1
		if i == rxRing {
			call = r.call.FD()
		}
		if err := r.dev.setRing(uint32(i), ringSize, desc, avail, used, r.kick[i].FD(), call); err != nil {
			return err
		}
	}
	r.rx.lent = make([]uint16, 0, ringSize)
	r.rx.rest = make([][]byte, 0, ringSize)
	for i := range uint16(ringSize) {
		r.rx.lent = append(r.rx.lent, i)
		r.tx.free = append(r.tx.free, i)
		r.tx.slots[i] = make([]uint16, 0, maxBuffers)
	}
	r.rx.ring.DisableCalls()
	r.tx.ring.DisableCalls()
	r.rx.giveBack()
	return nil
}

func roundUp(n int) int { return (n + page - 1) &^ (page - 1) }

func buffer(mem []byte, slot uint16) []byte {
	return mem[int(slot)*bufferLen:][:bufferLen:bufferLen]
}

// giveBack offers the buffers that were lent and reports whether there were any.
func (q *receiver) giveBack() bool {
	if len(q.lent) == 0 {
		return false
	}
	for _, slot := range q.lent {
		head, err := q.ring.Add(virtq.Buf{Addr: q.base + uint64(slot)*bufferLen, Len: bufferLen, Write: true})
		if err != nil {
			q.failed = err
			break
		}
		q.slot[head] = slot
	}
	q.lent = q.lent[:0]
	q.rest = q.rest[:0]
	q.ring.Publish()
	return true
}

// Rx implements frame.Queue.
func (r *Rings) Rx(b []frame.Frame) int {
	q := &r.rx
	if q.armed {
		q.armed = false
		q.ring.DisableCalls()
		r.call.Drain()
	}
	if q.next == q.n && q.failed == nil {
		q.next = 0
		q.n, q.failed = q.ring.Reap(q.done[:])
	}
	n := 0
	for n < len(b) && q.next < q.n && q.take(&b[n]) {
		n++
	}
	return n
}

// take lends the frame that begins at done[next]. The kernel returns all of a
// frame's buffers with one store of the index, so they are all here.
func (q *receiver) take(f *frame.Frame) bool {
	first := q.done[q.next]
	slot := q.slot[first.Head]
	data := buffer(q.bufs, slot)
	count := int(binary.LittleEndian.Uint16(data[frame.VnetHdrLen:]))
	if first.Len < headerLen+frame.HeaderLen || first.Len > bufferLen || count < 1 || count > q.n-q.next {
		q.failed = fmt.Errorf("vhost_net returned a frame of %d bytes in %d buffers", first.Len, count)
		q.next = q.n
		return false
	}
	*f = frame.Frame{Hdr: frame.ReadVnetHdr(data), Data: data[headerLen:first.Len:first.Len]}
	q.lent = append(q.lent, slot)
	from := len(q.rest)
	for _, d := range q.done[q.next+1 : q.next+count] {
		slot := q.slot[d.Head]
		q.lent = append(q.lent, slot)
		q.rest = append(q.rest, buffer(q.bufs, slot)[:min(d.Len, bufferLen)])
	}
	if count > 1 {
		f.Rest = q.rest[from:len(q.rest):len(q.rest)]
	}
	q.next += count
	return true
}

// Release implements frame.Queue.
func (r *Rings) Release() {
	if r.rx.giveBack() && r.rx.ring.WantKick() {
		r.kick[rxRing].Signal()
	}
}

// Arm implements frame.Queue.
func (r *Rings) Arm() bool {
	r.rx.armed = true
	return r.rx.ring.EnableCalls() || r.rx.next < r.rx.n
}

// FD implements frame.Queue.
func (r *Rings) FD() int { return r.call.FD() }

// Polled implements frame.Queue: an empty ring is a look at memory.
func (r *Rings) Polled() bool { return true }

// Send sends out in order and reports how many frames found room. Bytes are
// copied: the kernel reads them later.
func (r *Rings) Send(out []frame.Out) int {
	t := &r.tx
	t.mu.Lock()
	defer t.mu.Unlock()
	sent := 0
	for sent < len(out) && t.failed == nil {
		need := (headerLen+out[sent].Len())/bufferLen + 1
		if need > len(t.free) && !t.reap(need) || need > maxBuffers {
			break
		}
		t.put(&out[sent])
		sent++
	}
	if sent > 0 {
		t.ring.Publish()
		if t.ring.WantKick() {
			r.kick[txRing].Signal()
		}
	}
	return sent
}

// reap takes back what was sent and reports whether there is room then.
func (t *transmitter) reap(need int) bool {
	n, err := t.ring.Reap(t.done[:])
	if err != nil {
		t.failed = err
	}
	for _, d := range t.done[:n] {
		t.free = append(t.free, t.slots[d.Head]...)
		t.slots[d.Head] = t.slots[d.Head][:0]
	}
	return need <= len(t.free) && err == nil
}

// put copies a frame into buffers and offers them as one chain.
func (t *transmitter) put(o *frame.Out) {
	var scratch [frame.MaxHead]byte
	head, data := o.Head(scratch[:0])
	w := chainWriter{t: t}
	w.open()
	clear(w.buf[:headerLen]) // num_buffers, behind the header, is 0 on this side
	w.used = copy(w.buf, head[:frame.VnetHdrLen]) + headerLen - frame.VnetHdrLen
	w.write(head[frame.VnetHdrLen:])
	w.write(data)
	for _, r := range o.Rest {
		w.write(r)
	}
	w.end()
	id, err := t.ring.Add(t.chain[:w.n]...)
	if err != nil {
		t.failed = err
		return
	}
	t.slots[id] = append(t.slots[id][:0], w.slots[:w.n]...)
}

// chainWriter fills one buffer after the other.
type chainWriter struct {
	t     *transmitter
	buf   []byte
	used  int
	n     int
	slots [maxBuffers]uint16
}

// open takes a free buffer.
func (w *chainWriter) open() {
	last := len(w.t.free) - 1
	w.slots[w.n] = w.t.free[last]
	w.t.free = w.t.free[:last]
	w.buf, w.used = buffer(w.t.bufs, w.slots[w.n]), 0
}

func (w *chainWriter) write(b []byte) {
	for len(b) > 0 {
		if w.used == bufferLen {
			w.end()
			w.open()
		}
		n := copy(w.buf[w.used:], b)
		w.used += n
		b = b[n:]
	}
}

// end makes the buffer a link of the chain.
func (w *chainWriter) end() {
	w.t.chain[w.n] = virtq.Buf{Addr: w.t.base + uint64(w.slots[w.n])*bufferLen, Len: uint32(w.used)}
	w.n++
}

// Close stops the kernel's thread and gives everything back but the tap.
func (r *Rings) Close() error {
	var err error
	if r.dev >= 0 {
		for ring := range uint32(2) {
			r.dev.setBackend(ring, -1) // fails if it never had one
		}
		err = unix.Close(int(r.dev))
	}
	for _, e := range []*sysio.EventFD{r.kick[rxRing], r.kick[txRing], r.call} {
		if e != nil {
			err = errors.Join(err, e.Close())
		}
	}
	return errors.Join(err, sysio.Unmap(r.mem))
}
