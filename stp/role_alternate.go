package stp

// The alternate and the backup port (17.29.4, figure 17-23). Both discard: an
// alternate port stands by for the root port, a backup port for another port of
// this bridge on the same LAN. They are in step with the tree as they are, and
// so may agree with a proposal.

// prtAlternateRun takes one transition from ALTERNATE_PORT if there is one to
// take.
func (p *port) prtAlternateRun() bool {
	switch {
	case p.proposed && !p.agree:
		p.prtToAlternateProposed()
	case p.b.allSynced() && !p.agree || p.proposed && p.agree:
		p.prtToAlternateAgreed()
	case p.rbWhile != 2*p.helloTime() && p.role == RoleBackup:
		p.prtToBackupPort()
	case p.fdWhile != p.forwardDelay() || p.sync || p.reRoot || !p.synced:
		p.prtToAlternatePort()
	default:
		return false
	}
	return true
}

func (p *port) prtToBlockPort() {
	p.prt = prtBlockPort
	p.role = p.selectedRole
	p.learn, p.forward = false, false
}

func (p *port) prtToAlternatePort() {
	p.prt = prtAlternatePort
	p.fdWhile = p.forwardDelay()
	p.synced = true
	p.rrWhile = 0
	p.sync, p.reRoot = false, false
}

func (p *port) prtToAlternateProposed() {
	p.prt = prtAlternateProposed
	p.b.setSyncTree()
	p.proposed = false
}

func (p *port) prtToAlternateAgreed() {
	p.prt = prtAlternateAgreed
	p.proposed = false
	p.agree, p.newInfo = true, true
}

func (p *port) prtToBackupPort() {
	p.prt = prtBackupPort
	p.rbWhile = 2 * p.helloTime()
}
