package stp

// Port Receive state machine (17.23, figure 17-14): takes in a BPDU, and with
// it the news that the port is not at the edge of the network.

type prxState uint8

const (
	prxDiscard prxState = iota
	prxReceive
)

// prxRun takes one transition if there is one to take.
func (p *port) prxRun() bool {
	switch {
	case (p.rcvdBPDU || p.edgeDelayWhile != p.edgeDelay()) && !p.portEnabled:
		p.prxToDiscard()
	case p.prx == prxDiscard && p.rcvdBPDU && p.portEnabled:
		p.prxToReceive()
	case p.prx == prxReceive && p.rcvdBPDU && p.portEnabled && !p.rcvdMsg:
		p.prxToReceive()
	default:
		return false
	}
	return true
}

func (p *port) prxToDiscard() {
	p.prx = prxDiscard
	p.rcvdBPDU, p.rcvdRSTP, p.rcvdSTP = false, false, false
	p.rcvdMsg = false
	p.edgeDelayWhile = p.edgeDelay()
}

func (p *port) prxToReceive() {
	p.prx = prxReceive
	p.updtBPDUVersion()
	p.operEdge, p.rcvdBPDU = false, false
	p.rcvdMsg = true
	p.edgeDelayWhile = p.edgeDelayHeard()
}

// updtBPDUVersion is 17.21.22.
func (p *port) updtBPDUVersion() {
	if p.bpdu.Type == TypeRST {
		p.rcvdRSTP = true
	} else if p.bpdu.Version < 2 {
		p.rcvdSTP = true
	}
}
