package stp

// The root port (17.29.2, figure 17-21). It may forward as soon as no port that
// was the root port before it still does (reRooted), and agrees with a
// designated neighbour's proposal as soon as every other port is in step
// (allSynced).

// prtRootRun takes one transition from ROOT_PORT if there is one to take.
func (p *port) prtRootRun() bool {
	opens := p.fdWhile == 0 || p.reRooted() && p.rbWhile == 0 && p.b.rstpVersion()
	switch {
	case p.proposed && !p.agree:
		p.prtToRootProposed()
	case p.b.allSynced() && !p.agree || p.proposed && p.agree:
		p.prtToRootAgreed()
	case !p.forward && !p.reRoot:
		p.prtToReroot()
	case opens && !p.learn:
		p.prtToRootLearn()
	case opens && p.learn && !p.forward:
		p.prtToRootForward()
	case p.reRoot && p.forward:
		p.prtToRerooted()
	case p.rrWhile != p.fwdDelay():
		p.prtToRootPort()
	default:
		return false
	}
	return true
}

func (p *port) prtToRootPort() {
	p.prt = prtRootPort
	p.role = RoleRoot
	p.rrWhile = p.fwdDelay()
}

func (p *port) prtToRootProposed() {
	p.prt = prtRootProposed
	p.b.setSyncTree()
	p.proposed = false
}

func (p *port) prtToRootAgreed() {
	p.prt = prtRootAgreed
	p.proposed, p.sync = false, false
	p.agree, p.newInfo = true, true
}

func (p *port) prtToReroot() {
	p.prt = prtReroot
	p.b.setReRootTree()
}

func (p *port) prtToRootForward() {
	p.prt = prtRootForward
	p.fdWhile = 0
	p.forward = true
}

func (p *port) prtToRootLearn() {
	p.prt = prtRootLearn
	p.fdWhile = p.forwardDelay()
	p.learn = true
}

func (p *port) prtToRerooted() {
	p.prt = prtRerooted
	p.reRoot = false
}
