package netdev

import (
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// intake is where the shield puts frames when it does more than keep them from
// the host: a BPF program copies each into memory that it shares with the
// worker (bpf/intake.h). The program runs at every netdev that has tc
// ingress, so nothing here depends on a driver.
//
// Why not a packet socket's ring, which does the same: it takes a lock twice,
// reads the clock and writes a header of 52 bytes for every frame, and gives each
// a slot of its own, so a frame of 60 bytes dirties four cache lines in two
// places, and the worker dirties one of them again to give the slot back. Here
// such a frame is one line, and an eighth of another that says so; frames lie one
// after the other, of whatever length, which also spares super-frames their way
// through the socket's queue; and room is given back once for a batch. Sender and
// worker on two processors pay some 50 ns for each line that changes hands where
// they share a cache, and up to 500 where they don't. From veth to veth, 60-byte
// frames, that made between 1.2 and 1.5 times as many a second as the ring
// (bench/RESULTS.md).
//
// The memory is a ring of entries and a ring of data. Each entry is one word:
// the frame's number, which says that it is there, its length and what is
// remarkable about it. Where its bytes begin follows from the lengths of those
// before. Any number of processors fill the rings; one goroutine, which drives
// the queue, empties them.
type intake struct {
	bell     *ebpf.Map
	mem      []byte
	shared   *intakeShared // struct shared in bpf/intake.h
	entries  []uint64
	data     []byte // ends with room for a frame that begins at its end
	consumed []byte // of the bell: how far it was heard,
	rung     []byte // and how far it was rung

	frames, units uint32 // the next frame's number, and where it begins
	lent          int
	armed         bool
	long          *longFrame // nil until there is one
}

const (
	// intakeUnit is the granularity of frames in the data: a cache line. What the
	// program must know of these numbers is in bpf/intake.h as well.
	intakeUnit      = 64
	intakeUnitShift = 6
	// intakePerRing is how much larger than Options.RingBytes the data is: it
	// holds super-frames, too, of which a TCP sender has megabytes under way.
	intakePerRing = 2
	// intakePerEntry is how much data there is for each entry, in bytes: few frames
	// are shorter on average, so that entries are seldom what runs out.
	intakePerEntry = 512
	// intakeSharedLen is the length of intakeShared; the entries come after it.
	intakeSharedLen = 256
	// intakeExtra comes before the bytes of a frame that is not plain: its
	// offload header, and its tag at intakeTag.
	intakeExtra = 16
	intakeTag   = 12
)

// An entry: the frame's number plus one in the upper half, so that one of zeros
// is none; and in the lower its length, and two marks.
const (
	entryNumber = 32
	entryLength = 1<<20 - 1
	entryValid  = 1 << 24 // the offload header would only say frame.HdrDataValid
	entryExtra  = 1 << 25 // intakeExtra comes first
)

// position is head, seen and tail: the number of a frame, and of its first unit.
func position(frames, units uint32) uint64 { return uint64(frames)<<32 | uint64(units) }

// intakeSize is how large the parts of an intake are, all powers of two but the
// last.
type intakeSize struct {
	entries, units int
	data           int // where the data begins
	total          int // with room at the end for a frame that begins there
}

func sizeOfIntake(ringBytes int) (s intakeSize) {
	bytes := 1 << (bits.Len(uint(ringBytes)) - 1) * intakePerRing
	page := os.Getpagesize()
	up := func(n int) int { return (n + page - 1) / page * page }
	s.units, s.entries = bytes/intakeUnit, bytes/intakePerEntry
	s.data = up(intakeSharedLen + 8*s.entries)
	s.total = up(s.data + bytes + intakeExtra + frame.MaxLen)
	return s
}

// open maps the i-th part of the memory, and makes the bell.
func (r *intake) open(frames *ebpf.Map, i int, s intakeSize) (err error) {
	if r.mem, err = sysio.Map(frames.FD(), int64(i)*int64(s.total), s.total); err != nil {
		return err
	}
	r.shared, r.entries = intakeAt(r.mem, s.entries)
	r.data = r.mem[s.data:]
	// A worker that sleeps is woken up by a ring buffer, which is the one thing
	// that a program can ring and epoll hear. What is in it doesn't matter.
	page := os.Getpagesize()
	if r.bell, err = ebpf.NewMap(bellSpec()); err != nil {
		return fmt.Errorf("make bell: %w", err)
	}
	if r.consumed, err = sysio.Map(r.bell.FD(), 0, page); err != nil {
		return err
	}
	r.rung, err = sysio.MapReadOnly(r.bell.FD(), int64(page), page)
	return err
}

// bellSpec is a ring buffer of the least size.
func bellSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: "kvswitch_bell", Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())}
}

