package stp

// Port Transmit state machine (17.26, figure 17-17): sends a BPDU when there is
// news, and one every HelloTime from designated ports (and from a root port
// that announces a topology change), but never more than TxHoldCount at once
// and then one a second.
//
// It reads what the other machines decided and changes nothing that they look
// at, so it runs when they have come to rest: a BPDU never tells of a state
// half reached.

type ptxState uint8

const (
	ptxInit ptxState = iota
	ptxIdle
	ptxPeriodic
	ptxConfig
	ptxTCN
	ptxRSTP
)

// ptxRun takes one transition if there is one to take.
func (p *port) ptxRun() bool {
	if p.ptx != ptxIdle {
		p.ptxToIdle() // unconditional, from every other state
		return true
	}
	if !p.settled() || !p.portEnabled || p.cfg.BPDUFilter {
		return false
	}
	hold := p.txCount >= uint32(p.b.cfg.TxHold)
	switch {
	case p.helloWhen == 0:
		p.ptxToPeriodic()
	case !p.newInfo:
		return false
	case hold:
		if !p.held {
			p.held = true
			p.counters.TxHeld++
		}
		return false
	case p.sendRSTP:
		p.ptxToRSTP()
	case p.role == RoleRoot && p.tcWhile != 0:
		p.ptxToTCN()
	case p.role == RoleDesignated:
		p.ptxToConfig()
	default:
		// News that only RST BPDUs can carry: an agreement, a role. (By the
		// standard a root port sends a TCN instead, whether there is a topology
		// change or not.)
		p.newInfo = false
		return false
	}
	return true
}

func (p *port) ptxToInit() {
	p.ptx = ptxInit
	p.newInfo = true
	p.txCount = 0
}

func (p *port) ptxToIdle() {
	p.ptx = ptxIdle
	p.helloWhen = p.helloTime()
}

func (p *port) ptxToPeriodic() {
	p.ptx = ptxPeriodic
	p.newInfo = p.newInfo || p.role == RoleDesignated || p.role == RoleRoot && p.tcWhile != 0
}

func (p *port) ptxToConfig() {
	p.ptx = ptxConfig
	p.newInfo, p.held = false, false
	p.txConfig()
	p.txCount++
	p.tcAck = false
}

func (p *port) ptxToTCN() {
	p.ptx = ptxTCN
	p.newInfo, p.held = false, false
	p.txTcn()
	p.txCount++
}

func (p *port) ptxToRSTP() {
	p.ptx = ptxRSTP
	p.newInfo, p.held = false, false
	p.txRstp()
	p.txCount++
	p.tcAck = false
}

// txConfig is 17.21.19. Information as old as max age allows goes no further:
// a Configuration BPDU with it would be invalid (9.3.4).
func (p *port) txConfig() {
	if p.portTimes.messageAge >= p.portTimes.maxAge {
		return
	}
	m := p.message(TypeConfig, 0)
	if p.tcAck {
		m.Flags |= FlagTCAck
	}
	p.counters.TxConfig++
	p.send(m)
}

// txRstp is 17.21.20. A topology change is never acknowledged here: tcAck
// answers TCNs, and a neighbour that sends those gets Configuration BPDUs.
func (p *port) txRstp() {
	m := p.message(TypeRST, 2)
	m.Flags |= roleFlags(p.role)
	for _, f := range [...]struct {
		on   bool
		flag Flags
	}{
		{p.proposing, FlagProposal},
		{p.learning, FlagLearning},
		{p.forwarding, FlagForwarding},
		{p.agree, FlagAgreement},
	} {
		if f.on {
			m.Flags |= f.flag
		}
	}
	p.counters.TxRST++
	p.send(m)
}

// txTcn is 17.21.21.
func (p *port) txTcn() {
	p.counters.TxTCN++
	p.send(BPDU{Type: TypeTCN})
}

// message is what Configuration and RST BPDUs have in common: the port's own
// priority vector and times, and whether the topology is changing.
func (p *port) message(t BPDUType, version uint8) BPDU {
	m := BPDU{
		Version: version, Type: t,
		Root: p.portPriority.root, RootPathCost: p.portPriority.cost,
		Bridge: p.portPriority.bridge, Port: p.portPriority.port,
		MessageAge: p.portTimes.messageAge, MaxAge: p.portTimes.maxAge,
		HelloTime: p.portTimes.helloTime, ForwardDelay: p.portTimes.forwardDelay,
	}
	if p.tcWhile != 0 {
		m.Flags |= FlagTopologyChange
		p.counters.TxTC++
	}
	return m
}

// send hands the BPDU to the owner.
func (p *port) send(m BPDU) { p.b.pending.send(p.num, m) }
