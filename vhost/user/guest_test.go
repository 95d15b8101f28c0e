package vhostuser

import (
	"testing"

	"github.com/kvswitch/kvswitch/switch/sysio"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// guest is a network driver in the test's hands: memory, and the driver's side
// of every ring, set up by calling the port's control side directly.
type guest struct {
	t     testing.TB
	port  *Port
	mem   []byte   // all regions, one mapping
	parts [][2]int // regions as offset and length in mem
	rings []guestRing
	size  int
}

type guestRing struct {
	*virtq.Driver
	bufs []int // buffer offset by head
}

const (
	guestBase = 1 << 32 // guest physical address of mem[0]
	userBase  = 5 << 40 // front-end address of mem[0]: never the same
	bufBytes  = 2048
)

type guestOptions struct {
	features uint64
	pairs    int
	size     int // of each ring
	regions  int // memory regions the buffers are spread over
}

func ringArea(size int) int {
	n := virtq.DescBytes(size) + virtq.AvailBytes(size) + 64 + virtq.UsedBytes(size) + 64
	return (n + 4095) &^ 4095
}

// newGuest makes a port and attaches a guest to it, without a socket.
func newGuest(t testing.TB, o guestOptions) *guest {
	t.Helper()
	o.pairs, o.size, o.regions = max(o.pairs, 1), max(o.size, 256), max(o.regions, 1)
	p, err := newPort(Options{Path: "none", QueuePairs: o.pairs})
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, port: p, size: o.size}
	nrings := 2 * o.pairs
	ringBytes := nrings * ringArea(o.size)
	part := (nrings*o.size*bufBytes/o.regions + 4095) &^ 4095
	total := ringBytes + o.regions*part
	if g.mem, err = sysio.MapAnonymous(total); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.free(); sysio.Unmap(g.mem) })
	clear(g.mem)
	d := newDevice(p)
	p.dev = d
	var regions []memRegion
	var maps []mapping
	add := func(off, n int) {
		// A hole between regions, so that none continues the one before.
		hole := uint64(len(regions)) << 24
		regions = append(regions, memRegion{guestBase + hole + uint64(off), uint64(n), userBase + hole + uint64(off), 0})
		maps = append(maps, mapping{mem: g.mem[off : off+n : off+n]})
		g.parts = append(g.parts, [2]int{off, n})
	}
	add(0, ringBytes)
	for i := range o.regions {
		add(ringBytes+i*part, part)
	}
	if d.memory, err = newMemory(regions, maps); err != nil {
		t.Fatal(err)
	}
	d.acked, d.ackedSet = o.features, true
	for i := range nrings {
		base := i * ringArea(o.size)
		desc := g.mem[base:][:virtq.DescBytes(o.size)]
		availOff := base + virtq.DescBytes(o.size)
		avail := g.mem[availOff:][:virtq.AvailBytes(o.size)]
		usedOff := (availOff + virtq.AvailBytes(o.size) + 63) &^ 63
		used := g.mem[usedOff:][:virtq.UsedBytes(o.size)]
		drv, err := virtq.NewDriver(o.size, desc, avail, used, 0)
		if err != nil {
			t.Fatal(err)
		}
		drv.DisableCalls()
		g.rings = append(g.rings, guestRing{drv, make([]int, o.size)})
		v := &d.rings[i]
		v.size, v.started, v.enabled, v.hasAddr = o.size, true, true, true
		v.addr = vringAddr{desc: userBase + uint64(base), avail: userBase + uint64(availOff), used: userBase + uint64(usedOff)}
		if err := d.refresh(i); err != nil {
			t.Fatal(err)
		}
	}
	p.update()
	return g
}

// addr is the guest address of an offset in mem.
func (g *guest) addr(off int) uint64 {
	for i, p := range g.parts {
		if off >= p[0] && off < p[0]+p[1] {
			return guestBase + uint64(i)<<24 + uint64(off)
		}
	}
	panic("no such offset")
}

// bufs lists the offsets of all buffers of a ring, spread over the regions in
// turn.
func (g *guest) buffers(ring int) []int {
	var list []int
	data := g.parts[1:]
	perRing := g.size / len(data)
	for i := range g.size {
		p := data[i%len(data)]
		list = append(list, p[0]+(ring*perRing+i/len(data))*bufBytes)
	}
	return list
}
