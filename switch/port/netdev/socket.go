package netdev

import (
	"encoding/binary"
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

// start makes the socket receive frames of that protocol, a constant ETH_P_*. It
// succeeds on a device that is down; frames come when it is up.
func start(fd, index int, protocol uint16) error {
	err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: index})
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

// BPDUs have a socket of their own, so that a flood of data, or of junk to their
// address, can't crowd them out of the ring. They are the untagged frames to a
// link-local group address, 01:80:c2:00:00:00–0f (802.1Q table 8-1), with a length
// where others have an EtherType, the LLC header of the spanning tree protocol,
// and its protocol identifier 0.
//
// That socket listens to 802.2 frames only, of which there are few, at the place
// where the kernel tells protocols apart. Listening to every frame, as the ring
// does, it would cost each of them some 100 ns to be refused by its filter. By
// then the kernel has forgotten the tag of a tagged frame; the shield keeps those
// away. Without a shield the socket has to listen to every frame.
//
// The sockets' filters are classic BPF, a dozen instructions that the kernel takes
// from whoever may open the socket: a port must work without CAP_BPF, too.
const (
	linkLocalHigh = 0x0180c200 // octets 0–3
	linkLocalMask = 0xfff0     // of octets 4–5, which must be 000x
	leastType     = 0x0600     // EtherTypes start here
	stpStart      = 0x42420300 // octets 14–17: DSAP, SSAP, control, and half the protocol identifier
	stpLength     = 19         // where its other half ends
	wholeFrame    = 0x40000    // more than frame.MaxLen
)

// bpduFilter accepts BPDUs and refuses all other frames.
func bpduFilter() []bpf.RawInstruction {
	return assemble(
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 12},
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: linkLocalHigh, SkipFalse: 10},
		bpf.LoadAbsolute{Off: 4, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: linkLocalMask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 7},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: leastType, SkipFalse: 5},
		bpf.LoadAbsolute{Off: 14, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: stpStart, SkipFalse: 3},
		bpf.LoadAbsolute{Off: stpLength - 1, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 1},
		bpf.RetConstant{Val: wholeFrame},
		bpf.RetConstant{Val: 0},
	)
}

// isBPDU is bpduFilter for a frame without a tag beside it. By it a ring leaves
// BPDUs to the control socket: one comparison with bytes that the switch looks at
// next costs less than a filter in the kernel.
func isBPDU(b []byte) bool {
	return len(b) >= stpLength && binary.BigEndian.Uint32(b) == linkLocalHigh &&
		binary.BigEndian.Uint16(b[4:])&linkLocalMask == 0 &&
		binary.BigEndian.Uint16(b[12:]) < leastType &&
		binary.BigEndian.Uint32(b[14:]) == stpStart && b[stpLength-1] == 0
}

// nothingFilter refuses every frame.
func nothingFilter() []bpf.RawInstruction { return assemble(bpf.RetConstant{Val: 0}) }

// assemble can't fail: its arguments are constants.
func assemble(program ...bpf.Instruction) []bpf.RawInstruction {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic("netdev: assemble filter: " + err.Error())
	}
	return raw
}

// shut makes the socket refuse every frame, without closing it.
func shut(fd int) error {
	program := nothingFilter()
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

// unshut makes it accept every frame again.
func unshut(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
		return fmt.Errorf("remove socket filter: %w", err)
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
