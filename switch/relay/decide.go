package relay

import (
	"github.com/kvswitch/kvswitch/fdb"
)

// learn is the second pass: it learns each run's source (802.1Q 8.7), and
// returns the runs that may go on.
func (r *Relay) learn(in uint16, p *Port, c *Counters, runs []run) []run {
	dest := fdb.Dest{Port: in, Gen: p.Gen}
	var last fdb.Key
	n := 0
	for i := range runs {
		m := &runs[i]
		if p.Extra != 0 {
			if why := r.extra(m, dest, p); why != Pass {
				r.drop(c, why, len(m.frames))
				continue
			}
		}
		if p.Learn && m.src != last {
			last = m.src
			if r.trace != nil {
				r.trace.source(m.src, dest, r)
			} else {
				switch res, from := r.table.Learn(m.src, dest); res {
				case fdb.Added, fdb.Moved:
					r.control.Learned(r.view, m.src, in, res == fdb.Moved, from)
				case fdb.Full:
					r.trouble(p, TableFull)
				case fdb.PortFull:
					r.trouble(p, PortFull)
				}
			}
		}
		if !p.Forward {
			r.drop(c, PortState, len(m.frames))
			continue
		}
		if n != i {
			runs[n] = *m
			if m.header != nil {
				runs[n].header = &runs[n].head // not that of a place that is used again
			}
		}
		n++
	}
	return runs[:n]
}

// extra takes a run through the steps that only some ports have.
func (r *Relay) extra(m *run, dest fdb.Dest, p *Port) Reason {
	if p.Extra&ExtraLocked != 0 {
		if d, ok := r.table.Lookup(m.src); !ok || d.Port != dest.Port || d.Gen != dest.Gen {
			return Locked
		}
	}
	return Pass
}

// lookup remembers the last station looked up in a batch: frames of one flow
// come in a row.
type lookup struct {
	key   fdb.Key
	dest  fdb.Dest
	known bool
}

// decide is the third pass: where one run goes (802.1Q 8.6.3, 8.6.4).
func (r *Relay) decide(in uint16, p *Port, c *Counters, m *run, last *lookup) {
	v := r.view
	vl := &v.flat
	if v.Filtering {
		if vl = v.vlans[m.vid]; vl == nil {
			r.drop(c, NoEgress, len(m.frames))
			return
		}
	}
	class := Unknown
	if dst := uint64(m.dst) & macMask; dst&1 != 0 {
		class = Multicast
		if dst == wordBroadcast {
			class = Broadcast
		}
	} else {
		if m.dst != last.key {
			last.key = m.dst
			last.dest, last.known = r.table.Lookup(m.dst)
			if r.trace != nil && m.dst == m.src && p.Learn {
				last.dest, last.known = r.trace.at, true // it would just have been learned
			}
		}
		if d := last.dest; last.known && int(d.Port) < len(v.Ports) {
			// An entry of another generation was flushed: the station is unknown.
			if out := &v.Ports[d.Port]; out.Tx != nil && d.Gen == out.Gen {
				if r.trace != nil {
					r.trace.found(m.dst, d, r)
				}
				if why := egress(v, p, out, m, in == d.Port); why != Pass {
					r.drop(c, why, len(m.frames))
					return
				}
				r.emit(d.Port, out, m)
				return
			}
		}
	}
	r.flood(in, p, c, m, vl.flood[class], class)
}

// flood sends a run by every port of a list that may have it.
func (r *Relay) flood(in uint16, p *Port, c *Counters, m *run, list []uint16, class Class) {
	v := r.view
	if r.trace != nil {
		r.trace.flood(m.dst, class, r)
	}
	sent := false
	for _, n := range list {
		out := &v.Ports[n]
		if why := egress(v, p, out, m, n == in); why != Pass {
			if r.trace != nil {
				r.trace.refuse(n, why)
			}
			continue
		}
		r.emit(n, out, m)
		sent = true
	}
	if !sent {
		r.drop(c, NoEgress, len(m.frames))
	}
}

// egress is why a run that came in by port in does not leave by out, or Pass:
// the one predicate of egress, for a station's port and for those of a flood.
// same says that they are one port.
func egress(v *View, in, out *Port, m *run, same bool) Reason {
	switch {
	case same && !in.Hairpin:
		return SamePort
	case !out.Forward:
		return EgressState
	case in.Isolated && out.Isolated:
		return Isolated
	case v.Filtering && !out.Member.Has(m.vid):
		return EgressVLAN
	}
	return Pass
}
