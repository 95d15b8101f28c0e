package virtq

import "unsafe"

// The whole of this package's unsafe code: giving guest memory its types, and
// slicing it without a second bounds check. Everything that is handed out here
// was measured against a region or an area by the caller.

// address is where b starts in this process.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// asDescTable, asAvailRing and asUsedRing give an area its type. The types are
// as long as the largest queue; the caller indexes below its queue's size.
func asDescTable(b []byte) *descTable { return (*descTable)(unsafe.Pointer(unsafe.SliceData(b))) }
func asAvailRing(b []byte) *availRing { return (*availRing)(unsafe.Pointer(unsafe.SliceData(b))) }
func asUsedRing(b []byte) *usedRing   { return (*usedRing)(unsafe.Pointer(unsafe.SliceData(b))) }

// asDescs gives an indirect table its type: as many descriptors as fit.
func asDescs(b []byte) []desc {
	return unsafe.Slice((*desc)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/descLen)
}

// bytesAt is the n bytes at off from base, which the caller has checked.
func bytesAt(base *byte, off uint64, n uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(base), off)), int(n))
}

// offsetIn is where b starts within a mapping, if it does.
func offsetIn(mem, b []byte) (uint64, bool) {
	off := uint64(address(b) - address(mem))
	return off, off < uint64(len(mem))
}

// words is b, whose start is aligned to 4 bytes, as 32-bit words.
func words(b []byte) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// The types lie over memory that virtio lays out (2.7.5, 2.7.6, 2.7.8). With
// another size or offset this does not compile.
var (
	_ [descLen]byte     = [unsafe.Sizeof(desc{})]byte{}
	_ [usedEntry]byte   = [unsafe.Sizeof(usedElem{})]byte{}
	_ [availEntry]byte  = [unsafe.Sizeof(availRing{}.ring[0])]byte{}
	_ [availHeader]byte = [unsafe.Offsetof(availRing{}.ring)]byte{}
	_ [usedHeader]byte  = [unsafe.Offsetof(usedRing{}.ring)]byte{}
)
