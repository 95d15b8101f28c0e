package stp

import (
	"errors"
	"fmt"
	"slices"
)

// Errors of Bridge beyond those of ParseBPDU and Validate. None harms anything.
var (
	// ErrNoPort: the bridge has no port of this number.
	ErrNoPort = errors.New("no such port")
	// ErrDown: a BPDU for a port that is down; it is ignored.
	ErrDown = errors.New("port is down")
	// ErrFiltered: a BPDU for a port with PortConfig.BPDUFilter.
	ErrFiltered = errors.New("port filters BPDUs")
	// ErrGuarded: a BPDU for a port with PortConfig.BPDUGuard; the port is
	// disabled now.
	ErrGuarded = errors.New("port is disabled by BPDU guard")
	// ErrOwn: a BPDU that the port sent itself. The port discards until it
	// hears no more of them.
	ErrOwn = errors.New("BPDU is the port's own")
)

// Bridge is the spanning tree entity of one bridge. The zero value is not
// usable; New makes one. One goroutine at a time may call its methods.
type Bridge struct {
	cfg   Config
	ports []*port // by number
	prs   prsState

	// Per-Bridge variables (17.18).
	rootPriority vector // 17.18.6
	rootTimes    times  // 17.18.7
	rootPort     *port  // its identifier is rootPortId, 17.18.5; nil if this bridge is the root

	announced   vector // what designated ports announce, without the port's own identifier; strict.go
	toTheLetter bool   // tests only: the rules of the standard as they are written; strict.go

	clock  uint64 // Ticks so far
	ageing uint32 // seconds that short ageing stays in force, mode STP (17.19.1)

	topologyChanges uint64
	lastChange      uint64 // the clock at the last topology change
	lastChangePort  uint16
	lastChangeBy    string

	pending      pending
	out, drained []Output
	spare        []byte // the arena of the outputs before the drained ones
	saidRoot     BridgeID
	saidRootPort uint16
	saidAgeing   uint32

	unsettled int // calls whose machines did not come to rest: a bug
	deepest   int // the most passes that a call took
}

// New makes a bridge without ports. It is its own root.
func New(cfg Config) (*Bridge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("new bridge: %w", err)
	}
	b := &Bridge{cfg: cfg, saidRoot: cfg.ID}
	b.prsToInitBridge()
	b.settle()
	return b, nil
}

// rstpVersion is 17.20.11; the machines write stpVersion (17.20.12) as its
// negation.
func (b *Bridge) rstpVersion() bool { return b.cfg.Mode == RSTP }

// SetConfig changes the bridge's parameters and acts on the change at once
// (17.13): a new identifier or new times select the roles anew, a new hold
// count forgets what was sent, a new mode starts all machines from BEGIN. On an
// error nothing has changed.
func (b *Bridge) SetConfig(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("set bridge: %w", err)
	}
	old := b.cfg
	b.cfg = cfg
	if cfg.Mode != old.Mode {
		b.ageing = 0
		b.prsToInitBridge()
		for _, p := range b.ports {
			p.begin()
		}
	}
	for _, p := range b.ports {
		p.selected, p.reselect = false, true
		if cfg.TxHold != old.TxHold {
			p.txCount = 0
		}
	}
	if len(b.ports) == 0 {
		b.updtRolesTree()
	}
	b.settle()
	return nil
}

// SetPort adds the port numbered num, 1–4095, or changes its parameters, and
// acts on the change at once: link up and down, cost, priority, edge, guards.
// On an error nothing has changed.
func (b *Bridge) SetPort(num uint16, cfg PortConfig) error {
	if num < MinPort || num > MaxPort {
		return fmt.Errorf("set port %d: %w: want a number from %d to %d", num, ErrConfig, MinPort, MaxPort)
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("set port %d: %w", num, err)
	}
	i, ok := b.index(num)
	if !ok {
		p := &port{b: b, num: num, cfg: cfg}
		b.ports = slices.Insert(b.ports, i, p)
		p.begin()
		p.said.rstp, p.said.state, p.said.edge = p.sendRSTP, p.state(), p.operEdge
	}
	b.ports[i].configure(cfg)
	b.settle()
	return nil
}

