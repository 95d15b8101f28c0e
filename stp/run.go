package stp

import (
	"cmp"
	"slices"
)

// The machines run in passes: every machine of every port, in the order in
// which information flows through figure 17-12 and with ports by number, until
// a whole pass moves none of them. Then the bridge has done everything that
// need not wait for a timer or a neighbour, and what came of it is published.

const (
	// maxPasses and maxSteps bound the work of one call. The machines come to
	// rest far below (the tests check that they do, and how far); the bounds are
	// there so that a mistake in a transition stalls one port and not its owner.
	maxPasses = 64
	maxSteps  = 64 // transitions of one machine of one port in one pass
)

// settle brings all machines to rest and writes the outputs.
func (b *Bridge) settle() {
	passes := 1
	for b.pass() {
		if passes++; passes > maxPasses {
			b.unsettled++
			break
		}
	}
	b.deepest = max(b.deepest, passes)
	for _, p := range b.ports {
		for i := 0; i < maxSteps && p.ptxRun(); i++ {
		}
	}
	b.publish()
}

// pass lets every machine take the transitions it has, and reports whether any
// had one.
func (b *Bridge) pass() bool {
	moved := false
	for _, p := range b.ports {
		moved = drive(p, (*port).prxRun) || moved
		moved = drive(p, (*port).ppmRun) || moved
		// Information that is too old on arrival is aged out here, before roles
		// are selected by it.
		moved = drive(p, (*port).pimRun) || moved
	}
	moved = b.prsRun() || moved
	for _, p := range b.ports {
		moved = drive(p, (*port).prtRun) || moved
		moved = drive(p, (*port).pstRun) || moved
		moved = drive(p, (*port).bdmRun) || moved
		moved = drive(p, (*port).tcmRun) || moved
		if p.fdbFlush {
			p.flush()
			moved = true
		}
	}
	return moved
}

// drive takes transitions of one machine until it rests.
func drive(p *port, run func(*port) bool) bool {
	steps := 0
	for steps < maxSteps && run(p) {
		steps++
	}
	return steps > 0
}

// begin is BEGIN (17.18.1) for one port: every machine enters its first state.
func (p *port) begin() {
	p.designatedTimes = p.b.designatedTimes()
	p.prxToDiscard()
	p.ppmToCheckingRSTP()
	p.bdmBegin()
	p.ptxToInit()
	p.pimToDisabled()
	p.prtToInitPort()
	p.prtRun() // on to DISABLE_PORT, while selectedRole is still Disabled
	p.pstToDiscarding()
	p.tcmToInactive()
}

// said is what the owner was last told of a port.
type said struct {
	set   SetState
	role  Role
	state State
	edge  bool
	rstp  bool
	told  bool // set was sent at all
}

// pending collects, while the machines run, what will be published when they
// rest.
type pending struct {
	flush  []Flush
	bpdus  []SendBPDU
	guards []Event
	topo   []Event
	arena  []byte // holds the PDUs of bpdus
}

// send encodes a BPDU.
func (o *pending) send(port uint16, m BPDU) {
	start := len(o.arena)
	o.arena = m.Append(o.arena)
	o.bpdus = append(o.bpdus, SendBPDU{port, o.arena[start:len(o.arena):len(o.arena)]})
}

// event keeps an event for its place among the outputs.
func (o *pending) event(e Event) {
	if e.Kind == TopologyChanged {
		o.topo = append(o.topo, e)
	} else {
		o.guards = append(o.guards, e)
	}
}

// publish turns what changed into outputs, in the order that Outputs documents.
func (b *Bridge) publish() {
	o := &b.pending
	for _, p := range b.ports {
		p.publishState(true)
	}
	for _, p := range b.ports {
		p.publishState(false)
	}
	for _, f := range o.flush {
		b.out = append(b.out, f)
	}
	if t := b.ageingNow(); t != b.saidAgeing {
		b.saidAgeing = t
		b.out = append(b.out, SetAgeing{t})
	}
	for _, s := range o.bpdus {
		b.out = append(b.out, s)
	}
	b.publishEvents(o.guards)
	b.publishRoot()
	for _, p := range b.ports {
		p.publishChanges()
	}
	b.publishEvents(o.topo)
	o.flush, o.bpdus, o.guards, o.topo = o.flush[:0], o.bpdus[:0], o.guards[:0], o.topo[:0]
}

