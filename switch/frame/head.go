package frame

import "encoding/binary"

// The most bytes that Front and Head append.
const (
	MaxFront = HeaderLen + TagLen
	MaxHead  = VnetHdrLen + MaxFront
)

// maxLinear is the longest header length, in bytes, that a kernel is told. It
// allocates that much in one piece and refuses a frame that is shorter; where the
// headers really end it finds out itself.
const maxLinear = 256

// Front appends to b what a port writes before the frame's own bytes: the Ethernet
// header and EgressTag, or nothing if Data goes out as it is. rest is where the
// frame goes on in Data; Rest follows it. Data must hold the header.
func (o *Out) Front(b []byte) (front, rest []byte) {
	if o.EgressTag == 0 && o.Strip == 0 && o.Header == nil {
		return b, o.Data
	}
	var ether [HeaderLen]byte
	o.ether(ether[:])
	b = append(b, ether[:12]...)
	if o.EgressTag != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(o.EgressTag))
	}
	if o.Strip != 0 {
		return b, o.Data[12+int(o.Strip):] // behind the tag that had the header's EtherType
	}
	return append(b, ether[12:]...), o.Data[HeaderLen:]
}

// ether writes the Ethernet header to b.
func (o *Out) ether(b []byte) {
	if o.Header != nil {
		o.Header.Put(b)
	} else {
		copy(b[:HeaderLen], o.Data)
	}
}

// Head appends to b what a port that hands frames to the kernel, behind a
// virtio-net header, writes before the frame's own bytes: that header, and Front.
// rest is as Front has it. HdrLen, which senders get wrong, is cut down to what a
// kernel takes.
func (o *Out) Head(b []byte) (head, rest []byte) {
	h := o.WireHdr()
	h.HdrLen = min(h.HdrLen, uint16(min(len(o.Data)-int(o.Strip), maxLinear)))
	var zero [VnetHdrLen]byte
	at := len(b)
	b = append(b, zero[:]...)
	h.Put(b[at:])
	return o.Front(b)
}
