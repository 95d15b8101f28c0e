package gen

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

const (
	// batch is the most frames in one sendmmsg call, superBatch that of
	// super-frames, whose copies would otherwise not fit the caches.
	batch      = 64
	superBatch = 8
	// sendBuffer, in bytes, is more than any contender holds back, so that the
	// contender's own queues decide what is lost.
	sendBuffer = 16 << 20
	gsoSegment = 1448
)

// stream is one port's socket and the frames that go out of it again and again.
type stream struct {
	fd        int
	flows     probe.Flows
	templates []probe.Template
	iov       []unix.Iovec
	msgs      []sysio.Mmsghdr
	seq       uint32 // of the next frame
	slot      int    // its template
}

// open makes a packet socket that sends on the port and receives nothing.
func open(p topo.Port, vnetHdr bool) (fd int, err error) {
	err = p.Host.Do(func() error {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		if err := configure(fd, p.Index, vnetHdr); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	return fd, err
}

func configure(fd, index int, vnetHdr bool) error {
	if vnetHdr {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return fmt.Errorf("set PACKET_VNET_HDR: %w", err)
		}
	}
	// Straight to the driver: there is no queueing discipline on a veth anyway. But
	// what the kernel has to segment for a device that can't it drops on this way.
	if !vnetHdr {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return fmt.Errorf("set PACKET_QDISC_BYPASS: %w", err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		return fmt.Errorf("set SO_SNDBUFFORCE: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

func newStream(p topo.Port, size probe.Size, flows probe.Flows) (*stream, error) {
	fd, err := open(p, size.GSO)
	if err != nil {
		return nil, fmt.Errorf("make stream on %s: %w", p.End, err)
	}
	s := &stream{fd: fd, flows: flows}
	s.build(size)
	return s, nil
}

// build lays out the templates: whole periods of the size's lengths, as many as
// fit a batch.
func (s *stream) build(size probe.Size) {
	period, most := len(size.Lengths), batch
	if size.GSO {
		most = superBatch
	}
	slots := max(1, most/period) * period
	s.templates = make([]probe.Template, slots)
	s.iov = make([]unix.Iovec, slots)
	s.msgs = make([]sysio.Mmsghdr, slots)
	for i := range slots {
		n, hdr := size.Lengths[i%period], 0
		if size.GSO {
			hdr = frame.VnetHdrLen
		}
		b := make([]byte, hdr+n)
		if size.GSO {
			superHeader().Put(b)
		}
		s.templates[i] = probe.Build(b[hdr:], size.GSO, uint64(i))
		s.iov[i] = sysio.Piece(b)
		s.msgs[i].SetIovecs(s.iov[i : i+1])
	}
}

// superHeader is what a TCP sender with offload hands down: segment me, finish
// my checksum.
func superHeader() frame.VnetHdr {
	const ipHeader, tcpHeader = 20, 20
	return frame.VnetHdr{
		Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: gsoSegment,
		// The kernel keeps this much in the linear part: all that a receiver
		// looks at.
		HdrLen:    uint16(probe.StampOffset(true) + probe.StampLen),
		CsumStart: frame.HeaderLen + ipHeader, CsumOffset: tcpHeader - 4,
	}
}

// send stamps and sends up to n frames and says how many went. 0 without error
// means that the kernel would have had to wait for room.
func (s *stream) send(n int, stamp int64) (int, syscall.Errno) {
	n = min(n, len(s.templates)-s.slot)
	for i := range n {
		seq := s.seq + uint32(i)
		dst, src := s.flows.Address(seq)
		s.templates[s.slot+i].Stamp(dst, src, seq, stamp)
	}
	sent, errno := sysio.Send(s.fd, s.msgs[s.slot:s.slot+n])
	switch errno {
	case 0:
	case unix.EAGAIN:
		return 0, 0
	case unix.ENOBUFS:
		// A queue on the way was full: the frame was offered and lost, which is
		// for the receiver to find out.
		sent = 1
	default:
		return 0, errno
	}
	s.seq += uint32(sent)
	s.slot = (s.slot + sent) % len(s.templates)
	return sent, 0
}