// configure puts a port's parameters into force (17.13).
func (p *port) configure(cfg PortConfig) {
	old, wasEdge := p.cfg, p.adminEdge()
	p.cfg = cfg
	cost := cfg.Cost
	if cost == 0 {
		cost = PathCost(cfg.Speed)
	}
	if cost != p.portPathCost || cfg.Priority != old.Priority {
		p.portPathCost = cost
		p.selected, p.reselect = false, true
	}
	// Turning the filter on forgets what came in before.
	if cfg.BPDUFilter && !old.BPDUFilter {
		p.rcvdInfoWhile = 0
		p.neighbour = ""
	}
	// A port that is configured as an edge port is one from BEGIN (17.25); a
	// change takes effect now, unless the port has met a bridge meanwhile.
	if p.adminEdge() != wasEdge && (wasEdge || p.neighbour == "") {
		p.bdmBegin()
	}
	if p.guard.kind == GuardBPDU && cfg.RecoverAfter != old.RecoverAfter {
		p.guard.while = cfg.RecoverAfter
	}
	p.guardConfig()
	if !p.portEnabled {
		p.neighbour = ""
	}
}

// RemovePort takes the port away, and other ports take over what it did. The
// outputs close and flush it first. ErrNoPort if there is none.
func (b *Bridge) RemovePort(num uint16) error {
	i, ok := b.index(num)
	if !ok {
		return fmt.Errorf("remove port %d: %w", num, ErrNoPort)
	}
	p := b.ports[i]
	p.guard = guard{}
	p.cfg.Enabled, p.portEnabled = false, false
	b.settle()
	b.ports = slices.Delete(b.ports, i, i+1)
	return nil
}

// Recover ends whatever a guard does to the port now. The guard trips again if
// its cause persists. ErrNoPort if there is no such port; no effect on a port that
// no guard holds.
func (b *Bridge) Recover(num uint16) error {
	p := b.find(num)
	if p == nil {
		return fmt.Errorf("recover port %d: %w", num, ErrNoPort)
	}
	p.release()
	b.settle()
	return nil
}

// Mcheck makes the port speak RSTP again and find out anew what its neighbours
// speak (17.19.13); no effect in mode STP. ErrNoPort if there is no such port.
func (b *Bridge) Mcheck(num uint16) error {
	p := b.find(num)
	if p == nil {
		return fmt.Errorf("check migration of port %d: %w", num, ErrNoPort)
	}
	if b.rstpVersion() {
		p.mcheck = true
		p.edgeDelayWhile = p.edgeDelayHeard() // the neighbours have yet to answer in RSTP
	}
	b.settle()
	return nil
}

// Receive hands in a BPDU that came in on a port: pdu starts at the Protocol
// Identifier, the byte after the LLC header 42 42 03, and ends where the 802.3
// length field says (padding behind a short BPDU is not part of it; octets
// beyond those that the BPDU's type has are ignored). It is not kept.
//
// Everything that follows from the BPDU and need not wait for a timer happens
// before Receive returns, and is in Outputs. An error says why the BPDU was not
// acted upon: it wraps one of this package's errors, has been counted, and
// needs no action. (In mode STP an RST BPDU is of an unknown type.)
func (b *Bridge) Receive(num uint16, pdu []byte) error {
	p := b.find(num)
	if p == nil {
		return fmt.Errorf("receive BPDU on port %d: %w", num, ErrNoPort)
	}
	p.rxRecent++
	m, err := ParseBPDU(pdu)
	if err != nil {
		p.countInvalid(err)
		return fmt.Errorf("receive BPDU on port %d: %w", num, err)
	}
	p.countValid(&m)
	switch {
	case p.cfg.BPDUFilter:
		err = ErrFiltered
	case p.guard.kind == GuardBPDU:
		err = ErrGuarded
	case !p.portEnabled:
		err = ErrDown
	case p.cfg.BPDUGuard:
		p.bpduGuardTrips(&m)
		b.settle()
		err = ErrGuarded
	case m.Type == TypeRST && !b.rstpVersion():
		// A bridge of 802.1D-1998 does not know the type. The neighbour hears
		// Configuration BPDUs in answer, and will speak STP, too.
		err = ErrType
	}
	if err != nil {
		p.counters.RxDiscarded++
		return fmt.Errorf("receive BPDU on port %d: %w", num, err)
	}
	p.neighbour = "stp"
	if m.Type == TypeRST {
		p.neighbour = "rstp"
	}
	p.bpdu = m
	if p.sent(&m) {
		p.counters.RxOwn++
		p.operEdge = false
		p.selfLoopTrips()
		b.settle()
		return fmt.Errorf("receive BPDU on port %d: %w", num, ErrOwn)
	}
	p.clearGuard(GuardLoop)
	p.rcvdBPDU = true
	b.settle()
	return nil
}

