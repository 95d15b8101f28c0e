package relay

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// outlet is where a test's frames leave: it notes them, and has no descriptor.
type outlet struct {
	frame.Port
	sent []string
	room int // <0 = any number
}

func (o *outlet) Tx(_ int, out []frame.Out) int {
	n := len(out)
	if o.room >= 0 {
		n = min(n, o.room)
		o.room -= n
	}
	for i := range out[:n] {
		o.sent = append(o.sent, string(out[i].AppendWire(nil)))
	}
	return n
}

// control notes what the relay told the other side.
type control struct {
	punts   []Punt
	learned []string
	full    bool
	trouble int
}

func (c *control) Troubled() { c.trouble++ }

func (c *control) Punt(p *Punt) bool {
	if !c.full {
		c.punts = append(c.punts, *p)
	}
	return !c.full
}

func (c *control) Learned(v *View, key fdb.Key, in uint16, moved bool, from uint16) {
	mac := frame.MAC(key.MAC())
	line := mac.String() + " on " + v.PortName(in)
	if moved {
		line += " from " + v.PortName(from)
	}
	c.learned = append(c.learned, line)
}

// bench is a relay with some ports, all in the test's own goroutine.
type testRelay struct {
	*Relay
	table   *fdb.Table
	control *control
	outlets []*outlet
}

// newTestRelay makes one with ports p1, p2, … that set changes before they are
// part of the view.
func newTestRelay(n int, filtering bool, set func(n int, p *Port)) *testRelay {
	r := &testRelay{table: fdb.New(4096, 300), control: new(control)}
	r.Relay = New(0, r.table, r.control)
	v := &View{Seq: 1, Filtering: filtering, Spanning: true, Own: Word(station(99)), Ports: make([]Port, n+1)}
	all := new(frame.VIDSet)
	for vid := range uint16(21) {
		all.Add(vid)
	}
	for i := 1; i <= n; i++ {
		o := &outlet{room: -1}
		r.outlets = append(r.outlets, o)
		p := Port{Name: "p" + string(rune('0'+i)), Tx: o, Counters: make([]Counters, 1), Punts: new(Allowance),
			Gen: r.table.Gen(uint16(i)), PVID: 1, MaxLen: 1514, Learn: true, Learning: true, Forward: true,
			Offloads: frame.Offloads{Csum: true, TSO4: true, TSO6: true}, Member: all, Untagged: new(frame.VIDSet)}
		p.Untagged.Add(1)
		if set != nil {
			set(i, &p)
		}
		v.SetPort(uint16(i), p, [NumClasses]bool{})
	}
	r.Adopt(v)
	return r
}

func station(n byte) frame.MAC { return frame.MAC{2, 0, 0, 0, 0, n} }

// plain is a frame of 60 bytes.
func plain(dst, src frame.MAC, text string) frame.Frame {
	b := append(append(append(make([]byte, 0, 60), dst[:]...), src[:]...), 0x88, 0xb5)
	b = append(b, text...)
	return frame.Frame{Data: append(b, make([]byte, 60-len(b))...)}
}

// drops are the reasons that were counted on port n, and how often.
func (r *testRelay) drops(n int) map[string]uint64 {
	var t Totals
	r.view.Ports[n].Counters[0].AddTo(&t)
	m := map[string]uint64{}
	for why, count := range t.Drops {
		if count > 0 {
			m[Reason(why).String()] = count
		}
	}
	return m
}

