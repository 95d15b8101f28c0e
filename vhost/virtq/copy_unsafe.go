package virtq

import "unsafe"

// Copy copies src to the start of dst, which must be at least as long. It is
// copy for frames: 32 to 64 bytes go in two wide moves that may overlap, without
// a call.
func Copy(dst, src []byte) {
	n := len(src)
	if uint(n-32) > 32 || n > len(dst) {
		copy(dst, src)
		return
	}
	d, s := unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src))
	a, b := *(*[32]byte)(s), *(*[32]byte)(unsafe.Add(s, n-32))
	*(*[32]byte)(d), *(*[32]byte)(unsafe.Add(d, n-32)) = a, b
}
