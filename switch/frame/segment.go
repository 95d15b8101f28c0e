package frame

import "encoding/binary"

const (
	// maxHeaders is the most bytes of headers that a segment is given: a few
	// tags, IPv4 with options or IPv6 with some 380 bytes of extension headers,
	// and TCP with options.
	maxHeaders = 512
	// maxSegments is how many segments make 64 KiB if each, with 40 bytes of
	// headers, fits an MTU of 296 bytes, the smallest that TCP/IP was ever tuned for
	// (RFC 1144, 5.2); Linux goes no lower than 552. It bounds the work and memory
	// that one frame with a GSO size of 1 can cost.
	maxSegments = 65536 / (296 - 40)

	protoTCP = 6
	protoUDP = 17

	// Offsets and lengths of the headers' fields.
	ipv4Len, ipv4TotalLen, ipv4ID, ipv4Frag, ipv4Proto, ipv4Csum, ipv4Addrs = 20, 2, 4, 6, 9, 10, 12
	ipv6Len, ipv6PayloadLen, ipv6Next, ipv6Addrs                            = 40, 4, 6, 8
	tcpLen, tcpSeq, tcpDataOff, tcpFlags, tcpCsum                           = 20, 4, 12, 13, 16
	udpLen, udpTotalLen, udpCsum                                            = 8, 4, 6

	tcpFIN, tcpPSH, tcpCWR = 0x01, 0x08, 0x80
)

// headers is a private copy of the headers of a frame that is to be segmented,
// checked once, and where they are in it.
type headers struct {
	buf    [maxHeaders]byte
	layers layerList // that know the packet's length, from outside to inside
	l3, l4 int       // offsets of the innermost IP and of the TCP or UDP header
	end    int       // offset of the payload
	total  int       // length of the frame without padding
	csum   int       // offset of the checksum from l4
	next   int       // offset of the field that names the protocol at l4, if v6
	v6     bool      // the innermost IP
	tcp    bool
	// pseudo is the sum of the pseudo-header without its length. noCsum says
	// that the UDP packet has no checksum and its segments get none.
	pseudo uint64
	noCsum bool
}

// segment appends the frames that o's payload makes in pieces of its GSOSize.
func (x *Finisher) segment(o Out, dst []Out) ([]Out, error) {
	var h headers
	if err := h.parse(&o); err != nil {
		return dst, err
	}
	size := int(o.Hdr.GSOSize)
	payload := h.total - h.end
	if size == 0 || payload > size*maxSegments || h.end-h.layers.first()+min(size, payload) > MaxMTU {
		return dst, errGSOSize
	}
	p := piecesOf(o.Frame)
	p.skip(h.end)
	for off := 0; ; off += size {
		n := min(size, payload-off)
		last := off+n == payload
		b := x.alloc(h.end + n)
		copy(b, h.buf[:h.end])
		p.read(b[h.end:])
		h.patch(b, off, off/size, last)
		dst = append(dst, x.plain(o, b))
		if last {
			return dst, nil
		}
	}
}

// parse copies and checks the headers of o. It takes the type from Hdr, and compares
// the checksum's place there with the one it finds.
func (h *headers) parse(o *Out) error {
	f := o.Frame
	want := byte(protoTCP)
	gso := f.Hdr.GSOType &^ (GSOECN | GSOTunnel)
	switch gso {
	case GSOTCPv4, GSOTCPv6:
	case GSOUDPL4:
		want = protoUDP
	case GSOUDP:
		if want = protoUDP; f.Hdr.GSOType != GSOUDP {
			return errGSOType
		}
	default:
		return errGSOType
	}
	if f.Hdr.GSOType&GSOTunnel != 0 && f.Hdr.Flags&HdrNeedsCsum == 0 {
		return errGSOCsum // nothing says where the tunnel ends
	}
	p := piecesOf(f)
	b := h.buf[:]
	b = b[:p.read(b)]
	o.judged(b)

	h.l3, h.total = HeaderLen, untaggedLen(f)
	etherType, err := h.untag(b, binary.BigEndian.Uint16(b[12:]))
	if err != nil {
		return err
	}
	for {
		proto, err := h.parseIP(b, etherType)
		if err != nil {
			return err
		}
		if f.Hdr.GSOType&GSOTunnel != 0 && h.l4 != int(f.Hdr.CsumStart)-int(f.Strip) {
			if etherType, err = h.enter(b, proto, f); err != nil {
				return err
			}
			continue
		}
		if proto != want || gso == GSOTCPv4 && h.v6 || gso == GSOTCPv6 && !h.v6 {
			return errGSOPacket
		}
		if err := h.parseL4(b, proto); err != nil {
			return err
		}
		return h.parseCsum(f, proto)
	}
}

// untag moves l3 behind tags that stand there, and returns the EtherType of what
// follows.
func (h *headers) untag(b []byte, etherType uint16) (uint16, error) {
	for etherType == EtherTypeVLAN || etherType == EtherTypeQinQ {
		if len(b) < h.l3+TagLen {
			return 0, errGSOHeaders
		}
		etherType = binary.BigEndian.Uint16(b[h.l3+2:])
		h.l3 += TagLen
	}
	return etherType, nil
}

