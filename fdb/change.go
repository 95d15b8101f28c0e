package fdb

import (
	"errors"
	"fmt"
)

// add enters a station that is not in the table and was heard at c. Known: it is
// there by now.
func (t *Table) add(k Key, d Dest, c clock) Result {
	// Without the lock: this is what floods of addresses meet.
	if t.full() && t.spent(d.Port, c) {
		return Full
	}
	if r := t.admits(d); r != Added {
		return r
	}
	r, out := t.addLocked(k, d, c)
	t.report(out, c)
	return r
}

// addLocked is add with the lock. It returns what gave way, too.
func (t *Table) addLocked(k Key, d Dest, c clock) (r Result, out gone) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, s, known := t.place(k)
	if known {
		return Known, out
	}
	if s == nil || t.full() {
		if r := t.admits(d); r != Added {
			return r, out // before anything goes for it
		}
		if !t.spend(d.Port, c) {
			return Full, out
		}
		if s == nil {
			b, s, out = t.evictHome(k, d.Port, c)
		} else {
			out = t.evict(d.Port, c)
		}
		if out == (gone{}) {
			return Full, out
		}
	}
	if r := t.take(d); r != Added {
		return r, out
	}
	t.fill(b, s, k, makeWord(d.Port, d.Gen, Dynamic, c.now()))
	return Added, out
}

// place finds room for k: an index in t.all and a free slot of that bucket, nil
// when all three are full; or says that k is there. Slots of entries that a
// flush has killed are room. The caller holds mu.
//
// The first bucket is preferred while two of its slots are free, because find
// looks there first; then the emptier one.
func (t *Table) place(k Key) (b int, s *Slot, known bool) {
	var room [3]*Slot
	var used [3]int
	homes := t.homes(k)
	for i, b := range homes {
		if i == 2 && t.head.spilled.Load() == 0 && (room[0] != nil || room[1] != nil) {
			break // the usual case: nobody has ever looked there
		}
		for j := range t.all[b] {
			s := &t.all[b][j]
			if v := word(s.val.Load()); v.kind() != free {
				if !t.live(v) {
					t.vacate(b, s, t.live)
				} else if Key(s.key.Load()) == k {
					return b, s, true
				} else {
					used[i]++
					continue
				}
			}
			if room[i] == nil {
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
	return homes[i], room[i], false
}

// fill stores an entry in a slot that place returned. The caller holds mu and
// has counted it.
func (t *Table) fill(b int, s *Slot, k Key, w word) {
	if b >= len(t.buckets) {
		t.head.spilled.Add(1)
	}
	// In this order: whoever sees the value finds the key, and a walk finds both.
	t.used.set(b)
	s.key.Store(uint64(k))
	s.val.Store(uint64(w | word(s.val.Load())&incMask))
}

// vacate frees a slot of bucket b unless stays says that its entry stays, and
// reports whether it is free. The caller holds mu; workers may still refresh or
// move the entry, and then stays is asked again.
func (t *Table) vacate(b int, s *Slot, stays func(word) bool) bool {
	for {
		v := word(s.val.Load())
		if v.kind() == free {
			return true
		}
		if stays(v) {
			return false
		}
		if s.val.CompareAndSwap(uint64(v), uint64(v.freed())) {
			s.key.Store(0)
			if b >= len(t.buckets) {
				t.head.spilled.Add(^uint64(0))
			}
			t.drop(v)
			return true
		}
	}
}

// Set enters k on port as static or local, in place of whatever is known of it.
// Such entries don't age or move, stay when the port is flushed, and count
// against no limit. Where there is no room a learned entry gives way.
//
// It fails, and changes nothing, when the address is zero or a group's, the port
// or kind is another one, or there is no room but for other such entries.
func (t *Table) Set(k Key, port uint16, kind Kind) error {
	out, err := t.set(k, port, kind)
	if err != nil {
		return fmt.Errorf("set %v entry %v: %w", kind, k, err)
	}
	t.report(out, clock(t.head.clock.Load()))
	return nil
}

func (t *Table) set(k Key, port uint16, kind Kind) (out gone, err error) {
	mac := k.MAC()
	switch {
	case mac == [6]byte{} || mac[0]&1 != 0:
		return out, errors.New("not the address of a station: want a unicast MAC address")
	case port >= MaxPorts:
		return out, fmt.Errorf("port number %d: want 0 to %d", port, MaxPorts-1)
	case kind != Static && kind != Local:
		return out, errors.New("only static and local entries are set; dynamic ones are learned")
	}
	w := makeWord(port, 0, kind, 0)
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		s, v := t.find(k)
		if !t.live(v) {
			b, s, _ := t.place(k)
			if s == nil {
				b, s, out = t.evictHome(k, MaxPorts, clock(t.head.clock.Load()))
				if out == (gone{}) {
					return out, errors.New("no room: remove entries, or restart the switch with a larger limit")
				}
			}
			t.fixed.Add(1)
			t.fill(b, s, k, w)
			return out, nil
		}
		if s.val.CompareAndSwap(uint64(v), uint64(w|v&incMask)) {
			t.fixed.Add(1)
			t.drop(v)
			return out, nil
		}
		// A worker refreshed or moved the entry: look again.
	}
}

// Delete removes an entry of any kind and returns what it was; false when there
// is none that Lookup finds.
func (t *Table) Delete(k Key) (Entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := clock(t.head.clock.Load())
	b := 0
	t.Touch(k) // who removes a station often enters it anew
	s, _, h := t.findHome(k)
	if s == nil && t.head.spilled.Load() != 0 {
		s, _ = t.findSpilled(k, h)
		b = t.overflow(h)
	}
	if s == nil {
		return Entry{}, false
	}
	// An expired entry is left for the sweep to report.
	var was word
	if !t.vacate(b, s, func(v word) bool { was = v; return c.expired(v) }) || !t.live(was) {
		return Entry{}, false
	}
	return makeEntry(k, was, c), true
}
