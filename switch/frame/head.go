package frame

import "encoding/binary"

// The most bytes that Front and Head append.
const (
	MaxFront = HeaderLen + TagLen
	MaxHead  = VnetHdrLen + MaxFront
)

// maxLinear bounds the header length handed to a kernel, in bytes: it allocates
// as much in one piece, refuses the frame if that is more than the frame has,
// and finds out by itself what it needs.
const maxLinear = 256

// Front appends to b what a port writes before the frame's own bytes: nothing, or
// the Ethernet header, when that or the tag is not to be as it is there. rest is
// where the frame goes on in Data; Rest follows it. Data must hold the header.
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
