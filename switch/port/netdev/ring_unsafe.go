package netdev

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
