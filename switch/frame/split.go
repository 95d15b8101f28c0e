package frame

import "encoding/binary"

// Split makes frames that ports may lend of one that is longer: TCP to be
// segmented, beyond MaxLen ("BIG TCP", where gso_max_size or gro_max_size of a
// device is raised). Each gets headers of its own, and its part of the payload
// stays where it is.
//
// The zero value has nothing to give. One goroutine uses it.
type Split struct {
	h       headers
	hdr     VnetHdr
	tag     Tag
	payload pieces // that was not given yet
	off     int    // of that in the whole
	left    int    // bytes of that
	size    int    // bytes of payload in each part but the last
}

// jumboLen is the hop-by-hop header with nothing but the jumbo payload option
// (RFC 2675), by which IPv6 packets say their length when it is beyond 65,535.
const jumboLen = 8

// Begin has f split, whose bytes must stay until the last part was given back. An
// error means that it can't be.
func (s *Split) Begin(f *Frame) error {
	s.h = headers{}
	o := Out{Frame: f}
	if err := s.h.parse(&o); err != nil {
		return err
	}
	if !s.h.tcp || s.h.layers.n != 1 || f.Hdr.Flags&HdrNeedsCsum == 0 || f.Hdr.GSOSize == 0 {
		return errGSOPacket
	}
	s.hdr, s.tag = f.Hdr, f.Tag
	s.payload = piecesOf(f)
	s.payload.skip(s.h.end)
	s.off, s.left = 0, s.h.total-s.h.end
	s.dropJumbo()
	s.hdr.HdrLen = uint16(s.h.end)
	gso := int(f.Hdr.GSOSize)
	s.size = (MaxMTU - (s.h.end - s.h.l3)) / gso * gso
	if s.size == 0 {
		s.left = 0
		return errGSOSize
	}
	return nil
}

// dropJumbo takes the jumbo payload option out of the headers: no part needs it.
func (s *Split) dropJumbo() {
	h := &s.h
	at := h.l3 + ipv6Len
	if !h.v6 || h.buf[h.l3+ipv6Next] != 0 || h.buf[at+1] != 0 || h.buf[at+2] != 0xc2 || h.buf[at+3] != 4 {
		return
	}
	h.buf[h.l3+ipv6Next] = h.buf[at]
	copy(h.buf[at:], h.buf[at+jumboLen:h.end])
	h.l4 -= jumboLen
	h.end -= jumboLen
	h.layers.all[0].end -= jumboLen
	s.hdr.CsumStart -= jumboLen
}

// More reports that there are parts to be given.
func (s *Split) More() bool { return s.left > 0 }

// Next makes f the next part. Its headers are in head, which must have room for
// MaxSplitHead bytes, and the list of its pieces of payload uses rest's memory.
func (s *Split) Next(f *Frame, head []byte, rest [][]byte) {
	h := &s.h
	n := min(s.size, s.left)
	b := head[:h.end:h.end]
	copy(b, h.buf[:h.end])
	h.patchLengths(b, h.end+n, s.off, s.off/int(s.hdr.GSOSize), n == s.left)
	*f = Frame{Data: b, Rest: s.payload.take(n, rest[:0]), Hdr: s.hdr, Tag: s.tag}
	s.off += n
	s.left -= n
}

// MaxSplitHead is how long headers may be that Split can copy, in bytes.
const MaxSplitHead = maxHeaders

// patchLengths is patch for a frame of that length of which b has the headers
// only: the checksum of TCP is left unfinished.
func (h *headers) patchLengths(b []byte, length, off, i int, last bool) {
	l4 := b[h.l4:]
	h.patchTCP(l4, off, i, last)
	binary.LittleEndian.PutUint16(l4[h.csum:], uint16(fold(h.pseudo+be16(uint16(length-h.l4)))))
	h.layers.patch(b, length, i)
}

// take appends the next n bytes to list, as they lie.
func (p *pieces) take(n int, list [][]byte) [][]byte {
	for n > 0 {
		if len(p.cur) == 0 && !p.turn() {
			return list
		}
		m := min(n, len(p.cur))
		if m > 0 {
			list = append(list, p.cur[:m:m])
		}
		p.cur = p.cur[m:]
		n -= m
	}
	return list
}