// Frames in, frames out, and the explanation, with neither goroutine nor
// descriptor.
func TestARelayIsDrivenByHand(t *testing.T) {
	r := newTestRelay(3, false, nil)
	first, answer := plain(frame.Broadcast, station(1), "who"), plain(station(1), station(2), "me")

	e := r.Explain(1, first)
	if e.Verdict != VerdictFlood || !slices.Equal(e.Out, []uint16{2, 3}) || e.VLAN != 1 {
		t.Errorf("a broadcast is explained as %+v", e)
	}
	if len(r.control.learned) > 0 || r.table.Len() > 0 || len(r.outlets[1].sent) > 0 || len(r.drops(1)) > 0 {
		t.Error("explaining learned, counted or sent something")
	}
	r.Forward(1, []frame.Frame{first})
	r.Forward(2, []frame.Frame{answer})
	for i, want := range [][]string{{string(answer.Data)}, {string(first.Data)}, {string(first.Data)}} {
		if got := r.outlets[i].sent; !slices.Equal(got, want) {
			t.Errorf("p%d sent %q, want %q", i+1, got, want)
		}
	}
	if want := []string{"02:00:00:00:00:01 on p1", "02:00:00:00:00:02 on p2"}; !slices.Equal(r.control.learned, want) {
		t.Errorf("learned %q, want %q", r.control.learned, want)
	}
	e = r.Explain(3, plain(station(1), station(2), "moved"))
	if e.Verdict != VerdictForward || !slices.Equal(e.Out, []uint16{1}) {
		t.Errorf("a known station is explained as %+v", e)
	}
	var steps []string
	for _, s := range e.Steps {
		steps = append(steps, s.Step+": "+s.What)
	}
	want := []string{
		"learn: 02:00:00:00:00:02 is known on p2 in VLAN 1, and would move to p3",
		"lookup: 02:00:00:00:00:01 is on p1 in VLAN 1",
		"egress: by p1, untagged",
	}
	if !slices.Equal(steps, want) {
		t.Errorf("steps\n%s\nwant\n%s", strings.Join(steps, "\n"), strings.Join(want, "\n"))
	}
}

func TestBPDUsArePunted(t *testing.T) {
	r := newTestRelay(2, false, nil)
	bpdu := func(src frame.MAC) frame.Frame {
		b := append([]byte{1, 0x80, 0xc2, 0, 0, 0}, src[:]...)
		b = append(b, 0, 7, 0x42, 0x42, 3, 0, 0, 0, 0x80)
		return frame.Frame{Data: append(b, make([]byte, 39)...)}
	}
	if e := r.Explain(1, bpdu(station(1))); e.Verdict != VerdictPeer {
		t.Errorf("a BPDU is explained as %+v", e)
	}
	r.Forward(1, []frame.Frame{bpdu(station(1)), bpdu(station(99))})
	if len(r.control.punts) != 2 {
		t.Fatalf("%d BPDUs were punted, want 2, one of them the switch's own", len(r.control.punts))
	}
	p := r.control.punts[0]
	if p.Port != 1 || p.Kind != KindBPDU || p.Source() != station(1) || string(p.PDU()) != "\x00\x00\x00\x80" || p.Owner != r.view.Ports[1].Punts {
		t.Errorf("punted %+v", p)
	}
	for range 20 {
		r.Forward(1, []frame.Frame{bpdu(station(1))})
	}
	if n := len(r.control.punts); n != 16 {
		t.Errorf("%d BPDUs wait, want 16 of one port", n)
	}
	for range r.control.punts {
		p.Owner.Heard(KindBPDU)
	}
	r.control.full = true
	r.Forward(1, []frame.Frame{bpdu(station(1))})
	r.control.full = false
	r.Forward(1, []frame.Frame{bpdu(station(1))})
	if n := len(r.control.punts); n != 17 {
		t.Errorf("%d BPDUs were punted, want 17: one found no room, and left none occupied", n)
	}
	if want := map[string]uint64{"bpdu-rate": 7}; !reflect.DeepEqual(r.drops(1), want) {
		t.Errorf("dropped %v, want %v", r.drops(1), want)
	}
}

