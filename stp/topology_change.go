package stp

// Topology Change state machine (17.31, figure 17-25): when a port that is not
// at the edge starts to forward, stations may have moved behind other ports.
// The bridge tells its neighbours through every other active port, they tell
// theirs, and each forgets the addresses learned on the ports it passes the
// news on through: never those of the port the news came in by, and never those
// of edge ports.

type tcmState uint8

const (
	tcmInactive tcmState = iota
	tcmLearning
	tcmDetected
	tcmActive
	tcmNotifiedTCN
	tcmNotifiedTC
	tcmPropagating
	tcmAcknowledged
)

// tcmRun takes one transition if there is one to take.
func (p *port) tcmRun() bool {
	active := p.role == RoleRoot || p.role == RoleDesignated
	switch p.tcm {
	case tcmInactive:
		if !p.learn || p.fdbFlush {
			return false
		}
		p.tcmToLearning()
	case tcmLearning:
		news := p.rcvdTc || p.rcvdTcn || p.rcvdTcAck || p.tcProp
		switch {
		case active && p.forward && !p.operEdge:
			p.tcmToDetected()
		case !active && !p.learn && !p.learning && !news:
			p.tcmToInactive()
		case news:
			p.tcmToLearning()
		default:
			return false
		}
	case tcmActive:
		switch {
		case !active || p.operEdge:
			p.tcmToLearning()
		case p.rcvdTcn:
			p.tcmToNotifiedTCN()
		case p.rcvdTc:
			p.tcmToNotifiedTC()
		case p.tcProp && !p.operEdge:
			p.tcmToPropagating()
		case p.rcvdTcAck:
			p.tcmToAcknowledged()
		default:
			return false
		}
	case tcmNotifiedTCN: // unconditional, as all that follow
		p.tcmToNotifiedTC()
	default:
		p.tcm = tcmActive
	}
	return true
}

func (p *port) tcmToInactive() {
	p.tcm = tcmInactive
	p.fdbFlush = true
	p.tcWhile = 0
	p.tcAck = false
}

func (p *port) tcmToLearning() {
	p.tcm = tcmLearning
	p.rcvdTc, p.rcvdTcn, p.rcvdTcAck = false, false, false
	p.tcProp = false
}

func (p *port) tcmToDetected() {
	p.tcm = tcmDetected
	p.newTcWhile()
	p.setTcPropTree()
	p.newInfo = true
	p.b.noteTopologyChange(p, tcDetected)
}

func (p *port) tcmToNotifiedTCN() {
	p.tcm = tcmNotifiedTCN
	p.newTcWhile()
}

func (p *port) tcmToNotifiedTC() {
	p.tcm = tcmNotifiedTC
	p.rcvdTcn, p.rcvdTc = false, false
	if p.role == RoleDesignated {
		p.tcAck = true
	}
	p.setTcPropTree()
	p.b.noteTopologyChange(p, tcReceived)
}

func (p *port) tcmToPropagating() {
	p.tcm = tcmPropagating
	p.newTcWhile()
	p.fdbFlush = true
	p.tcProp = false
}

func (p *port) tcmToAcknowledged() {
	p.tcm = tcmAcknowledged
	p.tcWhile = 0
	p.rcvdTcAck = false
}

// newTcWhile is 17.21.7.
func (p *port) newTcWhile() {
	switch {
	case p.tcWhile != 0:
	case p.sendRSTP:
		p.tcWhile = p.helloTime() + 1
		p.newInfo = true
	default:
		t := &p.b.rootTimes
		p.tcWhile = seconds(t.maxAge, MinMaxAge, MaxMaxAge) + seconds(t.forwardDelay, 2, MaxForwardDelay)
	}
}

// setTcPropTree is 17.21.18, with restrictedTcn of 802.1Q: a change on a port with
// TCN guard, such as ceasing to be an edge port, is not passed on to other ports.
func (p *port) setTcPropTree() {
	if p.cfg.TCNGuard {
		return
	}
	for _, q := range p.b.ports {
		if q != p {
			q.tcProp = true
		}
	}
}

// flush is the filtering database's part of fdbFlush (17.19.7): at once in
// RSTP, by short ageing in STP. A port that goes down loses its addresses at
// once in both, and one that has learned nothing has nothing to lose.
func (p *port) flush() {
	p.fdbFlush = false
	if !p.mayHold {
		return
	}
	if !p.b.rstpVersion() && p.portEnabled {
		p.b.ageing = p.fwdDelay()
		return
	}
	p.mayHold = p.learning
	p.b.pending.flush = append(p.b.pending.flush, Flush{p.num})
}
