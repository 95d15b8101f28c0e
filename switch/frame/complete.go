package frame

import "errors"

// Why a frame's header can't be honoured. They have no numbers in them, and so are
// made once: a guest that lies in every frame costs no memory.
var (
	errRunt       = errors.New("complete frame: shorter than an Ethernet header")
	errCsumPlace  = errors.New("complete frame: the checksum lies outside the bytes after the Ethernet header")
	errGSOType    = errors.New("segment frame: unknown GSO type")
	errGSOSize    = errors.New("segment frame: GSO size is zero or makes too many segments or too long ones")
	errGSOHeaders = errors.New("segment frame: headers are cut off or longer than 512 bytes")
	errGSOPacket  = errors.New("segment frame: not the whole TCP or UDP packet that the GSO type says")
	errGSOCsum    = errors.New("segment frame: checksum offsets are not those of the TCP or UDP header")
)

// Finisher does in software what a port without offloads can't be asked to do:
// it completes checksums and cuts GSO frames into segments, or fragments. It writes copies of
// its own; the frames it is given stay as they are, and as they may be a
// guest's memory their headers are read once.
//
// The zero value is ready. One goroutine uses it. Its buffers grow to what the
// largest batch between two Resets needs, and then it allocates no more.
type Finisher struct {
	buf    []byte
	frames []Frame
}

// Reset takes back the memory of everything Finish returned.
func (x *Finisher) Reset() { x.buf, x.frames = x.buf[:0], x.frames[:0] }

// Finish appends to dst what goes out for o by a port with offloads to: o
// itself if the port takes it, else plain frames, more than one if o is to be
// segmented. They wear o's tags and are valid until Reset. The header's HdrLen
// is not looked at.
//
// An error means that the header does not fit the frame; then nothing was
// appended, and the frame can only be dropped.
func (x *Finisher) Finish(o Out, to Offloads, dst []Out) ([]Out, error) {
	if to.Takes(o.Hdr) {
		return append(dst, o), nil
	}
	if len(o.Data) < HeaderLen+int(o.Strip) {
		return dst, errRunt
	}
	switch o.Hdr.GSOType {
	case GSONone:
		return x.complete(o, dst)
	case GSOUDP:
		return x.fragment(o, dst)
	}
	return x.segment(o, dst)
}

// complete appends a copy of o with its checksum completed.
func (x *Finisher) complete(o Out, dst []Out) ([]Out, error) {
	n := untaggedLen(o.Frame)
	start := int(o.Hdr.CsumStart) - int(o.Strip)
	field := start + int(o.Hdr.CsumOffset)
	// Addresses and tag were judged already: a checksum stored over them would
	// make another frame of it.
	if start < HeaderLen || field+2 > n {
		return dst, errCsumPlace
	}
	b := x.alloc(n)
	p := piecesOf(o.Frame)
	p.read(b)
	o.judged(b)
	putChecksum(b[field:], sum(0, b[start:]))
	return append(dst, x.plain(o, b)), nil
}

// judged puts the Ethernet header that was judged into b, which was read from o
// without its tag.
func (o *Out) judged(b []byte) {
	var ether [HeaderLen]byte
	if o.Header == nil {
		return
	}
	o.Header.Put(ether[:])
	if o.Strip != 0 {
		copy(b, ether[:12]) // the EtherType was a tag's
	} else {
		copy(b, ether[:])
	}
}

// alloc returns n bytes that are valid until Reset.
func (x *Finisher) alloc(n int) []byte {
	i := len(x.buf)
	if cap(x.buf)-i < n {
		// What was handed out of the old buffer keeps it alive.
		x.buf = make([]byte, 0, max(n, min(2*cap(x.buf), 8<<20), 4<<10))
		i = 0
	}
	x.buf = x.buf[:i+n]
	return x.buf[i : i+n : i+n]
}

// plain is o with bytes b in place of its own and nothing left to do.
func (x *Finisher) plain(o Out, b []byte) Out {
	if len(x.frames) == cap(x.frames) {
		x.frames = make([]Frame, 0, max(16, min(2*cap(x.frames), 1<<16)))
	}
	x.frames = append(x.frames, Frame{Data: b, Tag: o.Frame.Tag})
	return Out{Frame: &x.frames[len(x.frames)-1], EgressTag: o.EgressTag}
}

// untaggedLen is the frame's length without Tag.
func untaggedLen(f *Frame) int {
	n := f.Len()
	if f.Tag != 0 {
		n -= TagLen
	}
	return n
}

// pieces reads a frame's bytes one after the other, without Tag.
type pieces struct {
	cur, next []byte
	rest      [][]byte
}

func piecesOf(f *Frame) pieces {
	return pieces{cur: f.Data[:12], next: f.Data[12+int(f.Strip):], rest: f.Rest}
}

// read copies the next len(b) bytes to b and returns how many there were.
func (p *pieces) read(b []byte) (n int) {
	for {
		m := copy(b[n:], p.cur)
		p.cur = p.cur[m:]
		n += m
		if n == len(b) || !p.turn() {
			return n
		}
	}
}

// skip leaves out the next n bytes.
func (p *pieces) skip(n int) {
	for {
		m := min(n, len(p.cur))
		p.cur = p.cur[m:]
		n -= m
		if n == 0 || !p.turn() {
			return
		}
	}
}

// turn goes to the next piece, if there is one.
func (p *pieces) turn() bool {
	switch {
	case p.next != nil:
		p.cur, p.next = p.next, nil
	case len(p.rest) > 0:
		p.cur, p.rest = p.rest[0], p.rest[1:]
	default:
		return false
	}
	return true
}