// What Explain says of a frame is what Forward does with it, whatever the frame
// and the ports are like.
func TestTheExplanationIsWhatHappens(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		maybe := func() bool { return rnd.IntN(4) == 0 }
		r := newTestRelay(5, seed%2 == 1, func(n int, p *Port) {
			p.Hairpin, p.Isolated, p.Tunnel, p.Shared = maybe(), maybe(), maybe(), maybe()
			p.UntaggedOnly = !p.Tunnel && maybe()
			p.Forward = !maybe()
			p.Learning = p.Forward || maybe()
			p.Learn = p.Learning && !maybe()
			p.Deaf = maybe()
			if maybe() {
				p.Extra |= ExtraLocked
			}
			if maybe() {
				p.Offloads = frame.Offloads{}
			}
			p.PVID = []uint16{0, 1, 1, 5, 10}[rnd.IntN(5)]
			p.Member, p.Untagged = new(frame.VIDSet), new(frame.VIDSet)
			for _, vid := range []uint16{1, 5, 10} {
				if !maybe() {
					p.Member.Add(vid)
				}
				if maybe() {
					p.Untagged.Add(vid)
				}
			}
		})
		for i := range byte(6) {
			for _, vid := range []uint16{1, 5, 10} {
				port := uint16(1 + rnd.IntN(5))
				r.table.Learn(fdb.WordKey(Word(station(i)), vid), fdb.Dest{Port: port, Gen: r.table.Gen(port)})
			}
		}
		for range 10 {
			checkExplanation(t, r, rnd)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func checkExplanation(t *testing.T, r *testRelay, rnd *rand.Rand) {
	addresses := []frame.MAC{station(0), station(1), station(2), station(3), station(9), station(99),
		frame.Broadcast, {1, 0, 0x5e, 0, 0, 1}, {1, 0x80, 0xc2, 0, 0, byte(rnd.IntN(17))}, {}}
	f := plain(addresses[rnd.IntN(len(addresses))], addresses[rnd.IntN(7)], "x")
	switch rnd.IntN(8) {
	case 0:
		f.Data = f.Data[:rnd.IntN(20)]
	case 1:
		f.Data = append(f.Data, make([]byte, 1455+rnd.IntN(8))...)
	case 2:
		copy(f.Data[12:], []byte{0x81, 0, byte(rnd.IntN(2)) << 5, byte(rnd.IntN(11)), 8, 0})
	case 3:
		copy(f.Data[12:], []byte{0, 7, 0x42, 0x42, 3, 0, 0, 0, 0x80})
	case 4:
		f.Hdr = frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 34, CsumOffset: 6}
	}
	if rnd.IntN(3) == 0 {
		f.Tag = frame.MakeTag([]uint16{frame.EtherTypeVLAN, frame.EtherTypeQinQ}[rnd.IntN(2)], 0, []uint16{0, 1, 5, 10, 4095}[rnd.IntN(5)])
	}
	in := uint16(1 + rnd.IntN(5))
	for _, o := range r.outlets {
		o.sent = nil
	}
	r.control.punts = nil
	before := r.totals()
	e := r.Explain(in, f)
	if r.totals() != before || len(r.control.punts) > 0 {
		t.Errorf("explaining counted or punted")
	}
	r.Forward(in, []frame.Frame{f})
	var out []uint16
	for i, o := range r.outlets {
		for range o.sent {
			out = append(out, uint16(i+1))
		}
	}
	after := r.totals()
	if len(e.Steps) == 0 {
		t.Error("an explanation without a step")
	}
	slices.Sort(e.Out)
	if !slices.Equal(out, e.Out) || (e.Verdict == VerdictPeer) != (len(r.control.punts) > 0) || (e.Verdict == VerdictDrop) != (len(out) == 0 && len(r.control.punts) == 0) {
		t.Errorf("explained as %+v, left by %v, %d punted\nport %+v\nframe %x tag %x", e, out, len(r.control.punts), r.view.Ports[in], f.Data, f.Tag)
	}
	if e.Verdict == VerdictDrop && after[e.Reason] == before[e.Reason] {
		t.Errorf("explained as dropped for %v, which was not counted", e.Reason)
	}
}

// totals are all drops of all ports.
func (r *testRelay) totals() (all [NumReasons]uint64) {
	for n := range r.view.Ports {
		for i := range r.view.Ports[n].Counters {
			var t Totals
			r.view.Ports[n].Counters[i].AddTo(&t)
			for why, count := range t.Drops {
				all[why] += count
			}
		}
	}
	return all
}

// What two relays write shares no cache line, wherever their counters begin.
func TestCountersKeepApart(t *testing.T) {
	size := reflect.TypeFor[Counters]().Size()
	used := uintptr(reflect.TypeFor[Counters]().NumField()-1) * 8 // rx, tx
	used += reflect.TypeFor[[NumReasons]counter]().Size() - 8
	if size < used+64 {
		t.Errorf("Counters have %d bytes, %d of them in use: less than a cache line lies between two", size, used)
	}
}

func TestEveryReasonHasANameAndAStep(t *testing.T) {
	for why := Pass; why < NumReasons; why++ {
		if why.String() == "" || why != Pass && reasonSteps[why].What == "" {
			t.Errorf("reason %d (%s) has no name or no step", why, why)
		}
	}
}
