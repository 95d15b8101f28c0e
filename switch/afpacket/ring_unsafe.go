package afpacket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// slot is one slot of a ring: the kernel's header, and further on the frame.
type slot unix.Tpacket2Hdr

// slotAt is the slot at offset off of a ring's memory.
func slotAt(mem []byte, off int) *slot {
	return (*slot)(unsafe.Pointer(&mem[off]))
}

// bytes is the frame, from its destination address.
func (s *slot) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(s), s.Mac)), s.Snaplen)
}

// vnet is the offload header, which lies right before the frame.
func (s *slot) vnet() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(s), int(s.Mac)-vnetLen)), vnetLen)
}

// auxMessage is a control buffer that holds one PACKET_AUXDATA message.
type auxMessage struct {
	hdr  unix.Cmsghdr
	data unix.TpacketAuxdata
	_    [4]byte // CMSG_ALIGN
}

// buffer is the message as the kernel is given it.
func (a *auxMessage) buffer() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(a)), unsafe.Sizeof(*a))
}
