package stp

// Port State Transition state machine (17.30, figure 17-24): brings the
// datapath to where Port Role Transitions wants it.
//
// disableLearning, disableForwarding, enableLearning and enableForwarding
// (17.21.3 to 17.21.6) are SetState outputs. They are written when all machines
// have come to rest, ahead of the BPDUs that rely on them; the owner applies
// them in that order, so to the machines they take no time.

type pstState uint8

const (
	pstDiscarding pstState = iota
	pstLearning
	pstForwarding
)

// pstRun takes one transition if there is one to take.
func (p *port) pstRun() bool {
	switch {
	case p.pst == pstDiscarding && p.learn:
		p.pstToLearning()
	case p.pst == pstLearning && !p.learn:
		p.pstToDiscarding()
	case p.pst == pstLearning && p.forward:
		p.pstToForwarding()
	case p.pst == pstForwarding && !p.forward:
		p.pstToDiscarding()
	default:
		return false
	}
	return true
}

func (p *port) pstToDiscarding() {
	p.pst = pstDiscarding
	p.learning = false
	p.forwarding = false
}

func (p *port) pstToLearning() {
	p.pst = pstLearning
	p.learning = true
	p.mayHold = true
}

func (p *port) pstToForwarding() {
	p.pst = pstForwarding
	p.forwarding = true
	p.counters.Forwarding++
}
