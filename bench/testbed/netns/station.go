package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Station is a raw end on a network device: it sends frames as they are given
// and sees every frame that arrives, with its VLAN tags in place. Frames that
// the host itself sends through the device are not seen.
//
// One goroutine may receive while another sends.
type Station struct {
	tb   TB
	name string
	conn *packet.Conn
	buf  []byte
	oob  []byte
}

// receiveBuffer holds the largest burst that a test leaves unread: some
// 100,000 small frames.
const receiveBuffer = 64 << 20

// Station opens a device of the host. It sees what arrives after it returns.
func (h *Host) Station(name string) *Station {
	h.tb.Helper()
	s := &Station{
		tb:   h.tb,
		name: h.name + ":" + name,
		buf:  make([]byte, frame.MaxLen),
		oob:  make([]byte, 64),
	}
	if err := h.Do(func() error { return s.open(name) }); err != nil {
		h.tb.Fatalf("open station %s: %v", s.name, err)
	}
	h.tb.Cleanup(s.Close)
	return s
}

// nothing is a socket filter that refuses every frame. It is in place from the
// bind until the socket is set up.
var nothing = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 0}}

func (s *Station) open(name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	s.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: nothing})
	if err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		s.conn.Close()
		return err
	}
	return nil
}

func (s *Station) configure() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	for _, o := range []struct {
		what                 string
		level, option, value int
	}{
		{"PACKET_IGNORE_OUTGOING", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{"PACKET_AUXDATA", unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
		{"SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer},
		{"SO_DETACH_FILTER", unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0},
	} {
		var setErr error
		err := raw.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), o.level, o.option, o.value) })
		if err := errors.Join(err, setErr); err != nil {
			return fmt.Errorf("set %s: %w", o.what, err)
		}
	}
	return s.conn.SetPromiscuous(true)
}

// Close closes the station. Closing it again does nothing.
func (s *Station) Close() { _ = s.conn.Close() }

// Send puts frames on the wire, in order.
func (s *Station) Send(frames ...[]byte) {
	s.tb.Helper()
	for _, f := range frames {
		if err := s.TrySend(f); err != nil {
			s.tb.Fatalf("send %d bytes from %s: %v", len(f), s.name, err)
		}
	}
}

// anywhere is the address that a raw socket asks for and doesn't use.
var anywhere = &packet.Addr{HardwareAddr: net.HardwareAddr{}}

// TrySend puts one frame on the wire.
func (s *Station) TrySend(f []byte) error {
	_, err := s.conn.WriteTo(f, anywhere)
	if errors.Is(err, unix.ENETDOWN) {
		// Possibly of an earlier time: the socket reports it once, whenever it
		// is used next.
		_, err = s.conn.WriteTo(f, anywhere)
	}
	return err
}

// Recv returns the next frame, or false when none arrives for d; zero asks for
// what is there already. The bytes are the caller's. An error ends the test.
func (s *Station) Recv(d time.Duration) ([]byte, bool) {
	s.tb.Helper()
	var deadline time.Time
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	f, err := s.recv(deadline)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, false
	}
	if err != nil {
		s.tb.Fatalf("receive on %s: %v", s.name, err)
	}
	return f, true
}

// recv reads one frame and puts its tag back. It waits until deadline, or not
// at all if that is zero.
func (s *Station) recv(deadline time.Time) ([]byte, error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	var n, oobn int
	var recvErr error
	receive := func(fd uintptr) bool {
		n, oobn, _, _, recvErr = unix.Recvmsg(int(fd), s.buf, s.oob, unix.MSG_DONTWAIT)
		return recvErr != unix.EAGAIN && recvErr != unix.EINTR && recvErr != unix.ENETDOWN
	}
	if deadline.IsZero() {
		// Read with a deadline that has passed does not even look.
		err = raw.Control(func(fd uintptr) {
			for range 2 { // once for an error of an earlier time
				if receive(fd) {
					return
				}
			}
			recvErr = os.ErrDeadlineExceeded
		})
	} else {
		err = raw.Read(receive)
	}
	if err := errors.Join(err, recvErr); err != nil {
		return nil, err
	}
	tag, err := auxTag(s.oob[:oobn])
	if err != nil {
		return nil, err
	}
	return withTag(s.buf[:n], tag), nil
}

// sizeofAuxdata is sizeof(struct tpacket_auxdata).
const sizeofAuxdata = 20

// auxTag finds the VLAN tag in the control messages of a packet socket:
// struct tpacket_auxdata, packet(7).
func auxTag(oob []byte) (frame.Tag, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, fmt.Errorf("parse control message: %w", err)
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < sizeofAuxdata {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			return 0, nil
		}
		tci, tpid := binary.NativeEndian.Uint16(m.Data[16:]), uint16(frame.EtherTypeVLAN)
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			tpid = binary.NativeEndian.Uint16(m.Data[18:])
		}
		return frame.Tag(tpid)<<16 | frame.Tag(tci), nil
	}
	return 0, nil
}

// withTag copies a frame, with tag behind its addresses if there is one.
func withTag(f []byte, tag frame.Tag) []byte {
	out := frame.Out{Frame: &frame.Frame{Data: f}, EgressTag: tag}
	if len(f) < 12 {
		return append([]byte(nil), f...)
	}
	return out.AppendWire(make([]byte, 0, len(f)+frame.TagLen))
}
