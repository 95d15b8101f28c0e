package stp

// Bridge Detection state machine (17.25, figure 17-16): decides operEdge. A
// port is at the edge if it was configured so, or if it keeps proposing and
// nobody answers. Port Receive clears operEdge at the first BPDU.

type bdmState uint8

const (
	bdmEdge bdmState = iota
	bdmNotEdge
)

// bdmRun takes one transition if there is one to take.
func (p *port) bdmRun() bool {
	switch p.bdm {
	case bdmEdge:
		if !p.portEnabled && !p.adminEdge() || !p.operEdge {
			p.bdmToNotEdge()
			return true
		}
	case bdmNotEdge:
		// A guard that waits for a port to stay silent, or to speak, must not
		// take the silence for an edge.
		if !p.portEnabled && p.adminEdge() ||
			p.edgeDelayWhile == 0 && p.cfg.AutoEdge && p.sendRSTP && p.proposing && !p.guard.inconsistent() {
			p.bdmToEdge()
			return true
		}
	}
	return false
}

// bdmBegin enters the state that BEGIN leads to.
func (p *port) bdmBegin() {
	if p.adminEdge() {
		p.bdmToEdge()
	} else {
		p.bdmToNotEdge()
	}
}

func (p *port) bdmToEdge() {
	p.bdm = bdmEdge
	p.operEdge = true
}

func (p *port) bdmToNotEdge() {
	p.bdm = bdmNotEdge
	p.operEdge = false
}
