package vhostuser

import (
	"encoding/binary"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// putPlainHeader writes the offload header of a finished frame in one buffer:
// zero, and num_buffers 1 where the header has it (virtio 1.2, 5.1.6.4.1).
func putPlainHeader(b []byte, hdrLen int) {
	binary.LittleEndian.PutUint64(b, 0)
	if hdrLen == frame.VnetHdrLen {
		binary.LittleEndian.PutUint16(b[8:], 0)
	} else {
		binary.LittleEndian.PutUint32(b[8:], 1<<16)
	}
}

// place puts one frame into the chains of the batch from next on, in the general
// case: with a tag, an offload header, many buffers on either side. It says how
// many chains it used; a frame that this guest can't be sent is dropped and counted.
// If not ok, there are too few chains now.
func (r *ring) place(l *live, o *frame.Out, next int) (used int, ok bool) {
	hdr := o.WireHdr()
	if !l.offloads.Takes(hdr) {
		r.errors.Add(1)
		return 0, true
	}
	used, fit := r.reserve(l, next, l.hdrLen+o.Len())
	switch fit {
	case fitShort:
		return 0, false
	case fitNever:
		r.errors.Add(1)
		return 0, true // the buffers are good for the next frame
	case fitBad:
		r.errors.Add(1)
		return used, true // and are returned empty
	}
	var raw [frame.VnetHdrMrgRxbufLen]byte
	l.guestHeader(hdr).Put(raw[:])
	binary.LittleEndian.PutUint16(raw[frame.VnetHdrLen:], uint16(used))
	to := scatter{batch: r.batch, chain: next}
	to.put(raw[:l.hdrLen])
	var buf [frame.MaxFront]byte
	front, data := o.Front(buf[:0])
	to.put(front)
	to.put(data)
	for _, p := range o.Rest {
		to.put(p)
	}
	return used, true
}

// guestHeader is the header as this guest may see it: no flag or GSO type that
// was not negotiated (virtio 1.2, 5.1.6.4.1).
func (l *live) guestHeader(h frame.VnetHdr) frame.VnetHdr {
	if !l.offloads.Csum {
		h.Flags = 0
	}
	h.Flags &= frame.HdrNeedsCsum | frame.HdrDataValid
	if !l.ecn {
		h.GSOType &^= frame.GSOECN
	}
	return h
}

// fit says whether a frame fits into chains.
type fit uint8

const (
	fitOK    fit = iota
	fitShort     // not now: the guest has made too few available
	fitNever     // it needs more than one chain, or more than a batch of them
	fitBad       // one of the chains is faulty
)

// reserve finds how many chains from next on hold size bytes, and takes more from
// the ring if the batch has too few.
func (r *ring) reserve(l *live, next, size int) (used int, _ fit) {
	for room := 0; room < size; {
		if next+used == len(r.batch.Chains) {
			if !l.mergeable || next == 0 && r.batch.Room() == 0 {
				return 0, fitNever
			}
			// A guest's buffers are mostly of one size, so this asks once.
			want := 1
			if used > 0 {
				want += (size - room) * used / room
			}
			n, err := l.Take(r.batch, want)
			if err != nil {
				// The device keeps the fault: the next round finds it, after
				// what was filled before has been returned.
				return 0, fitShort
			}
			if n == 0 {
				if next == 0 && used > 0 && r.batch.Full() {
					return 0, fitNever
				}
				return 0, fitShort
			}
		}
		c := &r.batch.Chains[next+used]
		used++
		if c.Fault != 0 {
			r.fault.Store(uint32(c.Fault))
			return used, fitBad
		}
		room += r.batch.Size(c)
		if !l.mergeable && room < size {
			return 0, fitNever
		}
	}
	return used, fitOK
}

// scatter writes a stream of bytes over the buffers of chains.
type scatter struct {
	batch *virtq.Batch
	chain int // index into batch.Chains
	piece int // 0 is First, then Rest
	off   int // in the piece
}

// put appends b. The chains must have room for it.
func (s *scatter) put(b []byte) {
	for len(b) > 0 {
		c := &s.batch.Chains[s.chain]
		rest := s.batch.Rest(c)
		piece := c.First
		if s.piece > 0 {
			piece = rest[s.piece-1]
		}
		n := copy(piece[s.off:], b)
		c.Written += uint32(n)
		b = b[n:]
		if s.off += n; s.off == len(piece) {
			s.off = 0
			if s.piece++; s.piece > len(rest) {
				s.piece, s.chain = 0, s.chain+1
			}
		}
	}
}
