package e2e

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// etherTest is the EtherType of the tests' own frames: IEEE 802 local
// experimental 1.
const etherTest = 0x88b5

// mac is the station address with number n.
func mac(n int) frame.MAC {
	m := frame.MAC{0x02, 0, 0, 0x10}
	binary.BigEndian.PutUint16(m[4:], uint16(n))
	return m
}

// ether is an Ethernet frame: addresses, tags, EtherType and body.
func ether(dst, src frame.MAC, body string, tags ...frame.Tag) []byte {
	b := append(append(make([]byte, 0, 64), dst[:]...), src[:]...)
	for _, t := range tags {
		b = binary.BigEndian.AppendUint32(b, uint32(t))
	}
	return append(binary.BigEndian.AppendUint16(b, etherTest), body...)
}

// cTag is an 802.1Q tag.
func cTag(vid uint16) frame.Tag { return frame.MakeTag(frame.EtherTypeVLAN, 0, vid) }

// sTag is an 802.1ad tag.
func sTag(vid uint16) frame.Tag { return frame.MakeTag(frame.EtherTypeQinQ, 0, vid) }

// describe is a frame on one line: its layers, then its bytes.
func describe(f []byte) string {
	var s strings.Builder
	p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.Ethernet:
			fmt.Fprintf(&s, "%v > %v", l.SrcMAC, l.DstMAC)
		case *layers.Dot1Q:
			fmt.Fprintf(&s, " vlan %d prio %d", l.VLANIdentifier, l.Priority)
		case *gopacket.DecodeFailure: // the tests' own EtherType
		default:
			fmt.Fprintf(&s, " %v", l.LayerType())
		}
	}
	return fmt.Sprintf("%s, %d bytes: % x", s.String(), len(f), f[:min(len(f), 48)])
}
