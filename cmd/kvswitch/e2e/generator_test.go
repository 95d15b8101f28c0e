package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// traffic is a seeded source of rounds of frames for the differential test.
//
// Two switches may take the frames of one round in different orders when they
// come in by different ports, so a round never holds two frames whose order
// matters: a station that the round teaches or moves is nobody's destination in
// it, and sends from one port only.
type traffic struct {
	rng   *rand.Rand
	ports int
	// home is the port that each station sent from last.
	home map[int]int
	// where is the port that each address was last heard on; what is absent was
	// never heard, or is forgotten.
	where map[address]int
	sent  int

	// tags are the tags that frames may have.
	tags func(g *traffic, port int) []frame.Tag
	// vlan is the VLAN that a port takes such a frame into, or false if it
	// refuses it.
	vlan func(port int, tags []frame.Tag) (uint16, bool)
	// longest is how long a frame from a port may be, where that is limited.
	longest map[int]int
	// still keeps stations where they are, for oracles that notice moves late.
	still bool
	// sane leaves out sources that no station may have.
	sane bool
}

// address is what a switch learns: a station in a VLAN.
type address struct {
	station int
	vlan    uint16
}

// shipment is a frame and the port it comes in by.
type shipment struct {
	port  int
	frame []byte
}

// knownStations is the size of the pool: small, so that stations move and meet
// again. There are twice as many addresses, so that half the destinations that
// are drawn blindly belong to nobody.
const knownStations = 24

func newTraffic(seed uint64, ports int) *traffic {
	return &traffic{
		rng:   rand.New(rand.NewPCG(seed, 0)),
		ports: ports,
		home:  map[int]int{},
		where: map[address]int{},
		tags:  anyTags,
		vlan:  func(int, []frame.Tag) (uint16, bool) { return 0, true }, // one for all
	}
}

// forgetAll is for the moment when every station has aged out.
func (g *traffic) forgetAll() { clear(g.where) }

// round draws up to n frames.
func (g *traffic) round(n int) []shipment {
	r := round{from: map[address]int{}, changing: map[address]bool{}, addressed: map[address]bool{}}
	for range n {
		kind := &kinds[g.pick()]
		if kind.odd && g.sane {
			continue
		}
		if s, ok := g.draw(kind, &r); ok {
			r.frames = append(r.frames, s)
		}
	}
	for a, port := range r.from {
		g.where[a] = port
	}
	return r.frames
}

// round is one under construction.
type round struct {
	frames    []shipment
	from      map[address]int  // ports that send in it
	changing  map[address]bool // what it teaches or moves
	addressed map[address]bool // its destinations
}

// draw makes one frame that fits into the round, or none.
func (g *traffic) draw(kind *kind, r *round) (shipment, bool) {
	src := g.rng.IntN(knownStations)
	port := g.place(src)
	tags := g.tags(g, port)
	vid, admitted := g.vlan(port, tags)
	from := address{src, vid}

	dst := kind.dst(g, src)
	number, toStation := stationOf(dst)
	to := address{number, vid}

	was, known := g.where[from]
	changing := !known || was != port
	teaches := admitted && kind.src == nil
	if at, sends := r.from[from]; teaches && sends && at != port ||
		teaches && changing && r.addressed[from] ||
		toStation && (r.changing[to] || teaches && changing && to == from) {
		return shipment{}, false
	}
	source := mac(src)
	if kind.src != nil {
		source = kind.src(g, port)
	}
	if teaches {
		g.home[src], r.from[from] = port, port
		r.changing[from] = changing
	}
	if toStation {
		r.addressed[to] = true
	}
	f := g.build(dst, source, tags)
	if most := g.longest[port]; most > 0 {
		f = f[:min(len(f), most)]
	}
	return shipment{port, f}, true
}

// place chooses where a station sends from: mostly where it is, sometimes
// elsewhere.
func (g *traffic) place(station int) int {
	if g.still {
		return station % g.ports
	}
	if home, known := g.home[station]; known && g.rng.IntN(8) != 0 {
		return home
	}
	return g.rng.IntN(g.ports)
}

// kind is one sort of frame.
type kind struct {
	name   string
	weight int
	dst    func(g *traffic, src int) frame.MAC
	src    func(g *traffic, port int) frame.MAC // nil: the station's own
	odd    bool                                 // a source that no station may have
}

