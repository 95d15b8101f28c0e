package fdb

import (
	"fmt"
	"sync/atomic"
)

// portCount counts the learned entries of one port and one generation. Both are
// in one word, so an entry is counted in the generation it was stored with or
// not at all: Flush forgets the count together with the entries, and what a
// late worker takes back of an older generation is taken from nobody.
type portCount struct {
	count atomic.Uint64 // generation << 32 | entries
	limit atomic.Int32  // 0 is none
	fixed atomic.Int32  // static and local entries
}

// take counts one more learned entry at d: Added, or why not. Table.max is not
// looked at, because a station that moves adds nothing.
func (t *Table) take(d Dest) Result {
	p := &t.ports[d.Port%MaxPorts]
	for {
		c := p.count.Load()
		if uint16(c>>32) != d.Gen {
			return Stale
		}
		if limit := p.limit.Load(); limit > 0 && uint32(c) >= uint32(limit) {
			return PortFull
		}
		if p.count.CompareAndSwap(c, c+1) {
			t.learned.Add(1)
			return Added
		}
	}
}

// drop counts one entry less: v was freed or replaced.
func (t *Table) drop(v word) {
	p := &t.ports[v.port()%MaxPorts]
	if v.kind() != Dynamic {
		p.fixed.Add(-1)
		t.fixed.Add(-1)
		return
	}
	for {
		c := p.count.Load()
		if uint16(c>>32) != v.gen() {
			return // Flush has forgotten it already
		}
		if p.count.CompareAndSwap(c, c-1) {
			t.learned.Add(-1)
			return
		}
	}
}

// Len is the number of entries of every kind, with those whose ageing time has
// passed and that the sweep has not met yet.
func (t *Table) Len() int { return int(t.learned.Load() + t.fixed.Load()) }

// PortLen is the number of entries on a port, counted as Len does.
func (t *Table) PortLen(port uint16) int {
	if port >= MaxPorts {
		return 0
	}
	p := &t.ports[port]
	return int(uint32(p.count.Load())) + int(p.fixed.Load())
}

// Learned is the number of learned entries, the one that the limit bounds.
func (t *Table) Learned() int { return int(t.learned.Load()) }

// SetMax changes the limit of learned entries. It may be lowered, and raised up
// to what the table was made for. Entries beyond a lowered limit stay until
// they age.
func (t *Table) SetMax(n int) error {
	if n <= 0 {
		n = DefaultMax
	}
	if made := 2 * len(t.buckets); n > made {
		return fmt.Errorf("set limit of %d entries: the table was made for %d; restart the switch with the larger limit", n, made)
	}
	t.max.Store(int64(n))
	return nil
}

// SetPortLimit bounds the learned entries of a port; 0 or less is no limit.
// Entries beyond a lowered limit stay until they age or move.
func (t *Table) SetPortLimit(port uint16, n int) {
	if port < MaxPorts {
		t.ports[port].limit.Store(int32(min(max(n, 0), MaxEntries)))
	}
}

// Gen is the port's flush generation: what a worker learns with.
func (t *Table) Gen(port uint16) uint16 { return uint16(t.gens[port%MaxPorts].Load()) }

// Flush forgets the port's dynamic entries, in no time: it returns the next
// generation, and entries of older ones are no longer found. A worker that
// learns with an older generation is told Stale.
func (t *Table) Flush(port uint16) uint16 {
	port %= MaxPorts
	p := &t.ports[port]
	for {
		c := p.count.Load()
		gen := uint16(c>>32) + 1
		if !p.count.CompareAndSwap(c, uint64(gen)<<32) {
			continue
		}
		t.learned.Add(-int64(uint32(c)))
		t.gens[port].Store(uint32(gen))
		if gen%(1<<14) == 0 {
			t.reclaim()
		}
		return gen
	}
}
