package stp

// Port Information state machine (17.27, figure 17-18): keeps portPriority and
// portTimes, the best information the port knows of its LAN. It takes that from
// BPDUs, ages it out, or replaces it with the bridge's own when role selection
// says that the bridge knows better.

type pimState uint8

const (
	pimDisabled pimState = iota
	pimAged
	pimUpdate
	pimSuperiorDesignated
	pimRepeatedDesignated
	pimInferiorDesignated
	pimNotDesignated
	pimOther
	pimCurrent
	pimReceive
)

// rcvdInfo is what rcvInfo makes of a BPDU (17.19.26).
type rcvdInfo uint8

const (
	superiorDesignatedInfo rcvdInfo = iota
	repeatedDesignatedInfo
	inferiorDesignatedInfo
	inferiorRootAlternateInfo
	otherInfo
)

// pimRun takes one transition if there is one to take.
func (p *port) pimRun() bool {
	if !p.portEnabled && p.infoIs != infoDisabled {
		p.pimToDisabled()
		return true
	}
	switch p.pim {
	case pimDisabled:
		switch {
		case p.portEnabled:
			p.pimToAged()
		case p.rcvdMsg:
			p.pimToDisabled()
		default:
			return false
		}
	case pimAged:
		if !p.selected || !p.updtInfo {
			return false
		}
		p.pimToUpdate()
	case pimCurrent:
		switch {
		case p.selected && p.updtInfo:
			p.pimToUpdate()
		case p.infoIs == infoReceived && p.rcvdInfoWhile == 0 && !p.updtInfo && !p.rcvdMsg:
			p.pimToAged()
		case p.rcvdMsg && !p.updtInfo:
			p.pimToReceive()
		default:
			return false
		}
	case pimReceive:
		switch p.rcvdInfo {
		case superiorDesignatedInfo:
			p.pimToSuperiorDesignated()
		case repeatedDesignatedInfo:
			p.pimToRepeatedDesignated()
		case inferiorDesignatedInfo:
			p.pimToInferiorDesignated()
		case inferiorRootAlternateInfo:
			p.pimToNotDesignated()
		case otherInfo:
			p.pimToOther()
		}
	default: // unconditional, from UPDATE and from what RECEIVE led to
		p.pim = pimCurrent
	}
	return true
}

func (p *port) pimToDisabled() {
	p.pim = pimDisabled
	p.rcvdMsg = false
	p.proposing, p.proposed, p.agree, p.agreed = false, false, false, false
	p.rcvdInfoWhile = 0
	p.infoIs = infoDisabled
	p.reselect, p.selected = true, false
}

func (p *port) pimToAged() {
	p.pim = pimAged
	p.infoIs = infoAged
	p.reselect, p.selected = true, false
}

func (p *port) pimToUpdate() {
	p.pim = pimUpdate
	p.proposing, p.proposed = false, false
	p.agreed = p.stillAgreed()
	p.synced = p.synced && p.agreed
	p.portPriority = p.designatedPriority
	p.portTimes = p.designatedTimes
	p.updtInfo = false
	p.infoIs = infoMine
	p.newInfo = true
}

func (p *port) pimToReceive() {
	p.pim = pimReceive
	p.rcvdInfo = p.rcvInfo()
}

func (p *port) pimToSuperiorDesignated() {
	p.pim = pimSuperiorDesignated
	p.agreed, p.proposing = false, false
	p.recordProposal()
	p.setTcFlags()
	p.agree = p.stillAgrees()
	p.recordPriority()
	p.recordTimes()
	p.updtRcvdInfoWhile()
	p.infoIs = infoReceived
	p.reselect, p.selected = true, false
	p.rcvdMsg = false
	// A dispute is over when the other side has become superior. (The standard
	// leaves disputed set, which closes the port for no reason when it is
	// designated again.)
	p.disputed = false
}

func (p *port) pimToRepeatedDesignated() {
	p.pim = pimRepeatedDesignated
	p.recordProposal()
	p.setTcFlags()
	p.updtRcvdInfoWhile()
	p.rcvdMsg = false
}

