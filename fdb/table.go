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

// reserve is the number of entries beside the learned ones that a table is made
// for: the switch's own address in each of 4094 VLANs, and no fewer static ones.
const reserve = 4096

// Table is a filtering database. See the package comment for who may call what.
type Table struct {
	// Read by every call, written rarely.
	buckets []bucket // power of two
	clock   atomic.Uint64
	seed    [3]uint64
	gens    *[MaxPorts]atomic.Uint32
	spilled atomic.Int64 // entries in overflow buckets
	max     atomic.Int64
	all     []bucket // buckets, then the overflow buckets (power of two too)
	_       [64]byte

	// Written when an entry comes, moves or goes.
	learned atomic.Int64 // the sum of all ports' counts
	fixed   atomic.Int64 // static and local entries
	ports   *[MaxPorts]portCount
	mu      sync.Mutex // held to free a slot or to fill one

	// Advance's own.
	started bool
	last    uint32 // the second of the latest Advance
	cursor  int    // next bucket to sweep
}

// New makes a table for max learned entries, 0 for DefaultMax, at most
// MaxEntries; ageing is in seconds as for SetAgeing.
//
// Memory is 32 to 64 bytes per entry of max and 200 to 400 KiB beside it,
// touched only where it is used.
func New(max int, ageing uint32) *Table {
	if max <= 0 {
		max = DefaultMax
	}
	if max > MaxEntries {
		max = MaxEntries
	}
	// A station has two buckets of four slots, and stations that find both full
	// share an eighth as many overflow buckets. With 9 of 16 slots in use, the
	// most there will be, that is one in a thousand; the first that doesn't fit
	// comes with some 13 of 16.
	n := 1
	for n*4*9/16 < max+reserve {
		n *= 2
	}
	return newTable(max, ageing, n, n/8)
}

// newTable makes a table with numbers of buckets and overflow buckets that are
// powers of two.
func newTable(max int, ageing uint32, buckets, overflow int) *Table {
	all := make([]bucket, buckets+overflow)
	t := &Table{
		buckets: all[:buckets:buckets],
		all:     all,
		gens:    new([MaxPorts]atomic.Uint32),
		ports:   new([MaxPorts]portCount),
	}
	t.max.Store(int64(max))
	var seed [24]byte
	rand.Read(seed[:])
	for i := range t.seed {
		t.seed[i] = binary.LittleEndian.Uint64(seed[8*i:]) | 1
	}
	t.SetAgeing(ageing)
	return t
}

// hash mixes k with the table's secret, so that a guest cannot choose addresses
// that meet in one bucket. One multiplication would leave addresses in sequence
// in step with each other; the second breaks it. The low and the high half
// choose the two buckets.
func (t *Table) hash(k Key) uint64 {
	hi, lo := bits.Mul64(uint64(k)^t.seed[0], t.seed[1])
	hi, lo = bits.Mul64(hi^lo, t.seed[2])
	return hi ^ lo
}

// homes are the indexes in t.all of the three buckets that may hold a key of
// hash h, in the order find looks at them. The third is an overflow bucket.
func (t *Table) homes(h uint64) [3]int {
	n := len(t.buckets)
	over := len(t.all) - n
	return [3]int{int(h) & (n - 1), int(h>>32) & (n - 1), n + int(h>>20)&(over-1)}
}

// eq is 1 if a is b, else 0. The compiler makes it a SETcc, not a branch.
func eq(a, b uint64) (n uint64) {
	if a == b {
		n = 1
	}
	return n
}

// find returns the slot that holds k and its value, or nil and a free value.
func (t *Table) find(k Key) (*slot, word) {
	bs := t.buckets
	if len(bs) == 0 {
		return nil, 0 // never: it saves the bounds checks
	}
	h, mask := t.hash(k), uint64(len(bs)-1)
	b := &bs[h&mask]
	for first := true; ; first = false {
		// Which of the slots it will be can't be predicted, and a wrong guess
		// costs more than all four: 12 ns a Lookup against 18, of 65536 stations.
		m := eq(b[0].key.Load(), uint64(k)) |
			eq(b[1].key.Load(), uint64(k))<<1 |
			eq(b[2].key.Load(), uint64(k))<<2 |
			eq(b[3].key.Load(), uint64(k))<<3
		if m != 0 {
			s := &b[bits.TrailingZeros64(m)&3]
			if v, ok := s.read(k); ok {
				return s, v
			}
			return nil, 0 // removed at this moment
		}
		if !first {
			break
		}
		b = &bs[h>>32&mask]
	}
	if t.spilled.Load() == 0 {
		return nil, 0
	}
	return t.findSpilled(k, h)
}

// findSpilled looks into the overflow bucket.
func (t *Table) findSpilled(k Key, h uint64) (*slot, word) {
	b := &t.all[t.homes(h)[2]]
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
	h, mask := t.hash(k), uint64(len(t.buckets)-1)
	t.buckets[h&mask][0].key.Load()
	t.buckets[h>>32&mask][0].key.Load()
}

// Lookup finds a station. Entries whose ageing time has passed and those of a
// flushed generation are not found.
//
// Gen is the port's current generation. A caller that works from a snapshot of
// its ports compares it with the snapshot's, so that a number which another
// port was given meanwhile is not mistaken.
func (t *Table) Lookup(k Key) (Dest, bool) {
	_, v := t.find(k)
	d := Dest{v.port(), uint16(t.gens[v.port()%MaxPorts].Load())}
	if v.kind() != Dynamic {
		return d, v.kind() != free
	}
	return d, v.gen() == d.Gen && !clock(t.clock.Load()).expired(v)
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
		switch {
		case !t.live(v):
			if r := t.add(k, d); r != Known {
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
