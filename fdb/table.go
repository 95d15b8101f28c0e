package fdb

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Table is a filtering database. See the package comment for who may call what.
type Table struct {
	// Read by every call, and written by none: one cache line, and another that
	// keeps the processor from fetching what follows with it.
	buckets []Bucket // power of two
	head    *Head
	gens    *[MaxPorts]atomic.Uint32 // head's
	all     []Bucket                 // buckets, then the overflow buckets (power of two too)
	_       [64]byte

	// Written when an entry comes, moves or goes.
	learned atomic.Int64 // the sum of all ports' counts
	max     atomic.Int64 // limit of learned
	fixed   atomic.Int64 // static and local entries
	ports   *[MaxPorts]portCount
	top     atomic.Int64 // highest port that has learned
	used    usedBuckets
	mu      sync.Mutex // held to free a slot or to fill one

	standing  standing // mu's
	evictions atomic.Uint64
	onEvict   func(Entry)

	// Advance's own.
	started bool
	last    uint32 // the second of the latest Advance
	cursor  int    // next word of used to sweep
}

// New makes a table in ordinary memory for max learned entries, 0 for
// DefaultMax, at most MaxEntries; ageing is in seconds as for SetAgeing.
//
// It takes MemorySize of address space, touched only where it is used, and 100
// to 400 KiB beside it.
func New(max int, ageing uint32) *Table {
	max = clampMax(max)
	n, _ := geometry(max)
	return newTable(NewMemory(max), max, ageing, n)
}

// NewIn makes a table in memory that somebody else reads, too; max and ageing
// are as for New. It fails when the memory is not what a table for max needs.
func NewIn(m Memory, max int, ageing uint32) (*Table, error) {
	max = clampMax(max)
	if err := m.check(max); err != nil {
		return nil, fmt.Errorf("make table in given memory: %w", err)
	}
	n, _ := geometry(max)
	return newTable(m, max, ageing, n), nil
}

// newTable makes a table in zeroed memory, of whose buckets the first n are no
// overflow buckets; n and the number of the others are powers of two.
func newTable(m Memory, max int, ageing uint32, n int) *Table {
	t := &Table{
		buckets: m.Buckets[:n:n],
		all:     m.Buckets,
		head:    m.Head,
		gens:    &m.Head.gens,
		ports:   new([MaxPorts]portCount),
		used:    newUsedBuckets(len(m.Buckets)),
	}
	t.max.Store(int64(max))
	t.head.secret = newSecret()
	t.SetAgeing(ageing)
	return t
}

// eq is 1 if a is b, else 0. The compiler makes it a SETcc, not a branch.
func eq(a, b uint64) (n uint8) {
	if a == b {
		n = 1
	}
	return n
}

// find returns the slot that holds k and its value, or nil and a free value.
func (t *Table) find(k Key) (*Slot, word) {
	s, v, h := t.findHome(k)
	if s == nil && t.head.spilled.Load() != 0 {
		return t.findSpilled(k, h)
	}
	return s, v
}

// findHome is find without the overflow bucket; of an entry that is removed at
// this moment it returns the slot and a free value. Where it finds none it also
// returns what findSpilled needs. It calls nothing, which spares it a stack
// frame.
func (t *Table) findHome(k Key) (s *Slot, v word, h uint64) {
	bs := t.buckets
	if len(bs) == 0 {
		return nil, 0, 0 // never: it saves the bounds checks
	}
	x, mask := &t.head.secret, uint64(len(bs)-1)
	p := x.product(k)
	h = spread(p, &x.first)
	b := &bs[h>>32&mask]
	for first := true; ; first = false {
		// Which of the slots it will be can't be predicted, and a wrong guess
		// costs more than all four: 12 ns a Lookup against 18, of 65536 stations.
		m := eq(b[0].key.Load(), uint64(k)) |
			eq(b[1].key.Load(), uint64(k))<<1 |
			eq(b[2].key.Load(), uint64(k))<<2 |
			eq(b[3].key.Load(), uint64(k))<<3
		if m != 0 {
			s := &b[bits.TrailingZeros32(uint32(m))&3]
			v, _ := s.read(k)
			return s, v, 0
		}
		if !first {
			return nil, 0, h
		}
		second := spread(p, &x.second)
		b = &bs[second>>32&mask]
		h += second
	}
}