// parseIP finds l4 behind the IP header at l3, and returns the protocol.
func (h *headers) parseIP(b []byte, etherType uint16) (proto byte, err error) {
	switch etherType {
	case EtherTypeIPv4:
		h.v6 = false
		proto, err = h.parseIPv4(b)
	case EtherTypeIPv6:
		h.v6 = true
		proto, err = h.parseIPv6(b)
	default:
		return 0, errGSOPacket
	}
	if err == nil && !h.layers.add(layer{at: h.l3, end: h.l4, kind: ipLayer(h.v6)}) {
		err = errGSOPacket
	}
	return proto, err
}

// parseIPv4 finds l4 and returns the protocol.
func (h *headers) parseIPv4(b []byte) (byte, error) {
	if len(b) < h.l3+ipv4Len {
		return 0, errGSOHeaders
	}
	ip := b[h.l3:]
	n := int(ip[0]&15) * 4
	// A fragment's payload does not begin with a TCP or UDP header.
	if ip[0]>>4 != 4 || n < ipv4Len || binary.BigEndian.Uint16(ip[ipv4Frag:])&0x3fff != 0 {
		return 0, errGSOPacket
	}
	h.l4 = h.l3 + n
	h.trim(h.l3 + int(binary.BigEndian.Uint16(ip[ipv4TotalLen:])))
	h.pseudo = sum(0, ip[ipv4Addrs:ipv4Addrs+8])
	return ip[ipv4Proto], nil
}

// parseIPv6 finds l4 behind the extension headers and returns the protocol.
func (h *headers) parseIPv6(b []byte) (byte, error) {
	if len(b) < h.l3+ipv6Len {
		return 0, errGSOHeaders
	}
	ip := b[h.l3:]
	if ip[0]>>4 != 6 {
		return 0, errGSOPacket
	}
	h.l4, h.next = h.l3+ipv6Len, h.l3+ipv6Next
	h.trim(h.l4 + int(binary.BigEndian.Uint16(ip[ipv6PayloadLen:])))
	h.pseudo = sum(0, ip[ipv6Addrs:ipv6Addrs+32])
	next := ip[ipv6Next]
	for {
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options (RFC 8200, 4)
			if len(b) < h.l4+8 {
				return 0, errGSOHeaders
			}
			next, h.next = b[h.l4], h.l4
			h.l4 += 8 + 8*int(b[h.l4+1])
		default:
			return next, nil
		}
	}
}

// trim leaves out what lies behind the IP packet's end. A length too short for
// the headers says nothing: some stacks leave it to be filled in by segmentation.
// Nor does that of a frame beyond MaxLen, which has no room for the truth.
func (h *headers) trim(end int) {
	if end > h.l4 && h.total <= MaxLen {
		h.total = min(h.total, end)
	}
}

// parseL4 finds the end of the headers.
func (h *headers) parseL4(b []byte, proto byte) error {
	if proto == protoUDP {
		h.end, h.csum = h.l4+udpLen, udpCsum
	} else {
		h.tcp, h.csum = true, tcpCsum
		if len(b) < h.l4+tcpLen {
			return errGSOHeaders
		}
		n := int(b[h.l4+tcpDataOff]>>4) * 4
		if n < tcpLen {
			return errGSOPacket
		}
		h.end = h.l4 + n
	}
	if min(len(b), h.total) < h.end {
		return errGSOHeaders
	}
	return nil
}

// parseCsum completes pseudo and clears the checksum field.
func (h *headers) parseCsum(f *Frame, proto byte) error {
	field := h.buf[h.l4+h.csum : h.l4+h.csum+2]
	old := binary.LittleEndian.Uint16(field)
	if f.Hdr.Flags&HdrNeedsCsum != 0 {
		if int(f.Hdr.CsumStart)-int(f.Strip) != h.l4 || int(f.Hdr.CsumOffset) != h.csum {
			return errGSOCsum
		}
		// The sender's own sum counts, since with a routing header the address
		// in it is not the one in the IPv6 header. Its length is taken out.
		length := uint32(h.total - h.l4)
		length = length>>16 + length&0xffff // 65,535 and more count so
		length = length>>16 + length&0xffff
		h.pseudo = fold(uint64(old) + be16(^uint16(length)))
	} else {
		h.pseudo = fold(h.pseudo) + be16(uint16(proto))
		h.noCsum = old == 0 && !h.tcp && !h.v6
	}
	binary.LittleEndian.PutUint16(field, 0)
	return nil
}

// patch makes b, a copy of the headers with a part of the payload behind it,
// the segment whose payload was at off, the i-th.
func (h *headers) patch(b []byte, off, i int, last bool) {
	l4 := b[h.l4:]
	if h.tcp {
		h.patchTCP(l4, off, i, last)
	} else {
		binary.BigEndian.PutUint16(l4[udpTotalLen:], uint16(len(l4)))
	}
	if !h.noCsum {
		putChecksum(l4[h.csum:], sum(h.pseudo+be16(uint16(len(l4))), l4))
	}
	h.layers.patch(b, len(b), i)
}

// patchTCP makes the TCP header that of the i-th segment, whose payload was at off.
func (h *headers) patchTCP(tcp []byte, off, i int, last bool) {
	seq := binary.BigEndian.Uint32(tcp[tcpSeq:])
	binary.BigEndian.PutUint32(tcp[tcpSeq:], seq+uint32(off))
	if !last {
		tcp[tcpFlags] &^= tcpFIN | tcpPSH
	}
	if i > 0 {
		tcp[tcpFlags] &^= tcpCWR
	}
}
