// Package frame holds the values that cross every seam of the switch: MAC
// addresses, 802.1Q tags, the virtio-net header, the Frame itself, and the Port
// and Queue interfaces that ports implement and the switch drives.
//
// It does no I/O and owns no goroutine. Values are plain; a Frame borrows its
// bytes and is never written to, because they may be a guest's memory or a
// kernel ring shared with other readers.
package frame

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Sizes of Ethernet on the wire, in bytes, without the frame check sequence.
const (
	HeaderLen = 14 // destination, source, EtherType
	TagLen    = 4  // one 802.1Q or 802.1ad tag
	MinLen    = HeaderLen
	MaxMTU    = 65535
	// MaxLen is the longest frame any port may lend: a GSO super-frame whose
	// IP packet is 64 KiB, with two tags.
	MaxLen = 65535 + HeaderLen + 2*TagLen
)

// EtherTypes that the switch itself looks at.
const (
	EtherTypeVLAN = 0x8100 // 802.1Q customer tag (C-TAG)
	EtherTypeQinQ = 0x88a8 // 802.1ad service tag (S-TAG)
	EtherTypeIPv4 = 0x0800
	EtherTypeIPv6 = 0x86dd
	EtherTypeARP  = 0x0806
)

// MAC is an EUI-48 address in transmission order.
type MAC [6]byte

// Broadcast is ff:ff:ff:ff:ff:ff.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ParseMAC reads an address as ip(8) and brctl(8) take it, six octets of one or two
// digits with colons or hyphens between them, or as switches show it, in three
// groups of four with dots.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	wrong := fmt.Errorf("parse MAC %q: want six octets such as 52:54:00:12:34:56", s)
	if len(s) == 14 && s[4] == '.' && s[9] == '.' {
		b, err := hex.DecodeString(s[:4] + s[5:9] + s[10:])
		if err != nil {
			return MAC{}, wrong
		}
		return MAC(b), nil
	}
	separator := ":"
	if strings.Contains(s, "-") {
		separator = "-"
	}
	octets := strings.Split(s, separator)
	if len(octets) != len(m) {
		return MAC{}, wrong
	}
	for i, o := range octets {
		v, err := strconv.ParseUint(o, 16, 8)
		if err != nil || len(o) > 2 {
			return MAC{}, wrong
		}
		m[i] = byte(v)
	}
	return m, nil
}

// String gives the lower-case colon form.
func (m MAC) String() string {
	const hex = "0123456789abcdef"
	var b [17]byte
	for i, v := range m {
		if i > 0 {
			b[3*i-1] = ':'
		}
		b[3*i], b[3*i+1] = hex[v>>4], hex[v&15]
	}
	return string(b[:])
}

// MarshalText and UnmarshalText make a MAC a string in JSON and YAML.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText accepts what ParseMAC accepts.
func (m *MAC) UnmarshalText(b []byte) (err error) { *m, err = ParseMAC(string(b)); return err }

// IsGroup reports the group bit: multicast or broadcast.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// IsZero reports 00:00:00:00:00:00, which no station may use.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsUnicast reports an address that a station may own.
func (m MAC) IsUnicast() bool { return !m.IsGroup() && !m.IsZero() }

// IsLinkLocal reports 01:80:c2:00:00:00–0f, the addresses of 802.1Q table 8-1
// that a bridge never forwards.
func (m MAC) IsLinkLocal() bool {
	return binary.BigEndian.Uint32(m[:4]) == 0x0180c200 && m[4] == 0 && m[5]&0xf0 == 0
}

// Tag is one VLAN tag: TPID<<16 | TCI. Zero is no tag.
type Tag uint32

// MakeTag builds a tag from its TPID, priority code point (with the DEI as its
// lowest bit, so 0–15) and VLAN id.
func MakeTag(tpid uint16, pcpDEI uint8, vid uint16) Tag {
	return Tag(tpid)<<16 | Tag(pcpDEI&15)<<12 | Tag(vid&0xfff)
}

// TPID is the tag's EtherType, 0x8100 or 0x88a8.
func (t Tag) TPID() uint16 { return uint16(t >> 16) }

