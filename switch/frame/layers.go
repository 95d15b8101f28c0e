package frame

import "encoding/binary"

const (
	protoIPv4, protoIPv6, protoGRE = 4, 41, 47 // of what is in a tunnel

	// etherTypeTEB is that of a whole frame within GRE (RFC 7637, 3.2).
	etherTypeTEB = 0x6558

	// GRE (RFC 2784, 2890).
	greLen, greProto, greCsum            = 4, 2, 4
	greHasCsum, greHasKey, greHasSeq     = 0x80, 0x20, 0x10
	greUnknown                       int = 0x4f // routing, recursion: of RFC 1701
)

// layerKind is what kind of header a layer is.
type layerKind uint8

const (
	layerIPv4 layerKind = iota
	layerIPv6
	layerUDP // of a tunnel
	layerGRE
)

func ipLayer(v6 bool) layerKind {
	if v6 {
		return layerIPv6
	}
	return layerIPv4
}

// layer is a header in front of TCP or UDP that knows how long what follows is,
// or has a checksum over it. Offsets are from the frame's begin.
type layer struct {
	at, end int
	kind    layerKind
}

// layerList is the layers of a frame, from outside to inside.
type layerList struct {
	all [8]layer // a tunnel within a tunnel has 5
	n   int
}

// add reports false if there are too many.
func (l *layerList) add(one layer) bool {
	if l.n == len(l.all) {
		return false
	}
	l.all[l.n] = one
	l.n++
	return true
}

// first is where the outermost begins.
func (l *layerList) first() int { return l.all[0].at }

// patch makes the layers of b, a copy of the headers and of what they are to have
// behind them, those of the i-th segment, a frame of that length. It goes from
// inside to outside, as checksums cover what is inside. Only a tunnel's need more
// of the frame in b than its headers.
func (l *layerList) patch(b []byte, length, i int) {
	for n := l.n - 1; n >= 0; n-- {
		at := l.all[n]
		head, length := b[at.at:at.end], uint16(length-at.at)
		switch at.kind {
		case layerIPv4:
			binary.BigEndian.PutUint16(head[ipv4TotalLen:], length)
			id := binary.BigEndian.Uint16(head[ipv4ID:])
			binary.BigEndian.PutUint16(head[ipv4ID:], id+uint16(i))
			binary.LittleEndian.PutUint16(head[ipv4Csum:], 0)
			binary.LittleEndian.PutUint16(head[ipv4Csum:], ^uint16(fold(sum(0, head))))
		case layerIPv6:
			binary.BigEndian.PutUint16(head[ipv6PayloadLen:], length-ipv6Len)
		case layerUDP:
			binary.BigEndian.PutUint16(head[udpTotalLen:], length)
			if field := head[udpCsum:]; field[0]|field[1] != 0 { // else it has none
				field[0], field[1] = 0, 0
				putChecksum(field, sum(l.all[n-1].pseudo(b)+be16(protoUDP)+be16(length), b[at.at:]))
			}
		case layerGRE:
			if head[0]&greHasCsum != 0 {
				field := head[greCsum:]
				field[0], field[1] = 0, 0
				binary.LittleEndian.PutUint16(field, ^uint16(fold(sum(0, b[at.at:]))))
			}
		}
	}
}

// pseudo is the sum of the IP layer's addresses.
func (l layer) pseudo(b []byte) uint64 {
	if l.kind == layerIPv6 {
		return sum(0, b[l.at+ipv6Addrs:l.at+ipv6Len])
	}
	return sum(0, b[l.at+ipv4Addrs:l.at+ipv4Len])
}