// kinds are drawn by weight. A source of its own keeps a frame that isn't
// forwarded from teaching where a station is: see differences.
var kinds = []kind{
	{name: "unicast", weight: 50, dst: func(g *traffic, _ int) frame.MAC { return mac(g.rng.IntN(2 * knownStations)) }},
	{name: "to itself", weight: 2, dst: func(_ *traffic, src int) frame.MAC { return mac(src) }},
	{name: "broadcast", weight: 8, dst: group(frame.Broadcast)},
	{name: "IPv4 multicast", weight: 5, dst: group(frame.MAC{0x01, 0, 0x5e, 0, 0, 0xfb})},
	{name: "IPv6 multicast", weight: 5, dst: group(frame.MAC{0x33, 0x33, 0, 0, 0, 1})},
	{name: "group just above the reserved ones", weight: 3, dst: func(g *traffic, _ int) frame.MAC {
		return frame.MAC{0x01, 0x80, 0xc2, 0, 0, byte(0x10 + g.rng.IntN(0x20))}
	}},
	{name: "reserved group", weight: 4, dst: func(g *traffic, _ int) frame.MAC {
		return frame.MAC{0x01, 0x80, 0xc2, 0, 0, byte(1 + g.rng.IntN(15))}
	}, src: func(_ *traffic, port int) frame.MAC { return frame.MAC{0x02, 0, 0, 0xee, 0, byte(port)} }},
	{name: "from a group", weight: 2, dst: func(g *traffic, _ int) frame.MAC { return mac(g.rng.IntN(knownStations)) },
		src: func(g *traffic, _ int) frame.MAC { return frame.MAC{0x03, 0, 0, 0, 0, byte(g.rng.IntN(4))} }, odd: true},
	{name: "from nobody", weight: 2, dst: func(g *traffic, _ int) frame.MAC { return mac(g.rng.IntN(knownStations)) },
		src: func(*traffic, int) frame.MAC { return frame.MAC{} }, odd: true},
}

func group(m frame.MAC) func(*traffic, int) frame.MAC {
	return func(*traffic, int) frame.MAC { return m }
}

func (g *traffic) pick() int {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	n := g.rng.IntN(total)
	return slices.IndexFunc(kinds, func(k kind) bool { n -= k.weight; return n < 0 })
}

// stationOf is the number behind an address of the pool.
func stationOf(m frame.MAC) (int, bool) {
	n := int(m[4])<<8 | int(m[5])
	return n, m == mac(n)
}

// build makes the frame: its number is in the body, so that no two are alike.
func (g *traffic) build(dst, src frame.MAC, tags []frame.Tag) []byte {
	g.sent++
	f := ether(dst, src, fmt.Sprintf("%s%d ", serialMark, g.sent), tags...)
	switch g.rng.IntN(4) {
	case 0: // as short as it is: shorter than a wire would carry
	case 1:
		f = append(f, make([]byte, g.rng.IntN(1400))...)
	default:
		f = append(f, make([]byte, max(0, 60-len(f)))...)
	}
	return f
}

// serialMark goes before the number in a frame's body.
const serialMark = "frame number "

// serialOf is the number of a frame that build made, whatever its tags are now.
func serialOf(f []byte) (n int) {
	_, after, _ := bytes.Cut(f, []byte(serialMark))
	for _, c := range after {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// anyTags is every sort of tag, for switches that let all of them pass.
func anyTags(g *traffic, _ int) []frame.Tag {
	vid := uint16(g.rng.IntN(4096))
	prio := uint8(g.rng.IntN(16))
	switch g.rng.IntN(12) {
	case 0:
		return []frame.Tag{frame.MakeTag(frame.EtherTypeVLAN, prio, vid)}
	case 1:
		return []frame.Tag{frame.MakeTag(frame.EtherTypeVLAN, prio, 0)}
	case 2:
		return []frame.Tag{frame.MakeTag(frame.EtherTypeQinQ, prio, vid)}
	case 3:
		return []frame.Tag{sTag(vid), cTag(uint16(g.rng.IntN(4096)))}
	case 4:
		return []frame.Tag{cTag(4095), cTag(vid)}
	}
	return nil
}

// noTags is for switches that learn in each VLAN by itself.
func noTags(*traffic, int) []frame.Tag { return nil }
