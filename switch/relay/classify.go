package relay

import (
	"encoding/binary"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// run is what classify found out about frames in a row with the same addresses,
// EtherType and tag, which go the same way: one decision serves them all.
type run struct {
	frames []frame.Frame
	head   frame.Header
	header *frame.Header // head, if their memory is shared with who sent them
	src    fdb.Key       // VLAN and source
	dst    fdb.Key       // VLAN and destination
	tag    frame.Tag     // the tag they wear where they leave tagged
	vid    uint16
	trim   uint8 // bytes of VLAN tags that their length counts and may exceed the limit by
}

// header is what the frames of a run have in common, as they came.
type header struct {
	frame.Header
	tag frame.Tag
}

// parse reads a frame's header, of which Data holds all. Each address is read
// once: a guest may rewrite it at any time, and what was checked must be what is
// used.
func parse(f *frame.Frame) header {
	d := f.Data
	return header{frame.Header{Dst: binary.LittleEndian.Uint64(d) & macMask, Tail: binary.LittleEndian.Uint64(d[6:14])}, f.Tag}
}

// src is the source address as a word, see Word.
func (h *header) src() uint64 { return h.Tail & macMask }

// tagged reports whether there is a tag among the bytes.
func (h *header) tagged() bool {
	return h.Tail>>48 == inBandVLAN || h.Tail>>48 == inBandQinQ
}

// The EtherTypes of tags as the last two bytes of an eight-byte little-endian
// load show them.
const (
	inBandVLAN = frame.EtherTypeVLAN>>8 | frame.EtherTypeVLAN&0xff<<8
	inBandQinQ = frame.EtherTypeQinQ>>8 | frame.EtherTypeQinQ&0xff<<8
)

// classify is the first pass: it drops what no port may have, and finds each
// frame's VLAN. It returns the frames that go on, in runs.
func (r *Relay) classify(in uint16, p *Port, c *Counters, frames []frame.Frame) []run {
	var bytes uint64
	var open *run // that the next frame may belong to
	var last header
	n := 0
	for i := range frames {
		f := &frames[i]
		bytes += uint64(f.Len())
		if len(f.Data) < frame.HeaderLen {
			r.drop(c, Runt, 1)
			open = nil
			continue
		}
		h := parse(f)
		if open != nil && h == last {
			open.frames = open.frames[:len(open.frames)+1]
			continue
		}
		open = nil
		if why := r.admit(in, p, c, f, &h); why != Pass {
			if why != punted {
				r.drop(c, why, 1)
			}
			continue
		}
		m := &r.runs[n]
		inBand, why := r.assign(p, m, i, f, &h)
		if why == Pass && !p.Learning {
			why = PortState
		}
		if why != Pass {
			r.drop(c, why, 1)
			continue
		}
		m.frames = frames[i : i+1]
		m.src, m.dst = fdb.WordKey(h.src(), m.vid), fdb.WordKey(h.Dst, m.vid)
		n++
		if !inBand { // else the tag is not in the header compared, or was moved
			open, last = m, h
		}
	}
	c.rxFrames.add(uint64(len(frames)))
	c.rxBytes.add(bytes)
	return r.runs[:n]
}

// punted is no reason to drop a frame: linkLocal has taken it, and counted it if
// it was dropped there.
const punted = NumReasons

// admit judges a frame by its addresses alone (802.1Q 8.6.1, 8.6.3). Frames to
// the reserved addresses are taken out here. Those to the bridges' own are not
// while there is no tree: then switches beside this one must see a loop that
// leads through it.
func (r *Relay) admit(in uint16, p *Port, c *Counters, f *frame.Frame, h *header) Reason {
	src := h.src()
	if src&1 != 0 || src == 0 {
		if src == 0 {
			return ZeroSource
		}
		return GroupSource
	}
	if h.Dst&^linkLocalBits == wordSTP && (h.Dst != wordSTP || r.view.Spanning || p.NoBPDU) {
		r.linkLocal(in, p, c, f, h.Dst)
		return punted
	}
	if src == r.view.Own && in != HostPort {
		r.trouble(p, OwnAddress)
		return OwnSource
	}
	return Pass
}

// assign finds the VLAN of the frame at place i of its batch, and the tag that
// it wears where it leaves tagged, and fills in what m has of them. inBand says
// that there was or is a tag among the bytes.
func (r *Relay) assign(p *Port, m *run, i int, f *frame.Frame, h *header) (inBand bool, why Reason) {
	m.head, m.header = h.Header, nil
	if p.Shared {
		m.header = &m.head
	}
	inBand = h.tagged()
	m.trim = 0
	if f.Tag != 0 || inBand {
		// As the kernel's is_skb_forwardable has it: the outermost tag doesn't count,
		// and what is behind it may be longer by another one.
		m.trim = 2 * frame.TagLen
	}
	m.vid = frame.DefaultVID
	if !r.view.Filtering {
		m.tag = f.Tag
		return inBand, Pass
	}
	etherType := uint16(h.Tail>>56) | uint16(h.Tail>>48)<<8
	if f.Tag != 0 && (f.Tag.TPID() != frame.EtherTypeVLAN || p.Tunnel) {
		etherType = f.Tag.TPID() // what stands in front of the rest from now on
		inBand = true
		r.putInBand(i, f, &h.Header)
		m.header = nil
	}
	return inBand, m.assignVLAN(p, f, etherType)
}

// assignVLAN finds the frame's VLAN by its tag or the port's PVID and checks
// that the port may take it (802.1Q 6.9, 8.6.2). An in-band tag is taken into
// f.Tag.
func (m *run) assignVLAN(p *Port, f *frame.Frame, etherType uint16) Reason {
	if f.Tag == 0 && etherType == frame.EtherTypeVLAN && !p.Tunnel {
		if len(f.Data) < frame.HeaderLen+frame.TagLen {
			return Runt
		}
		if h := &f.Hdr; h.Flags&frame.HdrNeedsCsum != 0 && h.CsumStart < frame.HeaderLen+frame.TagLen {
			return Runt // without the tag it would start in the Ethernet header
		}
		f.Tag = frame.Tag(binary.BigEndian.Uint32(f.Data[12:16]))&0xffff | frame.EtherTypeVLAN<<16
		f.Strip = frame.TagLen
	}
	vid := f.Tag.VID()
	switch {
	case vid == 0:
		if p.PVID == 0 {
			return VLANUntagged
		}
		vid = p.PVID
	case vid == 0xfff:
		return VLANReserved
	case p.UntaggedOnly:
		return VLANTagged
	}
	if !p.Member.Has(vid) {
		return VLANMember
	}
	m.vid = vid
	// A priority tag's priority lives on (802.1Q 6.9.3); an untagged frame gets 0.
	m.tag = f.Tag&0xf000 | frame.EtherTypeVLAN<<16 | frame.Tag(vid)
	return Pass
}

// putInBand writes an out-of-band tag that is payload to this switch — another
// TPID, or a customer's tag on a tunnel port — before the rest of the bytes, in
// the relay's own memory: a frame can wear only one tag beside it.
func (r *Relay) putInBand(i int, f *frame.Frame, h *frame.Header) {
	head := &r.heads[i]
	h.Put(head[:])
	copy(head[16:], head[12:14])
	binary.BigEndian.PutUint32(head[12:16], uint32(f.Tag))
	rest := append(r.rests[i][:0], f.Data[14:])
	r.rests[i] = append(rest, f.Rest...)
	o := frame.Out{Frame: f, EgressTag: f.Tag}
	f.Hdr = o.WireHdr()
	f.Data, f.Rest, f.Tag = head[:], r.rests[i], 0
}
