package virtq

import "fmt"

// MaxSize is the largest queue, in descriptors (virtio 1.2, 2.7).
const MaxSize = 32768

// Descriptor flags (2.7.5).
const (
	descNext     = 1 // the chain goes on at next
	descWrite    = 2 // the device writes to the buffer; else it reads it
	descIndirect = 4 // the buffer holds a table of descriptors
)

// Ring flags.
const (
	availNoInterrupt = 1 // 2.7.6: the driver wants no notification
	usedNoNotify     = 1 // 2.7.8: the device wants no notification
)

const (
	descLen     = 16 // bytes of a descriptor
	availHeader = 4  // flags, idx
	availEntry  = 2
	usedHeader  = 4 // flags, idx
	usedEntry   = 8
	eventIndex  = 2 // used_event, avail_event: there, but unused
)

// DescBytes, AvailBytes and UsedBytes are the lengths of the three areas of a
// queue with size descriptors (2.7).
func DescBytes(size int) int  { return descLen * size }
func AvailBytes(size int) int { return availHeader + availEntry*size + eventIndex }
func UsedBytes(size int) int  { return usedHeader + usedEntry*size + eventIndex }

// Alignments of the three areas. Virtio asks for 2 and 4 for the rings; both
// must be 4 here, because flags and idx are accessed as one 32-bit word. Every
// driver known aligns so: the available ring follows the descriptor table or
// starts a page.
const (
	descAlign = 16
	ringAlign = 4
)

// desc is a descriptor as two words, so that it is read with two loads:
// the address, and len | flags<<32 | next<<48.
type desc struct{ addr, rest uint64 }

func (d desc) len() uint32   { return uint32(d.rest) }
func (d desc) flags() uint16 { return uint16(d.rest >> 32) }
func (d desc) next() uint16  { return uint16(d.rest >> 48) }

func makeDesc(addr uint64, n uint32, flags, next uint16) desc {
	return desc{addr, uint64(n) | uint64(flags)<<32 | uint64(next)<<48}
}

// The three areas as they lie in memory, for the largest queue; a smaller one
// ends earlier, and no index at or above its size is ever used.
type (
	descTable [MaxSize]desc

	availRing struct {
		word uint32 // flags | idx<<16
		ring [MaxSize]uint16
	}

	usedRing struct {
		word uint32 // flags | idx<<16
		ring [MaxSize]usedElem
	}

	usedElem struct{ id, len uint32 }
)

// ringWord packs flags and idx as they lie in memory, little-endian.
func ringWord(flags, idx uint16) uint32 { return uint32(flags) | uint32(idx)<<16 }

// wordIndex and wordFlags take a ring word apart.
func wordIndex(w uint32) uint16 { return uint16(w >> 16) }
func wordFlags(w uint32) uint16 { return uint16(w) }

// checkSize refuses sizes that are no power of two between 1 and MaxSize.
func checkSize(size int) error {
	if size < 1 || size > MaxSize || size&(size-1) != 0 {
		return fmt.Errorf("queue size %d: want a power of two up to %d", size, MaxSize)
	}
	return nil
}

// areas holds the three areas of one queue, found and checked.
type areas struct {
	desc  *descTable
	avail *availRing
	used  *usedRing
}

// mapAreas checks the lengths and alignments of three areas and gives them their
// types.
func mapAreas(size int, desc, avail, used []byte) (areas, error) {
	for _, a := range []struct {
		name        string
		mem         []byte
		want, align int
	}{
		{"descriptor table", desc, DescBytes(size), descAlign},
		{"available ring", avail, AvailBytes(size) - eventIndex, ringAlign},
		{"used ring", used, UsedBytes(size) - eventIndex, ringAlign},
	} {
		if len(a.mem) < a.want {
			return areas{}, fmt.Errorf("%s: %d bytes, want %d", a.name, len(a.mem), a.want)
		}
		if address(a.mem)%uintptr(a.align) != 0 {
			return areas{}, fmt.Errorf("%s: not aligned to %d bytes", a.name, a.align)
		}
	}
	return areas{asDescTable(desc), asAvailRing(avail), asUsedRing(used)}, nil
}
