package netdev

import (
	"encoding/binary"
	"unsafe"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// intakeAt is the head of an intake's memory and the entries behind it.
func intakeAt(mem []byte, entries int) (*intakeShared, []uint64) {
	_ = mem[intakeSharedLen+8*entries-1]
	return (*intakeShared)(unsafe.Pointer(&mem[0])), unsafe.Slice((*uint64)(unsafe.Pointer(&mem[intakeSharedLen])), entries)
}

// wordAt is the word that b begins with.
func wordAt(b []byte) *uint64 {
	_ = b[7]
	return (*uint64)(unsafe.Pointer(&b[0]))
}

// readExtra is what comes before a frame that is not plain.
func readExtra(b []byte) (frame.VnetHdr, frame.Tag) {
	return frame.ReadVnetHdr(b), frame.Tag(binary.NativeEndian.Uint32(b[intakeTag:]))
}

// The entries begin right behind.
var _ = [1]struct{}{}[intakeSharedLen-unsafe.Sizeof(intakeShared{})]
