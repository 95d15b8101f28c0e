package netdev

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// ring is a packet socket with a memory-mapped receive ring (TPACKET_V2): what a
// port receives by where the kernel has no intake.
//
// Why V2: it hands over every frame as it comes. V3 hands over blocks, and one
// that is not full only after a millisecond; a lone ping would wait for it. What
// V3 has for it is that it packs frames of any size tightly, where V2 needs
// slots of one size, and a slot of 64 KiB for GSO frames is a waste. Instead,
// frames longer than a slot come by PACKET_COPY_THRESH: the kernel marks the
// slot and queues the whole frame on the socket, under one lock, so the n-th
// marked slot is the n-th queued frame and order is kept.
//
// CPU time of a frame from veth to veth, the sender's part included, on Linux
// 6.18 with mitigations, medians of 15, this ring = 1:
//
//	                   60 bytes   60,000 bytes (TSO)
//	V3, 128 KiB blocks     1.00         1.14
//	V3, 256 KiB blocks     1.00         1.18
//	V2, 64 KiB slots          –         0.89
//	recvmmsg               1.11         0.99
//
// Rings from 256 KiB to 4 MiB do not differ by more than the noise (4 %).
//
// One goroutine uses a ring: the one that drives its queue.
type ring struct {
	fd    int
	mem   []byte
	slots []*slot
	size  int // bytes in a slot
	head  int // the slot that the kernel fills next
	tail  int // the first slot not given back
	out   int // slots from tail to head
	lent  int // of them, slots whose frames are lent
	big   *bigFrames
}

const (
	// slotOverhead is what lies before the frame in a slot: struct tpacket2_hdr
	// and sockaddr_ll (52 bytes) and room for a 16-byte MAC header, aligned to
	// 16, plus the offload header, minus the 14 bytes that the header has. If a
	// kernel needs more, full-sized frames come as copies.
	slotOverhead = 80 + vnetLen - frame.HeaderLen
	// cacheLine is the granularity of slot sizes.
	cacheLine = 64
	// blockSize is the unit in which the kernel allocates a ring. It tries for
	// contiguous memory, of which a machine that has run for long may have no
	// larger pieces.
	blockSize = 64 << 10
	// maxSlotMTU is the largest MTU that gets whole frames into slots: jumbo
	// frames do, the 64 KiB of a veth do not, for every slot would take as much.
	maxSlotMTU = 9216
)

// slotSize is the size in bytes of slots that hold a frame of a device with that
// MTU, one tag of it in band. A longer frame comes as a copy.
func slotSize(mtu int) int {
	want := slotOverhead + frame.HeaderLen + frame.TagLen + min(mtu, maxSlotMTU)
	return (want + cacheLine - 1) / cacheLine * cacheLine
}

// newRing sets up a ring of about bytes on the socket fd, which it owns from
// then on, also when it fails.
func newRing(fd, mtu, bytes int) (*ring, error) {
	r := &ring{fd: fd, size: slotSize(mtu)}
	if err := r.setUp(max(bytes/blockSize, 2)); err != nil {
		r.free()
		return nil, err
	}
	return r, nil
}

func (r *ring) setUp(blocks int) error {
	for _, o := range []struct {
		name        string
		option, val int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_COPY_THRESH", unix.PACKET_COPY_THRESH, frame.MaxLen},
	} {
		if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, o.option, o.val); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	setBuffer(r.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, bigBuffer)
	perBlock := blockSize / r.size
	req := unix.TpacketReq{
		Block_size: blockSize, Block_nr: uint32(blocks),
		Frame_size: uint32(r.size), Frame_nr: uint32(perBlock * blocks),
	}
	if err := unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("set up ring of %d KiB: %w", blocks*blockSize>>10, err)
	}
	var err error
	if r.mem, err = sysio.Map(r.fd, 0, blocks*blockSize); err != nil {
		return fmt.Errorf("map ring: %w", err)
	}
	r.slots = make([]*slot, 0, perBlock*blocks)
	for b := range blocks {
		for i := range perBlock {
			r.slots = append(r.slots, slotAt(r.mem, b*blockSize+i*r.size))
		}
	}
	if r.big, err = newBigFrames(); err != nil {
		return fmt.Errorf("map buffer: %w", err)
	}
	return nil
}

