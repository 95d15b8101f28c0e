package relay

import (
	"encoding/binary"
	"math"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Port numbers. The host interface has number 0; the others' are also their port
// numbers in the spanning tree (12 bits, 802.1D-2004 9.2.7).
const (
	HostPort = 0
	MaxPorts = 4096
)

// View is everything that a relay needs to forward a batch: one snapshot, made
// by the control side alone and never changed once a relay has it, so that a
// batch never sees half a change. Port state and flush generation change in one
// publication. It holds nothing of the control side but counters.
type View struct {
	Seq       uint64 // each view's is higher than its predecessor's
	Filtering bool   // VLANs are kept apart (802.1Q clause 8)
	Spanning  bool   // the tree is on: BPDUs go to the control side
	Own       uint64 // the switch's own address, see Word
	Ports     []Port // by port number; those that are not there have no Tx

	flat  vlan        // the one VLAN of a switch that doesn't filter
	vlans [4096]*vlan // by VLAN id when filtering; nil = nobody's
}

// Port is a port as the datapath sees it.
type Port struct {
	Name     string
	Tx       frame.Port // where its frames leave; nil = there is no such port
	Counters []Counters // by relay
	Punts    *Allowance // nil: nothing it sends is for the control side
	Troubles *Troubles  // nil: nobody wants to know

	Gen          uint16 // flush generation: entries of another are forgotten
	PVID         uint16 // VLAN of untagged frames; 0 = dropped
	MaxLen       uint32 // longest frame on egress without its VLAN tag; NoLimit = any
	Offloads     frame.Offloads
	Learn        bool // sources are learned
	Learning     bool // the tree lets it learn
	Forward      bool // the tree lets it forward and the link is up
	Deaf         bool // held by BPDU guard, which no BPDU changes
	NoBPDU       bool // BPDUs that it sends are not forwarded where there is no tree
	Isolated     bool
	Hairpin      bool
	UntaggedOnly bool
	Tunnel       bool
	Shared       bool // its frames lie in memory that their sender may rewrite
	Extra        Extra
	Member       *frame.VIDSet // VLANs that may enter and leave
	Untagged     *frame.VIDSet // those of them that leave without a tag

	offers uint8 // of Offloads; see needs
}

// NoLimit is a MaxLen that every frame keeps.
const NoLimit = math.MaxUint32

// Extra says which steps that most ports are spared a port's frames take: one
// word, made with the view, so that all of them together cost a run one branch
// that is foreseen where none is on.
type Extra uint32

// The steps of Extra.
const (
	ExtraLocked Extra = 1 << iota // frames from sources not in the table are dropped
)

// vlan holds the ports that flooding in a VLAN reaches, by class. The ingress
// port is among them and is skipped on the way.
type vlan struct{ flood [NumClasses][]uint16 }

// Class is a class of frames that are flooded, each of which a port can opt out of.
type Class uint8

// The classes.
const (
	Unknown Class = iota // unicast to a station that is not in the table
	Multicast
	Broadcast
	NumClasses
)

// SetPort makes p port number n of a view that no relay has yet, and puts it on
// the flood lists of its VLANs, except for the classes that it opts out of. Ports
// are set in the order of their numbers.
func (v *View) SetPort(n uint16, p Port, optOut [NumClasses]bool) {
	p.offers = offers(p.Offloads)
	v.Ports[n] = p
	if !p.Forward {
		return
	}
	add := func(vl *vlan) {
		for class, out := range optOut {
			if !out {
				vl.flood[class] = append(vl.flood[class], n)
			}
		}
	}
	if !v.Filtering {
		add(&v.flat)
		return
	}
	for vid := range p.Member.All {
		if v.vlans[vid] == nil {
			v.vlans[vid] = new(vlan)
		}
		add(v.vlans[vid])
	}
}

// PortName is the name of port n, or "" when it is gone.
func (v *View) PortName(n uint16) string {
	if int(n) < len(v.Ports) {
		return v.Ports[n].Name
	}
	return ""
}

// Word is a MAC as a little-endian 48-bit number: what an eight-byte load of a
// frame gives after masking. The group bit is bit 0.
func Word(m frame.MAC) uint64 {
	return uint64(binary.LittleEndian.Uint32(m[:4])) | uint64(binary.LittleEndian.Uint16(m[4:]))<<32
}

// Words of addresses that the decision compares with.
const (
	macMask       = 1<<48 - 1
	wordBroadcast = macMask
	wordSTP       = 0x0000_00c2_8001 // 01:80:c2:00:00:00
	linkLocalBits = 0x0f << 40       // 01:80:c2:00:00:00–0f differ in these
)

// What a frame needs of the port it leaves by, and a port may offer.
const (
	needCsum = 1 << iota
	needTSO4
	needTSO6
	needUSO
	needUnknown // no port offers it
)

// needs are the offloads without which a frame with header h can't be sent as it is.
func needs(h frame.VnetHdr) (n uint8) {
	if h.Flags&frame.HdrNeedsCsum != 0 {
		n = needCsum
	}
	switch h.GSOType {
	case frame.GSONone:
	case frame.GSOTCPv4, frame.GSOTCPv4 | frame.GSOECN:
		n |= needTSO4
	case frame.GSOTCPv6, frame.GSOTCPv6 | frame.GSOECN:
		n |= needTSO6
	case frame.GSOUDPL4:
		n |= needUSO
	default:
		n |= needUnknown
	}
	return n
}

// offers are the needs that a port with offloads o meets.
func offers(o frame.Offloads) (n uint8) {
	for _, c := range []struct {
		has  bool
		need uint8
	}{{o.Csum, needCsum}, {o.TSO4, needTSO4}, {o.TSO6, needTSO6}, {o.USO, needUSO}} {
		if c.has {
			n |= c.need
		}
	}
	return n
}
