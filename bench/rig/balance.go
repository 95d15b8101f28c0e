package rig

import "fmt"

// What trials count besides rates: a switch that does to frames what the audit
// looks for only when it is under load, or only after it was audited, is found
// out here. It gets no ratio.

// queued is more than all queues of a contender hold: what is missing beyond that
// was lost.
const queued = 1 << 17

// balance compares what was received with what was sent, and keeps what may still
// come.
func (l *Lane) balance(o *Outcome) {
	lessons := l.lessons
	l.lessons = 0
	if l.Endless {
		return
	}
	sent := o.Sent.Warm + o.Sent.Frames + o.Sent.After
	due, got := sent*l.copies(), o.Received.Segments
	late := o.Received.Late
	switch {
	case got > due+l.outstanding+lessons*l.copies():
		o.Fault = fmt.Sprintf("duplicated or made up %d of %d frames of %s in a trial", got-due, sent, l.size)
	case o.Received.Foreign > l.spoken()+got/1000:
		o.Fault = fmt.Sprintf("changed the sender of or made up %d frames beside %d of %s in a trial", o.Received.Foreign, sent, l.size)
	case l.ordered() && late > lessons:
		o.Fault = fmt.Sprintf("reordered or doubled %d of %d frames of %s in a trial", late, sent, l.size)
	}
	// What came may all be of loads before, and all of this one be under way: a
	// contender that gets no processor time keeps frames for longer than is waited
	// for them.
	missing := due + l.outstanding
	l.outstanding = min(missing-min(missing, got), queued)
}

// copies is how many frames on the wire a frame sent may become: one at each port
// if it is a broadcast, and of a super-frame its segments.
func (l *Lane) copies() uint64 {
	n := uint64(l.size.Segments())
	for _, f := range l.flows {
		if f.Broadcast {
			return n * uint64(len(f.To))
		}
	}
	return n
}

// spoken is how many frames of its own a switch may send to the counted ports in a
// trial: spanning tree has something to say at each, and more after a stop.
func (l *Lane) spoken() uint64 {
	const each = 10
	n := 0
	for _, f := range l.flows {
		n += len(f.To)
	}
	return uint64(each * n)
}

// ordered reports a single flow of frames that a switch delivers in their order.
// Of a super-frame that was segmented on the way only the first part is numbered.
func (l *Lane) ordered() bool {
	return !l.unordered && !l.size.GSO && len(l.flows) == 1 && len(l.flows[0].To) == 1 && l.flows[0].Count <= 1
}
