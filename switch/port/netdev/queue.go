package netdev

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// receiver is what a queue receives from: an intake, a ring or a control socket.
type receiver interface {
	// receive, release and ready are frame.Queue's Rx, Release and Arm.
	receive(b []frame.Frame, lost, bad *atomic.Uint64) int
	release()
	ready() bool
	// drops are what was lost, or refused, since the last call. Any goroutine,
	// one at a time.
	drops() (lost, bad uint64)
	// socket is the descriptor for epoll, -1 for none.
	socket() int
	// eager reports that the descriptor, once epoll watches it, costs whoever
	// delivers a frame something, whether the worker sleeps or not.
	eager() bool
	// free closes it and gives its memory back; this may take milliseconds.
	free()
}

// nothing is the receiver of a queue whose device is not there.
type nothing struct{}

func (nothing) receive([]frame.Frame, *atomic.Uint64, *atomic.Uint64) int { return 0 }
func (nothing) release()                                                  {}
func (nothing) ready() bool                                               { return false }
func (nothing) drops() (lost, bad uint64)                                 { return 0, 0 }
func (nothing) socket() int                                               { return -1 }
func (nothing) eager() bool                                               { return false }
func (nothing) free()                                                     {}

// queue is a frame.Queue that outlives its sockets: a port whose device comes
// back, or needs larger slots, gets new ones.
//
// The port's side puts a successor into next. The worker, which alone touches
// cur, changes over when cur is empty. So no lock is taken for a batch, and
// nothing is unmapped under the worker's hands.
type queue struct {
	polled bool
	set    *sysio.Epoll // FD for good; has the socket in it once armed

	// The worker's.
	cur     receiver
	lent    bool // cur has frames lent
	watched int  // cur's socket, while it is in set; else -1
	spell   int  // frames received since Arm

	next  atomic.Pointer[receiver]
	armed atomic.Bool // the socket must be in set

	lost, bad atomic.Uint64

	mu    sync.Mutex // guards live
	live  []receiver // that are open
	freed sync.WaitGroup
}

func newQueue(polled bool) (*queue, error) {
	set, err := sysio.NewEpoll()
	if err != nil {
		return nil, err
	}
	q := &queue{polled: polled, set: set, cur: nothing{}, watched: -1}
	q.armed.Store(!polled) // who asks the descriptor does so without Arm
	return q, nil
}

// busySpell is the number of frames after which a polled queue that wakes its
// worker stops doing so until Arm: long enough that lone frames don't pay for it.
//
// A socket in an epoll set costs whoever delivers a frame to it 120 to 250 ns
// more, up to a tenth of a small frame's way through the switch. Putting it in
// and taking it out costs two system calls.
const busySpell = 64

// Rx implements frame.Queue.
func (q *queue) Rx(b []frame.Frame) int {
	n := q.cur.receive(b, &q.lost, &q.bad)
	if n == 0 {
		if q.lent || q.next.Load() == nil {
			return 0
		}
		q.change()
		n = q.cur.receive(b, &q.lost, &q.bad)
	}
	q.lent = q.lent || n > 0
	if q.polled && q.watched >= 0 && q.cur.eager() {
		if q.spell += n; q.spell >= busySpell {
			q.disarm()
		}
	}
	return n
}

// Release implements frame.Queue.
func (q *queue) Release() {
	q.cur.release()
	q.lent = false
}

// Arm implements frame.Queue.
func (q *queue) Arm() bool {
	q.armed.Store(true) // before the look at next: see replace
	if !q.lent && q.next.Load() != nil && !q.cur.ready() {
		q.change()
	}
	if fd := q.cur.socket(); fd != q.watched {
		_ = q.set.Add(fd, 0) // or replace has done it
		q.watched = fd
	}
	q.spell = 0
	return q.cur.ready()
}

func (q *queue) disarm() {
	q.armed.Store(false)
	_ = q.set.Del(q.watched)
	q.watched = -1
}

// FD implements frame.Queue.
func (q *queue) FD() int { return q.set.FD() }

// Polled implements frame.Queue.
func (q *queue) Polled() bool { return q.polled }

// change goes over to the successor. The worker calls it, rarely; closing the
// old socket waits for the whole kernel, so another goroutine does it.
func (q *queue) change() {
	next := q.next.Swap(nil)
	if next == nil {
		return
	}
	old := q.cur
	q.cur, q.watched = *next, -1
	q.freed.Go(func() { q.retire(old) })
}

// replace gives the queue a new receiver. The port's side calls it.
func (q *queue) replace(r receiver) {
	q.mu.Lock()
	q.live = append(q.live, r)
	q.mu.Unlock()
	if unused := q.next.Swap(&r); unused != nil {
		q.retire(*unused)
	}
	if q.armed.Load() { // else the worker's next Arm will
		_ = q.set.Add(r.socket(), 0)
	}
}

// retire counts what r lost and frees it.
func (q *queue) retire(r receiver) {
	q.mu.Lock()
	if i := slices.Index(q.live, r); i >= 0 {
		q.count(r)
		q.live = slices.Delete(q.live, i, i+1)
	}
	q.mu.Unlock()
	r.free()
}

// count adds what r lost and refused. Called with q.mu held.
func (q *queue) count(r receiver) {
	lost, bad := r.drops()
	q.lost.Add(lost)
	q.bad.Add(bad)
}

// dropped is how many frames found no room, and how many were refused.
func (q *queue) dropped() (lost, bad uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.live {
		q.count(r)
	}
	return q.lost.Load(), q.bad.Load()
}

// close frees everything. No worker uses the queue any more.
func (q *queue) close() {
	if next := q.next.Swap(nil); next != nil {
		q.retire(*next)
	}
	q.retire(q.cur)
	q.cur = nothing{}
	q.freed.Wait()
	_ = q.set.Close()
}
