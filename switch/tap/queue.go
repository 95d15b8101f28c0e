package tap

import (
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/sysio"
)

// A read takes one frame, and its length is not known before: there must be
// room for the longest. Short frames are packed behind each other, so that a
// batch of 64 of 1500 bytes, or seven of 64 KiB, fit.
const (
	longest  = frame.VnetHdrLen + frame.MaxLen
	arenaLen = 512 << 10
)

// queue reads from the tap until it is empty. Its frames lie in arena.
type queue struct {
	port  *Port
	arena []byte
	epoll *sysio.Epoll // holds the tap's descriptor while there is a device behind it
}

// Rx implements frame.Queue.
func (q *queue) Rx(b []frame.Frame) int {
	n := 0
	for at := 0; n < len(b) && at+longest <= len(q.arena); {
		size, errno := sysio.Read(q.port.fd, q.arena[at:at+longest])
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			break // EAGAIN: empty; EBADFD: the device is gone, which the watcher tells
		}
		if size < frame.VnetHdrLen+frame.HeaderLen {
			q.port.rxErrors.Add(1)
			continue
		}
		b[n] = frame.Frame{
			Hdr:  frame.ReadVnetHdr(q.arena[at:]),
			Data: q.arena[at+frame.VnetHdrLen : at+size : at+size],
		}
		n++
		at += (size + 15) &^ 15
	}
	return n
}

// Release implements frame.Queue.
func (q *queue) Release() {}

// Arm implements frame.Queue: the descriptor is readable whenever there are frames.
func (q *queue) Arm() bool { return false }

// FD implements frame.Queue.
func (q *queue) FD() int { return q.epoll.FD() }

// Polled implements frame.Queue: an empty tap costs a system call to look at.
func (q *queue) Polled() bool { return false }