// publishState writes a SetState if the port's changed and it belongs to the
// half asked for: those that close or those that open.
func (p *port) publishState(closing bool) {
	was, now := &p.said.set, SetState{p.num, p.learning, p.forwarding, p.guard.kind}
	if now == *was && p.said.told {
		return
	}
	opens := now.Learning && !was.Learning || now.Forwarding && !was.Forwarding
	if opens == closing {
		return
	}
	*was, p.said.told = now, true
	p.b.out = append(p.b.out, now)
}

// publishEvents writes events with the role and state that their ports have
// now.
func (b *Bridge) publishEvents(events []Event) {
	for _, e := range events {
		if p := b.find(e.Port); p != nil {
			e.Role, e.State = p.role, p.state()
		}
		b.out = append(b.out, e)
	}
}

// publishRoot writes an event if there is another root or root port.
func (b *Bridge) publishRoot() {
	var num uint16
	if b.rootPort != nil {
		num = b.rootPort.num
	}
	if b.rootPriority.root == b.saidRoot && num == b.saidRootPort {
		return
	}
	b.saidRoot, b.saidRootPort = b.rootPriority.root, num
	e := Event{Kind: RootChanged, Port: num, Root: b.saidRoot}
	if p := b.rootPort; p != nil {
		e.Role, e.State, e.Bridge = p.role, p.state(), p.portPriority.bridge
	}
	b.out = append(b.out, e)
}

// publishChanges writes the events of one port.
func (p *port) publishChanges() {
	s, was := &p.said, p.said
	s.role, s.state, s.edge, s.rstp = p.role, p.state(), p.operEdge, p.sendRSTP
	if *s == was {
		return
	}
	edge, sends := "not edge", STP.String()
	if p.operEdge {
		edge = "edge"
	}
	if p.sendRSTP {
		sends = RSTP.String()
	}
	for _, c := range [...]struct {
		changed bool
		kind    EventKind
		reason  string
	}{
		{s.role != was.role, RoleChanged, ""},
		{s.state != was.state, StateChanged, ""},
		{s.edge != was.edge, EdgeChanged, edge},
		{s.rstp != was.rstp, VersionChanged, sends},
	} {
		if c.changed {
			p.b.out = append(p.b.out, Event{Kind: c.kind, Port: p.num, Role: p.role, State: s.state, Reason: c.reason})
		}
	}
}

// ageingNow is the short ageing time in force, 0 if there is none.
func (b *Bridge) ageingNow() uint32 {
	if b.ageing == 0 {
		return 0
	}
	return seconds(b.rootTimes.forwardDelay, 2, MaxForwardDelay)
}

// How a topology change became known.
const (
	tcDetected = "detected"
	tcReceived = "received"
)

// noteTopologyChange counts a topology change, once. A neighbour tells of one
// in several BPDUs; they are one change as long as no more than three hello
// times lie between them.
func (b *Bridge) noteTopologyChange(p *port, by string) {
	e := Event{Kind: TopologyChanged, Port: p.num, Reason: by}
	if by == tcReceived {
		e.Bridge = p.bpdu.Bridge
		heard := p.tcHeard
		p.tcHeard = 3 * seconds(p.portTimes.helloTime, MinHello, MaxHello)
		if heard != 0 {
			return
		}
	}
	p.counters.TopologyChanges++
	b.topologyChanges++
	b.lastChange, b.lastChangePort, b.lastChangeBy = b.clock, p.num, by
	b.pending.event(e)
}

// find returns the port of this number, or nil.
func (b *Bridge) find(num uint16) *port {
	i, ok := b.index(num)
	if !ok {
		return nil
	}
	return b.ports[i]
}

// index is where the port of this number is among the ports, or belongs.
func (b *Bridge) index(num uint16) (int, bool) {
	return slices.BinarySearchFunc(b.ports, num, func(p *port, num uint16) int { return cmp.Compare(p.num, num) })
}
