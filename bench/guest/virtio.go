package guest

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

const (
	// ringSize is the most that QEMU gives a network device.
	ringSize = 1024
	// bufferLen holds a frame of 1518 bytes and its header.
	bufferLen = 2048
	// hdrLen is that of struct virtio_net_hdr_v1: zero for a plain frame.
	hdrLen = frame.VnetHdrMrgRxbufLen

	// Addresses of guest memory as the guest and as the front end know it. They
	// differ, so that a back end that mixes them up fails.
	guestBase = 1 << 32
	userBase  = 5 << 40

	receiveRing  = 0
	transmitRing = 1
	rings        = 2
)

// virtio is a guest's network card with vhost-user behind it, and the polling
// driver of that guest.
type virtio struct {
	front *frontend
	fd    int // memory
	mem   []byte
	bells [2 * rings]*sysio.EventFD // kick and call of each ring
	ring  [rings]ring
	done  [batch]virtq.Done
	seq   uint32
	flows probe.Flows
}

// ring is one virtqueue with its buffers.
type ring struct {
	*virtq.Driver
	at    ringAddress
	first int              // offset in memory of its first buffer
	owner [ringSize]uint16 // buffer by head
	spare fifo             // buffers that the device does not have
	tmpl  []probe.Template // of the transmit ring: one for each buffer
}

// fifo hands buffers out in the order of their return.
type fifo struct {
	list  [ringSize]uint16
	first int
	n     int
}

func (f *fifo) push(b uint16) {
	f.list[(f.first+f.n)%ringSize] = b
	f.n++
}

func (f *fifo) front() uint16 { return f.list[f.first] }

func (f *fifo) pop() {
	f.first = (f.first + 1) % ringSize
	f.n--
}

var _ end = (*virtio)(nil)

// dialVirtio makes a guest with its memory and attaches it to the back end that
// listens at path.
func dialVirtio(path string, size probe.Size, flows probe.Flows) (*virtio, error) {
	if size.GSO {
		return nil, errors.New("make virtio guest: super-frames are not for this driver")
	}
	for deadline := time.Now().Add(answerLimit); ; {
		v := &virtio{fd: -1, flows: flows}
		err := v.open(path, size)
		if err == nil {
			return v, nil
		}
		err = errors.Join(fmt.Errorf("make virtio guest: %w", err), v.close())
		// A back end that has not yet seen its last guest go turns the next away.
		if !turnedAway(err) || time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
}

func turnedAway(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF)
}

func (v *virtio) open(path string, size probe.Size) (err error) {
	if err := v.allocate(); err != nil {
		return err
	}
	for i := range v.bells {
		if v.bells[i], err = sysio.NewEventFD(); err != nil {
			return err
		}
	}
	v.fill(size)
	if v.front, err = dial(path); err != nil {
		return err
	}
	if err := v.front.negotiate(); err != nil {
		return err
	}
	if err := v.front.share(v.fd, uint64(len(v.mem))); err != nil {
		return err
	}
	for i := range v.ring {
		kick, call := v.bells[2*i].FD(), v.bells[2*i+1].FD()
		if err := v.front.start(i, ringSize, v.ring[i].at, kick, call); err != nil {
			return err
		}
	}
	return nil
}

func page(n int) int { return (n + 4095) &^ 4095 }

// allocate makes guest memory, shared with the back end, and lays out rings and
// buffers in it.
func (v *virtio) allocate() (err error) {
	desc, avail, used := page(virtq.DescBytes(ringSize)), page(virtq.AvailBytes(ringSize)), page(virtq.UsedBytes(ringSize))
	perRing := desc + avail + used + ringSize*bufferLen
	if v.fd, err = unix.MemfdCreate("guest", unix.MFD_CLOEXEC); err != nil {
		return fmt.Errorf("create guest memory: %w", err)
	}
	if err := unix.Ftruncate(v.fd, int64(rings*perRing)); err != nil {
		return fmt.Errorf("size guest memory: %w", err)
	}
	if v.mem, err = sysio.Map(v.fd, 0, rings*perRing); err != nil {
		return err
	}
	for i := range v.ring {
		r := &v.ring[i]
		base := i * perRing
		r.at = ringAddress{uint64(base), uint64(base + desc), uint64(base + desc + avail)}
		r.first = base + desc + avail + used
		r.Driver, err = virtq.NewDriver(ringSize,
			v.mem[base:][:desc], v.mem[base+desc:][:avail], v.mem[base+desc+avail:][:used], 0)
		if err != nil {
			return err
		}
		r.DisableCalls()
		for b := range ringSize {
			r.spare.push(uint16(b))
		}
	}
	return nil
}

