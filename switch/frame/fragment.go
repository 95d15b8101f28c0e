package frame

import (
	"encoding/binary"
	"math/rand/v2"
)

const (
	ipv4More = 0x2000 // more fragments follow

	// The fragment header of IPv6 (RFC 8200, 4.5).
	protoFragment            = 44
	fragLen, fragOff, fragID = 8, 2, 4
	fragMore                 = 1
)

// fragment appends the IP fragments that o's datagram makes: GSOSize bytes of it in
// each, with the UDP header counted among them. Like the kernel's, they all have
// the datagram's identification, and may be fragmented further.
func (x *Finisher) fragment(o Out, dst []Out) ([]Out, error) {
	var h headers
	if err := h.parse(&o); err != nil {
		return dst, err
	}
	size := int(o.Hdr.GSOSize) &^ 7 // offsets count in eights
	length := h.total - h.l4
	front := h.l4
	if h.v6 {
		front += fragLen
	}
	if size == 0 || length > size*maxSegments || front-h.layers.first()+min(size, length) > MaxMTU || length > MaxMTU {
		return dst, errGSOSize
	}
	p := piecesOf(o.Frame)
	p.skip(h.l4)
	id := rand.Uint32()
	var acc uint64
	var udp []byte // the datagram's header
	for off := 0; ; off += size {
		n := min(size, length-off)
		last := off+n == length
		b := x.alloc(front + n)
		copy(b, h.buf[:h.l4])
		part := b[front:]
		p.read(part)
		if off == 0 {
			udp = part
			copy(udp, h.buf[h.l4:h.end]) // which is what was judged
			binary.BigEndian.PutUint16(udp[udpTotalLen:], uint16(length))
		}
		acc = fold(sum(acc, part))
		h.patchFragment(b, off, id, last)
		dst = append(dst, x.plain(o, b))
		if last {
			break
		}
	}
	if !h.noCsum {
		putChecksum(udp[udpCsum:], h.pseudo+be16(uint16(length))+acc)
	}
	return dst, nil
}

// patchFragment makes the headers in b those of the fragment at off.
func (h *headers) patchFragment(b []byte, off int, id uint32, last bool) {
	ip, length := b[h.l3:h.l4], uint16(len(b)-h.l3)
	if !h.v6 {
		place := uint16(off / 8)
		if !last {
			place |= ipv4More
		}
		binary.BigEndian.PutUint16(ip[ipv4Frag:], place)
		binary.BigEndian.PutUint16(ip[ipv4TotalLen:], length)
		binary.LittleEndian.PutUint16(ip[ipv4Csum:], 0)
		binary.LittleEndian.PutUint16(ip[ipv4Csum:], ^uint16(fold(sum(0, ip))))
		return
	}
	binary.BigEndian.PutUint16(ip[ipv6PayloadLen:], length-ipv6Len)
	frag := b[h.l4 : h.l4+fragLen]
	frag[0], frag[1] = b[h.next], 0
	b[h.next] = protoFragment
	place := uint16(off)
	if !last {
		place |= fragMore
	}
	binary.BigEndian.PutUint16(frag[fragOff:], place)
	binary.BigEndian.PutUint32(frag[fragID:], id)
}
