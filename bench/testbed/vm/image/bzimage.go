package image

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errCompression marks a kernel packed in a way that unpackKernel can't read.
var errCompression = errors.New("unknown kernel compression")

// Fields of the x86 boot protocol's setup header, version 2.08 and later, at
// their offsets in the file.
const (
	offSetupSects    = 0x1f1 // sectors of real-mode code after the boot sector; 0 means 4
	offHeaderMagic   = 0x202
	offPayload       = 0x248 // from the end of the real-mode code
	offPayloadLength = 0x24c
	setupHeaderEnd   = 0x250
	headerMagic      = 0x53726448 // "HdrS"
	sector           = 512
)

// unpackKernel takes the ELF image out of a bzImage.
func unpackKernel(b []byte) ([]byte, error) {
	if len(b) < setupHeaderEnd || binary.LittleEndian.Uint32(b[offHeaderMagic:]) != headerMagic {
		return nil, errors.New("not a bzImage")
	}
	sects := int(b[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	start := (1+sects)*sector + int(binary.LittleEndian.Uint32(b[offPayload:]))
	end := start + int(binary.LittleEndian.Uint32(b[offPayloadLength:]))
	if end > len(b) || end-start < 8 {
		return nil, fmt.Errorf("payload %d–%d lies outside the file of %d bytes", start, end, len(b))
	}
	// The build appends the unpacked size to the compressed data.
	data, size := b[start:end-4], int(binary.LittleEndian.Uint32(b[end-4:]))
	if binary.LittleEndian.Uint32(data) != lz4LegacyMagic {
		return nil, errCompression
	}
	return unpackLZ4(data[4:], size)
}

// lz4LegacyMagic starts the frame format that lz4 -l writes and Debian's cloud
// kernel uses.
const lz4LegacyMagic = 0x184c2102

var errLZ4 = errors.New("corrupt LZ4 data")

// unpackLZ4 decodes the blocks of a legacy frame, which unpack to size bytes.
func unpackLZ4(src []byte, size int) ([]byte, error) {
	dst := make([]byte, 0, size)
	for len(dst) < size {
		if len(src) < 4 {
			return nil, errLZ4
		}
		n := binary.LittleEndian.Uint32(src)
		if src = src[4:]; uint64(n) > uint64(len(src)) {
			return nil, errLZ4
		}
		var err error
		if dst, err = unpackLZ4Block(dst, src[:n]); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	if len(dst) != size {
		return nil, errLZ4
	}
	return dst, nil
}

// unpackLZ4Block appends one block: sequences of literals and of matches in
// what the block has already given. The last sequence has no match.
func unpackLZ4Block(dst, src []byte) ([]byte, error) {
	base := len(dst)
	for len(src) > 0 {
		token := src[0]
		literals, rest, ok := lz4Length(int(token>>4), src[1:])
		if !ok || literals > len(rest) || literals > cap(dst)-len(dst) {
			return nil, errLZ4
		}
		dst = append(dst, rest[:literals]...)
		if src = rest[literals:]; len(src) == 0 {
			break
		}
		if len(src) < 2 {
			return nil, errLZ4
		}
		from := len(dst) - int(binary.LittleEndian.Uint16(src))
		match, rest, ok := lz4Length(int(token&15), src[2:])
		match += 4
		if !ok || from < base || from == len(dst) || match > cap(dst)-len(dst) {
			return nil, errLZ4
		}
		for i := range match { // source and target may overlap: byte by byte
			dst = append(dst, dst[from+i])
		}
		src = rest
	}
	return dst, nil
}

// lz4Length continues a length of 15 with bytes up to the first that is not 255.
func lz4Length(n int, src []byte) (int, []byte, bool) {
	if n < 15 {
		return n, src, true
	}
	for i, b := range src {
		n += int(b)
		if b != 255 {
			return n, src[i+1:], true
		}
	}
	return 0, nil, false
}
