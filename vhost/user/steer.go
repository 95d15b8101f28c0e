package vhostuser

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// A guest with several queue pairs receives a flow where it sends it (virtio 1.2,
// 5.1.6.5.6, automatic receive steering): its processors then each have flows of
// their own, both ways. What it has not sent anything of goes where the flow's
// hash says, so that a flow's frames keep their order in any case.
//
// A guest with one pair has no steering.

// steering remembers for each flow, as far as their hashes differ, by which queue
// the guest sends it.
type steering [steerSlots]atomic.Uint32

const steerSlots = 4096

// A slot is the queue's number + 1, or 0, and how firmly that is believed: a flow
// moves to another queue when the guest has sent that many more of its frames by
// the other. So two flows that share a slot don't take it from each other with
// every batch, by which the frames of both would overtake each other.
const (
	steerQueue = 0xffff
	steerStep  = 1 << 16
	steerFirm  = 64 * steerStep // a batch
)

// sent notes n frames in a row of one flow that the guest sent by a queue.
func (s *steering) sent(hash uint32, queue, n int) {
	slot := &s[hash%steerSlots]
	v := slot.Load()
	belief := v &^ steerQueue
	switch weight := uint32(n) * steerStep; {
	case v&steerQueue == uint32(queue+1):
		if belief == steerFirm {
			return // nothing is written as long as nothing changes
		}
		v = uint32(queue+1) | min(belief+weight, steerFirm)
	case belief > weight:
		v -= weight
	default:
		v = uint32(queue+1) | weight
	}
	slot.Store(v)
}

// ring is which of n rings a flow's frames go to.
func (s *steering) ring(hash uint32, n int) int {
	if q := int(s[hash%steerSlots].Load() & steerQueue); q > 0 && q <= n {
		return q - 1
	}
	return int(uint64(hash) * uint64(n) >> 32)
}

// Where things are in a frame, from the end of its Ethernet header or tag.
const (
	ipv4Bytes   = 20
	ipv6Bytes   = 40
	portsBytes  = 4
	steerBytes  = frame.HeaderLen + frame.TagLen + ipv6Bytes + portsBytes
	protocolTCP = 6
	protocolUDP = 17
)

// flowHash is the same for all frames of a flow, in both directions: of a TCP or
// UDP connection, else of two IP addresses, else of two MAC addresses.
func flowHash(f *frame.Frame) uint32 {
	if len(f.Data) < steerBytes && f.Rest != nil {
		return flowHashOfPieces(f)
	}
	return flowHashOf(f.Data)
}

// flowHashOfPieces is flowHash of a frame whose headers may be in small pieces.
func flowHashOfPieces(f *frame.Frame) uint32 {
	var head [steerBytes]byte
	n := copy(head[:], f.Data)
	for _, p := range f.Rest {
		n += copy(head[n:], p)
	}
	return flowHashOf(head[:n])
}

func flowHashOf(d []byte) uint32 {
	at := frame.HeaderLen
	etherType := binary.BigEndian.Uint16(d[at-2:])
	if etherType == frame.EtherTypeVLAN && len(d) >= at+frame.TagLen {
		at += frame.TagLen
		etherType = binary.BigEndian.Uint16(d[at-2:])
	}
	ip := d[at:]
	switch {
	case etherType == frame.EtherTypeIPv4 && len(ip) >= ipv4Bytes:
		h := uint64(binary.LittleEndian.Uint32(ip[12:]) ^ binary.LittleEndian.Uint32(ip[16:]))
		const fragment = 0x3fff // more of them, or an offset
		if binary.BigEndian.Uint16(ip[6:])&fragment == 0 {
			h |= ports(ip[9], ip[min(int(ip[0]&15)*4, len(ip)):])
		}
		return mix(h)
	case etherType == frame.EtherTypeIPv6 && len(ip) >= ipv6Bytes:
		h := binary.LittleEndian.Uint64(ip[8:]) ^ binary.LittleEndian.Uint64(ip[24:]) ^
			bits.RotateLeft64(binary.LittleEndian.Uint64(ip[16:])^binary.LittleEndian.Uint64(ip[32:]), 29)
		return mix(h ^ ports(ip[6], ip[ipv6Bytes:]))
	}
	const mac = 1<<48 - 1
	return mix(binary.LittleEndian.Uint64(d)&mac ^ binary.LittleEndian.Uint64(d[6:])&mac)
}

// ports are those of TCP and UDP, folded so that both directions are the same,
// in the upper half.
func ports(protocol byte, b []byte) uint64 {
	if protocol != protocolTCP && protocol != protocolUDP || len(b) < portsBytes {
		return 0
	}
	src, dst := uint32(binary.BigEndian.Uint16(b)), uint32(binary.BigEndian.Uint16(b[2:]))
	return uint64(src^dst)<<48 | uint64(src+dst)<<32&(0xffff<<32)
}

// mix spreads every bit over all of the result (the finalizer of MurmurHash3).
func mix(h uint64) uint32 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return uint32(h >> 32)
}

// learn notes by which queue the guest sends the flows of a batch.
func (s *steering) learn(queue int, frames []frame.Frame) {
	last, run := uint32(0), 0
	for i := range frames {
		hash := flowHash(&frames[i])
		if hash != last && run > 0 {
			s.sent(last, queue, run)
			run = 0
		}
		last = hash
		run++
	}
	if run > 0 {
		s.sent(last, queue, run)
	}
}

// spread and choose note a batch in the bits of one word, and a ring's number in
// a byte.
const (
	_ = uint(64 - frame.BatchSize)
	_ = uint8(MaxQueuePairs - 1)
)

// spread sends each frame by its flow's ring, one call per ring. Frames that a
// ring has no room for are the last ones of out when it returns.
func (p *Port) spread(rings []*ring, out []frame.Out) (sent int) {
	for len(out) > frame.BatchSize { // no worker has more, but others may call, too
		n := p.spread(rings, out[:frame.BatchSize])
		if sent += n; n < frame.BatchSize {
			return sent
		}
		out = out[frame.BatchSize:]
	}
	var which [frame.BatchSize]uint8
	if !p.choose(rings, out, &which) {
		return sent
	}
	var group, late [frame.BatchSize]frame.Out
	left := 0
	for todo := ^uint64(0) >> (frame.BatchSize - len(out)); todo != 0; {
		ring, n := which[bits.TrailingZeros64(todo)], 0
		for rest := todo; rest != 0; rest &= rest - 1 {
			if i := bits.TrailingZeros64(rest); which[i] == ring {
				group[n] = out[i]
				n++
				todo &^= 1 << i
			}
		}
		if n == len(out) {
			return sent + rings[ring].trySend(out)
		}
		done := rings[ring].trySend(group[:n])
		sent += done
		left += copy(late[left:], group[done:n])
	}
	copy(out[len(out)-left:], late[:left])
	return sent
}

// choose finds each frame's ring, and reports false if the frames can't be read:
// they lie in memory that their sender took away (see sendRecovered).
func (p *Port) choose(rings []*ring, out []frame.Out, which *[frame.BatchSize]uint8) (ok bool) {
	before := guard()
	defer func() {
		unguard(before)
		if fault := frame.FaultOf(recover()); fault != nil && before {
			panic(fault)
		}
	}()
	for i := range out {
		which[i] = uint8(p.steer.ring(flowHash(out[i].Frame), len(rings)))
	}
	return true
}
