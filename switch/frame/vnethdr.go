package frame

import "encoding/binary"

// VnetHdr is struct virtio_net_hdr (virtio 1.2, 5.1.6) without num_buffers: what
// is left to do to a frame. Zero is a plain, finished frame. tap, AF_PACKET and
// virtio share it, so a 64 KiB TSO frame crosses the switch unsegmented.
type VnetHdr struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // a hint: never trust it (5.1.6.2)
	GSOSize    uint16 // payload bytes in each segment
	CsumStart  uint16 // first byte that the checksum covers
	CsumOffset uint16 // where the checksum goes, from CsumStart
}

// Flags and GSO types of struct virtio_net_hdr.
const (
	HdrNeedsCsum = 1 // the L4 checksum holds only the pseudo-header's sum
	HdrDataValid = 2 // the L4 checksum was verified

	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3 // UFO: one datagram, to be sent in IP fragments; no port takes it
	GSOTCPv6 = 4
	GSOUDPL4 = 5 // USO
	GSOECN   = 0x80

	// GSOTunnel is not of virtio, which has no word for it: the GSO type is that of
	// a packet within a tunnel, VXLAN or GRE or another, whose TCP or UDP header is
	// at CsumStart. Only the switch's own receivers say so, and no port takes it.
	GSOTunnel = 0x10
)

// Lengths of the header as ports carry it.
const (
	VnetHdrLen          = 10 // AF_PACKET, legacy virtio
	VnetHdrMrgRxbufLen  = 12 // tap with TUNSETVNETHDRSZ 12, virtio 1.x: num_buffers follows
	vnetHdrOffGSOType   = 1
	vnetHdrOffHdrLen    = 2
	vnetHdrOffGSOSize   = 4
	vnetHdrOffCsumStart = 6
	vnetHdrOffCsumOff   = 8
)

// ReadVnetHdr decodes the first VnetHdrLen bytes of b: little-endian, which is
// native on every machine this switch runs on and is what virtio 1.x says.
func ReadVnetHdr(b []byte) VnetHdr {
	_ = b[VnetHdrLen-1]
	return VnetHdr{
		Flags:      b[0],
		GSOType:    b[vnetHdrOffGSOType],
		HdrLen:     binary.LittleEndian.Uint16(b[vnetHdrOffHdrLen:]),
		GSOSize:    binary.LittleEndian.Uint16(b[vnetHdrOffGSOSize:]),
		CsumStart:  binary.LittleEndian.Uint16(b[vnetHdrOffCsumStart:]),
		CsumOffset: binary.LittleEndian.Uint16(b[vnetHdrOffCsumOff:]),
	}
}

// Put encodes h into the first VnetHdrLen bytes of b.
func (h VnetHdr) Put(b []byte) {
	_ = b[VnetHdrLen-1]
	b[0] = h.Flags
	b[vnetHdrOffGSOType] = h.GSOType
	binary.LittleEndian.PutUint16(b[vnetHdrOffHdrLen:], h.HdrLen)
	binary.LittleEndian.PutUint16(b[vnetHdrOffGSOSize:], h.GSOSize)
	binary.LittleEndian.PutUint16(b[vnetHdrOffCsumStart:], h.CsumStart)
	binary.LittleEndian.PutUint16(b[vnetHdrOffCsumOff:], h.CsumOffset)
}

// Plain reports a frame that any port can send: no checksum and no
// segmentation outstanding.
func (h VnetHdr) Plain() bool { return h.Flags&HdrNeedsCsum == 0 && h.GSOType == GSONone }

// Offloads says what a port may be given unfinished.
type Offloads struct {
	Csum bool `json:"csum"` // unfinished L4 checksum (HdrNeedsCsum)
	TSO4 bool `json:"tso4"` // GSOTCPv4
	TSO6 bool `json:"tso6"` // GSOTCPv6
	USO  bool `json:"uso"`  // GSOUDPL4
}

// Takes reports whether a port with these offloads can be given a frame with
// header h as it is.
func (c Offloads) Takes(h VnetHdr) bool {
	if h.Flags&HdrNeedsCsum != 0 && !c.Csum {
		return false
	}
	switch h.GSOType &^ GSOECN {
	case GSONone:
		return h.GSOType == GSONone // ECN of no type is refused by the kernel
	case GSOTCPv4:
		return c.TSO4
	case GSOTCPv6:
		return c.TSO6
	case GSOUDPL4:
		return c.USO
	}
	return false
}