// InTunnel reports that the frame that data begins with is to be segmented within a
// tunnel, although header h, which has no word for that, doesn't say so: its
// checksum begins further in than where a TCP or UDP header stands without one.
// The kernel's packet sockets hand such frames out. data must hold the headers.
func InTunnel(data []byte, h VnetHdr) bool {
	if h.GSOType == GSONone || h.Flags&HdrNeedsCsum == 0 || len(data) < HeaderLen {
		return false
	}
	var outer headers
	outer.l3, outer.total = HeaderLen, len(data)
	etherType, err := outer.untag(data, binary.BigEndian.Uint16(data[12:]))
	if err == nil {
		_, err = outer.parseIP(data, etherType)
	}
	return err == nil && outer.l4 < int(h.CsumStart)
}

// enter goes from l4, which is that of a tunnel, to the IP header in it: l3 is
// there then. It returns the EtherType of that.
func (h *headers) enter(b []byte, proto byte, f *Frame) (uint16, error) {
	at := h.l4
	switch proto {
	case protoIPv4:
		h.l3 = at
		return EtherTypeIPv4, nil
	case protoIPv6:
		h.l3 = at
		return EtherTypeIPv6, nil
	case protoGRE:
		return h.enterGRE(b)
	case protoUDP:
		if len(b) < at+udpLen || !h.layers.add(layer{at: at, end: at + udpLen, kind: layerUDP}) {
			return 0, errGSOHeaders
		}
		return h.enterUDP(b, at+udpLen, f)
	}
	return 0, errGSOPacket
}

func (h *headers) enterGRE(b []byte) (uint16, error) {
	at := h.l4
	if len(b) < at+greLen {
		return 0, errGSOHeaders
	}
	flags, end := int(b[at]), at+greLen
	if flags&(greUnknown|greHasSeq) != 0 || b[at+1] != 0 {
		return 0, errGSOPacket // segments would need numbers of their own
	}
	for _, has := range []int{greHasCsum, greHasKey} {
		if flags&has != 0 {
			end += 4
		}
	}
	etherType := binary.BigEndian.Uint16(b[at+greProto:])
	if etherType == etherTypeTEB {
		end += HeaderLen
	}
	if len(b) < end || !h.layers.add(layer{at: at, end: end, kind: layerGRE}) {
		return 0, errGSOHeaders
	}
	h.l3 = end
	if etherType != etherTypeTEB {
		return etherType, nil
	}
	return h.untag(b, binary.BigEndian.Uint16(b[end-2:]))
}

// enterUDP finds the IP header that ends where TCP or UDP begins, at CsumStart,
// somewhere behind from. What stands between, VXLAN's header or Geneve's or
// another, knows nothing of lengths, so it need not be understood.
func (h *headers) enterUDP(b []byte, from int, f *Frame) (uint16, error) {
	l4, want := int(f.Hdr.CsumStart)-int(f.Strip), byte(protoTCP)
	gso := f.Hdr.GSOType &^ (GSOECN | GSOTunnel)
	if gso == GSOUDPL4 {
		want = protoUDP
	}
	if l4 > min(len(b), h.total) {
		return 0, errGSOHeaders
	}
	if gso != GSOTCPv6 {
		for at := l4 - ipv4Len; at >= max(from, l4-60); at -= 4 {
			if ip := b[at:]; int(ip[0]) == 4<<4|(l4-at)/4 && ip[ipv4Proto] == want && h.reaches(at, binary.BigEndian.Uint16(ip[ipv4TotalLen:]), 0) {
				h.l3 = at
				return EtherTypeIPv4, nil
			}
		}
	}
	if gso != GSOTCPv4 {
		for at := l4 - ipv6Len; at >= from; at -= 8 { // it may have extension headers
			if ip := b[at:]; ip[0]>>4 == 6 && (ip[ipv6Next] == want || at < l4-ipv6Len) && h.reaches(at, binary.BigEndian.Uint16(ip[ipv6PayloadLen:]), ipv6Len) {
				h.l3 = at
				return EtherTypeIPv6, nil
			}
		}
	}
	return 0, errGSOPacket
}

// reaches reports that a packet whose header is at that offset, and says that it
// is so long without so many bytes, ends where the frame does.
func (h *headers) reaches(at int, length uint16, without int) bool {
	return at+without+int(length) == h.total
}
