package stp

// Where this package is stricter than the letter of 802.1D-2004.
//
// Rapid transitions are safe as long as what bridges tell each other is true.
// After the root is lost it may not be: news of the lost root still travels,
// each bridge believes it to be a way out for the others, and the cost counts
// up until the message age ends it (Elmeleegy, Cox and Ng, "On count-to-infinity
// induced forwarding loops in Ethernet networks", 2006). Lost BPDUs do the rest:
// by the letter, two lost in a row are enough for both ends of a link to
// forward. Of the random networks of this package's property test one in nine has
// a loop for a while under the letter of the standard, and less than one in a
// thousand under the rules below; TestTheLetterOfTheStandardLoops measures both.
//
// None of the rules changes a BPDU, none needs a neighbour to know of it, and
// each only makes a port wait where the standard lets it go ahead:
//
//   - An Agreement counts if it answers what the port announces now, not
//     anything better (agreementCounts). A neighbour that agreed to other news
//     has not yet cut its own ports for this.
//   - An agreement, given or received, ends when what was agreed to changes,
//     even to something better (stillAgreed, stillAgrees, voidAgreement): a
//     better root may be one that is gone. This is what 802.1w-2001 did. It costs
//     a handshake, some milliseconds, on links where the standard saves one.
//   - A port that waits for an answer waits for three of its neighbour's hello
//     times, as long as it takes to give a neighbour up: before it is an edge
//     port by itself (edgeDelay: MigrateTime in the standard), and before it
//     forwards unasked (forwardDelay, which passes twice: HelloTime in the
//     standard).
//   - Information that names this bridge as the root by an identifier that it
//     no longer has is worthless on arrival (worthless).
//
// What remains is what was true when its BPDU left and is not when it arrives: an
// alternate path that leads back to the bridge itself by now, an agreement that the
// neighbour has gone back on. The message age bounds how long such news goes round,
// to MaxAge bridges, and the hold count how long it stays in each, to a second.

// agreementCounts is the condition of recordAgreement (17.21.9) on the priority
// vector of the message. rcvInfo let it pass if it is the same as or worse than
// the port's.
//
// A root port sends the vector that it has received (17.21.20), which then must
// be the port's. Others, Open vSwitch for one, send their bridge's own from it:
// that tells only the root they agree to, and that they are farther from it. So
// much must be right.
func (p *port) agreementCounts() bool {
	m, mine := &p.msgPriority, &p.portPriority
	return p.b.toTheLetter || *m == *mine ||
		m.bridge != mine.bridge && m.root == mine.root && m.cost > mine.cost
}

// stillAgreed is whether agreed survives UPDATE (17.27).
func (p *port) stillAgreed() bool {
	return p.agreed && p.betterorsameinfo(infoMine) && (p.b.toTheLetter || p.designatedPriority == p.portPriority)
}

// stillAgrees is whether agree survives SUPERIOR_DESIGNATED (17.27).
func (p *port) stillAgrees() bool {
	return p.agree && p.betterorsameinfo(infoReceived) && (p.b.toTheLetter || p.msgPriority == p.portPriority)
}

// voidAgreement ends what the root port agreed to, when role selection changes
// what the bridge's designated ports announce: they have to be brought in step
// again. A proposal that was answered before is taken up again.
func (b *Bridge) voidAgreement() {
	announced := vector{root: b.rootPriority.root, cost: b.rootPriority.cost, bridge: b.cfg.ID}
	if announced == b.announced {
		return
	}
	b.announced = announced
	if p := b.rootPort; p != nil && p.agree && !b.toTheLetter {
		p.agree = false
		p.recordProposal()
	}
}

// worthless reports received information that is to be aged out at once
// (17.21.23): its message age has reached max age, or it is about a root that
// this bridge was and knows to be no more.
func (p *port) worthless() bool {
	id, root := p.b.cfg.ID, p.portPriority.root
	former := root.Addr == id.Addr && root != id && !p.b.toTheLetter
	return former || p.portTimes.aged() > uint32(p.portTimes.maxAge)
}

// edgeDelay is EdgeDelay (17.20.4), in seconds.
func (p *port) edgeDelay() uint32 {
	switch {
	case !p.operPointToPoint():
		return p.maxAge()
	case p.b.toTheLetter:
		return migrateTime
	}
	return 3 * p.helloTime()
}

// edgeDelayHeard is what a BPDU sets edgeDelayWhile to: there is a bridge, so
// the neighbour's third hello from now on has to fail before it is taken to be
// gone, and a timer's first second may be short.
func (p *port) edgeDelayHeard() uint32 {
	if p.b.toTheLetter {
		return migrateTime
	}
	return p.edgeDelay() + 1
}

// forwardDelay is forwardDelay (17.20.5), in seconds.
func (p *port) forwardDelay() uint32 {
	switch {
	case !p.sendRSTP:
		return p.fwdDelay()
	case p.b.toTheLetter:
		return p.helloTime()
	}
	return 2 * p.helloTime()
}
