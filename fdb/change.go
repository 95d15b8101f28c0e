package fdb

import (
	"errors"
	"fmt"
)

// add puts a station in that is not there. Known: it is there by now.
func (t *Table) add(k Key, d Dest) Result {
	if t.learned.Load() >= t.max.Load() {
		return Full // without the lock: this is what a flood of addresses meets
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, v := t.find(k); t.live(v) {
		return Known
	}
	if t.learned.Load() >= t.max.Load() {
		return Full
	}
	b, s := t.place(k)
	if s == nil {
		return Full
	}
	if r := t.take(d); r != Added {
		return r
	}
	t.fill(b, s, k, makeWord(d.Port, d.Gen, Dynamic, clock(t.clock.Load()).now()))
	return Added
}

// place finds room for k: its bucket in t.all and a free slot of it, nil when
// all three are full. No live entry may hold k. The caller holds mu.
//
// The first bucket is preferred while it has two free slots, because find looks
// there first; then the emptier one. Entries that a flush has killed are room.
func (t *Table) place(k Key) (int, *slot) {
	var room [3]*slot
	var used [3]int
	homes := t.homes(k)
	for i, b := range homes {
		for j := range t.all[b] {
			s := &t.all[b][j]
			if !t.vacate(b, s, t.live) {
				used[i]++
			} else if room[i] == nil {
				room[i] = s
			}
		}
	}
	i := 0
	if used[0] > 2 && used[1] < used[0] {
		i = 1
	}
	if room[i] == nil {
		i = 2
	}
	return homes[i], room[i]
}

// fill stores an entry in a slot that place returned. The caller holds mu and
// has counted it.
func (t *Table) fill(b int, s *slot, k Key, w word) {
	if b >= len(t.buckets) {
		t.spilled.Add(1)
	}
	s.key.Store(uint64(k))
	s.val.Store(uint64(w | word(s.val.Load())&incMask))
}

// vacate frees a slot of bucket b unless keep says that its entry stays, and
// reports whether it is free. The caller holds mu; workers may still refresh or
// move the entry, and then keep is asked again.
func (t *Table) vacate(b int, s *slot, keep func(word) bool) bool {
	for {
		v := word(s.val.Load())
		if v.kind() == free {
			return true
		}
		if keep(v) {
			return false
		}
		if s.val.CompareAndSwap(uint64(v), uint64(v.freed())) {
			s.key.Store(0)
			if b >= len(t.buckets) {
				t.spilled.Add(-1)
			}
			t.drop(v)
			return true
		}
	}
}

// Set enters k on port, in place of whatever is known of it. Static and local
// entries don't age or move, stay when the port is flushed, and count against
// no limit. A dynamic one is as if learned now.
//
// It fails without changing anything when the address is zero or a group's,
// port or kind don't exist, or there is no room.
func (t *Table) Set(k Key, port uint16, kind Kind) error {
	if err := t.set(k, port, kind); err != nil {
		return fmt.Errorf("set %v entry %v: %w", kind, k, err)
	}
	return nil
}

var (
	errAddress = errors.New("not the address of a station: want a unicast MAC address")
	errNoRoom  = errors.New("the table is full: remove entries, or restart the switch with a larger limit")
)

func (t *Table) set(k Key, port uint16, kind Kind) error {
	switch mac := k.MAC(); {
	case mac == [6]byte{} || mac[0]&1 != 0:
		return errAddress
	case port >= MaxPorts:
		return fmt.Errorf("port number %d: want 0 to %d", port, MaxPorts-1)
	case kind != Dynamic && kind != Static && kind != Local:
		return fmt.Errorf("kind %d does not exist", kind)
	case kind == Dynamic && clock(t.clock.Load()).limit() == 0:
		return errors.New("the ageing time is 0: nothing dynamic is kept")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w := makeWord(port, t.Gen(port), kind, clock(t.clock.Load()).now())
	for {
		s, v := t.find(k)
		known := t.live(v)
		if err := t.count(w, known && v.kind() == Dynamic); err != nil {
			return err
		}
		if !known {
			b, s := t.place(k)
			if s == nil {
				t.drop(w)
				return errNoRoom
			}
			t.fill(b, s, k, w)
			return nil
		}
		if s.val.CompareAndSwap(uint64(v), uint64(w|v&incMask)) {
			t.drop(v)
			return nil
		}
		t.drop(w) // a worker refreshed or moved the entry meanwhile
	}
}

// count counts w in; replaces says that a learned entry makes room for it.
func (t *Table) count(w word, replaces bool) error {
	if w.kind() != Dynamic {
		t.ports[w.port()%MaxPorts].fixed.Add(1)
		t.fixed.Add(1)
		return nil
	}
	if !replaces && t.learned.Load() >= t.max.Load() {
		return errNoRoom
	}
	if r := t.take(Dest{w.port(), w.gen()}); r != Added {
		return errors.New("the port's limit of learned entries is reached")
	}
	return nil
}

// Delete removes an entry of any kind and returns what it was; false when
// Lookup would not find it.
func (t *Table) Delete(k Key) (Entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := clock(t.clock.Load())
	for _, b := range t.homes(k) {
		for i := range t.all[b] {
			s := &t.all[b][i]
			if _, ok := s.read(k); !ok {
				continue
			}
			var last word
			t.vacate(b, s, func(v word) bool { last = v; return false })
			if !t.live(last) || c.expired(last) {
				return Entry{}, false
			}
			return makeEntry(k, last, c), true
		}
	}
	return Entry{}, false
}