func (p *port) pimToInferiorDesignated() {
	p.pim = pimInferiorDesignated
	p.recordDispute()
	p.rcvdMsg = false
}

func (p *port) pimToNotDesignated() {
	p.pim = pimNotDesignated
	p.recordAgreement()
	p.setTcFlags()
	p.rcvdMsg = false
}

func (p *port) pimToOther() {
	p.pim = pimOther
	p.rcvdMsg = false
}

// betterorsameinfo is 17.21.1.
func (p *port) betterorsameinfo(newInfoIs infoIs) bool {
	switch newInfoIs {
	case infoReceived:
		return p.infoIs == infoReceived && p.msgPriority.compare(&p.portPriority) <= 0
	case infoMine:
		return p.infoIs == infoMine && p.designatedPriority.compare(&p.portPriority) <= 0
	}
	return false
}

// rcvInfo is 17.21.8. It also notes a TCN in rcvdTcn: 802.1D-2004 forgets to
// say where that is set, 802.1Q puts it here.
func (p *port) rcvInfo() rcvdInfo {
	m := &p.bpdu
	if m.Type == TypeTCN {
		p.rcvdTcn = !p.cfg.TCNGuard
		return otherInfo
	}
	p.msgPriority = vector{m.Root, m.RootPathCost, m.Bridge, m.Port}
	p.msgTimes = times{m.MessageAge, m.MaxAge, m.ForwardDelay, max(m.HelloTime, MinHello*second)}
	if m.role() != RoleDesignated {
		if p.msgPriority.compare(&p.portPriority) >= 0 {
			return inferiorRootAlternateInfo
		}
		return otherInfo
	}
	switch {
	case p.msgPriority == p.portPriority && p.msgTimes == p.portTimes:
		return repeatedDesignatedInfo
	case !p.msgPriority.supersedes(&p.portPriority):
		return inferiorDesignatedInfo
	case p.cfg.RootGuard:
		p.rootGuardTrips()
		return otherInfo
	}
	return superiorDesignatedInfo
}

// recordAgreement is 17.21.9.
func (p *port) recordAgreement() {
	if p.b.rstpVersion() && p.operPointToPoint() && p.bpdu.Flags&FlagAgreement != 0 && p.agreementCounts() {
		p.agreed = true
		p.proposing = false
	} else {
		p.agreed = false
	}
}

// recordDispute is 17.21.10 as 802.1Q has it. (The text of 802.1D-2004 sets
// agreed here, which would open the port onto the loop that a dispute is the
// sign of.) Only a port that claims to be designated itself can have a dispute; when
// its information is another's, the dispute is between others.
func (p *port) recordDispute() {
	if p.bpdu.Type == TypeRST && p.bpdu.Flags&FlagLearning != 0 && p.infoIs == infoMine {
		p.disputed = true
		p.agreed = false
	}
}

// recordProposal is 17.21.11. Only designated ports' BPDUs come here.
func (p *port) recordProposal() {
	if p.bpdu.Type == TypeRST && p.bpdu.Flags&FlagProposal != 0 {
		p.proposed = true
	}
}

// recordPriority is 17.21.12.
func (p *port) recordPriority() { p.portPriority = p.msgPriority }

// recordTimes is 17.21.13. rcvInfo has held the Hello Time to its minimum.
func (p *port) recordTimes() { p.portTimes = p.msgTimes }

// setTcFlags is 17.21.17.
func (p *port) setTcFlags() {
	if p.bpdu.Flags&FlagTopologyChange != 0 && !p.cfg.TCNGuard {
		p.rcvdTc = true
	}
	if p.bpdu.Flags&FlagTCAck != 0 {
		p.rcvdTcAck = true
	}
}

// updtRcvdInfoWhile is 17.21.23.
func (p *port) updtRcvdInfoWhile() {
	if p.worthless() {
		p.rcvdInfoWhile = 0
	} else {
		p.rcvdInfoWhile = 3 * seconds(p.portTimes.helloTime, MinHello, MaxHello)
	}
}
