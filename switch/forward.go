package vswitch

import (
	"encoding/binary"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// The forwarding decision, in the order of 802.1Q clause 8.6: a batch of frames
// from one queue is classified and learned, then looked up, then sent, one call
// per egress port. Frames never leave this goroutine and are never copied here.

// meta is what classify found out about a run, all that the later passes need. A
// run is frames in a row with the same addresses, EtherType and tag, which go the
// same way: one decision serves them all.
type meta struct {
	frames []frame.Frame
	head   frame.Header
	header *frame.Header // head, if their memory is shared with who sent them
	src    fdb.Key       // VLAN and source
	dst    fdb.Key       // VLAN and destination
	tag    frame.Tag     // the tag they wear where they leave tagged
	vid    uint16
	trim   uint8 // bytes of VLAN tag that their length counts
}

// header is what the frames of a run have in common, as they came.
type header struct {
	frame.Header
	tag frame.Tag
}

// plan collects what leaves by one port.
type plan struct {
	n     int
	bytes uint64
	full  uint64 // the batch in which the port last had no room
	out   [frame.BatchSize]frame.Out
}

// forward takes a batch that came in by port number in through the switch. The
// frames are borrowed until it returns.
func (w *worker) forward(v *view, in uint16, frames []frame.Frame) {
	pv := &v.ports[in]
	c := &pv.port.counters[w.id]
	w.batch++
	metas := w.classify(v, in, pv, c, frames)
	if len(metas) >= crowd {
		for i := range metas {
			w.sw.table.Touch(metas[i].src)
			w.sw.table.Touch(metas[i].dst)
		}
	}
	metas = w.learn(in, pv, c, metas)
	var station lookup
	for i := range metas {
		w.decide(v, in, pv, c, &metas[i], &station)
	}
	for _, out := range w.dirty {
		w.flush(v, out)
	}
	w.dirty = w.dirty[:0]
}

// crowd is the number of runs in a batch from which on it is worth fetching all
// their stations' places in the table first: one after the other, each of many
// stations costs two or three cache misses, of which the processor does a dozen
// at a time if it knows of them.
const crowd = 8

// classify is the first pass: drop what no port may have, and find each frame's
// VLAN. It returns the frames that go on, in runs.
func (w *worker) classify(v *view, in uint16, pv *portView, c *portCounters, frames []frame.Frame) []meta {
	var bytes uint64
	var run *meta // that the next frame may belong to
	var last header
	n := 0
	for i := range frames {
		f := &frames[i]
		bytes += uint64(f.Len())
		d := f.Data
		if len(d) < frame.HeaderLen {
			c.drop(DropRunt, 1)
			run = nil
			continue
		}
		// Each address is read once: a guest may rewrite it at any time, and
		// what was checked must be what is used.
		h := header{frame.Header{Dst: binary.LittleEndian.Uint64(d) & macMask, Tail: binary.LittleEndian.Uint64(d[6:14])}, f.Tag}
		if run != nil && h == last {
			run.frames = run.frames[:len(run.frames)+1]
			continue
		}
		run = nil
		src := h.Tail & macMask
		if src&1 != 0 || src == 0 {
			c.drop(sourceReason(src), 1)
			continue
		}
		if h.Dst&^linkLocalBits == wordSTP {
			w.linkLocal(v, in, c, f, h.Dst) // from this switch, too: that is how it finds its own loops
			continue
		}
		if src == v.own && in != hostPort {
			c.drop(DropOwnSource, 1)
			continue
		}
		m := &w.metas[n]
		m.head, m.header = h.Header, nil
		if pv.shared {
			m.header = &m.head
		}
		inBand := h.Tail>>48 == inBandVLAN || h.Tail>>48 == inBandQinQ
		m.trim = 0
		if f.Tag != 0 || inBand {
			m.trim = frame.TagLen
		}
		m.vid = DefaultVID
		if v.filtering {
			etherType := uint16(h.Tail>>56) | uint16(h.Tail>>48)<<8
			if f.Tag != 0 && (f.Tag.TPID() != frame.EtherTypeVLAN || pv.tunnel) {
				etherType = f.Tag.TPID() // what stands in front of the rest from now on
				inBand = true
				w.putInBand(i, f, &h.Header)
				m.header = nil
			}
			if r := m.assignVLAN(pv, f, etherType); r != numReasons {
				c.drop(r, 1)
				continue
			}
		} else {
			m.tag = f.Tag
		}
		if !pv.learning {
			c.drop(DropPortState, 1)
			continue
		}
		m.frames = frames[i : i+1]
		m.src, m.dst = fdb.WordKey(src, m.vid), fdb.WordKey(h.Dst, m.vid)
		n++
		if !inBand { // else the tag is not in the header compared, or was moved
			run, last = m, h
		}
	}
	c.rxFrames.add(uint64(len(frames)))
	c.rxBytes.add(bytes)
	return w.metas[:n]
}

// learn is the second pass: it learns each run's source, and returns the runs
// that may go on.
func (w *worker) learn(in uint16, pv *portView, c *portCounters, metas []meta) []meta {
	dest := fdb.Dest{Port: in, Gen: pv.gen}
	var last fdb.Key
	n := 0
	for i := range metas {
		m := &metas[i]
		if pv.locked && !w.knows(m.src, in, pv) {
			c.drop(DropLocked, len(m.frames))
			continue
		}
		if pv.learn && m.src != last {
			last = m.src
			if r, from := w.sw.table.Learn(m.src, dest); r != fdb.Known {
				w.learned(r, m.src, in, from)
			}
		}
		if !pv.forward {
			c.drop(DropPortState, len(m.frames))
			continue
		}
		if n != i {
			metas[n] = *m
			if m.header != nil {
				metas[n].header = &metas[n].head // not that of a place that is used again
			}
		}
		n++
	}
	return metas[:n]
}

// The EtherTypes of tags as the last two bytes of an eight-byte little-endian
// load show them.
const (
	inBandVLAN = frame.EtherTypeVLAN>>8 | frame.EtherTypeVLAN&0xff<<8
	inBandQinQ = frame.EtherTypeQinQ>>8 | frame.EtherTypeQinQ&0xff<<8
)

func sourceReason(src uint64) Reason {
	if src == 0 {
		return DropZeroSource
	}
	return DropGroupSource
}

// assignVLAN finds the frame's VLAN by its tag or the port's PVID and checks
// that the port may take it (802.1Q 6.9, 8.6.2). It returns numReasons, or why
// the frame is dropped. An in-band tag is taken into f.Tag.
func (m *meta) assignVLAN(pv *portView, f *frame.Frame, etherType uint16) Reason {
	if f.Tag == 0 && etherType == frame.EtherTypeVLAN && !pv.tunnel {
		if len(f.Data) < frame.HeaderLen+frame.TagLen {
			return DropRunt
		}
		if h := &f.Hdr; h.Flags&frame.HdrNeedsCsum != 0 && h.CsumStart < frame.HeaderLen+frame.TagLen {
			return DropRunt // without the tag it would start in the Ethernet header
		}
		f.Tag = frame.Tag(binary.BigEndian.Uint32(f.Data[12:16]))&0xffff | frame.EtherTypeVLAN<<16
		f.Strip = frame.TagLen
	}
	vid := f.Tag.VID()
	switch {
	case vid == 0:
		if pv.pvid == 0 {
			return DropVLANUntagged
		}
		vid = pv.pvid
	case vid == 0xfff:
		return DropVLANReserved
	case pv.untaggedOnly:
		return DropVLANTagged
	}
	if !pv.member.Has(vid) {
		return DropVLANMember
	}
	m.vid = vid
	// A priority tag's priority lives on (802.1Q 6.9.3); an untagged frame gets 0.
	m.tag = f.Tag&0xf000 | frame.EtherTypeVLAN<<16 | frame.Tag(vid)
	return numReasons
}

// putInBand writes an out-of-band tag that is payload to this switch — another
// TPID, or a customer's tag on a tunnel port — before the rest of the bytes, in
// the worker's own memory: a frame can wear only one tag beside it.
func (w *worker) putInBand(i int, f *frame.Frame, h *frame.Header) {
	head := &w.heads[i]
	h.Put(head[:])
	copy(head[16:], head[12:14])
	binary.BigEndian.PutUint32(head[12:16], uint32(f.Tag))
	rest := append(w.rests[i][:0], f.Data[14:])
	w.rests[i] = append(rest, f.Rest...)
	o := frame.Out{Frame: f, EgressTag: f.Tag}
	f.Hdr = o.WireHdr()
	f.Data, f.Rest, f.Tag = head[:], w.rests[i], 0
}

// knows reports whether the station key is known to be on port in.
func (w *worker) knows(key fdb.Key, in uint16, pv *portView) bool {
	d, ok := w.sw.table.Lookup(key)
	return ok && d.Port == in && d.Gen == pv.gen
}

// lookup remembers the last station looked up in a batch: frames of one flow
// come in a row.
type lookup struct {
	key   fdb.Key
	dest  fdb.Dest
	known bool
}

// decide is the third pass: where one run goes.
func (w *worker) decide(v *view, in uint16, pv *portView, c *portCounters, m *meta, last *lookup) {
	vl := &v.flat
	if v.filtering {
		if vl = v.vlans[m.vid]; vl == nil {
			c.drop(DropNoEgress, len(m.frames))
			return
		}
	}
	class := classUnknown
	if dst := uint64(m.dst) & macMask; dst&1 != 0 {
		class = classMulticast
		if dst == wordBroadcast {
			class = classBroadcast
		}
	} else {
		if m.dst != last.key {
			last.key = m.dst
			last.dest, last.known = w.sw.table.Lookup(m.dst)
		}
		if d := last.dest; last.known && int(d.Port) < len(v.ports) {
			// An entry of another generation was flushed: the station is unknown.
			if out := &v.ports[d.Port]; out.port != nil && d.Gen == out.gen {
				if r := unicastReason(v, pv, out, m, in == d.Port); r != numReasons {
					c.drop(r, len(m.frames))
					return
				}
				w.emit(d.Port, out, m)
				return
			}
		}
	}
	sent := false
	for _, n := range vl.flood[class] {
		out := &v.ports[n]
		if n == in && !pv.hairpin || pv.isolated && out.isolated {
			continue
		}
		w.emit(n, out, m)
		sent = true
	}
	if !sent {
		c.drop(DropNoEgress, len(m.frames))
	}
}

// unicastReason is why a frame to a known station is not sent to its port, or
// numReasons when it is: the one predicate of egress.
func unicastReason(v *view, in, out *portView, m *meta, same bool) Reason {
	switch {
	case same && !in.hairpin:
		return DropSamePort
	case !out.forward:
		return DropEgressState
	case in.isolated && out.isolated:
		return DropIsolated
	case v.filtering && !out.member.Has(m.vid):
		return DropEgressVLAN
	}
	return numReasons
}

// emit puts a run on the plan of port n.
func (w *worker) emit(n uint16, out *portView, m *meta) {
	tag := m.tag
	if tag != 0 && w.view.filtering && out.untagged.Has(m.vid) {
		tag = 0
	}
	retag := 0 // what the change of tags adds to a frame's length
	if m.frames[0].Tag != 0 {
		retag -= frame.TagLen
	}
	if tag != 0 {
		retag += frame.TagLen
	}
	p := w.plans[n]
	for i := range m.frames {
		f := &m.frames[i]
		length := f.Len()
		size := uint32(length) - uint32(m.trim)
		if size > out.maxLen && !fits(&f.Hdr, out.maxLen) {
			out.port.counters[w.id].drop(DropEgressMTU, 1)
			continue
		}
		if h := &f.Hdr; h.Flags&frame.HdrNeedsCsum != 0 || h.GSOType != frame.GSONone {
			if needs(*h)&^out.offloads != 0 {
				w.emitFinished(n, out, frame.Out{Frame: f, EgressTag: tag, Header: m.header})
				continue
			}
		}
		if p.n == 0 {
			w.dirty = append(w.dirty, n)
		} else if p.n == len(p.out) {
			w.send(n, out, p)
		}
		p.out[p.n] = frame.Out{Frame: f, EgressTag: tag, Header: m.header}
		p.n++
		p.bytes += uint64(length + retag)
	}
}

// fits reports whether a frame longer than limit is one that leaves in
// segments within it. The TCP header counts with its shortest length, so a
// frame is never refused for a header that was not looked at.
func fits(h *frame.VnetHdr, limit uint32) bool {
	switch h.GSOType &^ frame.GSOECN {
	case frame.GSOTCPv4, frame.GSOTCPv6:
		return uint32(h.CsumStart)+20+uint32(h.GSOSize) <= limit+frame.TagLen
	case frame.GSOUDPL4:
		return uint32(h.CsumStart)+8+uint32(h.GSOSize) <= limit+frame.TagLen
	}
	return false
}

// emitFinished sends a frame to a port that can't be given it as it is: the
// slow way, in copies with checksums completed and segments cut. What waits for
// the port goes first, so order is kept. A port that was full in this batch is
// spared the work.
func (w *worker) emitFinished(n uint16, out *portView, o frame.Out) {
	p := w.plans[n]
	if p.n > 0 {
		w.send(n, out, p)
	}
	if p.full == w.batch {
		out.port.counters[w.id].drop(DropEgressFull, 1)
		return
	}
	finished, err := w.finisher.Finish(o, out.caps, w.finished[:0])
	if err != nil {
		out.port.counters[w.id].drop(DropEgressOffload, 1)
	}
	w.segments += len(finished)
	for len(finished) > 0 && err == nil {
		for p.n < len(p.out) && p.n < len(finished) {
			p.out[p.n] = finished[p.n]
			p.bytes += uint64(finished[p.n].Len())
			p.n++
		}
		finished = finished[p.n:]
		w.send(n, out, p)
	}
	w.finisher.Reset()
}

// flush is the last pass for one port.
func (w *worker) flush(v *view, n uint16) {
	if p := w.plans[n]; p.n > 0 {
		w.send(n, &v.ports[n], p)
	}
}

// send hands a plan to its port and empties it. What the port has no room for
// is dropped: the switch never waits for a slow one.
func (w *worker) send(n uint16, out *portView, p *plan) {
	c := &out.port.counters[w.id]
	sent := out.tx.Tx(w.id, p.out[:p.n])
	if sent < p.n {
		p.full = w.batch
		for i := sent; i < p.n; i++ {
			p.bytes -= uint64(p.out[i].Len())
		}
		c.drops[DropEgressFull].add(uint64(p.n - sent))
	}
	c.txFrames.add(uint64(sent))
	c.txBytes.add(p.bytes)
	p.n, p.bytes = 0, 0
}
