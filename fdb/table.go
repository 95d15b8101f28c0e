package fdb

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
)

// slot is one entry's place. The value is the truth about the slot; the key
// changes only while the value says free.
type slot struct{ key, val atomic.Uint64 }

// bucket is one cache line.
type bucket [4]slot

// read returns the slot's value if the slot holds k.
func (s *slot) read(k Key) (word, bool) {
	v := word(s.val.Load())
	if Key(s.key.Load()) != k || !v.same(word(s.val.Load())) {
		return 0, false
	}
	return v, v.kind() != free
}

// Table is a filtering database. See the package comment for who may call what.
type Table struct {
	// Read by every call, written rarely.
	buckets []bucket // power of two
	clock   atomic.Uint64
	seed    [2]uint64
	gens    *[MaxPorts]atomic.Uint32
	spilled atomic.Int64 // entries in overflow buckets
	max     atomic.Int64
	all     []bucket // buckets, then the overflow buckets (power of two too)
	_       [64]byte

	// Written when an entry comes, moves or goes.
	learned atomic.Int64 // the sum of all ports' counts
	fixed   atomic.Int64
	ports   *[MaxPorts]portCount
	mu      sync.Mutex // held to free a slot or to fill one

	// The control goroutine's own.
	started bool
	last    uint32 // the second of the latest Advance
	cursor  int    // next bucket to sweep
}

// New makes a table for max learned entries, 0 for DefaultMax, at most
// MaxEntries; ageing is in seconds as for SetAgeing.
//
// Memory is 32 to 64 bytes per entry of max, touched only where used.
func New(max int, ageing uint32) *Table {
	if max <= 0 {
		max = DefaultMax
	}
	max = min(max, MaxEntries)
	t := &Table{
		gens:  new([MaxPorts]atomic.Uint32),
		ports: new([MaxPorts]portCount),
	}
	// A station has two buckets of four slots. With half of all slots in use,
	// some 20 in 65536 stations find both full and go to the overflow.
	n := 1 << bits.Len(uint(max-1)/2)
	over := n / 64
	if over < 4 {
		over = 4
	}
	t.all = make([]bucket, n+over)
	t.buckets = t.all[:n:n]
	t.max.Store(int64(max))
	var seed [16]byte
	rand.Read(seed[:])
	t.seed[0] = binary.LittleEndian.Uint64(seed[:])
	t.seed[1] = binary.LittleEndian.Uint64(seed[8:]) | 1
	t.SetAgeing(ageing)
	return t
}

// hash mixes k with the table's secret, so that a guest cannot choose addresses
// that meet in one bucket. Its low and high halves choose the two buckets.
func (t *Table) hash(k Key) uint64 {
	hi, lo := bits.Mul64(uint64(k)^t.seed[0], t.seed[1])
	return hi ^ lo
}

// homes are the indexes in t.all of the three buckets that may hold k, in the
// order find looks at them.
func (t *Table) homes(k Key) [3]int {
	h := t.hash(k)
	n := len(t.buckets)
	over := len(t.all) - n
	return [3]int{int(h) & (n - 1), int(h>>32) & (n - 1), n + int(h>>20)&(over-1)}
}

// find returns the slot that holds k and its value, or nil.
func (t *Table) find(k Key) (*slot, word) {
	bs := t.buckets
	if len(bs) == 0 {
		return nil, 0
	}
	h, mask := t.hash(k), uint64(len(bs)-1)
	b := &bs[h&mask]
	for i := range b {
		if Key(b[i].key.Load()) == k {
			if v, ok := b[i].read(k); ok {
				return &b[i], v
			}
		}
	}
	b = &bs[h>>32&mask]
	for i := range b {
		if Key(b[i].key.Load()) == k {
			if v, ok := b[i].read(k); ok {
				return &b[i], v
			}
		}
	}
	if t.spilled.Load() == 0 {
		return nil, 0
	}
	b = &t.all[t.homes(k)[2]]
	for i := range b {
		if v, ok := b[i].read(k); ok {
			return &b[i], v
		}
	}
	return nil, 0
}

// Lookup finds a station. Entries whose ageing time has passed and those of a
// flushed generation are not found.
//
// Gen is the generation the entry was learned in, and the port's current one
// for static and local entries. A caller that works from a snapshot of its
// ports compares it with the snapshot's, so that a port number given to another
// port meanwhile is not mistaken.
func (t *Table) Lookup(k Key) (Dest, bool) {
	_, v := t.find(k)
	port := v.port()
	gen := uint16(t.gens[port%MaxPorts].Load())
	if v.kind() == Dynamic {
		c := clock(t.clock.Load())
		return Dest{port, gen}, v.gen() == gen && !c.expired(v)
	}
	return Dest{port, gen}, v.kind() != free
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
	c := clock(t.clock.Load())
	if c.limit() == 0 {
		return Off, 0
	}
	for {
		s, v := t.find(k)
		if s == nil || !t.live(v) {
			if r := t.add(k, d); r != Known {
				return r, 0
			}
			continue // another worker was first: see what it stored
		}
		if v.port() == d.Port {
			if v.kind() != Dynamic || v.sec() == c.now() {
				return Known, 0
			}
			if v.gen() != d.Gen {
				return Stale, 0 // flushed since the check above
			}
			if s.val.CompareAndSwap(uint64(v), uint64(v&^secMask|word(c.now()))) {
				return Known, 0
			}
			continue
		}
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
