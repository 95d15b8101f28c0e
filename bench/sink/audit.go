package sink

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

const (
	auditBatch = 64
	// auditBuffer, in bytes, holds back the frames of a whole trial while the
	// auditor is at work.
	auditBuffer = 64 << 20
	// quiet is how long a port must receive nothing for the stream to be over.
	quiet = 50 * time.Millisecond
)

// Auditor receives every frame at one port and hands it to an account.
type Auditor struct {
	fd   int
	bufs []byte
	iov  []unix.Iovec
	msgs []sysio.Mmsghdr
	room int
}

// NewAuditor listens at a far end, for frames of up to longest bytes.
func NewAuditor(t *topo.Topology, port, longest int) (*Auditor, error) {
	p := t.Ports[port]
	a := &Auditor{fd: -1, room: longest + frame.TagLen}
	err := p.Host.Do(func() (err error) {
		a.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		return a.configure(p.Index)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("audit %s: %w", p.End, err), a.Close())
	}
	a.bufs = make([]byte, auditBatch*a.room)
	a.iov = make([]unix.Iovec, auditBatch)
	a.msgs = make([]sysio.Mmsghdr, auditBatch)
	for i := range a.msgs {
		a.iov[i] = sysio.Piece(a.bufs[i*a.room : (i+1)*a.room])
		a.msgs[i].SetIovecs(a.iov[i : i+1])
	}
	return a, nil
}

func (a *Auditor) configure(index int) error {
	if err := unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, auditBuffer); err != nil {
		return fmt.Errorf("set SO_RCVBUFFORCE: %w", err)
	}
	if err := unix.SetsockoptInt(a.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("set PACKET_IGNORE_OUTGOING: %w", err)
	}
	all := &unix.SockaddrLinklayer{Ifindex: index, Protocol: htons(unix.ETH_P_ALL)}
	if err := unix.Bind(a.fd, all); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	// Frames for other stations are what this socket is for.
	member := &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(a.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, member); err != nil {
		return fmt.Errorf("set promiscuous mode: %w", err)
	}
	return nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Receive enters frames into l until stop is closed and then no more come. It
// returns how many frames the socket had no room for.
func (a *Auditor) Receive(ctx context.Context, l Account, stop <-chan struct{}) (missed uint64, err error) {
	stopped := false
	for {
		select {
		case <-stop:
			stopped = true
		default:
		}
		n, errno := sysio.Receive(a.fd, a.msgs, unix.MSG_TRUNC)
		switch {
		case errno == unix.EAGAIN:
			fds := []unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLIN}}
			ready, err := unix.Poll(fds, int(quiet/time.Millisecond))
			if err != nil && err != syscall.EINTR {
				return 0, fmt.Errorf("poll packet socket: %w", err)
			}
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if ready == 0 && err == nil && stopped {
				return a.missed()
			}
		case errno != 0:
			return 0, fmt.Errorf("receive frames: %w", errno)
		}
		for i := range n {
			// A frame longer than the buffer is longer than any that was sent:
			// what there is of it does not check.
			size := min(int(a.msgs[i].Len), a.room)
			l.Enter(a.bufs[i*a.room:][:size])
		}
	}
}

// missed is the socket's own count of frames it dropped since the last call.
func (a *Auditor) missed() (uint64, error) {
	st, err := unix.GetsockoptTpacketStats(a.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("get PACKET_STATISTICS: %w", err)
	}
	return uint64(st.Drops), nil
}

// Close closes the socket.
func (a *Auditor) Close() error {
	if a.fd < 0 {
		return nil
	}
	err := unix.Close(a.fd)
	a.fd = -1
	return err
}

// Audit is one audited trial: while send runs, everything that arrives at the
// port is entered into l. send says how many frames it sent.
func (a *Auditor) Audit(ctx context.Context, l *Ledger, send func() (uint64, error)) (Outcome, error) {
	if _, err := a.missed(); err != nil { // start from zero
		return Outcome{}, err
	}
	var sent uint64
	missed, err := a.watch(ctx, l, func() (err error) {
		sent, err = send()
		return err
	})
	return l.Close(sent, missed), err
}
