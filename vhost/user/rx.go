package vhostuser

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// queue is the switch's receive queue over a ring that the guest sends with.
//
// The worker owns the ring, that is, it holds mu, while frames are lent: from the
// Rx that lends the first to Release. Every call of the worker that needs the
// ring takes it with own and defers leave, which lets go of it unless frames are
// lent; nothing else locks or unlocks mu for the worker.
type queue struct {
	ring

	// The worker's own.
	looked  *live                   // what load returned last
	owned   bool                    // mu is held
	found   bool                    // Arm found frames that no kick had told of
	lent    int                     // frames lent since the last Release
	headers [frame.BatchSize]uint64 // see look
	touched byte
	heads   [frame.BatchSize][headRoom]byte

	announce atomic.Bool   // rarp is to be lent
	rarp     [rarpLen]byte // with mu

	bell   bell
	events [2]unix.EpollEvent // room for what bell.hush finds
}

// headRoom is how much of a frame in small pieces is gathered, so that the
// switch finds the Ethernet header and a tag in one piece.
const headRoom = 64

// minPiece is what must be in the first piece: the Ethernet header and a tag.
const minPiece = frame.HeaderLen + frame.TagLen

// Rx implements frame.Queue.
func (q *queue) Rx(b []frame.Frame) (n int) {
	defer q.leave(guard())
	if lookOwned && !q.own() {
		return 0
	}
	l := q.load()
	// A look without owning the ring: nothing but the guest's index is read. Should
	// the control side unmap it at this moment, the look faults, and leave knows.
	if (l == nil || l.Empty()) && !q.announce.Load() {
		return 0
	}
	if q.port.early() || !q.own() {
		return 0 // the control side is at work, and will ring afterwards
	}
	if l = q.load(); l != nil {
		n = q.receive(l, b[:min(len(b), frame.BatchSize-q.lent)])
	}
	if n < len(b) && q.announce.Load() {
		n += q.takeRARP(b[n:])
	}
	if q.lent += n; q.lent == 0 {
		q.giveBack()
	}
	return n
}

// load is what the ring runs now. It stays so while the worker owns the ring.
func (q *queue) load() *live {
	q.looked = q.live.Load()
	return q.looked
}

// own takes the ring for the worker, unless it has it. It reports false while
// the control side is at work on it.
func (q *queue) own() bool {
	q.owned = q.owned || q.mu.TryLock()
	return q.owned
}

// leave ends every call of the worker, and its ownership unless frames are lent.
// A fault in guest memory stops the ring, and with it the port, instead of the
// process.
func (q *queue) leave(before bool) {
	if cause := recover(); cause != nil {
		q.faulted(cause)
	}
	unguard(before)
	if q.owned && q.lent == 0 {
		q.owned = false
		q.mu.Unlock()
	}
}

// faulted is what leave does about a panic. A fault stops the ring, unless it was
// in a look at memory that the control side was taking away.
func (q *queue) faulted(cause any) {
	fault := frame.FaultOf(cause)
	if q.own() && q.live.Load() == q.looked {
		q.stop(fault)
	}
}

// stop takes the ring, and with it the port, down. The worker owns the ring.
func (q *queue) stop(fault error) {
	q.fail(fmt.Errorf("guest memory can't be read: %w", fault), true)
}

// receive takes chains and makes frames of them.
func (q *queue) receive(l *live, b []frame.Frame) int {
	if l.KicksDisabled() {
		q.polls.Add(1)
	} else {
		// The worker is awake, and will look without being told until Arm.
		l.DisableKicks()
		if q.found {
			q.polls.Add(1)
		} else {
			q.kicks.Add(1)
		}
		q.found = false
	}
	first := len(q.batch.Chains)
	if _, err := l.Take(q.batch, len(b)); err != nil {
		q.fail(err, false)
		return 0
	}
	chains := q.batch.Chains[first:]
	if !l.enabled {
		return 0 // "process and discard" (vhost-user, "Ring states")
	}
	hdrLen := l.hdrLen
	q.look(chains, hdrLen)
	n, bad := 0, 0
	for i := range chains {
		c := &chains[i]
		d := c.First
		f := &b[n]
		if !c.Single() || !plausible(d, hdrLen) {
			if !q.gather(l, f, c, first+i) {
				bad++
				continue
			}
			n++
			continue
		}
		hdr := q.headers[i]
		*f = frame.Frame{Data: d[hdrLen:]}
		if hdr&knownWork != 0 && !q.unfinished(l, f, hdr, binary.LittleEndian.Uint16(d[8:])) {
			bad++
			continue
		}
		n++
	}
	if bad > 0 {
		q.errors.Add(uint64(bad))
	}
	q.frames.Add(uint64(n))
	if s := q.port.steer; s != nil {
		s.learn(q.index/2, b[:n])
	}
	return n
}

// look reads the first eight bytes of every offload header (flags, gso_type,
// hdr_len, gso_size, csum_start), and touches the Ethernet header, which may be
// in another cache line. The guest has just written them on another core: in a
// loop that does nothing else, many of those misses are under way at a time. It
// saves a seventh of all the worker's time where the two cores share no cache.
func (q *queue) look(chains []virtq.Chain, hdrLen int) {
	touched := byte(0)
	for i := range chains {
		if d := chains[i].First; plausible(d, hdrLen) {
			q.headers[i&(frame.BatchSize-1)] = binary.LittleEndian.Uint64(d)
			touched ^= d[hdrLen]
		}
	}
	q.touched = touched // or the compiler would leave the loads out
}

