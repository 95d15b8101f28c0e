package mem

import (
	"encoding/binary"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// MAC is the address of test station n: locally administered, and different
// for every n.
func MAC(n int) frame.MAC {
	m := frame.MAC{0x02, 0x54}
	binary.BigEndian.PutUint32(m[2:], uint32(n))
	return m
}

// Ethernet builds a frame of at least 60 bytes with an EtherType that no stack
// listens to (0x88b5, IEEE 802 local experimental).
func Ethernet(dst, src frame.MAC, payload string) []byte {
	return Build(dst, src, 0, 0x88b5, []byte(payload))
}

// Tagged is Ethernet with an 802.1Q tag in band.
func Tagged(dst, src frame.MAC, vid uint16, pcp uint8, payload string) []byte {
	return Build(dst, src, frame.MakeTag(frame.EtherTypeVLAN, pcp<<1, vid), 0x88b5, []byte(payload))
}

// Build builds a frame with any tag and EtherType, padded to 60 bytes, the
// least that leaves a station.
func Build(dst, src frame.MAC, tag frame.Tag, etherType uint16, payload []byte) []byte {
	b := append(append(make([]byte, 0, 64), dst[:]...), src[:]...)
	if tag != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(tag))
	}
	b = binary.BigEndian.AppendUint16(b, etherType)
	b = append(b, payload...)
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}
