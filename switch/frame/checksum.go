package frame

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071) is a ones'-complement sum of 16-bit words. Words
// read in the other byte order give the same sum with its two bytes swapped. So
// everything here is summed in little-endian words of 64 bits; only a number, which
// has no byte order, is swapped first, by be16.

// sum adds the bytes of b to acc. A part that is not the last must be even.
func sum(acc uint64, b []byte) uint64 {
	var c uint64
	for len(b) >= 64 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[32:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[40:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[48:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[56:]), c)
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	var last uint64
	for i, v := range b {
		last |= uint64(v) << (8 * i)
	}
	acc, c = bits.Add64(acc, last, c)
	acc, c = bits.Add64(acc, 0, c)
	return acc + c
}

// be16 is the number n as sum would read it from the wire.
func be16(n uint16) uint64 { return uint64(bits.ReverseBytes16(n)) }

// fold is acc as one 16-bit word.
func fold(acc uint64) uint64 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	return acc>>16 + acc&0xffff
}

// putChecksum stores the complement of acc at b. Zero is stored as 0xffff,
// which is the same number; to UDP zero would mean that there is no checksum.
func putChecksum(b []byte, acc uint64) {
	c := ^uint16(fold(acc))
	if c == 0 {
		c = 0xffff
	}
	binary.LittleEndian.PutUint16(b, c)
}
