package fdb

import (
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
)

// A table lies in memory that others may read while it is in use: a BPF program
// that forwards in the kernel, through an array map (BPF_F_MMAPABLE) that the
// caller has mapped. fdb.h declares the same layout and the same rules in C.
//
//	offset 0    Head: clock, secret, number of spilled entries, generations
//	HeadSize    Buckets: a power of two, n, and behind them n/8 overflow buckets
//
// # The words
//
// A Slot is two 64-bit words in the byte order of the machine:
//
//	key   63      1, so that a key is never that of a free slot
//	      62-60   0
//	      59-48   VLAN id
//	      47-0    MAC address; its first byte is the lowest
//	value 63-52   port
//	      51-36   generation of the port with which a dynamic entry was learned
//	      35-34   kind: 0 free, 1 dynamic, 2 static, 3 local
//	      33-22   incarnation of the slot
//	      21-0    second in which a dynamic entry's station was last heard
//
// The clock is one, too:
//
//	      63-32   age in seconds at which dynamic entries are expired; 0: at once
//	      21-0    the second that it is
//
// # What a reader does
//
// It looks for the key in the station's two buckets and, while any entry has
// spilled, in its overflow bucket. In the slot where the key is, it reads value,
// key and value in this order. That is an entry of the station if the key is the
// one looked for, the kind is not free, and both values have one incarnation.
// For the key changes only while the value says free, and when an entry goes the
// incarnation is another. Hence two orders must hold:
//
//   - the first value before the key: who sees an entry's value sees its key;
//   - the key before the second value: who sees a later key sees that the value
//     is no longer the first.
//
// x86 loads in program order. arm64 does not: there the first two must be acquire
// loads, or each load must depend on what the one before has brought. The search
// that found the slot needs no order, nor does what comes after.
//
// A dynamic entry counts while its generation is its port's and it is not
// expired by the clock.
//
// # What a reader may write
//
// The second in a value, by compare-and-swap with the value that it has read,
// and nothing else. A plain store would bring back an entry that was moved or
// removed meanwhile. If the swap fails, it is left: another frame will come.

// Sizes of the parts of a Memory, in bytes.
const (
	HeadSize   = 64 + 4*MaxPorts
	BucketSize = 64
)

// Slot is one entry's place. The value is the truth about the slot; the key
// changes only while the value says free.
type Slot struct{ key, val atomic.Uint64 }

// Bucket is one cache line.
type Bucket [4]Slot

// read returns the slot's value if the slot holds k.
func (s *Slot) read(k Key) (word, bool) {
	v := word(s.val.Load())
	if Key(s.key.Load()) != k {
		return 0, false
	}
	if again := word(s.val.Load()); again != v && !again.same(v) {
		return 0, false
	}
	return v, v.kind() != free
}

// empty reports that all slots are free. Whoever fills one must not be at work.
func (b *Bucket) empty() bool {
	kinds := Kind(0)
	for i := range b {
		kinds |= word(b[i].val.Load()).kind()
	}
	return kinds == free
}

// Head is what a reader needs beside the buckets. The first cache line is read
// by every lookup and changes once a second.
type Head struct {
	clock   atomic.Uint64
	secret  secret
	spilled atomic.Uint64 // entries in overflow buckets
	_       uint64
	gens    [MaxPorts]atomic.Uint32 // flush generations, 16 bits each
}

// Memory is where a table lies: ordinary memory from NewMemory, or parts of a
// mapping. It must be zero when a table is made in it, belong to one table only,
// and stay mapped as long as anybody calls the table.
type Memory struct {
	Head    *Head
	Buckets []Bucket // as many as NumBuckets says
}

// NewMemory is ordinary memory for a table of max learned entries.
func NewMemory(max int) Memory {
	return Memory{new(Head), make([]Bucket, NumBuckets(max))}
}

// NumBuckets is the number of buckets, overflow buckets among them, of a table
// for max learned entries, 0 for DefaultMax, at most MaxEntries.
func NumBuckets(max int) int {
	n, overflow := geometry(clampMax(max))
	return n + overflow
}

// MemorySize is the size in bytes of a Memory for max learned entries, head and
// buckets: 16 KiB, and 32 to 64 bytes for each of max and of the 4096 entries
// that are reserved for the switch itself, because the number of buckets is a
// power of two. That makes 2.3 MiB for the default of 65,536 entries, and
// 144 MiB for 4,194,304. Ordinary memory costs what of it is used; an array map
// is allocated whole when it is made.
func MemorySize(max int) int { return HeadSize + BucketSize*NumBuckets(max) }

// reserve is the number of entries beside the learned ones that a table is made
// for: the switch's own address in each of 4094 VLANs, and no fewer static ones.
const reserve = 4096

func clampMax(n int) int {
	if n <= 0 {
		return DefaultMax
	}
	return min(n, MaxEntries)
}

// geometry is the number of buckets and overflow buckets for max learned
// entries.
//
// A station has two buckets of four slots, and stations that find both full
// share an eighth as many overflow buckets. With 9 of 16 slots in use, the most
// there will be, that is one in a thousand; the first that doesn't fit comes
// with some 13 of 16.
func geometry(max int) (buckets, overflow int) {
	n := 1
	for n*4*9/16 < max+reserve {
		n *= 2
	}
	return n, n / 8
}

// check says what is wrong with a Memory for max learned entries.
func (m Memory) check(max int) error {
	switch want := NumBuckets(max); {
	case m.Head == nil:
		return errors.New("no head")
	case len(m.Buckets) != want:
		return fmt.Errorf("%d buckets: want %d for %d entries", len(m.Buckets), want, max)
	case reflect.ValueOf(m.Buckets).Pointer()%BucketSize != 0:
		return errors.New("the buckets don't begin at a multiple of 64 bytes")
	case m.Head.secret != secret{}:
		return errors.New("the head is not zero: another table uses the memory")
	}
	return nil
}
