package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
)

// What trials count besides rates: a switch that does to frames what the audit
// looks for only when it is under load, or only after it was audited, is found
// out here. It gets no ratio.

// offer offers a load, and blames the contender for what no switch may do.
func (b *run) offer(ctx context.Context, l *lane, load gen.Load) (*outcome, error) {
	o, err := l.offer(ctx, load)
	if err == nil && o.fault != "" {
		b.blame(l.kind.Name, o.fault)
	}
	return o, err
}

// blame enters a fault, of which one of a kind is enough.
func (b *run) blame(contender, fault string) {
	c := b.rep.Contender(contender)
	if c == nil {
		return
	}
	kind, _, _ := strings.Cut(fault, " ")
	for _, f := range c.Faults {
		if strings.HasPrefix(f, kind+" ") {
			return
		}
	}
	c.Faults = append(c.Faults, fault)
	b.line.note("%s is FAULTY: %s", contender, fault)
}

// balance compares what was received with what was sent, and keeps what is still
// to come.
func (l *lane) balance(o *outcome) {
	sent := o.sent.Warm + o.sent.Frames + o.sent.After
	due, got := sent*l.copies(), o.received.Segments
	late := o.received.Late
	switch {
	case l.endless:
	case got > due+(l.lost+l.lessons)*l.copies():
		o.fault = fmt.Sprintf("duplicated or made up %d of %d frames of %s in a trial", got-due, sent, sizeWord(l.size))
	case o.received.Foreign > l.spoken()+got/1000:
		o.fault = fmt.Sprintf("changed the sender of or made up %d frames beside %d of %s in a trial", o.received.Foreign, sent, sizeWord(l.size))
	case l.ordered() && late > l.lessons:
		o.fault = fmt.Sprintf("reordered or doubled %d of %d frames of %s in a trial", late, sent, sizeWord(l.size))
	}
	l.lost, l.lessons = 0, 0
	if due > got {
		l.lost = (due - got) / l.copies()
	}
}

// copies is how many frames on the wire a frame sent may become: one at each port
// if it is a broadcast, and of a super-frame its segments.
func (l *lane) copies() uint64 {
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
func (l *lane) spoken() uint64 {
	const each = 10
	n := 0
	for _, f := range l.flows {
		n += len(f.To)
	}
	return uint64(each * n)
}

// ordered reports a single flow of frames that a switch delivers in their order.
// Of a super-frame that was segmented on the way only the first part is numbered.
func (l *lane) ordered() bool {
	return !l.size.GSO && len(l.flows) == 1 && len(l.flows[0].To) == 1 && l.flows[0].Count <= 1
}

// rehearsal prepares a trial in which every frame counts: the contender, which
// stood stopped, has seen the load before.
func (l *lane) rehearsal(ctx context.Context, rate float64) func() error {
	const length = 20 * time.Millisecond
	return func() error {
		if err := l.teach(ctx); err != nil {
			return err
		}
		_, err := l.offer(ctx, gen.Load{Rate: rate, Length: length})
		return err
	}
}
