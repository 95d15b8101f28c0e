package stp

// Port Role Transitions state machine (17.29, figures 17-20 to 17-23): decides
// when a port may learn and forward. The states of one role are in a file of
// their own:
//
//	role_root.go        figure 17-21  root port
//	role_designated.go  figure 17-22  designated port
//	role_alternate.go   figure 17-23  alternate and backup port
//
// and here are the disabled port (figure 17-20), the change from role to role,
// and what several roles ask.

type prtState uint8

const (
	prtInitPort prtState = iota
	prtDisablePort
	prtDisabledPort

	prtRootPort
	prtRootProposed
	prtRootAgreed
	prtReroot
	prtRootForward
	prtRootLearn
	prtRerooted

	prtDesignatedPort
	prtDesignatedPropose
	prtDesignatedSynced
	prtDesignatedRetired
	prtDesignatedForward
	prtDesignatedLearn
	prtDesignatedDiscard

	prtBlockPort
	prtAlternatePort
	prtAlternateProposed
	prtAlternateAgreed
	prtBackupPort
)

// prtRun takes one transition if there is one to take.
func (p *port) prtRun() bool {
	if p.settled() && p.role != p.selectedRole {
		p.prtToSelectedRole()
		return true
	}
	switch p.prt {
	case prtInitPort: // unconditional
		p.prtToDisablePort()
	case prtDisablePort:
		if !p.settled() || p.learning || p.forwarding {
			return false
		}
		p.prtToDisabledPort()
	case prtDisabledPort:
		if !p.settled() || p.fdWhile == p.startDelay() && !p.sync && !p.reRoot && p.synced {
			return false
		}
		p.prtToDisabledPort()

	case prtRootPort:
		return p.settled() && p.prtRootRun()
	case prtRootProposed, prtRootAgreed, prtReroot, prtRootForward, prtRootLearn, prtRerooted: // unconditional
		p.prtToRootPort()

	case prtDesignatedPort:
		return p.settled() && p.prtDesignatedRun()
	case prtDesignatedPropose, prtDesignatedSynced, prtDesignatedRetired, // unconditional
		prtDesignatedForward, prtDesignatedLearn, prtDesignatedDiscard:
		p.prtToDesignatedPort()

	case prtBlockPort:
		if !p.settled() || p.learning || p.forwarding {
			return false
		}
		p.prtToAlternatePort()
	case prtAlternatePort:
		return p.settled() && p.prtAlternateRun()
	case prtAlternateProposed, prtAlternateAgreed, prtBackupPort: // unconditional
		p.prtToAlternatePort()
	}
	return true
}

// prtToSelectedRole enters the role that Port Role Selection chose.
func (p *port) prtToSelectedRole() {
	p.counters.RoleChanges++
	switch p.selectedRole {
	case RoleDisabled:
		p.prtToDisablePort()
	case RoleRoot:
		p.prtToRootPort()
	case RoleDesignated:
		p.prtToDesignatedPort()
	case RoleAlternate, RoleBackup:
		p.prtToBlockPort()
	}
}

// The disabled port (figure 17-20).

func (p *port) prtToInitPort() {
	p.prt = prtInitPort
	p.role, p.selectedRole = RoleDisabled, RoleDisabled
	p.learn, p.forward = false, false
	p.synced = false
	p.sync, p.reRoot = true, true
	p.rrWhile = p.fwdDelay()
	p.fdWhile = p.startDelay()
	p.rbWhile = 0
}

func (p *port) prtToDisablePort() {
	p.prt = prtDisablePort
	p.role = p.selectedRole
	p.learn, p.forward = false, false
}

func (p *port) prtToDisabledPort() {
	p.prt = prtDisabledPort
	p.fdWhile = p.startDelay()
	p.synced = true
	p.rrWhile = 0
	p.sync, p.reRoot = false, false
}

// startDelay is how long a port that comes up waits before it learns, if nothing
// quicker says that it may: MaxAge. Mode STP has the forward delay instead, as
// 802.1D-1998 had, where a port that comes up listens no longer than others.
func (p *port) startDelay() uint32 {
	if p.b.rstpVersion() {
		return p.maxAge()
	}
	return p.fwdDelay()
}

// allSynced is 17.20.3: nothing that leads away from the root could form a loop
// with what a neighbour is about to open.
func (b *Bridge) allSynced() bool {
	for _, p := range b.ports {
		if !p.selected || p.role != p.selectedRole || p.role != RoleRoot && !p.synced {
			return false
		}
	}
	return true
}

// reRooted is 17.20.10: no other port was the root port until recently.
func (p *port) reRooted() bool {
	for _, q := range p.b.ports {
		if q != p && q.rrWhile != 0 {
			return false
		}
	}
	return true
}

// setSyncTree is 17.21.14.
func (b *Bridge) setSyncTree() {
	for _, p := range b.ports {
		p.sync = true
	}
}

// setReRootTree is 17.21.15.
func (b *Bridge) setReRootTree() {
	for _, p := range b.ports {
		p.reRoot = true
	}
}
