package stp

// Port Protocol Migration state machine (17.24, figure 17-15): chooses between
// RST BPDUs and those of 802.1D-1998 by what the neighbours send. After each
// choice the port holds to it for MigrateTime, so that two RSTP bridges that
// lose an STP bridge between them don't chase each other.

type ppmState uint8

const (
	ppmCheckingRSTP ppmState = iota
	ppmSelectingSTP
	ppmSensing
)

// ppmRun takes one transition if there is one to take.
func (p *port) ppmRun() bool {
	switch p.ppm {
	case ppmCheckingRSTP:
		switch {
		case p.mdelayWhile == 0:
			p.ppmToSensing()
		case p.mdelayWhile != migrateTime && !p.portEnabled:
			p.ppmToCheckingRSTP()
		default:
			return false
		}
	case ppmSelectingSTP:
		if p.mdelayWhile != 0 && p.portEnabled && !p.mcheck {
			return false
		}
		p.ppmToSensing()
	case ppmSensing:
		switch {
		case !p.portEnabled || p.mcheck || p.b.rstpVersion() && !p.sendRSTP && p.rcvdRSTP:
			p.ppmToCheckingRSTP()
		case p.sendRSTP && p.rcvdSTP:
			p.ppmToSelectingSTP()
		default:
			return false
		}
	}
	return true
}

func (p *port) ppmToCheckingRSTP() {
	p.ppm = ppmCheckingRSTP
	p.mcheck = false
	p.sendRSTP = p.b.rstpVersion()
	p.mdelayWhile = migrateTime
}

func (p *port) ppmToSelectingSTP() {
	p.ppm = ppmSelectingSTP
	p.sendRSTP = false
	p.mdelayWhile = migrateTime
}

func (p *port) ppmToSensing() {
	p.ppm = ppmSensing
	p.rcvdRSTP, p.rcvdSTP = false, false
}
