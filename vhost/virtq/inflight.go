package virtq

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Inflight is one queue's part of the buffer in which a back end notes the
// chains it has taken and not returned (vhost-user, "Inflight I/O tracking",
// QueueRegionSplit). The front end keeps the buffer, so the note outlives the
// back end; its content is no more to be trusted than a guest's.
//
// The process may end between any two stores. They happen in program order as
// far as a successor can see, because it reads only after this process is gone.
type Inflight struct {
	mem []byte
	seq uint64 // the spec's global counter
}

// Layout of a queue's region: features u64, version u16, desc_num u16,
// last_batch_head u16, used_idx u16, then for every descriptor inflight u8,
// padding, next u16 at 6, counter u64 at 8.
const (
	inflightVersion   = 8
	inflightDescNum   = 10
	inflightBatchHead = 12
	inflightUsedIdx   = 14
	inflightHeader    = 16
	inflightEntry     = 16
	inflightNext      = 6
	inflightCounter   = 8
	inflightAlign     = 64
)

// InflightBytes is the room that a queue of size descriptors takes in the
// buffer, a multiple of a cache line.
func InflightBytes(size int) int {
	return (inflightHeader + inflightEntry*size + inflightAlign - 1) &^ (inflightAlign - 1)
}

// NewInflight takes a queue's region, InflightBytes long, from the buffer.
func NewInflight(mem []byte) *Inflight { return &Inflight{mem: mem} }

func (f *Inflight) get(off int) uint16    { return binary.LittleEndian.Uint16(f.mem[off:]) }
func (f *Inflight) put(off int, v uint16) { binary.LittleEndian.PutUint16(f.mem[off:], v) }

func (f *Inflight) entry(head uint16) []byte {
	return f.mem[inflightHeader+inflightEntry*int(head):][:inflightEntry]
}

// restore reads what an earlier device left and lists the chains to take again,
// in the order they were first taken. A region of version 0 is new.
func (f *Inflight) restore(size int, used uint16) ([]uint16, error) {
	if len(f.mem) < inflightHeader+inflightEntry*size {
		return nil, fmt.Errorf("inflight region: %d bytes, want %d", len(f.mem), inflightHeader+inflightEntry*size)
	}
	switch v := f.get(inflightVersion); {
	case v == 0:
		clear(f.mem)
		f.put(inflightDescNum, uint16(size))
		f.put(inflightUsedIdx, used)
		f.put(inflightVersion, 1)
		return nil, nil
	case v != 1:
		return nil, fmt.Errorf("inflight region: version %d, want 1", v)
	case int(f.get(inflightDescNum)) != size:
		return nil, fmt.Errorf("inflight region: for %d descriptors, the queue has %d", f.get(inflightDescNum), size)
	}
	// The used index moved and the note did not: the last batch was returned.
	head := f.get(inflightBatchHead)
	for left := min(used-f.get(inflightUsedIdx), uint16(size)); left > 0 && int(head) < size; left-- {
		e := f.entry(head)
		e[0] = 0
		head = binary.LittleEndian.Uint16(e[inflightNext:])
	}
	f.put(inflightUsedIdx, used)

	type taken struct {
		counter uint64
		head    uint16
	}
	var again []taken
	for head := range uint16(size) {
		if e := f.entry(head); e[0] != 0 {
			again = append(again, taken{binary.LittleEndian.Uint64(e[inflightCounter:]), head})
		}
	}
	slices.SortStableFunc(again, func(a, b taken) int { return cmp.Compare(a.counter, b.counter) })
	heads := make([]uint16, len(again))
	for i, t := range again {
		heads[i], f.seq = t.head, t.counter+1
	}
	return heads, nil
}

// take notes chains that were taken.
func (f *Inflight) take(chains []Chain) {
	for i := range chains {
		e := f.entry(chains[i].Head)
		binary.LittleEndian.PutUint64(e[inflightCounter:], f.seq)
		e[0] = 1
		f.seq++
	}
}

// untake forgets that the chain was taken.
func (f *Inflight) untake(head uint16) { f.entry(head)[0] = 0 }

// link notes the chains of a batch that is about to be returned: until done they
// are found as a list, and the used index tells whether they were returned.
func (f *Inflight) link(chains []Chain) {
	last := f.get(inflightBatchHead)
	for i := range chains {
		head := chains[i].Head
		binary.LittleEndian.PutUint16(f.entry(head)[inflightNext:], last)
		last = head
	}
	f.put(inflightBatchHead, last)
}

// done notes that the batch was returned and the used index is now used.
func (f *Inflight) done(chains []Chain, used uint16) {
	for i := range chains {
		f.entry(chains[i].Head)[0] = 0
	}
	f.put(inflightUsedIdx, used)
}
