package sock

import (
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// slotLen is the room for one datagram: the longest frame and one byte more,
// which shows that a datagram is longer, rounded up to a cache line. Pages that
// no datagram has reached cost nothing.
const slotLen = (frame.MaxLen + 1 + 63) &^ 63

// dgramRx receives a batch of datagrams with one system call and lends them
// where they lie. It implements frame.Queue.
type dgramRx struct {
	port *Dgram
	fd   int
	mem  []byte // BatchSize slots
	iovs [frame.BatchSize]unix.Iovec
	msgs [frame.BatchSize]sysio.Mmsghdr
	used int // slots lent, from the first, since the last Release
}

func (q *dgramRx) init(p *Dgram) error {
	mem, err := sysio.MapAnonymous(frame.BatchSize * slotLen)
	if err != nil {
		return err
	}
	q.port, q.mem = p, mem
	for i := range q.msgs {
		q.iovs[i] = sysio.Piece(q.slot(i))
		q.msgs[i].SetIovecs(q.iovs[i : i+1])
	}
	return nil
}

func (q *dgramRx) slot(i int) []byte { return q.mem[i*slotLen : (i+1)*slotLen : (i+1)*slotLen] }

func (q *dgramRx) free() error { return sysio.Unmap(q.mem) }

// Rx implements frame.Queue.
func (q *dgramRx) Rx(b []frame.Frame) int {
	most := min(len(b), len(q.msgs)-q.used)
	got, errno := sysio.Receive(q.fd, q.msgs[q.used:q.used+most], 0)
	if errno != 0 {
		// EAGAIN, or the answer to an earlier send (ECONNREFUSED), which
		// receiving has now taken off the socket.
		return 0
	}
	n := 0
	for i := q.used; i < q.used+got; i++ {
		size := q.msgs[i].Len
		if size < frame.MinLen || size > frame.MaxLen {
			q.port.count.rxErrors.Add(1)
			continue
		}
		b[n] = frame.Frame{Data: q.slot(i)[:size:size]}
		n++
	}
	if n > 0 { // else nothing is lent, and nobody will release it
		q.used += got
	}
	if q.port.file != nil && !q.port.tx.connected.Load() {
		q.port.look() // whoever sends is there
	}
	return n
}

// Release implements frame.Queue.
func (q *dgramRx) Release() { q.used = 0 }

// Arm implements frame.Queue. The descriptor is always armed.
func (q *dgramRx) Arm() bool { return false }

// FD implements frame.Queue.
func (q *dgramRx) FD() int { return q.port.set.FD() }

// Polled implements frame.Queue.
func (q *dgramRx) Polled() bool { return false }
