package relay

import (
	"github.com/kvswitch/kvswitch/switch/frame"
)

// plan collects what leaves by one port.
type plan struct {
	n     int
	bytes uint64
	full  uint64 // the batch in which the port last had no room
	out   [frame.BatchSize]frame.Out
}

// emit puts a run on the plan of port n.
func (r *Relay) emit(n uint16, out *Port, m *run) {
	tag := m.tag
	if tag != 0 && r.view.Filtering && out.Untagged.Has(m.vid) {
		tag = 0
	}
	retag := 0 // what the change of tags adds to a frame's length
	if m.frames[0].Tag != 0 {
		retag -= frame.TagLen
	}
	if tag != 0 {
		retag += frame.TagLen
	}
	p := r.plans[n]
	for i := range m.frames {
		f := &m.frames[i]
		length := f.Len()
		size := uint32(length) - uint32(m.trim)
		if size > out.MaxLen && !fits(&f.Hdr, out.MaxLen) {
			r.drop(r.counters(out), EgressMTU, 1)
			continue
		}
		if r.trace != nil {
			r.trace.emit(n, out, f, tag)
			continue
		}
		if h := &f.Hdr; h.Flags&frame.HdrNeedsCsum != 0 || h.GSOType != frame.GSONone {
			if needs(*h)&^out.offers != 0 {
				r.emitFinished(n, out, frame.Out{Frame: f, EgressTag: tag, Header: m.header})
				continue
			}
		}
		if p.n == 0 {
			r.dirty = append(r.dirty, n)
		} else if p.n == len(p.out) {
			r.send(n, out)
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
	switch h.GSOType &^ (frame.GSOECN | frame.GSOTunnel) {
	case frame.GSOTCPv4, frame.GSOTCPv6:
		return uint32(h.CsumStart)+20+uint32(h.GSOSize) <= limit+frame.TagLen
	case frame.GSOUDPL4:
		return uint32(h.CsumStart)+8+uint32(h.GSOSize) <= limit+frame.TagLen
	case frame.GSOUDP:
		return uint32(h.CsumStart)+uint32(h.GSOSize) <= limit+frame.TagLen
	}
	return false
}

// emitFinished sends a frame to a port that can't be given it as it is: the
// slow way, in copies with checksums completed and segments cut. What waits for
// the port goes first, so order is kept. A port that was full in this batch is
// spared the work.
func (r *Relay) emitFinished(n uint16, out *Port, o frame.Out) {
	p := r.plans[n]
	r.send(n, out)
	if p.full == r.batch {
		r.drop(r.counters(out), EgressFull, 1)
		return
	}
	finished, err := r.finisher.Finish(o, out.Offloads, r.finished[:0])
	if err != nil {
		r.drop(r.counters(out), EgressOffload, 1)
	}
	r.segments += len(finished)
	for len(finished) > 0 && err == nil {
		for p.n < len(p.out) && p.n < len(finished) {
			p.out[p.n] = finished[p.n]
			p.bytes += uint64(finished[p.n].Len())
			p.n++
		}
		finished = finished[p.n:]
		r.send(n, out)
	}
	r.finisher.Reset()
}

// send is the last pass for one port: it hands the plan to the port and empties
// it. What the port has no room for is dropped: the switch never waits for a
// slow one.
func (r *Relay) send(n uint16, out *Port) {
	p := r.plans[n]
	if p.n == 0 {
		return
	}
	c := r.counters(out)
	sent := out.Tx.Tx(r.id, p.out[:p.n])
	if sent < p.n {
		p.full = r.batch
		for i := sent; i < p.n; i++ {
			p.bytes -= uint64(p.out[i].Len())
		}
		c.drops[EgressFull].add(uint64(p.n - sent))
	}
	c.txFrames.add(uint64(sent))
	c.txBytes.add(p.bytes)
	p.n, p.bytes = 0, 0
}
