package fdb

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
)

// oracle says what a Table must do: a map under a mutex, with nothing clever.
// It keeps expired entries until the table reports them aged, and checks that
// this is in time.
type oracle struct {
	mu      sync.Mutex
	entries map[Key]*known
	gens    map[uint16]uint16
	limits  map[uint16]int
	max     int
	ageing  uint32
	now     uint32
}

type known struct {
	port    uint16
	kind    Kind
	heard   uint32
	overdue int // sweeps that should have met it by now
}

func newOracle(max int, ageing uint32) *oracle {
	return &oracle{entries: map[Key]*known{}, gens: map[uint16]uint16{}, limits: map[uint16]int{}, max: max, ageing: ageing}
}

func (o *oracle) expired(e *known) bool {
	return e.kind == Dynamic && (o.ageing == 0 || o.now-e.heard > o.ageing)
}

func (o *oracle) count(match func(*known) bool) (n int) {
	for _, e := range o.entries {
		if match(e) {
			n++
		}
	}
	return n
}

func (o *oracle) learned() int { return o.count(func(e *known) bool { return e.kind == Dynamic }) }

func (o *oracle) learnedOn(port uint16) int {
	return o.count(func(e *known) bool { return e.kind == Dynamic && e.port == port })
}

func (o *oracle) lookup(k Key) (uint16, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.entries[k]; e != nil && !o.expired(e) {
		return e.port, true
	}
	return 0, false
}

// yields are the ports of which one has to give up an entry for a new one on
// port, where ports have so many: those that have most, if they have no less
// than port then, or port itself. MaxPorts stands for one that comes before all.
func yields(has map[uint16]int, port uint16) (ports []uint16) {
	own, most := has[port], 0
	for p, n := range has {
		if n > most {
			ports, most = nil, n
		}
		if n == most {
			ports = append(ports, p)
		}
	}
	switch {
	case most > own+1 || port == MaxPorts:
		return ports
	case own > 0:
		return []uint16{port}
	}
	return nil
}

// mustYield is what yields says of the whole table, but that a port which has
// its share takes from nobody else.
func (o *oracle) mustYield(port uint16) []uint16 {
	has := map[uint16]int{}
	for _, e := range o.entries {
		if e.kind == Dynamic {
			has[e.port]++
		}
	}
	if own := has[port]; own > 0 && own >= o.max/len(has) {
		return []uint16{port}
	}
	return yields(has, port)
}

// learn does what Learn does; evicted says that room was made.
func (o *oracle) learn(k Key, d Dest, evicted bool) (Result, uint16) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries[k]
	atLimit := o.limits[d.Port] > 0 && o.learnedOn(d.Port) >= o.limits[d.Port]
	switch {
	case d.Gen != o.gens[d.Port]:
		return Stale, 0
	case o.ageing == 0:
		return Off, 0
	case e == nil && atLimit:
		return PortFull, 0
	case e == nil && o.learned() >= o.max && !evicted:
		return Full, 0
	case e == nil:
		o.entries[k] = &known{port: d.Port, kind: Dynamic, heard: o.now}
		return Added, 0
	case e.kind != Dynamic && e.port != d.Port:
		return Fixed, 0
	case e.kind != Dynamic:
		return Known, 0
	case e.port == d.Port:
		e.heard, e.overdue = o.now, 0
		return Known, 0
	case atLimit:
		return PortFull, 0
	}
	prev := e.port
	*e = known{port: d.Port, kind: Dynamic, heard: o.now}
	return Moved, prev
}

func (o *oracle) set(k Key, port uint16, kind Kind) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries[k] = &known{port: port, kind: kind}
}

func (o *oracle) delete(k Key) (Entry, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries[k]
	if e == nil || o.expired(e) {
		return Entry{}, false
	}
	delete(o.entries, k)
	return o.entry(k, e), true
}

func (o *oracle) entry(k Key, e *known) Entry {
	x := Entry{MAC: k.MAC(), VID: k.VID(), Port: e.port, Kind: e.kind}
	if e.kind == Dynamic {
		x.Age = o.now - e.heard
	}
	return x
}

// remove forgets what matches and returns how many of it were not expired.
func (o *oracle) remove(match func(Key, *known) bool) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, e := range o.entries {
		if match(k, e) {
			if !o.expired(e) {
				n++
			}
			delete(o.entries, k)
		}
	}
	return n
}

func (o *oracle) flush(port uint16) {
	o.gens[port]++
	o.remove(func(_ Key, e *known) bool { return e.kind == Dynamic && e.port == port })
}

func (o *oracle) list() []Entry {
	all := []Entry{}
	for k, e := range o.entries {
		if !o.expired(e) {
			all = append(all, o.entry(k, e))
		}
	}
	slices.SortFunc(all, func(a, b Entry) int {
		return cmp.Or(bytes.Compare(a.MAC[:], b.MAC[:]), cmp.Compare(a.VID, b.VID))
	})
	return all
}
