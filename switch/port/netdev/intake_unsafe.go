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

// Where the program finds the fields of intakeShared.
const (
	offHead = int16(unsafe.Offsetof(intakeShared{}.head))
	offSeen = int16(unsafe.Offsetof(intakeShared{}.seen))
	offTail = int16(unsafe.Offsetof(intakeShared{}.tail))
	offBell = int16(unsafe.Offsetof(intakeShared{}.bell))
	offLost = int16(unsafe.Offsetof(intakeShared{}.lost))
	offBad  = int16(unsafe.Offsetof(intakeShared{}.bad))
)

// The entries begin right behind.
var _ = [1]struct{}{}[intakeSharedLen-unsafe.Sizeof(intakeShared{})]
