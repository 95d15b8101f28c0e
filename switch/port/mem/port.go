// Package mem has ports in memory. They need no privilege, no goroutine, and no
// descriptor as long as nobody asks a queue for one: who drives a port by hand may
// have thousands.
//
// Port, by itself or as one end of a cable, ships: the lab joins its switches and
// stations with it. The rest is for tests, examples and benchmarks: Endless, a
// source and sink that never runs dry, and builders of frames (MAC, Ethernet,
// Tagged, Build).
//
// What it does not do: bytes are not checked, a frame too long for State's MTU is
// taken, and nothing is ever sent late or lost, but for what SetRoom and the room
// of a cable say.
//
// All may be called from any goroutine, a queue's Rx, Release and Arm from one at
// a time. Network namespaces are in bench/testbed/netns, real guests in
// bench/testbed/vm.
package mem

import (
	"sync"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Received is a frame that a Port was given to send, copied.
type Received struct {
	Wire []byte        // as on the wire, tag in band
	Hdr  frame.VnetHdr // offsets within Wire
}

// Port is a frame.Port in memory: Inject is its cable's far end sending, Sent
// is what arrived there.
type Port struct {
	mu       sync.Mutex
	notify   func()
	state    frame.State
	counters frame.Counters
	room     int // frames it takes before it is full; <0 = no limit
	waiting  []frame.Frame
	lent     int
	sent     []Received
	arrived  sync.Cond
	bell     bell
	asked    bool
	closed   bool
	far      *Port // the other end of a cable; nil = Sent
}

var (
	_ frame.Port  = (*Port)(nil)
	_ frame.Queue = (*queue)(nil)
)

// NewPort makes a port that is up, has MTU 1500 and takes every offload.
func NewPort() *Port {
	p := &Port{
		room: -1,
		state: frame.State{Up: true, MTU: 1500,
			Offloads: frame.Offloads{Csum: true, TSO4: true, TSO6: true, USO: true}},
	}
	p.arrived.L = &p.mu
	return p
}

// NewAskedPort is NewPort whose queue is not Polled: the switch must learn from
// its descriptor that it has frames.
func NewAskedPort() *Port {
	p := NewPort()
	p.asked = true
	return p
}

// NewCable makes two ports that are joined: what one is given to send arrives
// at the other. Cut makes both lose their link.
func NewCable() (a, b *Port) {
	a, b = NewPort(), NewPort()
	a.far, b.far = b, a
	return a, b
}

// Cut takes the link of both ends of a cable down, or up again; without a cable,
// the port's own.
func (p *Port) Cut(down bool) {
	for _, end := range []*Port{p, p.far} {
		if end == nil {
			continue
		}
		end.SetState(func(s *frame.State) {
			s.Up, s.Reason = !down, ""
			if down {
				s.Reason = "no carrier"
			}
		})
	}
}

// Inject makes frames arrive at the switch; the bytes must not change after.
func (p *Port) Inject(wires ...[]byte) {
	frames := make([]frame.Frame, len(wires))
	for i, w := range wires {
		frames[i] = frame.Frame{Data: w}
	}
	p.InjectFrames(frames...)
}

// InjectFrames is Inject for frames with tags beside them or work outstanding.
func (p *Port) InjectFrames(frames ...frame.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, frames...)
	p.bell.ring()
}

// Sent returns what the switch sent so far and forgets it.
func (p *Port) Sent() []Received {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := p.sent
	p.sent = nil
	return sent
}

// Wait blocks until the switch has sent at least n frames, and returns what
// Sent would. The test's own deadline ends a wait in vain.
func (p *Port) Wait(n int) []Received {
	p.mu.Lock()
	for len(p.sent) < n && !p.closed {
		p.arrived.Wait()
	}
	p.mu.Unlock()
	return p.Sent()
}

// Idle reports that the switch has taken, and is done with, all that was injected.
func (p *Port) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting) == 0 && p.lent == 0
}

// SetState changes what the port says of itself.
func (p *Port) SetState(change func(*frame.State)) {
	p.mu.Lock()
	change(&p.state)
	notify := p.notify
	p.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// SetRoom makes the port full after n more frames; negative is never.
func (p *Port) SetRoom(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room = n
}

// SetCounters is what Counters will return.
func (p *Port) SetCounters(c frame.Counters) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counters = c
}

// Closed reports that the switch closed the port.
func (p *Port) Closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// Start implements frame.Port.
func (p *Port) Start(notify func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notify = notify
	return nil
}

// Queues implements frame.Port: one queue.
func (p *Port) Queues() []frame.Queue { return []frame.Queue{(*queue)(p)} }

// Tx implements frame.Port.
func (p *Port) Tx(_ int, out []frame.Out) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.room >= 0 {
		out = out[:min(len(out), p.room)]
		p.room -= len(out)
	}
	if p.far != nil && p.state.Up {
		// Not under both locks: the far end may be sending here.
		p.mu.Unlock()
		p.far.arrive(out)
		p.mu.Lock()
		return len(out)
	}
	for i := range out {
		p.sent = append(p.sent, Received{out[i].AppendWire(nil), out[i].WireHdr()})
	}
	p.arrived.Broadcast()
	return len(out)
}

// cableRoom is how many frames a cable's end keeps for a switch that is busy.
const cableRoom = 1024

// arrive takes copies of what the far end sends.
func (p *Port) arrive(out []frame.Out) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range out {
		if p.state.Up && !p.closed && len(p.waiting) < cableRoom {
			p.waiting = append(p.waiting, frame.Frame{Data: out[i].AppendWire(nil), Hdr: out[i].WireHdr()})
		} else {
			p.counters.RxDropped++
		}
	}
	p.bell.ring()
}

// State implements frame.Port.
func (p *Port) State() frame.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Counters implements frame.Port.
func (p *Port) Counters() frame.Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counters
}

// Close implements frame.Port.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.arrived.Broadcast()
	return p.bell.close()
}

// queue is the port's receive queue.
type queue Port

func (q *queue) Rx(b []frame.Frame) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := copy(b, q.waiting)
	q.waiting = q.waiting[n:]
	q.lent += n
	if len(q.waiting) == 0 {
		q.bell.hush()
	}
	return n
}

func (q *queue) Release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lent = 0
}

func (q *queue) Arm() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) > 0
}

// FD makes the queue's descriptor when it is called first. If that fails, nothing
// could wake who sleeps on it, and the port goes down.
func (q *queue) FD() int {
	fd, err := q.bell.fd()
	if err != nil {
		(*Port)(q).SetState(func(s *frame.State) { s.Up, s.Reason = false, err.Error() })
		return fd
	}
	if q.Arm() {
		q.bell.ring() // for what came before there was a descriptor
	}
	return fd
}

func (q *queue) Polled() bool { return !q.asked }