// free gives the memory back. The program may still hold it.
func (r *intake) free() {
	for _, b := range [][]byte{r.mem, r.consumed, r.rung} {
		_ = sysio.Unmap(b)
	}
	if r.bell != nil {
		r.bell.Close()
	}
	*r = intake{}
}

// next is the entry of the next frame, and whether that is there.
func (r *intake) next() (entry uint64, ok bool) {
	entry = atomic.LoadUint64(&r.entries[r.frames&uint32(len(r.entries)-1)])
	return entry, uint32(entry>>entryNumber) == r.frames+1
}

// receive implements receiver.
func (r *intake) receive(b []frame.Frame, _, bad *atomic.Uint64) (n int) {
	for n < len(b) {
		entry, ok := r.next()
		if !ok {
			break
		}
		f := &b[n]
		f.Hdr, f.Tag, f.Rest, f.Strip = frame.VnetHdr{}, 0, nil, 0
		length, room := int(entry&entryLength), 0
		at := r.data[int(r.units)<<intakeUnitShift&r.last():]
		if entry&entryValid != 0 {
			f.Hdr.Flags = frame.HdrDataValid
		}
		if entry&entryExtra != 0 {
			f.Hdr, f.Tag = readExtra(at)
			room = intakeExtra
		}
		if length > frame.MaxLen {
			more := r.receiveLong(b[n:], r.lent+n, length, bad)
			if n += more; r.long.More() {
				break // the rest of it next time
			}
			r.passed(room + length)
			continue
		}
		f.Data = at[room : room+length : room+length]
		r.passed(room + length)
		if f.Tag == 0 && isBPDU(f.Data) {
			continue // the control socket has it
		}
		n++
	}
	r.lent += n
	if r.lent == 0 {
		r.release() // what held nothing to lend
	}
	if n > 0 && r.armed {
		r.disarm()
	}
	return n
}

// passed is done with a frame that takes so many bytes of data.
func (r *intake) passed(bytes int) {
	r.frames++
	r.units += uint32(bytes+intakeUnit-1) >> intakeUnitShift
}

// last masks an offset in the data.
func (r *intake) last() int { return len(r.entries)*intakePerEntry - 1 }

// release implements receiver.
func (r *intake) release() {
	r.lent = 0
	if p := position(r.frames, r.units); p != r.shared.Tail { // nobody else writes it
		atomic.StoreUint64(&r.shared.Tail, p)
	}
}

// ready implements receiver: from now on the next frame rings the bell. A frame
// that comes at the same time either finds the bell armed or is found here: both
// sides write with a fence before they look (program: see copy in bpf/intake.h).
func (r *intake) ready() bool {
	r.quiet()
	r.armed = true
	atomic.SwapUint64(&r.shared.Bell, 1) // a store is a fence, too, but not under the race detector
	_, ok := r.next()
	return ok
}

// disarm spares the sender the bell, as the worker is awake.
func (r *intake) disarm() {
	r.armed = false
	atomic.StoreUint64(&r.shared.Bell, 0)
	r.quiet()
}

// quiet takes what was rung off the bell.
func (r *intake) quiet() {
	atomic.StoreUint64(wordAt(r.consumed), atomic.LoadUint64(wordAt(r.rung)))
}

// drops implements receiver.
func (r *intake) drops() (lost, bad uint64) {
	return atomic.SwapUint64(&r.shared.Lost, 0), atomic.SwapUint64(&r.shared.Bad, 0)
}

// socket implements receiver.
func (r *intake) socket() int { return r.bell.FD() }

// eager implements receiver: nobody pays for the bell before it is armed.
func (r *intake) eager() bool { return false }
