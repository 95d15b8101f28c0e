package sock

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// txBufLen bounds what a port holds back for a peer that reads slowly, on top
// of the kernel's own socket buffer: three of the longest frames, or two
// batches of ordinary ones. What does not fit is dropped in whole frames.
const txBufLen = 256 << 10

// streamTx gathers a batch in its buffer and writes it with one system call.
// What the kernel does not take stays at the front, so a frame is never cut.
type streamTx struct {
	port *Stream

	mu  sync.Mutex
	fd  int // -1: no connection
	buf []byte
	// buf[:end] is still to be written; the first frame of which the kernel has no
	// byte yet begins at next.
	next, end int
	waiting   bool        // epoll looks out for room
	queued    atomic.Bool // something is to be written; read without mu
}

func (t *streamTx) init(s *Stream) {
	t.port, t.fd, t.buf = s, -1, make([]byte, txBufLen)
}

func (t *streamTx) open(fd int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fd, t.waiting = fd, false
}

// close counts the frames that the peer will never see.
func (t *streamTx) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fd = -1
	t.discard()
}

// send implements Tx.
func (t *streamTx) send(out []frame.Out) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return 0
	}
	taken := 0
	for {
		taken += t.gather(out[taken:])
		if !t.waiting { // else Rx writes as soon as epoll finds room
			t.write()
		}
		if taken == len(out) || t.fd < 0 || t.waiting && !t.fits(&out[taken]) {
			return taken // a slow reader: the rest is not for it
		}
	}
}

// gather appends as many whole frames as fit, and passes over those that may
// not go out at all.
func (t *streamTx) gather(out []frame.Out) int {
	for i := range out {
		o := &out[i]
		n := o.Len()
		if n > frame.MaxLen || !o.Hdr.Plain() {
			t.port.count.txErrors.Add(1)
			continue
		}
		if !t.fits(o) {
			return i
		}
		t.end = len(o.AppendWire(binary.BigEndian.AppendUint32(t.buf[:t.end], uint32(n))))
	}
	return len(out)
}

func (t *streamTx) fits(o *frame.Out) bool { return t.end+lengthLen+o.Len() <= len(t.buf) }

// write hands the kernel what it takes and moves the rest to the front.
func (t *streamTx) write() {
	if t.fd < 0 || t.end == 0 {
		return
	}
	n, errno := sysio.Write(t.fd, t.buf[:t.end])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
	case errno != 0:
		t.fd = -1
		t.discard()
		t.port.end(fmt.Sprintf("write: %v", errno))
		return
	default:
		t.drop(n)
	}
	more := t.end > 0
	t.queued.Store(more)
	if more != t.waiting {
		t.waiting = more
		if err := t.port.wake.wantWrite(t.fd, more); err != nil {
			t.port.end(err.Error())
		}
	}
}

// drop forgets the first n bytes, which are on their way.
func (t *streamTx) drop(n int) {
	if n == t.end {
		t.next, t.end = 0, 0
		return
	}
	for t.next < n {
		t.next += lengthLen + int(binary.BigEndian.Uint32(t.buf[t.next:]))
	}
	t.end = copy(t.buf, t.buf[n:t.end])
	t.next -= n
}

// discard empties the buffer and counts its frames, a half-written one too.
func (t *streamTx) discard() {
	frames := uint64(0)
	if t.next > 0 {
		frames++
	}
	for t.next < t.end {
		t.next += lengthLen + int(binary.BigEndian.Uint32(t.buf[t.next:]))
		frames++
	}
	t.port.count.txErrors.Add(frames)
	t.next, t.end = 0, 0
	t.queued.Store(false)
}

// flush writes what is left over, if anything; Rx calls it, because the queue's
// descriptor also becomes readable when there is room again.
func (t *streamTx) flush() {
	if !t.queued.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.write()
}

// backlog is the number of bytes waiting for the peer to read.
func (t *streamTx) backlog() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end
}
