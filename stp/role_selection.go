package stp

// Port Role Selection state machine (17.28, figure 17-19), the one machine that
// a bridge has once: from the information on all ports it finds the root, the
// root port, and every other port's role.

type prsState uint8

const (
	prsInitBridge prsState = iota
	prsRoleSelection
)

// prsRun takes one transition if there is one to take.
func (b *Bridge) prsRun() bool {
	switch b.prs {
	case prsInitBridge:
		b.prsToRoleSelection()
		return true
	case prsRoleSelection:
		for _, p := range b.ports {
			if p.reselect {
				b.prsToRoleSelection()
				return true
			}
		}
	}
	return false
}

func (b *Bridge) prsToInitBridge() {
	b.prs = prsInitBridge
	b.updtRoleDisabledTree()
}

func (b *Bridge) prsToRoleSelection() {
	b.prs = prsRoleSelection
	b.clearReselectTree()
	b.updtRolesTree()
	b.setSelectedTree()
}

// updtRoleDisabledTree is 17.21.24.
func (b *Bridge) updtRoleDisabledTree() {
	for _, p := range b.ports {
		p.selectedRole = RoleDisabled
	}
}

// clearReselectTree is 17.21.2.
func (b *Bridge) clearReselectTree() {
	for _, p := range b.ports {
		p.reselect = false
	}
}

// setSelectedTree is 17.21.16.
func (b *Bridge) setSelectedTree() {
	for _, p := range b.ports {
		if p.reselect {
			return
		}
	}
	for _, p := range b.ports {
		p.selected = true
	}
}

// updtRolesTree is 17.21.25; the letters are its paragraphs.
func (b *Bridge) updtRolesTree() {
	// a) to c): the best of what this bridge would be as root and of what its
	// ports have heard from others.
	b.rootPriority, b.rootPort = b.bridgePriority(), nil
	b.rootTimes = b.bridgeTimes()
	for _, p := range b.ports {
		if p.infoIs != infoReceived || p.portPriority.bridge.Addr == b.cfg.ID.Addr {
			continue
		}
		v := p.portPriority.through(p.portPathCost)
		c := v.compare(&b.rootPriority)
		if c < 0 || c == 0 && b.rootPort != nil && p.portID() < b.rootPort.portID() {
			b.rootPriority, b.rootPort = v, p
			b.rootTimes = p.portTimes
			b.rootTimes.messageAge = uint16(p.portTimes.aged()) // at most max age: pim ages out the rest
		}
	}
	b.voidAgreement()
	for _, p := range b.ports {
		// d), e): what the port would announce if it were designated.
		p.designatedPriority = vector{b.rootPriority.root, b.rootPriority.cost, b.cfg.ID, p.portID()}
		p.designatedTimes = b.designatedTimes()
		// f) to l).
		p.selectedRole, p.updtInfo = p.selectRole()
	}
}

// designatedTimes is paragraph e): the root's times, but this bridge's own hello time.
func (b *Bridge) designatedTimes() times {
	t := b.rootTimes
	t.helloTime = b.bridgeTimes().helloTime
	return t
}

// selectRole is paragraphs f) to l) of updtRolesTree: the port's role, and
// whether the port's information has to be replaced with the bridge's own.
func (p *port) selectRole() (role Role, updtInfo bool) {
	switch p.infoIs {
	case infoDisabled: // f)
		return RoleDisabled, false
	case infoAged: // g)
		return RoleDesignated, true
	case infoMine: // h)
		return RoleDesignated, p.portPriority != p.designatedPriority || p.portTimes != p.designatedTimes
	}
	switch {
	case p == p.b.rootPort: // i)
		return RoleRoot, false
	case p.designatedPriority.compare(&p.portPriority) < 0: // l)
		return RoleDesignated, true
	case p.portPriority.bridge.Addr == p.b.cfg.ID.Addr: // k)
		return RoleBackup, false
	}
	return RoleAlternate, false // j)
}

// bridgePriority is BridgePriority (17.18.3).
func (b *Bridge) bridgePriority() vector { return vector{root: b.cfg.ID, bridge: b.cfg.ID} }

// bridgeTimes is BridgeTimes (17.18.4).
func (b *Bridge) bridgeTimes() times {
	return times{
		maxAge:       uint16(b.cfg.MaxAge) * second,
		forwardDelay: uint16(b.cfg.ForwardDelay) * second,
		helloTime:    uint16(b.cfg.Hello) * second,
	}
}
