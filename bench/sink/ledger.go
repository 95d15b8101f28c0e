package sink

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Ledger is the account of one stream of probes: every frame that a receiver
// saw is entered, and at the end it says what is wrong with the switch between.
// It is pure; one goroutine uses it.
type Ledger struct {
	port    int      // where the frames are due; group addresses are due anywhere
	from    int      // the sending port
	first   uint32   // first sequence number sent
	seen    []uint64 // a bit for each sequence number, from first
	last    map[frame.MAC]uint32
	outcome Outcome
}

// Outcome is a closed account.
type Outcome struct {
	Sent       uint64
	Intact     uint64 // different frames that arrived in every byte as sent
	Duplicates uint64 // further copies
	Corrupt    uint64 // at least one byte changed, or cut short
	Reordered  uint64 // overtaken by a later frame of the same station
	Astray     uint64 // copies at a port where they don't belong
	Flooded    uint64 // copies that a port got to which none belong
	Unsent     uint64 // intact, but with a sequence number never sent
	Earlier    uint64 // intact, sent before the account was opened: no fault
	Foreign    uint64 // frames that are no probes
	// Missed is how many frames the receiver itself could not keep up with.
	// They may be among the lost ones.
	Missed uint64
}

// maxFrames bounds an account, so that a made-up sequence number can't make it
// take all memory: it is a minute at two million frames/s.
const maxFrames = 1 << 27

// NewLedger opens an account for frames from port from, with consecutive
// sequence numbers from first, that are due at port.
func NewLedger(from, port int, first uint32) *Ledger {
	return &Ledger{port: port, from: from, first: first, last: make(map[frame.MAC]uint32)}
}

// Enter files one received frame.
func (l *Ledger) Enter(b []byte) {
	o := &l.outcome
	s, verdict := probe.Parse(b)
	from, _, _ := probe.IsStation(s.Src)
	switch {
	case verdict == probe.Foreign, from != l.from:
		o.Foreign++
		return
	case verdict == probe.Corrupt:
		o.Corrupt++
		return
	}
	if port, _, station := probe.IsStation(s.Dst); station && port != l.port {
		o.Astray++
		return
	}
	i := s.Seq - l.first // wraps around with the sequence numbers
	if int32(i) < 0 {
		o.Earlier++
		return
	}
	if i >= maxFrames {
		o.Unsent++
		return
	}
	for int(i/64) >= len(l.seen) {
		l.seen = append(l.seen, 0)
	}
	bit := uint64(1) << (i % 64)
	if l.seen[i/64]&bit != 0 {
		o.Duplicates++
		return
	}
	l.seen[i/64] |= bit
	if last, ok := l.last[s.Src]; ok && int32(s.Seq-last) < 0 {
		o.Reordered++
	} else {
		l.last[s.Src] = s.Seq
	}
}

// Close ends the account. sent is how many frames were sent in the end, missed
// the receiver's own loss.
func (l *Ledger) Close(sent, missed uint64) Outcome {
	o := l.outcome
	o.Sent, o.Missed = sent, missed
	for i, w := range l.seen {
		valid := ^uint64(0)
		if rest := int64(sent) - 64*int64(i); rest < 64 {
			valid = 1<<max(0, rest) - 1
		}
		o.Intact += uint64(bits.OnesCount64(w & valid))
		o.Unsent += uint64(bits.OnesCount64(w &^ valid))
	}
	return o
}

// Lost is the number of frames that didn't arrive in any form and that the
// receiver didn't miss itself.
func (o Outcome) Lost() uint64 {
	gone := int64(o.Sent) - int64(o.Intact) - int64(o.Corrupt) - int64(o.Missed)
	return uint64(max(0, gone))
}

// Fault names what the switch did wrong, in order of gravity, or is "" when it
// delivered everything once, unchanged and in order. Loss counts only when
// lossless says that the load was one which every switch carries.
func (o Outcome) Fault(lossless bool) string {
	var faults []string
	name := func(n uint64, what string) {
		if n > 0 {
			faults = append(faults, fmt.Sprintf("%s %d of %d frames (%.2g %%)", what, n, o.Sent, 100*float64(n)/float64(o.Sent)))
		}
	}
	name(o.Corrupt, "corrupted")
	name(o.Unsent, "made up")
	name(o.Duplicates, "duplicated")
	name(o.Reordered, "reordered")
	// A switch may forget a station for a moment, but one that does so all the
	// time is a hub.
	if o.Flooded > o.Sent/10 {
		name(o.Flooded, "flooded")
	}
	if lossless {
		name(o.Lost(), "dropped")
	}
	return strings.Join(faults, ", ")
}
