package stp

// The designated port (17.29.3, figure 17-22). It proposes to forward, and does
// when its neighbour agrees, when it is at the edge, or when the forward delay
// has passed twice. It stops when the root port has to agree with a proposal
// from above (sync), when it was the root port until recently (reRoot, rrWhile)
// and when an inferior neighbour disputes its role.

// prtDesignatedRun takes one transition from DESIGNATED_PORT if there is one to
// take.
func (p *port) prtDesignatedRun() bool {
	closes := (p.sync && !p.synced || p.reRoot && p.rrWhile != 0 || p.disputed) && !p.operEdge ||
		p.guard.inconsistent()
	opens := (p.fdWhile == 0 || p.agreed || p.operEdge) && (p.rrWhile == 0 || !p.reRoot) && !p.sync &&
		!p.guard.inconsistent()
	switch {
	case closes && (p.learn || p.forward):
		p.prtToDesignatedDiscard()
	case !p.forward && !p.agreed && !p.proposing && !p.operEdge:
		p.prtToDesignatedPropose()
	case (!p.learning && !p.forwarding || p.agreed || p.operEdge) && !p.synced || p.sync && p.synced:
		p.prtToDesignatedSynced()
	case p.rrWhile == 0 && p.reRoot:
		p.prtToDesignatedRetired()
	case opens && !p.learn:
		p.prtToDesignatedLearn()
	case opens && p.learn && !p.forward:
		p.prtToDesignatedForward()
	default:
		return false
	}
	return true
}

func (p *port) prtToDesignatedPort() {
	p.prt = prtDesignatedPort
	p.role = RoleDesignated
}

func (p *port) prtToDesignatedPropose() {
	p.prt = prtDesignatedPropose
	p.proposing = true
	p.edgeDelayWhile = max(p.edgeDelayWhile, p.edgeDelay())
	p.newInfo = true
}

func (p *port) prtToDesignatedSynced() {
	p.prt = prtDesignatedSynced
	p.rrWhile = 0
	p.synced = true
	p.sync = false
}

func (p *port) prtToDesignatedRetired() {
	p.prt = prtDesignatedRetired
	p.reRoot = false
}

func (p *port) prtToDesignatedForward() {
	p.prt = prtDesignatedForward
	p.forward = true
	p.fdWhile = 0
	p.agreed = p.sendRSTP
}

func (p *port) prtToDesignatedLearn() {
	p.prt = prtDesignatedLearn
	p.learn = true
	p.fdWhile = p.forwardDelay()
}

func (p *port) prtToDesignatedDiscard() {
	p.prt = prtDesignatedDiscard
	p.learn, p.forward, p.disputed = false, false, false
	p.fdWhile = p.forwardDelay()
}
