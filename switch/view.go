package vswitch

import (
	"encoding/binary"
	"math"

	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Port numbers. The host interface has number 0 and is no part of the spanning
// tree; the others get the lowest free number, which is also their STP port
// number (12 bits, 802.1D-2004 9.2.7).
const (
	hostPort = 0
	maxPorts = 4096
)

// view is everything a worker needs to forward a batch: one immutable snapshot,
// built by the control side alone and published whole, so that a batch never
// sees half a change. Port state and flush generation change in one publication.
type view struct {
	seq       uint64
	filtering bool
	spanning  bool              // the tree is on: BPDUs go to the control queue
	own       uint64            // the switch's own MAC as a word, see macWord
	ports     []portView        // by port number; absent ones have no port
	flat      vlanView          // the one VLAN of a switch that doesn't filter
	vlans     [4096]*vlanView   // by VLAN id when filtering; nil = nobody's
	queues    [][]attachedQueue // by worker
}

// vlanView holds the ports that flooding in a VLAN reaches, by class. The
// ingress port is in it and is skipped on the way.
type vlanView struct{ flood [numClasses][]uint16 }

// The classes of frames that are flooded, each of which a port can opt out of.
const (
	classUnknown = iota
	classMulticast
	classBroadcast
	numClasses
)

// portView is a port as the workers see it.
type portView struct {
	port         *port
	tx           frame.Port
	gen          uint16
	pvid         uint16
	maxLen       uint32 // longest frame on egress without its VLAN tag; MaxUint32 = any
	offloads     uint8  // needs of a frame that the port meets; see needs
	caps         frame.Offloads
	learn        bool // the tree lets it learn, and learning is on
	learning     bool // the tree lets it learn
	forward      bool // the tree lets it forward and the link is up
	deaf         bool // held by BPDU guard, which no BPDU changes
	isolated     bool
	locked       bool
	hairpin      bool
	untaggedOnly bool
	tunnel       bool
	shared       bool // its frames lie in memory that their sender may rewrite
	member       *VIDSet
	untagged     *VIDSet
}

// attachedQueue is a receive queue and the port it belongs to.
type attachedQueue struct {
	frame.Queue
	port    uint16
	faulter frame.Faulter // the queue itself, if its frames' memory may vanish; else nil
}

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

// macWord is a MAC as a little-endian 48-bit number: what an eight-byte load
// of a frame gives after masking. The group bit is bit 0.
func macWord(m frame.MAC) uint64 {
	return uint64(binary.LittleEndian.Uint32(m[:4])) | uint64(binary.LittleEndian.Uint16(m[4:]))<<32
}

// Words of addresses that the decision compares with.
const (
	macMask       = 1<<48 - 1
	wordBroadcast = macMask
	wordSTP       = 0x0000_00c2_8001 // 01:80:c2:00:00:00
	linkLocalBits = 0x0f << 40       // 01:80:c2:00:00:00–0f differ in these
)

// buildView makes the snapshot that the switch's present state asks for.
// Called with s.mu held.
func (s *Switch) buildView() *view {
	v := &view{
		seq:       s.seq + 1,
		filtering: s.cfg.VLANFiltering,
		spanning:  s.tree != nil,
		own:       macWord(s.cfg.MAC),
		ports:     make([]portView, len(s.slots)),
		queues:    make([][]attachedQueue, s.cfg.Workers),
	}
	for n, p := range s.slots {
		if p == nil {
			continue
		}
		v.ports[n] = s.viewPort(p)
		for i, q := range p.queues {
			w := (n + i) % s.cfg.Workers
			faulter, _ := q.(frame.Faulter)
			v.queues[w] = append(v.queues[w], attachedQueue{q, uint16(n), faulter})
			v.ports[n].shared = v.ports[n].shared || faulter != nil
		}
		if v.ports[n].forward {
			v.addToFlood(uint16(n), &p.cfg)
		}
	}
	return v
}

// viewPort is p as the workers shall see it.
func (s *Switch) viewPort(p *port) portView {
	up := p.state.Up
	pv := portView{
		port:         p,
		tx:           p.dev,
		gen:          s.table.Gen(uint16(p.id)),
		pvid:         p.cfg.VLAN.PVID,
		maxLen:       math.MaxUint32,
		offloads:     offers(p.state.Offloads),
		caps:         p.state.Offloads,
		learn:        up && p.learning && !p.cfg.NoLearning,
		learning:     up && p.learning,
		forward:      up && p.forwarding,
		deaf:         p.guard == stp.GuardBPDU.String(),
		isolated:     p.cfg.Isolated,
		locked:       p.cfg.Locked,
		hairpin:      p.cfg.Hairpin,
		untaggedOnly: p.cfg.VLAN.UntaggedOnly,
		tunnel:       p.cfg.VLAN.Tunnel,
		member:       &p.vlan.Member,
		untagged:     &p.vlan.Untagged,
	}
	if p.state.MTU > 0 {
		pv.maxLen = uint32(p.state.MTU + frame.HeaderLen)
	}
	return pv
}

// addToFlood puts port n into the flood lists of its VLANs.
func (v *view) addToFlood(n uint16, c *PortConfig) {
	off := [numClasses]bool{classUnknown: c.NoFlood, classMulticast: c.NoMulticastFlood, classBroadcast: c.NoBroadcastFlood}
	add := func(vl *vlanView) {
		for class, skip := range off {
			if !skip {
				vl.flood[class] = append(vl.flood[class], n)
			}
		}
	}
	if !v.filtering {
		add(&v.flat)
		return
	}
	for vid := range c.VLAN.Member.All {
		if v.vlans[vid] == nil {
			v.vlans[vid] = &vlanView{}
		}
		add(v.vlans[vid])
	}
}
