package fdb

// A full table makes room. When it holds its limit of learned entries and a new
// station is heard, an old one goes:
//
//   - A port that has its share or more, which is the limit divided by the number
//     of ports that have any, gives up one of its own.
//   - For a port with less the port that has most gives up one, unless it would
//     then have less than the other.
//
// So a guest that floods the switch with addresses pushes out its own, and a
// port with no more than its share loses none, whatever others do. (The simpler
// rule, to take from the port that has most in any case, would let one guest
// have half of the table, at the cost of an uplink.)
//
// Which of the port's entries goes is a matter of age: of the first few that a
// hand meets on its way round the table, the one that was not heard for longest.
// To know the oldest for certain, every frame would have to mend a list. An
// expired entry goes at once, whoever's it is. Static and local ones never go.
//
// A table that is not full may still have no free slot in the three buckets of a
// new station, by a chance of one in billions or by design. Then the port that
// has most of these slots gives up its oldest there; if it would then have less
// of them than the new station's port, this one gives up its own.
//
// An eviction takes the lock that every insert takes, and a look at a dozen
// cache lines in a row, or some dozens. Lest a flood have the switch do nothing
// else, a port causes a bounded number a second; beyond, it is refused without
// the lock.

const (
	// evictSample is the number of the port's entries of which the oldest goes.
	evictSample = 8

	// evictReach is the number of buckets that the hand passes for one eviction
	// at most: 16 KiB. Where it finds none of the port's there, the station is not
	// learned, and its next frame tries from there on: of a port with a 64th of a
	// full table's entries it finds one nearly always, and mostly in a quarter of
	// that, beyond which it does not look for others.
	evictReach = 256

	// evictionsPerSecond is how many evictions a port may cause: the stations of
	// a large network behind it are learned within seconds, and a flood costs
	// some thousandth of a core.
	evictionsPerSecond = 1024

	// rankedPorts is the number of ports whose counts an eviction looks at to
	// find the one that holds most. Where there are more, that port is looked
	// for less often.
	rankedPorts = 64
)

// standing is what evictions know about the ports, and where they go on.
type standing struct {
	share    int32
	good     int32 // number of evictions for which share and heaviest are good enough
	hand     int32 // the next bucket it looks at
	heaviest uint16
}

// OnEvict has f called with each entry that gives way to another, by the
// goroutine whose call of Learn or Set made it go, when it has gone. f must not
// block. OnEvict itself is called before the table is used.
func (t *Table) OnEvict(f func(Entry)) { t.onEvict = f }

// Evictions is the number of entries that gave way to others.
func (t *Table) Evictions() uint64 { return t.evictions.Load() }

// spent reports that the port has caused as many evictions as it may this second.
func (t *Table) spent(port uint16, c clock) bool {
	v := t.ports[port%MaxPorts].evictions.Load()
	return uint32(v>>32) == c.now() && uint32(v) >= evictionsPerSecond
}

// spend counts one eviction of what the port may cause, or says that it may not.
// The caller holds mu.
func (t *Table) spend(port uint16, c clock) bool {
	if t.spent(port, c) {
		return false
	}
	p := &t.ports[port%MaxPorts].evictions
	v := p.Load()
	if uint32(v>>32) != c.now() {
		v = uint64(c.now()) << 32
	}
	p.Store(v + 1)
	return true
}

// loser is the port that gives up an entry for a new one on port p; false if
// none has to. The caller holds mu.
func (t *Table) loser(p uint16) (uint16, bool) {
	st := &t.standing
	if st.good--; st.good < 0 || t.PortLen(st.heaviest) < int(st.share) {
		t.rank()
	}
	own := t.PortLen(p)
	if own < int(st.share) && t.PortLen(st.heaviest) > own+1 {
		return st.heaviest, true
	}
	return p, own > 0
}

// rank looks which port holds most, and what a share is.
func (t *Table) rank() {
	most, holders, ports := 0, 0, int(t.top.Load())+1
	t.standing.heaviest = 0
	for port := range ports {
		n := t.PortLen(uint16(port))
		if n > 0 {
			holders++
		}
		if n > most {
			most, t.standing.heaviest = n, uint16(port)
		}
	}
	t.standing.share = int32(max(1, int(t.max.Load())/max(1, holders)))
	t.standing.good = int32(ports / rankedPorts)
}

// evict frees a slot anywhere in the table for a new entry on port p. The caller
// holds mu.
func (t *Table) evict(p uint16, c clock) gone {
	from, ok := t.loser(p)
	if !ok {
		return gone{}
	}
	var oldest found
	st := &t.standing
	for looked, met := 0, 0; looked < evictReach && met < evictSample; looked++ {
		if looked >= evictReach/4 && met > 0 {
			break
		}
		b, used := t.used.next(int(st.hand))
		if st.hand = int32(b); !used {
			continue
		}
		st.hand = int32((b + 1) % len(t.all))
		for j := range t.all[b] {
			f := found{b, &t.all[b][j], word(t.all[b][j].val.Load())}
			switch {
			case c.expired(f.v) && t.live(f.v):
				return t.displace(f)
			case f.v.port() == from && f.v.kind() == Dynamic && t.live(f.v):
				met++
				oldest = oldest.older(f, c)
			}
		}
	}
	return t.displace(oldest)
}

// evictHome frees one of the slots of the three buckets of k, none of which is
// free, for an entry on port p; p is MaxPorts for one that everybody has to give
// way to. The caller holds mu.
func (t *Table) evictHome(k Key, p uint16, c clock) (b int, s *Slot, out gone) {
	var all [12]found
	n := 0
	for _, b := range t.homes(k) {
		for j := range t.all[b] {
			v := word(t.all[b][j].val.Load())
			if v.kind() != Dynamic {
				continue
			}
			all[n] = found{b, &t.all[b][j], v}
			if c.expired(v) {
				return b, all[n].s, t.displace(all[n])
			}
			n++
		}
	}
	here := func(port uint16) (has int) {
		for _, f := range all[:n] {
			if f.v.port() == port {
				has++
			}
		}
		return has
	}
	own := here(p)
	from, most := p, own
	for _, f := range all[:n] {
		if has := here(f.v.port()); has > most && (has > own+1 || p == MaxPorts) {
			from, most = f.v.port(), has
		}
	}
	var oldest found
	for _, f := range all[:n] {
		if f.v.port() == from {
			oldest = oldest.older(f, c)
		}
	}
	return oldest.b, oldest.s, t.displace(oldest)
}

// found is an entry that may have to go, or none.
type found struct {
	b int
	s *Slot
	v word
}

// older is the one of f and g that was not heard for longer.
func (f found) older(g found, c clock) found {
	if f.s == nil || c.age(g.v) > c.age(f.v) {
		return g
	}
	return f
}

// gone is an entry that was displaced, or none.
type gone struct {
	k Key
	v word
}

// displace frees the slot of f, unless its entry has moved to another port since
// it was found. The caller holds mu.
func (t *Table) displace(f found) (out gone) {
	if f.s == nil {
		return gone{}
	}
	k := Key(f.s.key.Load())
	ok := t.vacate(f.b, f.s, func(v word) bool {
		out = gone{k, v}
		return v.kind() != Dynamic || v.port() != f.v.port()
	})
	if !ok {
		return gone{}
	}
	t.evictions.Add(1)
	return out
}

// report tells who wants to know what gave way. The caller does not hold mu.
func (t *Table) report(out gone, c clock) {
	if out != (gone{}) && t.onEvict != nil {
		t.onEvict(makeEntry(out.k, out.v, c))
	}
}
