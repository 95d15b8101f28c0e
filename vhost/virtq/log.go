package virtq

import (
	"fmt"
	"sync/atomic"
)

// logPage is the size of a page in the dirty log (vhost-user: VHOST_LOG_PAGE).
const logPage = 0x1000

// Log is the dirty log of a live migration: one bit for each page of guest
// memory, from guest address 0, set when the device has written to the page.
// Any goroutine may mark; the front end reads and clears at any time.
type Log struct {
	mem  []byte
	bits []uint32 // of mem
}

// NewLog makes a log of mem, which must lie outside Go's heap, start at a
// multiple of 4 and be a multiple of 4 long.
func NewLog(mem []byte) (*Log, error) {
	if address(mem)%4 != 0 || len(mem)%4 != 0 || len(mem) == 0 {
		return nil, fmt.Errorf("dirty log of %d bytes: want a positive multiple of 4, aligned to 4", len(mem))
	}
	return &Log{mem, words(mem)}, nil
}

// Covers reports whether the log has bits for n bytes at guest address addr.
func (l *Log) Covers(addr, n uint64) bool {
	limit := uint64(len(l.bits)) * 32 * logPage
	return n <= limit && addr <= limit-n
}

// holds reports whether an address of this process lies in the log.
func (l *Log) holds(addr uintptr) bool {
	return addr-address(l.mem) < uintptr(len(l.mem))
}

// mark sets the bits of the pages that hold n bytes at addr, n > 0. What the log
// does not cover is left out: whoever set the log up made sure that it covers
// all memory. A 32-bit little-endian word has the same bits as its four bytes.
func (l *Log) mark(addr, n uint64) {
	if !l.Covers(addr, n) {
		return
	}
	for page := addr / logPage; page <= (addr+n-1)/logPage; page++ {
		atomic.OrUint32(&l.bits[page/32], 1<<(page%32))
	}
}
