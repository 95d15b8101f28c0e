package e2e

import (
	"encoding/binary"
	"fmt"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// bridgeGroup is the address that BPDUs go to.
var bridgeGroup = frame.MAC{0x01, 0x80, 0xc2, 0, 0, 0}

// bridgeID is a bridge identifier.
type bridgeID struct {
	prio uint16
	addr frame.MAC
}

func (id bridgeID) String() string { return fmt.Sprintf("%04x.%x", id.prio, id.addr[:]) }

func (id bridgeID) append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, id.prio), id.addr[:]...)
}

// Flags of an RST BPDU, 802.1D-2004 9.3.3. The last two are port roles.
const (
	rstTopologyChange = 1 << 0
	rstProposal       = 1 << 1
	rstRoot           = 2 << 2
	rstDesignated     = 3 << 2
)

// rstBPDU is a frame from src with an RST BPDU: bridge claims to have a path to
// root at that cost. It is spelt out, so that it tests package stp's reading and
// not its writing.
func rstBPDU(src frame.MAC, root bridgeID, cost uint32, bridge bridgeID, flags byte) []byte {
	b := []byte{0, 0, 2, 2, flags}
	b = root.append(b)
	b = binary.BigEndian.AppendUint32(b, cost)
	b = bridge.append(b)
	b = append(b, 0x80, 1) // port id
	// Message age, max age, hello time, forward delay in 1/256 s; version 1 length.
	b = append(b, 0, 0, shortMaxAge, 0, shortHello, 0, shortForwardDelay, 0, 0)
	return llc(bridgeGroup, src, b)
}

// llc is an 802.3 frame with the LLC header of BPDUs.
func llc(dst, src frame.MAC, pdu []byte, tags ...frame.Tag) []byte {
	f := append(append([]byte{}, dst[:]...), src[:]...)
	for _, t := range tags {
		f = binary.BigEndian.AppendUint32(f, uint32(t))
	}
	f = binary.BigEndian.AppendUint16(f, uint16(3+len(pdu)))
	f = append(append(f, 0x42, 0x42, 0x03), pdu...)
	return append(f, make([]byte, max(0, 60-len(f)))...)
}
