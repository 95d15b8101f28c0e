package afpacket

import (
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// openSocket opens a raw packet socket that belongs to device index and receives
// nothing yet: its protocol is 0 until start binds it. filter, if any, is in
// place before that.
//
// mdlayher/packet opens, filters and joins. The descriptor is then taken from
// it, because the library registers the socket with the Go runtime's poller,
// which would be woken for every frame; a duplicate knows nothing of the poller.
func openSocket(index int, promiscuous bool, filter []bpf.RawInstruction) (fd int, err error) {
	conn, err := packet.Listen(&net.Interface{Index: index}, packet.Raw, 0, &packet.Config{Filter: filter})
	if err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return -1, fmt.Errorf("open packet socket: %w: needs root or CAP_NET_RAW", unix.EPERM)
		}
		return -1, fmt.Errorf("open packet socket: %w", cause(err))
	}
	defer conn.Close()
	if promiscuous {
		if err := conn.SetPromiscuous(true); err != nil {
			return -1, fmt.Errorf("set promiscuous: %w", cause(err))
		}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("take packet socket: %w", err)
	}
	var dupErr error
	if err := raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, fmt.Errorf("take packet socket: %w", err)
	}
	if dupErr != nil {
		return -1, fmt.Errorf("take packet socket: %w", dupErr)
	}
	// The offload header (struct virtio_net_hdr) comes before every frame, in
	// both directions. It must be asked for before there is a ring.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set PACKET_VNET_HDR: %w", err)
	}
	return fd, nil
}

// cause strips the wrapping that repeats what our own message says.
func cause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// quietOwn keeps frames that this host sends on the device, ours among them,
// from coming back (PACKET_IGNORE_OUTGOING, Linux 4.20).
func quietOwn(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("set PACKET_IGNORE_OUTGOING: %w", err)
	}
	return nil
}

// start makes the socket receive every protocol. It succeeds on a device that is
// down; frames come when it is up.
func start(fd, index int) error {
	all := uint16(unix.ETH_P_ALL)
	err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: index})
	if err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// setBuffer sets SO_RCVBUF or SO_SNDBUF to bytes, beyond net.core.*mem_max where
// CAP_NET_ADMIN allows.
func setBuffer(fd, force, option, bytes int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, bytes) // the kernel clamps it; less is only less room
	}
}

// Link-local group addresses, 01:80:c2:00:00:00–0f, carry the switch's own
// protocols (802.1Q table 8-1). They have a socket of their own, so that a flood
// of data can't crowd them out of the ring.
const (
	linkLocalHigh = 0x0180c200 // octets 0–3
	linkLocalMask = 0xfff0     // of octets 4–5, which must be 000x
	wholeFrame    = 0x40000    // more than frame.MaxLen
)

// linkLocalFilter accepts frames to link-local group addresses if want is set,
// and all the others if not.
func linkLocalFilter(want bool) []bpf.RawInstruction {
	yes, no := uint32(wholeFrame), uint32(0)
	if !want {
		yes, no = no, yes
	}
	return assemble(
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: linkLocalHigh, SkipFalse: 4},
		bpf.LoadAbsolute{Off: 4, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: linkLocalMask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 1},
		bpf.RetConstant{Val: yes},
		bpf.RetConstant{Val: no},
	)
}

// nothingFilter refuses every frame.
func nothingFilter() []bpf.RawInstruction { return assemble(bpf.RetConstant{Val: 0}) }

// assemble can't fail: its arguments are constants.
func assemble(program ...bpf.Instruction) []bpf.RawInstruction {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic("afpacket: assemble filter: " + err.Error())
	}
	return raw
}

// setFilter replaces a socket's filter.
func setFilter(fd int, program []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		return fmt.Errorf("set socket filter: %w", err)
	}
	return nil
}

// takeDrops reads and clears the socket's count of frames that found no room
// (PACKET_STATISTICS).
func takeDrops(fd int) uint64 {
	s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return uint64(s.Drops)
}

// vnetLen is the offload header as packet sockets carry it.
const vnetLen = frame.VnetHdrLen
