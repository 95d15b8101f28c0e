package relay

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Kind says what a punted frame is: each has an allowance of its own, so that a
// flood of one leaves the others room.
type Kind uint8

// The kinds of frames that the control side wants to see.
const (
	KindBPDU Kind = iota // an untagged BPDU, while the spanning tree is on
	numKinds
)

// Punt is a frame on its way from the datapath to the control side: a copy of
// its beginning, as the wire had it.
type Punt struct {
	Port  uint16
	Kind  Kind
	Len   uint8      // bytes of Bytes that are in use
	Owner *Allowance // of the port, of which there is one for each time it was attached
	Bytes [PuntLen]byte
}

// PuntLen is how much of a frame the control side gets to see: an Ethernet and an
// LLC header, and more than any BPDU has (RST BPDUs have 36 octets).
const PuntLen = bpduHeaderLen + 64

// BPDUs are 802.3 frames with an LLC header (802.1D-2004 9.2.1, 7.12).
const bpduHeaderLen = frame.HeaderLen + 3

// bpduStart is what every BPDU starts with: the LLC header and protocol
// identifier 0 (802.1D-2004 9.2.1). What starts otherwise is refused before it
// can use up the port's allowance.
var bpduStart = [5]byte{0x42, 0x42, 0x03, 0, 0}

// PDU is the BPDU itself, without Ethernet and LLC headers and padding.
func (p *Punt) PDU() []byte {
	length := int(binary.BigEndian.Uint16(p.Bytes[12:14])) // of LLC header and PDU
	return p.Bytes[bpduHeaderLen:min(int(p.Len), frame.HeaderLen+length)]
}

// Source is the address the frame was sent from.
func (p *Punt) Source() frame.MAC { return frame.MAC(p.Bytes[6:12]) }

// limits are what one port may hand to the control side of each kind: in a
// second, and waiting at a time. They are far more than any honest neighbour
// sends (the hold count lets a bridge send ten BPDUs at once), and little enough
// that a flood from one port costs a bounded part of one core, and many ports
// that flood leave room in the queue for those that don't.
var limits = [numKinds]struct{ second, waiting int32 }{
	KindBPDU: {second: 100, waiting: 16},
}

// Allowance counts what a port handed to the control side in the present second,
// and what of it still waits. Relays spend; the control side says what it took
// (Heard) and refills once a second. Any goroutine may call its methods.
type Allowance struct {
	kinds [numKinds]struct{ spent, waiting atomic.Int32 }
}

// take reports whether one more frame of kind k may be handed over.
func (a *Allowance) take(k Kind) bool {
	c, limit := &a.kinds[k], &limits[k]
	if c.spent.Add(1) > limit.second {
		return false
	}
	if c.waiting.Add(1) > limit.waiting {
		c.waiting.Add(-1)
		return false
	}
	return true
}

// Heard says that a frame of kind k is taken out of the queue.
func (a *Allowance) Heard(k Kind) { a.kinds[k].waiting.Add(-1) }

// Refill begins a new second.
func (a *Allowance) Refill() {
	for k := range a.kinds {
		a.kinds[k].spent.Store(0)
	}
}

// linkLocal takes a frame to 01:80:c2:00:00:00–0f that is not forwarded (802.1Q
// table 8-1). An untagged BPDU goes to the control side, also one from
// this switch: that is how it finds its own loops.
func (r *Relay) linkLocal(in uint16, p *Port, c *Counters, f *frame.Frame, dst uint64) {
	punt := Punt{Port: in, Kind: KindBPDU, Owner: p.Punts}
	n := copy(punt.Bytes[:], f.Data)
	for _, rest := range f.Rest {
		n += copy(punt.Bytes[n:], rest)
	}
	punt.Len = uint8(n)
	length := int(binary.BigEndian.Uint16(punt.Bytes[12:14]))
	switch {
	case !r.view.Spanning || p.Punts == nil || dst != wordSTP || f.Tag != 0 || n < bpduHeaderLen || length < 3 || length > 1500 ||
		[5]byte(punt.Bytes[14:19]) != bpduStart:
		r.drop(c, LinkLocal, 1)
	case p.Deaf:
		r.drop(c, PortState, 1)
	case r.trace != nil:
		r.trace.peer("802.1D-2004 7.12.3", "a BPDU: it goes to the spanning tree and no further")
	case !p.Punts.take(KindBPDU):
		r.drop(c, BPDURate, 1)
	case !r.control.Punt(&punt):
		p.Punts.Heard(KindBPDU)
		r.drop(c, BPDURate, 1)
	}
}