// free unmaps and closes. The kernel waits for everybody who may still look at
// the socket, so this takes milliseconds.
func (r *ring) free() {
	if r.big != nil {
		_ = sysio.Unmap(r.big.mem)
	}
	_ = sysio.Unmap(r.mem)
	unix.Close(r.fd)
	r.mem, r.slots, r.big, r.fd = nil, nil, nil, -1
}

// ready reports whether the next slot holds a frame.
func (r *ring) ready() bool {
	return atomic.LoadUint32(&r.slots[r.head].Status)&unix.TP_STATUS_USER != 0
}

// receive lends frames until b is full, the ring is empty or the buffer for
// frames longer than a slot is used up. It counts those it can't lend: lost for
// want of room, bad for what the kernel should never have passed on.
func (r *ring) receive(b []frame.Frame, lost, bad *atomic.Uint64) (n int) {
	full := false // the buffer for long frames
	for n < len(b) && r.out < len(r.slots) && !full {
		s := r.slots[r.head]
		status := atomic.LoadUint32(&s.Status)
		if status&unix.TP_STATUS_USER == 0 {
			break
		}
		f := &b[n]
		ok := true
		switch {
		case status&unix.TP_STATUS_COPY != 0:
			if full = !r.big.fits(int(s.Len)); full {
				continue // the slot stays where it is
			}
			if ok = r.big.receive(r.fd, f, int(s.Len)); !ok {
				bad.Add(1)
			}
		case s.Snaplen < s.Len: // longer than a slot, and no room for a copy
			ok = false
			lost.Add(1)
		case s.Len < frame.HeaderLen:
			ok = false
			bad.Add(1)
		default:
			f.Data = s.bytes()
			f.Hdr = frame.ReadVnetHdr(s.vnet())
		}
		r.out++
		if r.head++; r.head == len(r.slots) {
			r.head = 0
		}
		if !ok {
			continue
		}
		if frame.InTunnel(f.Data, f.Hdr) {
			f.Hdr.GSOType |= frame.GSOTunnel
		}
		f.Rest, f.Strip, f.Tag = nil, 0, 0
		if status&unix.TP_STATUS_VLAN_VALID != 0 {
			f.Tag = makeTag(status, s.Vlan_tci, s.Vlan_tpid)
		} else if isBPDU(f.Data) {
			continue // the control socket has it
		}
		n++
		r.lent++
	}
	if r.lent == 0 {
		r.release() // slots that held nothing to lend
	}
	return n
}

// makeTag is the tag that the kernel took out of a frame.
func makeTag(status uint32, tci, tpid uint16) frame.Tag {
	if status&unix.TP_STATUS_VLAN_TPID_VALID == 0 {
		tpid = frame.EtherTypeVLAN // kernels before 3.14 say no more
	}
	return frame.Tag(tpid)<<16 | frame.Tag(tci)
}

// release gives every slot up to head back to the kernel.
func (r *ring) release() {
	for ; r.out > 0; r.out-- {
		atomic.StoreUint32(&r.slots[r.tail].Status, unix.TP_STATUS_KERNEL)
		if r.tail++; r.tail == len(r.slots) {
			r.tail = 0
		}
	}
	r.lent = 0
	r.big.reset()
}

// drops implements receiver.
func (r *ring) drops() (lost, bad uint64) { return takeDrops(r.fd), 0 }

// socket implements receiver.
func (r *ring) socket() int { return r.fd }

// eager implements receiver.
func (r *ring) eager() bool { return true }
