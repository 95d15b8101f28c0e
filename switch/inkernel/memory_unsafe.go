package inkernel

import (
	"sync/atomic"
	"unsafe"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// What lies in the maps, as forward.h declares it.

// head is what the table's memory begins with.
type head struct {
	until atomic.Uint64 // by the coarse clock; see Beat
	_     [56]byte
}

// row is a port, one cache line. All but its state changes only while it is
// closed.
type row struct {
	state   atomic.Uint64
	ifindex uint32
	maxLen  uint32
	pvid    uint16
	_       [46]byte
}

// vlans are the VLANs of a port.
type vlans struct{ member, untagged frame.VIDSet }

// count is what one processor counted of one port.
type count struct{ rxFrames, rxBytes, txFrames, txBytes uint64 }

const (
	headSize  = int(unsafe.Sizeof(head{}))
	rowSize   = int(unsafe.Sizeof(row{}))
	vlansSize = int(unsafe.Sizeof(vlans{}))
	countSize = int(unsafe.Sizeof(count{}))
)

var (
	_ = [1]struct{}{}[headSize-64]
	_ = [1]struct{}{}[rowSize-64]
	_ = [1]struct{}{}[vlansSize-1024]
	_ = [1]struct{}{}[countSize-32]
	_ = [1]struct{}{}[fdb.HeadSize-unsafe.Sizeof(fdb.Head{})]
)

// headAt is the head of the table's memory, and the table behind it.
func headAt(mem []byte, buckets int) (*head, fdb.Memory) {
	_ = mem[headSize+fdb.HeadSize+fdb.BucketSize*buckets-1]
	return (*head)(unsafe.Pointer(&mem[0])), fdb.Memory{
		Head:    (*fdb.Head)(unsafe.Pointer(&mem[headSize])),
		Buckets: unsafe.Slice((*fdb.Bucket)(unsafe.Pointer(&mem[headSize+fdb.HeadSize])), buckets),
	}
}

func rowsAt(mem []byte) []row {
	_ = mem[relay.MaxPorts*rowSize-1]
	return unsafe.Slice((*row)(unsafe.Pointer(&mem[0])), relay.MaxPorts)
}

func vlansAt(mem []byte, n int) []vlans {
	_ = mem[n*vlansSize-1]
	return unsafe.Slice((*vlans)(unsafe.Pointer(&mem[0])), n)
}

func countsAt(mem []byte, processors int) (c [][]count) {
	_ = mem[processors*relay.MaxPorts*countSize-1]
	all := unsafe.Slice((*count)(unsafe.Pointer(&mem[0])), processors*relay.MaxPorts)
	for i := range processors {
		c = append(c, all[i*relay.MaxPorts:][:relay.MaxPorts])
	}
	return c
}