// plausible reports that a single buffer has a length that a frame may have, and
// the Ethernet header in it.
func plausible(d []byte, hdrLen int) bool {
	return uint(len(d)-(hdrLen+minPiece)) <= frame.MaxLen-minPiece
}

// knownWork are the bits of a header's first eight bytes that leave work to do:
// NEEDS_CSUM of flags, all of gso_type. Other flags are to be ignored (virtio
// 1.2, 5.1.6.2.2).
const knownWork = frame.HdrNeedsCsum | 0xff<<8

// unfinished checks the header of a frame that leaves work to do against what
// was negotiated and the frame's length, and takes it over. hdr_len is only a hint.
func (q *queue) unfinished(l *live, f *frame.Frame, hdr uint64, csumOffset uint16) bool {
	h := frame.VnetHdr{
		Flags:      uint8(hdr) & frame.HdrNeedsCsum,
		GSOType:    uint8(hdr >> 8),
		HdrLen:     uint16(hdr >> 16),
		GSOSize:    uint16(hdr >> 32),
		CsumStart:  uint16(hdr >> 48),
		CsumOffset: csumOffset,
	}
	size := f.Len()
	if !l.offloads.Takes(h) || h.GSOType&frame.GSOECN != 0 && !l.ecn {
		return false
	}
	if h.Flags == 0 || h.CsumStart < frame.HeaderLen || int(h.CsumStart)+int(h.CsumOffset)+2 > size {
		return false // GSO without NEEDS_CSUM is forbidden, too
	}
	if h.GSOType == frame.GSONone {
		h.GSOSize = 0
	} else if h.GSOType == frame.GSOECN || h.GSOSize == 0 {
		return false
	}
	h.HdrLen = uint16(min(int(h.HdrLen), size))
	f.Hdr = h
	return true
}

// gather makes a frame of any chain: a header in pieces or in a buffer of its
// own, an Ethernet header in pieces, many buffers.
func (q *queue) gather(l *live, f *frame.Frame, c *virtq.Chain, slot int) bool {
	if c.Fault != 0 {
		q.fault.Store(uint32(c.Fault))
		return false
	}
	var hdr [frame.VnetHdrMrgRxbufLen]byte
	data, rest := c.First, q.batch.Rest(c)
	for got := 0; ; {
		n := copy(hdr[got:l.hdrLen], data)
		got, data = got+n, data[n:]
		if got == l.hdrLen {
			break
		}
		if len(rest) == 0 {
			return false
		}
		data, rest = rest[0], rest[1:]
	}
	size := len(data)
	for _, p := range rest {
		size += len(p)
	}
	if size < frame.HeaderLen || size > frame.MaxLen {
		return false
	}
	if len(data) == 0 {
		data, rest = rest[0], rest[1:]
	}
	if len(data) < minPiece && len(rest) > 0 {
		head := q.heads[slot][:0]
		head = append(head, data...)
		for len(rest) > 0 && len(head) < minPiece {
			n := min(len(rest[0]), cap(head)-len(head))
			head = append(head, rest[0][:n]...)
			if rest[0] = rest[0][n:]; len(rest[0]) == 0 {
				rest = rest[1:]
			}
		}
		data = head
	}
	*f = frame.Frame{Data: data}
	if len(rest) > 0 {
		f.Rest = rest
	}
	work := binary.LittleEndian.Uint64(hdr[:])
	return work&knownWork == 0 || q.unfinished(l, f, work, binary.LittleEndian.Uint16(hdr[8:]))
}

// Release implements frame.Queue.
func (q *queue) Release() {
	if !q.owned {
		return
	}
	defer q.leave(guard())
	q.lent = 0
	q.giveBack()
}

// giveBack returns to the guest what was taken of it.
func (q *queue) giveBack() {
	if l := q.live.Load(); l != nil && len(q.batch.Chains) > 0 {
		l.Return(q.batch)
		q.notify(l)
	}
}

// takeRARP lends the announcement that the front end asked for.
func (q *queue) takeRARP(b []frame.Frame) int {
	q.announce.Store(false)
	b[0] = frame.Frame{Data: q.rarp[:]}
	return 1
}

// Arm implements frame.Queue.
func (q *queue) Arm() bool {
	defer q.leave(guard())
	// First forget what rang until now: what rings from here on is about frames
	// that the look below may have missed.
	q.bell.hush(q.events[:])
	l := q.load()
	if l == nil || q.announce.Load() {
		return q.announce.Load()
	}
	if !q.own() {
		return true // the control side is at work: look again
	}
	if l = q.load(); l == nil {
		return false
	}
	q.found = l.EnableKicks()
	return q.found || !l.kick // a guest without a kick descriptor must be polled
}

// FD implements frame.Queue.
func (q *queue) FD() int { return q.bell.set }

// Polled implements frame.Queue.
func (q *queue) Polled() bool { return true }

// Fault implements frame.Faulter.
func (q *queue) Fault(err error) {
	defer q.leave(guard())
	if q.own() {
		q.stop(err)
	}
}
