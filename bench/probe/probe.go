// Package probe defines the frames that the bench sends: ordinary IPv4 packets
// that carry a sequence number, a time stamp and a check over every byte, so
// that a receiver notices loss, duplication, reordering, corruption and
// misdelivery by itself.
//
// A frame of the smallest size (64 bytes with frame check sequence) is exactly
// full:
//
//	 0  destination, source (Station)   34  UDP header, checksum 0 (not used)
//	12  EtherType IPv4                  42  mark, 2 bytes
//	14  IPv4 header, RFC 2544 range     44  sequence number, 4 bytes
//	48  time stamp, CLOCK_MONOTONIC ns  56  check, 4 bytes
//	60  pattern to the end of the frame
//
// A super-frame ("gso") has a TCP header in place of UDP's, so the mark and what
// follows sit 12 bytes later. All numbers of the probe are big-endian.
//
// The check is the CRC-32C of all the bytes that stay the same in a template,
// exclusive-ored with a mix of those that are stamped: it covers the whole
// frame, yet stamping a 1518-byte frame costs as little as a 64-byte one.
//
// The package does no I/O and keeps no state. A Template belongs to one
// goroutine; everything else may be called concurrently.
package probe

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Offsets in a frame. See the package comment.
const (
	offIP      = frame.HeaderLen
	offL4      = offIP + 20
	udpHeader  = offL4 + 8
	gsoHeader  = offL4 + 20
	StampLen   = 2 + 4 + 8 + 4        // mark, sequence number, time stamp, check
	MinLen     = udpHeader + StampLen // 60
	mark       = 0x6b76               // "kv"
	protoTCP   = 6
	protoUDP   = 17
	echoPort   = 7 // RFC 2544 appendix C.2.6.4
	sourcePort = 49184
)

// StampOffset is where the mark stands: after the UDP header, or after the TCP
// header of a super-frame. The sequence number follows 2 and the time stamp 6
// bytes later.
func StampOffset(gso bool) int {
	if gso {
		return gsoHeader
	}
	return udpHeader
}

// Mark is the value at StampOffset of every probe.
const Mark = mark

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Template is a frame that is stamped and sent again and again. Build makes
// one.
type Template struct {
	b     []byte
	at    int // StampOffset
	fixed uint32
}

// Build lays a probe of len(b) bytes into b, which stays the template's. The
// pattern behind the stamp is derived from seed. It panics if b is too short to
// hold a probe: sizes are checked where they are parsed.
func Build(b []byte, gso bool, seed uint64) Template {
	t := Template{b: b, at: StampOffset(gso)}
	_ = b[t.at+StampLen-1]
	clear(b[:t.at])
	binary.BigEndian.PutUint16(b[12:], frame.EtherTypeIPv4)
	ip := b[offIP:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(b)-offIP))
	binary.BigEndian.PutUint16(ip[6:], 0x4000) // don't fragment
	ip[8] = 64
	ip[9] = protoUDP
	copy(ip[12:], []byte{198, 18, 0, 1}) // 198.18.0.0/15 is set aside for this: RFC 2544
	copy(ip[16:], []byte{198, 19, 0, 1})
	l4 := b[offL4:]
	binary.BigEndian.PutUint16(l4, sourcePort)
	binary.BigEndian.PutUint16(l4[2:], echoPort)
	if gso {
		ip[9] = protoTCP
		l4[12] = 5 << 4 // header length in words
		l4[13] = 0x10   // ACK
		binary.BigEndian.PutUint16(l4[14:], 0xffff)
		// What a sender with checksum offload leaves to the device: the sum of
		// the pseudo-header alone.
		binary.BigEndian.PutUint16(l4[16:], pseudoSum(ip[12:20], protoTCP, len(b)-offL4))
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(b)-offL4))
	}
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:20]))

	binary.BigEndian.PutUint16(b[t.at:], mark)
	x := seed*2 + 1
	for i := t.at + StampLen; i < len(b); i++ {
		x = mix(x)
		b[i] = byte(x >> 56)
	}
	t.fixed = fixedSum(b, t.at)
	return t
}

// Bytes are the template's frame.
func (t *Template) Bytes() []byte { return t.b }

// Stamp writes what differs from frame to frame. at is CLOCK_MONOTONIC in
// nanoseconds, or 0 for a frame whose latency nobody asks for.
func (t *Template) Stamp(dst, src frame.MAC, seq uint32, at int64) {
	b := t.b
	copy(b[0:6], dst[:])
	copy(b[6:12], src[:])
	s := b[t.at : t.at+StampLen]
	binary.BigEndian.PutUint32(s[2:], seq)
	binary.BigEndian.PutUint64(s[6:], uint64(at))
	binary.BigEndian.PutUint32(s[14:], t.fixed^stampSum(b, seq, at))
}

// Verdict is what a receiver finds a frame to be.
type Verdict int

const (
	Foreign Verdict = iota // not a probe: none of the bench's addresses
	Corrupt                // a probe with at least one byte changed, or cut short
	Intact
)

// Stamp is what Parse reads from a probe.
type Stamp struct {
	Dst, Src frame.MAC
	Seq      uint32
	At       int64 // CLOCK_MONOTONIC, ns; 0 = not stamped
}

// Parse reads and checks a received frame of which b holds every byte. The
// stamp is valid only with Intact.
func Parse(b []byte) (Stamp, Verdict) {
	if len(b) < frame.HeaderLen {
		return Stamp{}, Foreign
	}
	s := Stamp{Dst: frame.MAC(b[:6]), Src: frame.MAC(b[6:12])}
	if _, _, ok := IsStation(s.Src); !ok {
		return Stamp{}, Foreign
	}
	gso := len(b) > offIP+9 && b[offIP+9] == protoTCP
	at := StampOffset(gso)
	if len(b) < at+StampLen || binary.BigEndian.Uint16(b[at:]) != mark {
		return s, Corrupt
	}
	s.Seq = binary.BigEndian.Uint32(b[at+2:])
	s.At = int64(binary.BigEndian.Uint64(b[at+6:]))
	if binary.BigEndian.Uint32(b[at+14:]) != fixedSum(b, at)^stampSum(b, s.Seq, s.At) {
		return s, Corrupt
	}
	return s, Intact
}

// fixedSum covers the bytes that Stamp does not write.
func fixedSum(b []byte, at int) uint32 {
	c := crc32.Update(0, castagnoli, b[12:at+2])
	return crc32.Update(c, castagnoli, b[at+StampLen:])
}

// stampSum covers the bytes that Stamp writes.
func stampSum(b []byte, seq uint32, at int64) uint32 {
	x := mix(binary.BigEndian.Uint64(b[:8]))
	x = mix(x ^ uint64(binary.BigEndian.Uint32(b[8:12]))<<32 ^ uint64(seq))
	x = mix(x ^ uint64(at))
	return uint32(x >> 32)
}

// mix is the finishing step of the 64-bit MurmurHash3: a bijection in which
// every input bit reaches every output bit.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// sum is the Internet checksum's one's-complement sum (RFC 1071) over an even
// number of bytes.
func sum(start uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		start += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for start > 0xffff {
		start = start>>16 + start&0xffff
	}
	return uint16(start)
}

// pseudoSum is the sum over TCP's pseudo-header (RFC 9293, 3.1). A super-frame's
// length exceeds 16 bits only by its headers, and offloading devices expect it
// folded.
func pseudoSum(addresses []byte, proto byte, length int) uint16 {
	return sum(uint32(proto)+uint32(length>>16)+uint32(length&0xffff), addresses)
}