// TCI is the tag control information as on the wire.
func (t Tag) TCI() uint16 { return uint16(t) }

// VID is the VLAN id, 0–4095; 0 is a priority tag.
func (t Tag) VID() uint16 { return uint16(t) & 0xfff }

// WithVID is the tag with another VLAN id; priority and TPID stay.
func (t Tag) WithVID(vid uint16) Tag { return t&^0xfff | Tag(vid&0xfff) }

// Frame is one Ethernet frame on its way through the switch: 64 bytes, one
// cache line.
//
// On the wire the frame is Data[:12], then Tag if it is not zero, then
// Data[12:], then each of Rest. Nothing in the switch writes to these bytes.
type Frame struct {
	// Data starts at the destination MAC and holds at least the Ethernet
	// header, and a tag if the frame has one in band. No frame check sequence.
	Data []byte
	// Rest holds what follows Data when the frame lies in several pieces
	// (descriptor chains). Mostly nil.
	Rest [][]byte
	// Hdr is the offload state. Its offsets count from Data[0] and know nothing
	// of Tag: a port that puts Tag in band adds TagLen (see Out.WireHdr).
	Hdr VnetHdr
	// Strip is the number of bytes at Data[12] that egress leaves out: 4 when
	// an in-band tag was read into Tag by the classifier, else 0.
	Strip uint8
	// Tag is the tag that came beside the bytes, or that the classifier took
	// out of them.
	Tag Tag
}

// Len is the frame's length in bytes on the wire, Tag included, without FCS.
func (f *Frame) Len() int {
	n := len(f.Data) - int(f.Strip)
	for _, r := range f.Rest {
		n += len(r)
	}
	if f.Tag != 0 {
		n += TagLen
	}
	return n
}

// Dst is the destination address. Data must hold it.
func (f *Frame) Dst() MAC { return MAC(f.Data[:6]) }

// Src is the source address. Data must hold it.
func (f *Frame) Src() MAC { return MAC(f.Data[6:12]) }

// Header is an Ethernet header as it was read: little-endian words of octets 0–5
// (destination) and 6–13 (source and EtherType).
type Header struct{ Dst, Tail uint64 }

// Put writes the header's 14 octets to b.
func (h *Header) Put(b []byte) {
	binary.LittleEndian.PutUint64(b, h.Dst)
	binary.LittleEndian.PutUint64(b[6:HeaderLen], h.Tail)
}

// Out is a frame on its way out of one port, with the tag it wears there.
type Out struct {
	*Frame
	// EgressTag replaces Frame.Tag on this port. Zero sends it untagged.
	EgressTag Tag
	// Header, if not nil, is what goes out in place of Data's Ethernet header:
	// Data is memory that its sender may have rewritten since that was judged,
	// and what was judged must be what is sent.
	Header *Header
}

// Len is the length on the wire of this port, EgressTag included.
func (o *Out) Len() int {
	n := o.Frame.Len()
	if o.Frame.Tag != 0 {
		n -= TagLen
	}
	if o.EgressTag != 0 {
		n += TagLen
	}
	return n
}

// WireHdr is the offload header for the bytes as this port puts them on the
// wire when it writes EgressTag in band: offsets moved by the tag that came or
// went.
func (o *Out) WireHdr() VnetHdr {
	h := o.Frame.Hdr
	d := -int(o.Strip)
	if o.EgressTag != 0 {
		d += TagLen
	}
	if d != 0 {
		if h.Flags&HdrNeedsCsum != 0 {
			h.CsumStart = uint16(int(h.CsumStart) + d)
		}
		if h.HdrLen != 0 {
			h.HdrLen = uint16(max(int(h.HdrLen)+d, 0)) // a hint, and shorter than a tag it may be
		}
	}
	return h
}

// AppendWire appends the frame as this port puts it on the wire to b. For
// ports that copy, for captures and for tests.
func (o *Out) AppendWire(b []byte) []byte {
	b, data := o.Front(b)
	b = append(b, data...)
	for _, r := range o.Rest {
		b = append(b, r...)
	}
	return b
}
