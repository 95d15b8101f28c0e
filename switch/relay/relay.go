// Package relay is the forwarding decision, in the order of IEEE 802.1Q clause
// 8.6: a batch of frames that came in by one port is classified, learned, looked
// up, and handed to the ports it leaves by.
//
// A Relay has no thread, descriptor, lock or clock: whoever drives it (package
// pump, or a test, or a lab, by hand) calls Forward, and frames have left when it
// returns. It forwards by a View, which says all there is to know of ports, and a
// table of stations, which it shares with other relays. Frames are borrowed and
// never copied here, except those that a port can't send as they are. Nothing is
// allocated for a frame.
//
// Explain says what Forward would do with a frame, and why: it runs the same
// functions with their eyes open, and neither learns, counts nor sends.
//
// One goroutine at a time may call a Relay's methods. Relays of one switch may
// work side by side.
package relay

import (
	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Control is the other side: what a relay tells it of. Its methods never block
// and may be called by several relays at once.
type Control interface {
	// Punt takes a copy of p and reports true, or has no room.
	Punt(p *Punt) bool
	// Learned tells that the station key was learned on port in, or moved there
	// from port from.
	Learned(v *View, key fdb.Key, in uint16, moved bool, from uint16)
	// Troubled tells that a port's Troubles have grown. It is called for each
	// frame that brought trouble: most calls must cost next to nothing.
	Troubled()
}

// Relay takes frames through the switch. Make one with New.
type Relay struct {
	id      int
	table   *fdb.Table
	control Control
	view    *View
	trace   *trace   // nil, but while it explains
	void    Counters // what it counts while it explains

	// Scratch, allocated once: nothing is allocated per frame.
	runs     [frame.BatchSize]run
	heads    [frame.BatchSize][18]byte
	rests    [frame.BatchSize][][]byte
	plans    []*plan // by port number
	dirty    []uint16
	batch    uint64 // counts batches
	finisher frame.Finisher
	finished []frame.Out
	segments int
}

// New makes a relay. id chooses which of a port's Counters are its own, and is
// the hint that ports get with what they are to send.
func New(id int, table *fdb.Table, control Control) *Relay {
	r := &Relay{id: id, table: table, control: control, view: new(View),
		dirty: make([]uint16, 0, MaxPorts), finished: make([]frame.Out, 0, 64)}
	for i := range r.rests {
		r.rests[i] = make([][]byte, 0, 32)
	}
	return r
}

// Adopt makes v the view that is forwarded by from now on.
func (r *Relay) Adopt(v *View) {
	for len(r.plans) < len(v.Ports) {
		r.plans = append(r.plans, new(plan))
	}
	r.view = v
}

// View is the view that was adopted last.
func (r *Relay) View() *View { return r.view }

// crowd is the number of runs in a batch from which on it is worth fetching all
// their stations' places in the table first: one after the other, each of many
// stations costs two or three cache misses, of which the processor does a dozen
// at a time if it knows of them.
const crowd = 8

// Forward takes a batch that came in by port number in, which the view has,
// through the switch. The frames, at most frame.BatchSize, are borrowed until it
// returns; their Tag, Strip, Data and Rest may be other ones then, their bytes
// are not written to.
func (r *Relay) Forward(in uint16, frames []frame.Frame) {
	p := &r.view.Ports[in]
	c := r.counters(p)
	r.batch++
	runs := r.classify(in, p, c, frames)
	if len(runs) >= crowd {
		for i := range runs {
			r.table.Touch(runs[i].src)
			r.table.Touch(runs[i].dst)
		}
	}
	runs = r.learn(in, p, c, runs)
	var last lookup
	for i := range runs {
		r.decide(in, p, c, &runs[i], &last)
	}
	for _, n := range r.dirty {
		r.send(n, &r.view.Ports[n])
	}
	r.dirty = r.dirty[:0]
}

// Abandon forgets a batch in whose middle Forward panicked.
func (r *Relay) Abandon() {
	for _, p := range r.plans {
		p.n, p.bytes = 0, 0
	}
	r.dirty = r.dirty[:0]
	r.finisher.Reset()
}

// Segments is how many frames Forward cut from others since it was last asked:
// work that the number of frames doesn't show.
func (r *Relay) Segments() int {
	n := r.segments
	r.segments = 0
	return n
}

// counters are this relay's of port p.
func (r *Relay) counters(p *Port) *Counters {
	if r.trace != nil {
		return &r.void
	}
	return &p.Counters[r.id]
}

// drop counts frames that go no further.
func (r *Relay) drop(c *Counters, why Reason, frames int) {
	c.drops[why].add(uint64(frames))
	if r.trace != nil {
		r.trace.drop(why)
	}
}
