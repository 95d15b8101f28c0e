package mem

import (
	"sync/atomic"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Endless is a port that always has frames to lend and swallows all it is
// given: both ends of a benchmark without I/O. Taken counts what it swallowed.
type Endless struct {
	frames []frame.Frame
	next   int
	left   atomic.Int64 // frames still to be lent
	Taken  atomic.Uint64
	bell   bell
}

var (
	_ frame.Port  = (*Endless)(nil)
	_ frame.Queue = (*Endless)(nil)
)

// NewEndless makes a source of these frames, over and over. With none it is
// only a sink.
func NewEndless(frames []frame.Frame) *Endless {
	return &Endless{frames: frames}
}

// Lend lets it lend n more frames.
func (e *Endless) Lend(n int64) {
	e.left.Add(n)
	e.bell.ring()
}

// Done reports that all of them were lent.
func (e *Endless) Done() bool { return e.left.Load() <= 0 }

// Start implements frame.Port.
func (e *Endless) Start(func()) error { return nil }

// Queues implements frame.Port.
func (e *Endless) Queues() []frame.Queue { return []frame.Queue{e} }

// Tx implements frame.Port. It looks at no frame.
func (e *Endless) Tx(_ int, out []frame.Out) int {
	e.Taken.Add(uint64(len(out)))
	return len(out)
}

// State implements frame.Port.
func (e *Endless) State() frame.State {
	return frame.State{Up: true, MTU: 1500, Offloads: frame.Offloads{Csum: true, TSO4: true, TSO6: true, USO: true}}
}

// Counters implements frame.Port.
func (e *Endless) Counters() frame.Counters { return frame.Counters{} }

// Close implements frame.Port.
func (e *Endless) Close() error { return e.bell.close() }

// Rx implements frame.Queue.
func (e *Endless) Rx(b []frame.Frame) int {
	left := e.left.Load()
	if left <= 0 || len(e.frames) == 0 {
		return 0
	}
	n := copy(b[:min(int64(len(b)), left)], e.frames[e.next:])
	if e.next += n; e.next == len(e.frames) {
		e.next = 0
	}
	e.left.Add(int64(-n))
	return n
}

// Release implements frame.Queue.
func (e *Endless) Release() {}

// Arm implements frame.Queue.
func (e *Endless) Arm() bool { return !e.Done() && len(e.frames) > 0 }

// FD implements frame.Queue.
func (e *Endless) FD() int {
	fd, _ := e.bell.fd() // -1 wakes nobody
	if e.Arm() {
		e.bell.ring()
	}
	return fd
}

// Polled implements frame.Queue.
func (e *Endless) Polled() bool { return true }
