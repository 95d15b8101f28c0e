package fdb

import (
	"testing"
	"unsafe"
)

// memoryIn is the table that lies in m, with n buckets and their overflow
// buckets, and the bytes behind it.
func memoryIn(m []byte, n int) (Memory, []byte) {
	all := n + n/8
	return Memory{
		(*Head)(unsafe.Pointer(&m[0])),
		unsafe.Slice((*Bucket)(unsafe.Pointer(&m[HeadSize])), all),
	}, m[HeadSize+BucketSize*all:]
}

// questionsIn are the questions that lie in m.
func questionsIn(m []byte, n int) []question {
	return unsafe.Slice((*question)(unsafe.Pointer(&m[:n*int(unsafe.Sizeof(question{}))][0])), n)
}

const questionSize = int(unsafe.Sizeof(question{}))

// What fdb.h asserts of its side, of ours; and that what every call reads
// shares no cache line with what is written when a station comes or goes.
func TestLayout(t *testing.T) {
	var h Head
	var tb Table
	for what, n := range map[string][2]uintptr{
		"slot":                        {unsafe.Sizeof(Slot{}), 16},
		"value in a slot":             {unsafe.Offsetof(Slot{}.val), 8},
		"bucket":                      {unsafe.Sizeof(Bucket{}), BucketSize},
		"head":                        {unsafe.Sizeof(h), HeadSize},
		"clock":                       {unsafe.Offsetof(h.clock), 0},
		"secret":                      {unsafe.Offsetof(h.secret), 8},
		"first half of the spreading": {unsafe.Offsetof(h.secret.first), 8},
		"other half":                  {unsafe.Offsetof(h.secret.second), 24},
		"spilled":                     {unsafe.Offsetof(h.spilled), 48},
		"generations":                 {unsafe.Offsetof(h.gens), 64},
		"buckets after a head":        {HeadSize % BucketSize, 0},
	} {
		if n[0] != n[1] {
			t.Errorf("%s: %d, want %d", what, n[0], n[1])
		}
	}
	if read := unsafe.Offsetof(tb.all) + unsafe.Sizeof(tb.all); read != 64 || unsafe.Offsetof(tb.learned) != 128 {
		t.Errorf("every call reads %d bytes of a Table, an insert writes from %d on: want 64, 128", read, unsafe.Offsetof(tb.learned))
	}
	// Then the allocator aligns it.
	if n := unsafe.Sizeof(tb); n <= 240 || n > 256 {
		t.Errorf("a Table has %d bytes: want 241 to 256", n)
	}
	for range 10 {
		if p := uintptr(unsafe.Pointer(New(1, 1))); p%64 != 0 {
			t.Errorf("a Table begins at %x", p)
		}
	}
}

// unaligned is memory for max entries whose buckets begin in a cache line's
// middle.
func unaligned(max int) Memory {
	n := NumBuckets(max)
	b := make([]Slot, 4*n+4)
	return Memory{new(Head), unsafe.Slice((*Bucket)(unsafe.Pointer(&b[2])), n)}
}
