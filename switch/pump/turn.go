package pump

import (
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// Queue is a receive queue and the number of the port it belongs to.
type Queue struct {
	frame.Queue
	Port    uint16
	faulter frame.Faulter // the queue itself, if its frames' memory may vanish; else nil
}

// NewQueue makes q a queue of port number port.
func NewQueue(q frame.Queue, port uint16) Queue {
	faulter, _ := q.(frame.Faulter)
	return Queue{q, port, faulter}
}

// Shared reports whether the queue's frames lie in memory that their sender may
// rewrite or take away.
func (q *Queue) Shared() bool { return q.faulter != nil }

// intake takes batches from queues through a relay: all of a worker but its
// waiting.
type intake struct {
	relay  *relay.Relay
	frames [frame.BatchSize]frame.Frame
}

// receive takes one batch of a queue through the relay and returns how many
// frames it was.
func (t *intake) receive(q *Queue) int {
	if q.faulter != nil {
		return t.receiveGuarded(q)
	}
	return t.receiveTrusted(q)
}

func (t *intake) receiveTrusted(q *Queue) int {
	n := q.Rx(t.frames[:])
	if n > 0 {
		t.relay.Forward(q.Port, t.frames[:n])
		q.Release()
	}
	return n
}

// receiveGuarded is receive for frames in memory that the peer can take away
// while they are read. That costs the peer its port, and nobody else anything.
func (t *intake) receiveGuarded(q *Queue) (n int) {
	defer func() {
		if fault := frame.FaultOf(recover()); fault != nil {
			t.relay.Abandon()
			q.faulter.Fault(fault)
			q.Release()
			n = 0
		}
	}()
	return t.receiveTrusted(q)
}

// Hand drives a relay by hand: queues in memory, no thread, no descriptor, no
// clock. It is what a lab and tests have instead of a Worker; one goroutine at a
// time may use it.
type Hand struct{ intake }

// NewHand makes one that drives r.
func NewHand(r *relay.Relay) *Hand { return &Hand{intake{relay: r}} }

// Turn gives every queue one batch, and returns how many frames there were.
func (h *Hand) Turn(queues []Queue) (frames int) {
	for i := range queues {
		frames += h.receive(&queues[i])
	}
	return frames
}
