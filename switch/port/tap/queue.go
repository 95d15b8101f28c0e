package tap

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// A read takes one frame, and its length is not known before: there must be
// room for the longest. Short frames are packed behind each other, so that a
// batch of 64 of an Ethernet MTU, or three of 64 KiB, fit; a batch of ordinary
// traffic stays in the second-level cache until it is sent.
const (
	longest  = frame.VnetHdrLen + frame.MaxLen
	arenaLen = 256 << 10
)

// queue reads from one descriptor of the tap until it is empty.
type queue struct {
	fd     int
	set    *sysio.Epoll // FD; has fd in it while there is a device behind it
	arena  []byte       // where the lent frames lie
	used   int
	errors atomic.Uint64
}

// newQueue makes a queue of a descriptor, which it owns if there is no error.
func newQueue(fd int) (*queue, error) {
	set, err := sysio.NewEpoll()
	if err != nil {
		return nil, err
	}
	arena, err := sysio.MapAnonymous(arenaLen)
	if err != nil {
		set.Close()
		return nil, err
	}
	return &queue{fd: fd, set: set, arena: arena}, nil
}

// watch makes FD readable when the tap is.
func (q *queue) watch() error { return q.set.Add(q.fd, 0) }

// unwatch makes FD unreadable for good.
func (q *queue) unwatch() { _ = q.set.Del(q.fd) }

// Rx implements frame.Queue.
func (q *queue) Rx(b []frame.Frame) (n int) {
	for n < len(b) && q.used+longest <= len(q.arena) {
		at := q.arena[q.used : q.used+longest]
		size, errno := sysio.Read(q.fd, at)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			break // EAGAIN: empty; EBADFD: the device is gone, as the watcher tells
		}
		if size < frame.VnetHdrLen+frame.HeaderLen {
			q.errors.Add(1)
			continue
		}
		b[n] = frame.Frame{Hdr: frame.ReadVnetHdr(at), Data: at[frame.VnetHdrLen:size:size]}
		n++
		q.used += (size + 15) &^ 15
	}
	return n
}

// Release implements frame.Queue.
func (q *queue) Release() { q.used = 0 }

// Arm implements frame.Queue: the descriptor is readable whenever there are frames.
func (q *queue) Arm() bool { return false }

// FD implements frame.Queue.
func (q *queue) FD() int { return q.set.FD() }

// Polled implements frame.Queue: an empty tap costs a system call to look at.
func (q *queue) Polled() bool { return false }

func (q *queue) close() error {
	_ = q.set.Close()
	_ = sysio.Unmap(q.arena)
	return unix.Close(q.fd)
}
