package fdb

import (
	"fmt"
	"sync/atomic"
)

// portCount counts the learned entries of one port and one generation. Both are
// in one word, so an entry counts in the generation it was stored with or not at
// all: Flush forgets the count together with the entries, and what is dropped
// later of an older generation is taken from nobody.
type portCount struct {
	count atomic.Uint64 // generation << 32 | entries
	limit atomic.Int64  // 0 is none

	evictions atomic.Uint64 // second << 32 | evictions that the port has caused in it
}

// admits says whether take would count an entry in: Added, or why not.
func (t *Table) admits(d Dest) Result {
	p := &t.ports[d.Port%MaxPorts]
	c := p.count.Load()
	if uint16(c>>32) != d.Gen {
		return Stale
	}
	if limit := p.limit.Load(); limit > 0 && int64(uint32(c)) >= limit {
		return PortFull
	}
	return Added
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
		if limit := p.limit.Load(); limit > 0 && int64(uint32(c)) >= limit {
			return PortFull
		}
		if p.count.CompareAndSwap(c, c+1) {
			for top := t.top.Load(); int64(d.Port) > top && !t.top.CompareAndSwap(top, int64(d.Port)); {
				top = t.top.Load()
			}
			t.learned.Add(1)
			return Added
		}
	}
}

// drop counts one entry less: v was freed or replaced.
func (t *Table) drop(v word) {
	if v.kind() != Dynamic {
		t.fixed.Add(-1)
		return
	}
	p := &t.ports[v.port()%MaxPorts]
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

// full reports that the switch's limit is reached. Stations that move off a port
// while it is flushed may take the table past its limit, by one for each worker.
func (t *Table) full() bool { return t.learned.Load() >= t.max.Load() }

// Len is the number of entries of every kind. It includes those whose ageing
// time has passed and that the sweep has not met yet.
func (t *Table) Len() int { return int(t.learned.Load() + t.fixed.Load()) }

// Learned is the number of learned entries: what SetMax bounds.
func (t *Table) Learned() int { return int(t.learned.Load()) }

// PortLen is the number of learned entries on a port: what SetPortLimit bounds.
func (t *Table) PortLen(port uint16) int {
	if port >= MaxPorts {
		return 0
	}
	return int(uint32(t.ports[port].count.Load()))
}

// SetMax changes the limit of learned entries, 0 for DefaultMax. It can be
// lowered, and raised to what the table was made for. Entries beyond a lowered
// limit stay until they age: a new one takes the place of one.
func (t *Table) SetMax(n int) error {
	if n <= 0 {
		n = DefaultMax
	}
	if made := len(t.buckets)*4*9/16 - reserve; n > made {
		return fmt.Errorf("set limit of %d entries: the table was made for %d; restart the switch with the larger limit", n, made)
	}
	t.max.Store(int64(n))
	return nil
}

// SetPortLimit bounds the learned entries of a port; 0 or less is no limit.
// Entries beyond a lowered limit stay until they age or move.
func (t *Table) SetPortLimit(port uint16, n int) {
	if port < MaxPorts {
		t.ports[port].limit.Store(int64(max(n, 0)))
	}
}

// Gen is the port's flush generation: what a worker learns with.
func (t *Table) Gen(port uint16) uint16 {
	if port >= MaxPorts {
		return 0
	}
	return uint16(t.gens[port].Load())
}

// Flush forgets the port's dynamic entries in a few stores: it returns the next
// generation, and entries of older ones are not found any more. A worker that
// learns with an older one is told Stale.
func (t *Table) Flush(port uint16) uint16 {
	if port >= MaxPorts {
		return 0
	}
	gen := t.flush(port)
	if gen%(1<<14) == 0 {
		// Long before a number comes round, no entry may have it any more.
		t.remove(func(_ Key, v word) bool { return !t.live(v) })
	}
	return gen
}

func (t *Table) flush(port uint16) uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.ports[port]
	gen := t.Gen(port) + 1
	// Whoever counts an entry in before this is forgotten by it; whoever comes
	// after finds another generation.
	gone := p.count.Swap(uint64(gen) << 32)
	t.gens[port].Store(uint32(gen))
	t.learned.Add(-int64(uint32(gone)))
	return gen
}
