package stp

// Port Timers state machine (17.22, figure 17-13).
//
// ONE_SECOND waits for tick, TICK counts every timer of the port down. Tick is
// the tick, so all that is left of the machine is the second state.

// ptiToTick is entered once a second.
func (p *port) ptiToTick() {
	dec(&p.helloWhen)
	dec(&p.tcWhile)
	dec(&p.fdWhile)
	dec(&p.rcvdInfoWhile)
	dec(&p.rrWhile)
	dec(&p.rbWhile)
	dec(&p.mdelayWhile)
	dec(&p.edgeDelayWhile)
	dec(&p.txCount)
}

// dec counts a timer down and reports that it has just expired.
func dec(timer *uint32) bool {
	if *timer == 0 {
		return false
	}
	*timer--
	return *timer == 0
}