// fill puts frames into the transmit buffers and gives the receive buffers away.
func (v *virtio) fill(size probe.Size) {
	tx := &v.ring[transmitRing]
	// Whole periods of the size's lengths, so that frames keep their order.
	tx.spare.n = ringSize / len(size.Lengths) * len(size.Lengths)
	tx.tmpl = make([]probe.Template, tx.spare.n)
	for i := range tx.tmpl {
		b := v.buffer(tx, uint16(i))
		tx.tmpl[i] = probe.Build(b[hdrLen:][:size.Lengths[i%len(size.Lengths)]], false, uint64(i))
	}
	v.refill()
}

func (v *virtio) buffer(r *ring, i uint16) []byte {
	return v.mem[r.first+int(i)*bufferLen:][:bufferLen]
}

func (r *ring) address(i uint16) uint64 { return guestBase + uint64(r.first+int(i)*bufferLen) }

// give offers the first spare buffer to the device.
func (r *ring) give(length int, write bool) error {
	b := r.spare.front()
	head, err := r.Add(virtq.Buf{Addr: r.address(b), Len: uint32(length), Write: write})
	if err != nil {
		return err
	}
	r.owner[head] = b
	r.spare.pop()
	return nil
}

// take gets back a buffer.
func (r *ring) take(head uint16) uint16 {
	b := r.owner[head]
	r.spare.push(b)
	return b
}

// publish shows the device what was given, and wakes it if it sleeps.
func (v *virtio) publish(which int) {
	r := &v.ring[which]
	r.Publish()
	if r.WantKick() {
		v.bells[2*which].Signal()
	}
}

// transmit implements end.
func (v *virtio) transmit(n int, stamp int64) (int, error) {
	tx := &v.ring[transmitRing]
	k, err := tx.Reap(v.done[:])
	if err != nil {
		return 0, err
	}
	for _, d := range v.done[:k] {
		tx.take(d.Head)
	}
	n = min(n, tx.spare.n)
	for range n {
		t := &tx.tmpl[tx.spare.front()]
		dst, src := v.flows.Address(v.seq)
		t.Stamp(dst, src, v.seq, stamp)
		if err := tx.give(hdrLen+len(t.Bytes()), false); err != nil {
			return 0, err
		}
		v.seq++
	}
	if n > 0 {
		v.publish(transmitRing)
	}
	return n, nil
}

// receive implements end.
func (v *virtio) receive(t *tally) (int, error) {
	rx := &v.ring[receiveRing]
	n, err := rx.Reap(v.done[:])
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, nil
	}
	for _, d := range v.done[:n] {
		b := v.buffer(rx, rx.take(d.Head))
		if d.Len < hdrLen || d.Len > bufferLen {
			return 0, fmt.Errorf("device says it wrote %d bytes into a buffer of %d", d.Len, bufferLen)
		}
		t.count(b[hdrLen:d.Len])
	}
	v.refill()
	return n, nil
}

// refill gives all spare receive buffers to the device.
func (v *virtio) refill() {
	rx := &v.ring[receiveRing]
	for rx.spare.n > 0 && rx.give(bufferLen, true) == nil {
	}
	v.publish(receiveRing)
}

// sequence implements end.
func (v *virtio) sequence() uint32 { return v.seq }

// send implements end.
func (v *virtio) send(f probe.Flows, seq uint32) { v.flows, v.seq = f, seq }

// close implements end.
func (v *virtio) close() error {
	var errs []error
	if v.front != nil {
		errs = append(errs, v.front.conn.Close())
	}
	for _, b := range v.bells {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	errs = append(errs, sysio.Unmap(v.mem))
	if v.fd >= 0 {
		errs = append(errs, unix.Close(v.fd))
	}
	return errors.Join(errs...)
}
