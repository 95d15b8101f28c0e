package guest

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// tapEnd is the holder of a tap's descriptor, as QEMU is without vhost_net: a
// system call for every frame, with a virtio-net header before it.
type tapEnd struct {
	fd     int
	bufs   [][]byte // header and frame, whole periods of the size's lengths
	tmpl   []probe.Template
	next   int
	seq    uint32
	flows  probe.Flows
	answer []byte
}

var _ end = (*tapEnd)(nil)

// newTapEnd uses a tap's descriptor, which stays the caller's.
func newTapEnd(f *os.File, size probe.Size, flows probe.Flows) (*tapEnd, error) {
	if size.GSO {
		return nil, errors.New("make tap end: super-frames are not for this driver")
	}
	e := &tapEnd{fd: int(f.Fd()), flows: flows, answer: make([]byte, bufferLen)}
	if err := unix.SetNonblock(e.fd, true); err != nil {
		return nil, fmt.Errorf("make tap end: %w", err)
	}
	period := len(size.Lengths)
	for i := range max(1, batch/period) * period {
		b := make([]byte, frame.VnetHdrLen+size.Lengths[i%period])
		e.bufs = append(e.bufs, b)
		e.tmpl = append(e.tmpl, probe.Build(b[frame.VnetHdrLen:], false, uint64(i)))
	}
	return e, nil
}

// transmit implements end.
func (e *tapEnd) transmit(n int, stamp int64) (int, error) {
	for i := range n {
		dst, src := e.flows.Address(e.seq)
		e.tmpl[e.next].Stamp(dst, src, e.seq, stamp)
		switch _, errno := sysio.Write(e.fd, e.bufs[e.next]); errno {
		case 0:
		case unix.EAGAIN, unix.ENOBUFS:
			return i, nil
		default:
			return i, fmt.Errorf("write to tap: %w", errno)
		}
		e.seq++
		e.next = (e.next + 1) % len(e.bufs)
	}
	return n, nil
}

// receive implements end.
func (e *tapEnd) receive(t *tally) (int, error) {
	for i := range batch {
		n, errno := sysio.Read(e.fd, e.answer)
		switch errno {
		case 0:
		case unix.EAGAIN, syscall.EINTR:
			return i, nil
		default:
			return i, fmt.Errorf("read from tap: %w", errno)
		}
		if n >= frame.VnetHdrLen {
			t.count(e.answer[frame.VnetHdrLen:n])
		}
	}
	return batch, nil
}

// sequence implements end.
func (e *tapEnd) sequence() uint32 { return e.seq }

// send implements end.
func (e *tapEnd) send(f probe.Flows, seq uint32) { e.flows, e.seq = f, seq }

// close implements end.
func (e *tapEnd) close() error { return nil }
