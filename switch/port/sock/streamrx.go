package sock

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// lengthLen is the size of the length in front of each frame.
const lengthLen = 4

// rxBufLen holds the longest frame and, behind it, more than a batch of
// full-sized ordinary ones (64 × 1518 bytes), so that one read serves a batch.
const rxBufLen = 192 << 10

// streamRx reads many frames with one system call and lends them out of its
// buffer. It implements frame.Queue.
type streamRx struct {
	port *Stream

	// mu is taken once a batch. The worker holds it against run, which opens
	// and closes connections, and against nobody else.
	mu  sync.Mutex
	fd  int // -1: no connection, or one that has ended
	buf []byte
	// buf[start:end] is read and not yet lent. While frames are lent nothing
	// before end may be overwritten or moved.
	start, end int
	lent       bool
	// ready: the switch takes the port for up. Until then what the peer sends stays
	// in the socket.
	ready bool
}

func (q *streamRx) init(s *Stream) {
	q.port, q.fd, q.buf = s, -1, make([]byte, rxBufLen)
}

// open starts reading fd. What an earlier connection left is forgotten.
func (q *streamRx) open(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fd, q.ready = fd, false
	q.start = q.end
	q.port.wake.raise(false)
}

// acted implements Acted.
func (q *streamRx) acted(up bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = up
}

func (q *streamRx) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fd = -1
	q.forget()
}

// Rx implements frame.Queue.
func (q *streamRx) Rx(b []frame.Frame) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.port.tx.flush()
	if !q.ready {
		return 0
	}
	n := q.parse(b)
	if n == 0 && q.fill() {
		n = q.parse(b)
	}
	q.lent = q.lent || n > 0
	q.port.wake.raise(q.whole())
	return n
}

// parse lends whole frames from the buffer. A length that no frame has ends the
// connection: what follows can no longer be told apart.
func (q *streamRx) parse(b []frame.Frame) int {
	n := 0
	for n < len(b) && q.fd >= 0 && q.end-q.start >= lengthLen {
		size := binary.BigEndian.Uint32(q.buf[q.start:])
		if size == 0 || size > frame.MaxLen {
			q.fail(fmt.Sprintf("it sent a frame length of %d bytes (want 1 to %d): not a QEMU stream?", size, frame.MaxLen))
			break
		}
		next := q.start + lengthLen + int(size)
		if next > q.end {
			break
		}
		if size < frame.MinLen {
			q.port.count.rxErrors.Add(1)
		} else {
			b[n] = frame.Frame{Data: q.buf[q.start+lengthLen : next : next]}
			n++
		}
		q.start = next
	}
	return n
}

// whole reports that parse has something to do without reading.
func (q *streamRx) whole() bool {
	if q.fd < 0 || q.end-q.start < lengthLen {
		return false
	}
	size := binary.BigEndian.Uint32(q.buf[q.start:])
	return size > frame.MaxLen || q.end-q.start-lengthLen >= int(size)
}

// fill reads once and reports whether anything came.
func (q *streamRx) fill() bool {
	if q.fd < 0 {
		return false
	}
	if !q.lent { // the head of a frame goes to the front, to make room for its rest
		q.end = copy(q.buf, q.buf[q.start:q.end])
		q.start = 0
	}
	if q.end == len(q.buf) {
		return false // until Release
	}
	n, errno := sysio.Read(q.fd, q.buf[q.end:])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return false
	case errno != 0:
		q.fail(fmt.Sprintf("read: %v", errno))
		return false
	case n == 0:
		q.fail("it closed the connection")
		return false
	}
	q.end += n
	return true
}

// fail ends the connection for Rx at once, so that an epoll that reports its
// end for ever finds nothing more to do; run does the rest.
func (q *streamRx) fail(why string) {
	q.port.wake.remove(q.fd)
	q.fd = -1
	q.forget()
	q.port.end(why)
}

// forget drops what was read and never lent: at most part of a frame, or what
// came after a bad length.
func (q *streamRx) forget() {
	if q.end > q.start {
		q.port.count.rxErrors.Add(1)
	}
	q.start = q.end
	q.port.wake.raise(false)
}

// Release implements frame.Queue.
func (q *streamRx) Release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lent = false
}

// Arm implements frame.Queue. The descriptor is always armed.
func (q *streamRx) Arm() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.whole()
}

// FD implements frame.Queue.
func (q *streamRx) FD() int { return q.port.wake.set.FD() }

// Polled implements frame.Queue.
func (q *streamRx) Polled() bool { return false }
