package vhostuser

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// guest is a network driver in the test's hands: memory in a file, as QEMU's
// memory-backend-memfd has it, and the driver's side of every ring.
type guest struct {
	t       testing.TB
	fd      int         // the memory's file
	mem     []byte      // all of it, as the guest sees it
	regions []memRegion // region 0 holds the rings, the others the buffers
	size    int         // of each ring
	rings   []guestRing
	port    *Port // once attached
	next    int   // buffers are handed out in turn
}

// guestRing is one ring, with what each chain in flight consists of.
type guestRing struct {
	*virtq.Driver
	addr  vringAddr
	bytes [][][]byte // by head
}

const (
	guestBase = 1 << 32 // guest physical address of mem[0]
	userBase  = 5 << 40 // front-end address of mem[0]: never the same
	regionGap = 1 << 24 // between regions, so that none continues another
	bufBytes  = 2048
)

type guestOptions struct {
	pairs   int // 1
	size    int // of each ring, 256
	regions int // that the buffers are spread over, 1
}

// ringArea is the room for a ring's three areas.
func ringArea(size int) int {
	return (virtq.DescBytes(size) + virtq.AvailBytes(size) + 64 + virtq.UsedBytes(size) + 64 + 4095) &^ 4095
}

func newGuest(t testing.TB, o guestOptions) *guest {
	t.Helper()
	o.pairs, o.regions = max(o.pairs, 1), max(o.regions, 1)
	if o.size == 0 {
		o.size = 256
	}
	g := &guest{t: t, size: o.size}
	ringBytes := 2 * o.pairs * ringArea(o.size)
	part := (2*o.pairs*o.size*bufBytes/o.regions + 1<<17 + 4095) &^ 4095
	var err error
	if g.fd, err = unix.MemfdCreate("kvswitch-test-guest", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(g.fd) })
	total := ringBytes + o.regions*part
	if err := unix.Ftruncate(g.fd, int64(total)); err != nil {
		t.Fatal(err)
	}
	if g.mem, err = sysio.Map(g.fd, 0, total); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sysio.Unmap(g.mem) })
	g.addRegion(0, ringBytes)
	for i := range o.regions {
		g.addRegion(ringBytes+i*part, part)
	}
	for i := range 2 * o.pairs {
		g.rings = append(g.rings, g.newRing(i, 0))
	}
	return g
}

func (g *guest) addRegion(off, n int) {
	gap := uint64(len(g.regions)) * regionGap
	g.regions = append(g.regions, memRegion{guestBase + gap + uint64(off), uint64(n), userBase + gap + uint64(off), uint64(off)})
}

// newRing lays ring i out afresh, from index base on.
func (g *guest) newRing(i int, base uint16) guestRing {
	desc := i * ringArea(g.size)
	avail := desc + virtq.DescBytes(g.size)
	used := (avail + virtq.AvailBytes(g.size) + 63) &^ 63
	drv, err := virtq.NewDriver(g.size, g.mem[desc:avail], g.mem[avail:used], g.mem[used:used+virtq.UsedBytes(g.size)], base)
	if err != nil {
		g.t.Fatal(err)
	}
	return guestRing{
		Driver: drv,
		addr:   vringAddr{index: uint32(i), desc: userBase + uint64(desc), avail: userBase + uint64(avail), used: userBase + uint64(used)},
		bytes:  make([][][]byte, g.size),
	}
}

// gpa is the guest address of an offset in mem.
func (g *guest) gpa(off int) uint64 {
	for _, r := range g.regions {
		if d := uint64(off) - r.offset; d < r.size {
			return r.guest + d
		}
	}
	panic("no such offset")
}

// alloc hands out n bytes of buffer memory, the regions in turn.
func (g *guest) alloc(n int) (off int, b []byte) {
	data := g.regions[1:]
	r := data[g.next%len(data)]
	slot := (n + bufBytes - 1) / bufBytes
	slots := int(r.size) / bufBytes
	at := g.next / len(data) % (slots - slot)
	g.next += len(data)*(slot-1) + 1
	off = int(r.offset) + at*bufBytes
	return off, g.mem[off : off+n : off+n]
}