// findSpilled looks into the overflow bucket; h is the sum of both hashes of k.
func (t *Table) findSpilled(k Key, h uint64) (*Slot, word) {
	b := &t.all[t.overflow(h)]
	for i := range b {
		if v, ok := b[i].read(k); ok {
			return &b[i], v
		}
	}
	return nil, 0
}

// Touch has the processor fetch the two places where k will be looked for. Unlike
// Lookup it waits for neither, so that a caller with many stations to look up has
// their cache misses overlap by touching all of them first.
func (t *Table) Touch(k Key) {
	bs := t.buckets
	if len(bs) == 0 {
		return // never
	}
	x, mask := &t.head.secret, uint64(len(bs)-1)
	p := x.product(k)
	bs[spread(p, &x.first)>>32&mask][0].key.Load()
	bs[spread(p, &x.second)>>32&mask][0].key.Load()
}

// Lookup finds a station. Entries whose ageing time has passed and those of a
// flushed generation are not found.
//
// Gen is the port's current generation. A caller that works from a snapshot of
// its ports compares it with the snapshot's, so that a number which another
// port was given meanwhile is not mistaken.
func (t *Table) Lookup(k Key) (Dest, bool) {
	s, v, h := t.findHome(k)
	if s == nil && t.head.spilled.Load() != 0 {
		_, v = t.findSpilled(k, h)
	}
	d := Dest{v.port(), uint16(t.gens[v.port()%MaxPorts].Load())}
	if v.kind() == Dynamic {
		return d, v.gen() == d.Gen && clock(t.head.clock.Load()).fresh(v)
	}
	return d, v.kind() != free
}

// Learn records that station k was heard at d. When nothing is new it only
// reads; when the second or the port is, it stores one word; only a station
// that is not in the table takes the lock.
//
// For Moved, prev is the port the station was on. A station that would move to
// a port at its limit stays where it was. An entry whose ageing time has passed
// and that the sweep has not met yet is taken up again: Known or Moved.
func (t *Table) Learn(k Key, d Dest) (r Result, prev uint16) {
	if d.Port >= MaxPorts || uint32(d.Gen) != t.gens[d.Port].Load() {
		return Stale, 0
	}
	c := clock(t.head.clock.Load())
	if c.limit() == 0 {
		return Off, 0
	}
	for {
		s, v, h := t.findHome(k)
		if s == nil && t.head.spilled.Load() != 0 {
			s, v = t.findSpilled(k, h)
		}
		switch {
		case !t.live(v):
			if r := t.add(k, d, c); r != Known {
				return r, 0
			}
			// Another worker was first: see what it stored.
		case v.port() != d.Port:
			if v.kind() != Dynamic {
				return Fixed, 0
			}
			if r := t.take(d); r != Added {
				return r, 0
			}
			w := makeWord(d.Port, d.Gen, Dynamic, c.now()) | v&incMask
			if s.val.CompareAndSwap(uint64(v), uint64(w)) {
				t.drop(v)
				return Moved, v.port()
			}
			t.drop(w)
		case v.kind() != Dynamic || v.sec() == c.now():
			return Known, 0
		case s.val.CompareAndSwap(uint64(v), uint64(v&^secMask|word(c.now()))):
			return Known, 0
		}
	}
}

// live reports that v is an entry and that no flush has killed it. It may be
// expired.
func (t *Table) live(v word) bool {
	if v.kind() == Dynamic {
		return uint32(v.gen()) == t.gens[v.port()%MaxPorts].Load()
	}
	return v.kind() != free
}
