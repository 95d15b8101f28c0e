package stp

import "fmt"

// Guards are not in 802.1D. They protect the tree from what, by a port's
// configuration, should not be there, and work by two levers of the standard:
// portEnabled (BPDU guard), and the conditions under which a designated port
// discards (root guard, loop guard, a port that hears itself).

// guard is a port's guard in force, if any.
type guard struct {
	kind   Guard
	while  uint32   // seconds until it lets go by itself; 0 is never
	reason string   // why it tripped, in a line
	bridge BridgeID // whose BPDU tripped it; zero if none did
}

// inconsistent reports a guard that keeps a designated port discarding.
func (g *guard) inconsistent() bool { return g.kind > GuardBPDU }

// trips puts a guard into force. One that is in force already stays, and stays
// the one that is shown: two guards that take turns on a port make one event.
// BPDU guard, which goes further, replaces the others.
func (p *port) trips(kind Guard, while uint32, bridge BridgeID, reason string) {
	if p.guard.kind != NoGuard && kind != GuardBPDU {
		if p.guard.while != 0 {
			p.guard.while = max(p.guard.while, while)
		}
		return
	}
	p.guard = guard{kind, while, reason, bridge}
	p.counters.GuardTrips++
	p.b.pending.event(Event{Kind: GuardTripped, Port: p.num, Guard: kind, Bridge: bridge, Reason: reason})
}

// clearGuard lets go of the guard in force, if it is of this kind.
func (p *port) clearGuard(kind Guard) {
	if kind == NoGuard || p.guard.kind != kind {
		return
	}
	p.guard = guard{}
	p.b.pending.event(Event{Kind: GuardCleared, Port: p.num, Guard: kind})
}

// bpduGuardTrips disables the port: what sent m has no business there.
func (p *port) bpduGuardTrips(m *BPDU) {
	reason := "received a TCN BPDU"
	if m.Type != TypeTCN {
		reason = fmt.Sprintf("received a BPDU from bridge %v", m.Bridge)
	}
	p.trips(GuardBPDU, p.cfg.RecoverAfter, m.Bridge, reason)
	p.portEnabled = false
}

// rootGuardTrips keeps the port designated and discarding while superior BPDUs
// come in: until the last of them would have aged out.
func (p *port) rootGuardTrips() {
	hello := seconds(p.msgTimes.helloTime, MinHello, MaxHello)
	p.trips(GuardRoot, 3*hello, p.bpdu.Bridge, fmt.Sprintf("bridge %v claims root %v at cost %d",
		p.bpdu.Bridge, p.bpdu.Root, p.bpdu.RootPathCost))
}

// loopGuardTrips keeps the port discarding after its information aged out:
// silence may be a link that works in one direction, and then forwarding makes
// a loop.
func (p *port) loopGuardTrips() {
	p.trips(GuardLoop, 0, p.portPriority.bridge,
		fmt.Sprintf("bridge %v fell silent", p.portPriority.bridge))
}

// selfLoopTrips keeps the port discarding while it hears its own BPDUs.
func (p *port) selfLoopTrips() {
	p.trips(GuardSelfLoop, 3*p.helloTime(), p.bpdu.Bridge,
		"received its own BPDU: a looped cable, a reflecting station, or another bridge with this bridge's address")
}

// guardTick takes one second off the guard's time, and lets go when the time has come.
func (p *port) guardTick() {
	if dec(&p.guard.while) {
		p.release()
	}
}

// release ends the guard in force, whatever it is.
func (p *port) release() {
	if p.guard.kind == GuardBPDU {
		p.neighbour = ""
	}
	p.clearGuard(p.guard.kind)
	p.portEnabled = p.cfg.Enabled
}

// guardConfig lets go of a guard that the port's new configuration no longer
// asks for, or that a link that is down has made pointless. BPDU guard holds
// when the link goes down and up: any guest can do that to its own link.
func (p *port) guardConfig() {
	switch {
	case p.guard.kind == GuardBPDU && (!p.cfg.BPDUGuard || p.cfg.BPDUFilter),
		p.guard.kind == GuardRoot && !p.cfg.RootGuard,
		p.guard.kind == GuardLoop && !p.cfg.LoopGuard,
		p.guard.inconsistent() && (!p.cfg.Enabled || p.cfg.BPDUFilter):
		p.clearGuard(p.guard.kind)
	}
	p.portEnabled = p.cfg.Enabled && p.guard.kind != GuardBPDU
	if p.cfg.RootGuard && p.infoIs == infoReceived {
		p.rcvdInfoWhile = 0 // forget the better bridge that the port may not know of
	}
}