// add offers pieces of memory at the given offsets as one chain of ring i.
func (g *guest) add(i int, indirect bool, write bool, offs []int, pieces [][]byte) uint16 {
	g.t.Helper()
	bufs := make([]virtq.Buf, len(offs))
	for k := range offs {
		bufs[k] = virtq.Buf{Addr: g.gpa(offs[k]), Len: uint32(len(pieces[k])), Write: write}
	}
	r := &g.rings[i]
	var head uint16
	var err error
	if indirect {
		off, table := g.alloc(16 * len(bufs))
		head, err = r.AddIndirect(g.gpa(off), table, bufs...)
	} else {
		head, err = r.Add(bufs...)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	r.bytes[head] = pieces
	return head
}

// post offers a buffer, or several as one chain, to receive into.
func (g *guest) post(pair int, sizes ...int) {
	g.t.Helper()
	var offs []int
	var pieces [][]byte
	for _, n := range sizes {
		off, b := g.alloc(n)
		for i := range b {
			b[i] = 0xee
		}
		offs, pieces = append(offs, off), append(pieces, b)
	}
	g.add(2*pair, false, true, offs, pieces)
}

// send offers bytes, header included, in pieces of the given sizes; what is left
// is the last piece.
func (g *guest) send(pair int, indirect bool, packet []byte, sizes ...int) uint16 {
	g.t.Helper()
	var offs []int
	var pieces [][]byte
	for len(packet) > 0 {
		n := len(packet)
		if len(sizes) > 0 {
			n, sizes = min(n, sizes[0]), sizes[1:]
		}
		off, b := g.alloc(n)
		copy(b, packet)
		packet = packet[n:]
		offs, pieces = append(offs, off), append(pieces, b)
	}
	return g.add(2*pair+1, indirect, false, offs, pieces)
}

// transmit sends finished frames of the given sizes, testFrame each, and has the
// device see them. supply does so with a chain of buffers to receive into.
func (g *guest) transmit(pair int, sizes ...int) {
	g.t.Helper()
	for _, n := range sizes {
		g.send(pair, false, packet(frame.VnetHdr{}, frame.VnetHdrMrgRxbufLen, testFrame(n)))
	}
	g.rings[2*pair+1].Publish()
}

func (g *guest) supply(pair int, sizes ...int) {
	g.t.Helper()
	g.post(pair, sizes...)
	g.rings[2*pair].Publish()
}

// jump makes ring i's available index one that can't be.
func (g *guest) jump(i int) {
	avail := g.mem[g.rings[i].addr.avail-userBase:]
	binary.LittleEndian.PutUint16(avail[2:], uint16(3*g.size))
}

// goneMemory is a page that its owner has taken away: reading it faults.
func goneMemory(t testing.TB) []byte {
	t.Helper()
	fd := memfd(t, 4096)
	mem, err := sysio.Map(fd, 0, 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sysio.Unmap(mem) })
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	return mem
}

// received is a packet as the guest got it.
type received struct {
	hdr   frame.VnetHdr
	num   int // num_buffers
	frame []byte
	lens  []uint32 // of each used element
}

// receive takes everything that came, putting mergeable buffers together again.
func (g *guest) receive(pair, hdrLen int) (list []received) {
	g.t.Helper()
	r := &g.rings[2*pair]
	done := make([]virtq.Done, g.size)
	n, err := r.Reap(done)
	if err != nil {
		g.t.Fatal(err)
	}
	take := func(d virtq.Done) (b []byte) {
		left := int(d.Len)
		for _, p := range r.bytes[d.Head] {
			k := min(left, len(p))
			b, left = append(b, p[:k]...), left-k
		}
		if left > 0 {
			g.t.Fatalf("chain %d: %d bytes more than it holds", d.Head, left)
		}
		return b
	}
	for i := 0; i < n; i++ {
		b := take(done[i])
		p := received{num: 1, lens: []uint32{done[i].Len}}
		if len(b) < hdrLen {
			list = append(list, p) // returned empty
			continue
		}
		p.hdr = frame.ReadVnetHdr(b)
		if hdrLen == frame.VnetHdrMrgRxbufLen {
			p.num = int(binary.LittleEndian.Uint16(b[10:]))
		}
		p.frame = b[hdrLen:]
		for range p.num - 1 {
			if i++; i == n {
				g.t.Fatalf("num_buffers %d: some are missing", p.num)
			}
			p.frame = append(p.frame, take(done[i])...)
			p.lens = append(p.lens, done[i].Len)
		}
		list = append(list, p)
	}
	return list
}

// sent counts what came back of what was sent.
func (g *guest) sent(pair int) int {
	g.t.Helper()
	n, err := g.rings[2*pair+1].Reap(make([]virtq.Done, g.size))
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// attach connects the guest to a port of its own without a socket: what the
// messages would do is done to the port's control side directly.
func (g *guest) attach(features uint64) *Port {
	g.t.Helper()
	p, err := newPort(Options{Path: "none", QueuePairs: len(g.rings) / 2})
	if err != nil {
		g.t.Fatal(err)
	}
	d := newDevice(p)
	p.dev = d
	fds := make([]int, len(g.regions))
	for i := range fds {
		fds[i] = g.fd
	}
	if d.memory, err = mapMemory(g.regions, fds); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { d.stopAll(); d.free(); p.free() })
	d.acked, d.ackedSet = features, true
	for i := range g.rings {
		v := &d.rings[i]
		v.size, v.started, v.enabled, v.addr, v.hasAddr = g.size, true, true, g.rings[i].addr, true
		if err := d.refresh(i); err != nil {
			g.t.Fatal(err)
		}
	}
	p.update()
	p.Acted(p.State())
	g.port = p
	return p
}

// packet is an offload header of hdrLen bytes and a frame.
func packet(h frame.VnetHdr, hdrLen int, f []byte) []byte {
	b := make([]byte, hdrLen, hdrLen+len(f))
	h.Put(b)
	return append(b, f...)
}

// testFrame is an Ethernet frame of n bytes with a pattern in it.
func testFrame(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + n)
	}
	copy(b, []byte{0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00})
	return b
}

// wire is a lent frame as one piece.
func wire(f *frame.Frame) []byte { return (&frame.Out{Frame: f, EgressTag: f.Tag}).AppendWire(nil) }

func outs(frames []frame.Frame) []frame.Out {
	list := make([]frame.Out, len(frames))
	for i := range frames {
		list[i].Frame = &frames[i]
	}
	return list
}

// openFDs counts this process's descriptors, and mappings the guests' memory
// that it has mapped.
func openFDs(t testing.TB) int {
	t.Helper()
	sysio.PrepareSignals() // opens what the process keeps
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
