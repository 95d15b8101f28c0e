package netdev

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// control receives BPDUs. They are few, so each batch is one recvmmsg.
type control struct {
	fd   int
	mem  []byte
	msgs [controlBatch]sysio.Mmsghdr
	iov  [controlBatch][1]unix.Iovec
	lent bool // mem is in use
}

const (
	controlBatch  = 8
	controlStride = (vnetLen + frame.MaxLen + 4095) &^ 4095
	// controlRoom is SO_RCVBUF of the control socket, in bytes: some hundred
	// BPDUs, far more than one port's neighbours send in a second.
	controlRoom = 128 << 10
)

// newControl makes a receiver of the socket fd, which it owns from then on, also
// when it fails.
func newControl(fd int) (*control, error) {
	c := &control{fd: fd}
	var err error
	if c.mem, err = sysio.MapAnonymous(controlBatch * controlStride); err != nil {
		c.free()
		return nil, err
	}
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, controlRoom)
	for i := range c.msgs {
		c.iov[i][0] = sysio.Piece(c.mem[i*controlStride:][:controlStride])
		c.msgs[i].SetIovecs(c.iov[i][:])
	}
	return c, nil
}

func (c *control) receive(b []frame.Frame, _, bad *atomic.Uint64) (n int) {
	if c.lent {
		return 0
	}
	want := min(len(b), controlBatch)
	got, errno := sysio.Receive(c.fd, c.msgs[:want], 0)
	if errno != 0 {
		return 0 // nothing there, or the device went down
	}
	for i := range got {
		length := int(c.msgs[i].Len)
		if length < vnetLen+frame.HeaderLen || length > controlStride {
			bad.Add(1)
			continue
		}
		m := c.mem[i*controlStride:][:length:length]
		b[n] = frame.Frame{Data: m[vnetLen:], Hdr: frame.ReadVnetHdr(m)}
		n++
	}
	c.lent = n > 0
	return n
}

func (c *control) release()                  { c.lent = false }
func (c *control) ready() bool               { return false } // epoll knows
func (c *control) drops() (lost, bad uint64) { return takeDrops(c.fd), 0 }
func (c *control) socket() int               { return c.fd }
func (c *control) eager() bool               { return false } // it is always watched

func (c *control) free() {
	_ = sysio.Unmap(c.mem)
	unix.Close(c.fd)
	c.mem, c.fd = nil, -1
}
