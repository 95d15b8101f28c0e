package frame

import "encoding/binary"

// MaxHead is the most bytes that Head appends.
const MaxHead = VnetHdrLen + 12 + TagLen

// maxLinear bounds the header length handed to a kernel, in bytes: it allocates
// as much in one piece, refuses the frame if that is more than the frame has,
// and finds out by itself what it needs.
const maxLinear = 256

// Head appends to b what a port that hands frames to the kernel, behind a
// virtio-net header, writes before the frame's own bytes: that header, and when
// the tag changes the addresses and the tag. rest is where the frame goes on in
// Data; Rest follows it. HdrLen, which senders get wrong, is cut down to what a
// kernel takes.
func (o *Out) Head(b []byte) (head, rest []byte) {
	h := o.WireHdr()
	h.HdrLen = min(h.HdrLen, uint16(min(len(o.Data)-int(o.Strip), maxLinear)))
	var zero [VnetHdrLen]byte
	at := len(b)
	b = append(b, zero[:]...)
	h.Put(b[at:])
	if o.EgressTag == 0 && o.Strip == 0 {
		return b, o.Data
	}
	b = append(b, o.Data[:12]...)
	if o.EgressTag != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(o.EgressTag))
	}
	return b, o.Data[12+int(o.Strip):]
}
