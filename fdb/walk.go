package fdb

import (
	"bytes"
	"cmp"
	"math"
	"slices"
)

// sweepParts is the number of parts, one a second, in which the table is swept:
// what has expired is gone within ten seconds, and a sweep does not displace
// more than 256 KiB of a full default table from a core's cache.
const sweepParts = 8

// SetAgeing sets the seconds after which a station that was not heard again is
// forgotten, at most MaxAgeing. It holds for the entries already there. With 0
// nothing is learned and everything learned is forgotten, as the kernel's
// bridge does: the switch floods.
func (t *Table) SetAgeing(seconds uint32) {
	limit := uint32(0)
	if seconds > 0 {
		// One more: an entry stored at the end of its second has its full time.
		limit = min(seconds, MaxAgeing) + 1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.head.clock.Store(uint64(makeClock(clock(t.head.clock.Load()).now(), limit)))
}

// Ageing is the ageing time in seconds.
func (t *Table) Ageing() uint32 {
	if limit := clock(t.head.clock.Load()).limit(); limit > 0 {
		return limit - 1
	}
	return 0
}

// Advance sets the clock to now, in seconds of any clock that does not go back,
// sweeps an eighth of the table's places and calls aged, if not nil, once for each entry
// that it forgot because its time had passed. The owner calls it every second,
// from one goroutine; the seconds it leaves out are swept by the next call. aged
// may call the table, but not Advance.
func (t *Table) Advance(now uint32, aged func(Entry)) {
	c, step := t.tick(now)
	t.sweep(c, int(min(max(step, 1), sweepParts)), aged)
}

// tick moves the clock and returns it and the seconds it moved. The first call
// says where it stands; a step back is none.
func (t *Table) tick(now uint32) (c clock, step uint32) {
	if t.started && now-t.last < 1<<31 {
		step = now - t.last
	}
	if !t.started || step > 0 {
		t.started, t.last = true, now
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c = clock(t.head.clock.Load())
	// A longer step would expire no more entries, but take ages past 2^21.
	c = makeClock(c.now()+min(step, MaxAgeing+1), c.limit())
	t.head.clock.Store(uint64(c))
	return c, step
}

// sweep frees the slots of dead and expired entries in the next parts eighths,
// and returns the number of buckets it looked at.
func (t *Table) sweep(c clock, parts int, aged func(Entry)) (looked int) {
	gone := func(_ Key, v word) bool { return !t.live(v) || c.expired(v) }
	report := func(k Key, v word) {
		if aged != nil && t.live(v) {
			aged(makeEntry(k, v, c))
		}
	}
	for range (len(t.used)*parts + sweepParts - 1) / sweepParts {
		w := t.cursor
		t.cursor = (w + 1) % len(t.used)
		for b := range t.used.in(w) {
			looked++
			t.reap(b, gone, report)
			t.tidy(b)
		}
	}
	return looked
}

// tidy marks bucket b as no longer used if nothing is in it.
func (t *Table) tidy(b int) {
	if !t.all[b].empty() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[b].empty() {
		t.used.clear(b)
	}
}

// reap frees the slots of bucket b whose entries match, and calls reaped for
// each with what was in it, without the lock held.
func (t *Table) reap(b int, match func(Key, word) bool, reaped func(Key, word)) {
	for i := range t.all[b] {
		s := &t.all[b][i]
		v := word(s.val.Load())
		if v.kind() == free || !match(Key(s.key.Load()), v) {
			continue
		}
		t.mu.Lock()
		k, found := Key(s.key.Load()), false
		t.vacate(b, s, func(w word) bool { v, found = w, match(k, w); return !found })
		t.mu.Unlock()
		if found {
			reaped(k, v)
		}
	}
}

// remove reaps all that is in the table and returns the number of entries.
func (t *Table) remove(match func(Key, word) bool) (n int) {
	for b := range t.used.all() {
		t.reap(b, match, func(Key, word) { n++ })
	}
	return n
}

// FlushMatch forgets the dynamic entries of a port and a VLAN, -1 for any, and
// returns how many there were. It walks the table: for a whole port Flush is
// faster, and only Flush stops workers that are about to learn.
func (t *Table) FlushMatch(port, vid int) int {
	c := clock(t.head.clock.Load())
	return t.remove(func(k Key, v word) bool {
		return v.kind() == Dynamic && t.live(v) && !c.expired(v) &&
			(port < 0 || int(v.port()) == port) && (vid < 0 || int(k.VID()) == vid)
	})
}

// FlushVLANs forgets the entries of a port in the VLANs that left names, static
// ones, too, but no local ones, and returns how many there were. Workers that
// still forward for the port in one of these VLANs may learn there anew.
func (t *Table) FlushVLANs(port uint16, left func(vid uint16) bool) int {
	return t.remove(func(k Key, v word) bool {
		return v.kind() != Local && v.port() == port && left(k.VID())
	})
}

// DropPort forgets everything about a port that was removed: entries of every
// kind, and its limit. The number may then be given to another port, whose
// generation is Gen.
func (t *Table) DropPort(port uint16) {
	if port >= MaxPorts {
		return
	}
	t.Flush(port)
	t.SetPortLimit(port, 0)
	t.remove(func(_ Key, v word) bool { return v.port() == port })
}

// DropLocal forgets the local entries of a port that gone names.
func (t *Table) DropLocal(port uint16, gone func(Key) bool) {
	t.remove(func(k Key, v word) bool { return v.kind() == Local && v.port() == port && gone(k) })
}

// Entries are the entries that Lookup finds, ordered by address and VLAN. What
// changes while they are collected is shown as before or as after.
func (t *Table) Entries() []Entry { return t.Page(nil, math.MaxInt, nil) }

// Page is the first n of Entries that come behind after, from the start if that is
// nil, and that match, if it is not nil. Whoever goes on behind the last one of a
// page sees each station once at most, however long that takes, and needs memory
// for 2n entries. A page is a walk of the table.
func (t *Table) Page(after *Entry, n int, match func(*Entry) bool) []Entry {
	var list []Entry
	bounded := n <= math.MaxInt/2
	c := clock(t.head.clock.Load())
	for b := range t.used.all() {
		for i := range t.all[b] {
			s := &t.all[b][i]
			k := Key(s.key.Load())
			v, ok := s.read(k)
			if !ok || !t.live(v) || c.expired(v) {
				continue
			}
			e := makeEntry(k, v, c)
			if after != nil && e.compare(*after) <= 0 || match != nil && !match(&e) {
				continue
			}
			if list = append(list, e); bounded && len(list) == 2*n {
				list = smallest(list, n)
			}
		}
	}
	return smallest(list, n)
}

// smallest is the first n of the list in order, without those met twice: a station
// that was forgotten and learned anew during a walk may have been met in two slots.
func smallest(list []Entry, n int) []Entry {
	slices.SortFunc(list, Entry.compare)
	list = slices.CompactFunc(list, func(a, b Entry) bool { return a.compare(b) == 0 })
	return list[:min(len(list), n)]
}

// compare orders by address and VLAN.
func (e Entry) compare(o Entry) int {
	return cmp.Or(bytes.Compare(e.MAC[:], o.MAC[:]), cmp.Compare(e.VID, o.VID))
}

func makeEntry(k Key, v word, c clock) Entry {
	e := Entry{MAC: k.MAC(), VID: k.VID(), Port: v.port(), Kind: v.kind()}
	if v.kind() == Dynamic {
		e.Age = c.age(v)
	}
	return e
}