// Received is how many BPDUs, valid or not, were handed in on the port since
// the last Tick, for an owner that limits their rate; 0 if there is no such
// port.
func (b *Bridge) Received(num uint16) uint32 {
	p := b.find(num)
	if p == nil {
		return 0
	}
	return p.rxRecent
}

// Tick tells the bridge that a second has passed (17.22). Call it once a second;
// when the owner was late, as often as seconds have passed.
func (b *Bridge) Tick() {
	b.clock++
	dec(&b.ageing)
	for _, p := range b.ports {
		silent := p.rcvdInfoWhile == 1
		p.ptiToTick()
		if silent && p.infoIs == infoReceived {
			p.counters.Expired++
			if p.cfg.LoopGuard {
				p.loopGuardTrips()
			}
		}
		p.guardTick()
		dec(&p.tcHeard)
		p.rxRecent = 0
	}
	b.settle()
}

// Outputs drains what the calls before it brought about. To be called after
// each of New, SetConfig, SetPort, RemovePort, Recover, Mcheck, Receive and
// Tick.
//
// The outputs of one call come in this order: SetState that close a port or
// stop it learning, other SetState, Flush and SetAgeing, SendBPDU, Event. No
// SendBPDU may leave before all that stands ahead of it is in force in the
// datapath: an Agreement tells a neighbour that this bridge has already
// blocked. An owner that publishes state changes together may therefore apply
// every SetState, Flush and SetAgeing of the slice first, in their order, and
// then send.
//
// The slice and the BPDUs in it are valid until the next call of Outputs.
func (b *Bridge) Outputs() []Output {
	out := b.out
	b.out, b.drained = b.drained[:0], out
	b.pending.arena, b.spare = b.spare[:0], b.pending.arena
	return out
}

// sent reports that the port sent m itself. Only a designated port's BPDU says
// who sent it: root and alternate ports send back the identifiers they heard.
func (p *port) sent(m *BPDU) bool {
	return m.Type != TypeTCN && m.role() == RoleDesignated && m.Bridge.Addr == p.b.cfg.ID.Addr && m.Port.Port() == p.num
}

// countValid counts a valid BPDU by its kind.
func (p *port) countValid(m *BPDU) {
	switch m.Type {
	case TypeConfig:
		p.counters.RxConfig++
	case TypeTCN:
		p.counters.RxTCN++
	case TypeRST:
		p.counters.RxRST++
	}
	if m.Flags&FlagTopologyChange != 0 {
		p.counters.RxTC++
	}
}

// countInvalid counts an invalid one by what is wrong with it.
func (p *port) countInvalid(err error) {
	c := &p.counters
	switch {
	case errors.Is(err, ErrTooShort):
		c.RxTooShort++
	case errors.Is(err, ErrProtocol):
		c.RxProtocol++
	case errors.Is(err, ErrType):
		c.RxType++
	case errors.Is(err, ErrVersion):
		c.RxVersion++
	case errors.Is(err, ErrMessageAge):
		c.RxMessageAge++
	}
}
