package vswitch_test

import (
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// The ports of the VLAN matrix, as Open vSwitch's "VLAN handling" test has
// them: a plain trunk of all, access 9 and 10, trunks, native modes, a tunnel.
var matrixPorts = []setting{
	trunk(everyVLAN...),  // p1
	access(10),           // p2
	trunk(10, 12),        // p3
	native(10, 10),       // p4
	native(10, 12),       // p5
	nativeTagged(10, 12), // p6
	tunnel(10),           // p7
	access(12),           // p8
}

const untaggedFrame = -1

// tagOf builds the tag of a matrix row: vid untaggedFrame is no tag, 0 a priority tag.
func build(vid, pcp int) []byte {
	if vid == untaggedFrame {
		return mem.Ethernet(bcast, macA, "matrix")
	}
	return mem.Tagged(bcast, macA, uint16(vid), uint8(pcp), "matrix")
}

func TestVLANMatrix(t *testing.T) {
	const u = untaggedFrame
	type arrival struct{ port, vid int }
	for _, c := range []struct {
		in, vid, pcp int
		want         []arrival
		drop         string
	}{
		// A trunk without a native VLAN.
		{1, u, 0, nil, "vlan-untagged"},
		{1, 0, 5, nil, "vlan-untagged"},
		{1, 10, 0, []arrival{{2, u}, {3, 10}, {4, u}, {5, u}, {6, 10}, {7, u}}, ""},
		{1, 10, 5, []arrival{{2, u}, {3, 10}, {4, u}, {5, u}, {6, 10}, {7, u}}, ""},
		{1, 12, 0, []arrival{{3, 12}, {5, 12}, {6, 12}, {8, u}}, ""},
		{1, 99, 0, nil, "no-egress"},
		{1, 4095, 0, nil, "vlan-reserved"},
		// Access ports: untagged and priority-tagged only.
		{2, u, 0, []arrival{{1, 10}, {3, 10}, {4, u}, {5, u}, {6, 10}, {7, u}}, ""},
		{2, 0, 5, []arrival{{1, 10}, {3, 10}, {4, u}, {5, u}, {6, 10}, {7, u}}, ""},
		{2, 10, 0, nil, "vlan-tagged"},
		{2, 12, 0, nil, "vlan-tagged"},
		{8, u, 0, []arrival{{1, 12}, {3, 12}, {5, 12}, {6, 12}}, ""},
		// A trunk of some VLANs.
		{3, u, 0, nil, "vlan-untagged"},
		{3, 10, 0, []arrival{{1, 10}, {2, u}, {4, u}, {5, u}, {6, 10}, {7, u}}, ""},
		{3, 12, 3, []arrival{{1, 12}, {5, 12}, {6, 12}, {8, u}}, ""},
		{3, 11, 0, nil, "vlan-member"},
		// Native VLANs, untagged and tagged.
		{4, u, 0, []arrival{{1, 10}, {2, u}, {3, 10}, {5, u}, {6, 10}, {7, u}}, ""},
		{4, 10, 0, []arrival{{1, 10}, {2, u}, {3, 10}, {5, u}, {6, 10}, {7, u}}, ""},
		{4, 12, 0, nil, "vlan-member"},
		{5, u, 0, []arrival{{1, 10}, {2, u}, {3, 10}, {4, u}, {6, 10}, {7, u}}, ""},
		{5, 12, 0, []arrival{{1, 12}, {3, 12}, {6, 12}, {8, u}}, ""},
		{6, u, 0, []arrival{{1, 10}, {2, u}, {3, 10}, {4, u}, {5, u}, {7, u}}, ""},
		{6, 10, 0, []arrival{{1, 10}, {2, u}, {3, 10}, {4, u}, {5, u}, {7, u}}, ""},
		{6, 0, 6, []arrival{{1, 10}, {2, u}, {3, 10}, {4, u}, {5, u}, {7, u}}, ""},
		// A tunnel takes untagged frames as any other port.
		{7, u, 0, []arrival{{1, 10}, {2, u}, {3, 10}, {4, u}, {5, u}, {6, 10}}, ""},
	} {
		for _, beside := range []bool{false, true} {
			if beside && c.vid == u {
				continue
			}
			l := newLab(t, vswitch.Config{VLANFiltering: true}, len(matrixPorts), matrixPorts...)
			in := build(c.vid, c.pcp)
			if beside { // the tag comes out of band, as AF_PACKET delivers it
				l.sendFrames(c.in, frame.Frame{Data: append(append([]byte{}, in[:12]...), in[16:]...),
					Tag: frame.MakeTag(0x8100, uint8(c.pcp)<<1, uint16(c.vid))})
			} else {
				l.send(c.in, in)
			}
			want := map[int][][]byte{}
			for _, a := range c.want {
				w := build(a.vid, c.pcp)
				if c.vid != u && a.vid == u { // the tag left with nothing else touched
					w = append(append([]byte{}, in[:12]...), in[16:]...)
				} else if c.vid == u && a.vid != u {
					plain := mem.Ethernet(bcast, macA, "matrix")
					w = append(append(append([]byte{}, plain[:12]...), 0x81, 0, 0, byte(a.vid)), plain[12:]...)
				}
				want[a.port] = one(w)
			}
			l.expect("row", want)
			if c.drop != "" && l.drops(c.in, c.drop) != 1 {
				st, _ := l.PortStatus("p1")
				t.Errorf("in p%d vid %d: not counted as %s: %v", c.in, c.vid, c.drop, st.Drops)
			}
			if t.Failed() {
				t.Fatalf("row: in p%d, vid %d, pcp %d, beside %v", c.in, c.vid, c.pcp, beside)
			}
		}
	}
}

func TestTunnelCarriesCustomersTags(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 3, tunnel(100), trunk(100), tunnel(100))
	in := mem.Tagged(bcast, macA, 7, 3, "customer")
	onTrunk := append(append(append([]byte{}, in[:12]...), 0x81, 0, 0, 100), in[12:]...)
	l.send(1, in)
	l.expect("in band", map[int][][]byte{2: one(onTrunk), 3: one(in)})
	l.sendFrames(1, frame.Frame{Data: append(append([]byte{}, in[:12]...), in[16:]...), Tag: frame.MakeTag(0x8100, 6, 7)})
	l.expect("beside", map[int][][]byte{2: one(onTrunk), 3: one(in)})
	l.send(2, onTrunk)
	l.expect("from the trunk", map[int][][]byte{1: one(in), 3: one(in)})
}

func TestOtherTPIDIsPayload(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 3, access(5), trunk(5), access(6))
	in := mem.Build(bcast, macA, frame.MakeTag(frame.EtherTypeQinQ, 0, 6), 0x88b5, []byte("service tag"))
	want := append(append(append([]byte{}, in[:12]...), 0x81, 0, 0, 5), in[12:]...)
	l.send(1, in)
	l.expect("in band", map[int][][]byte{2: one(want)})
	l.sendFrames(1, frame.Frame{Data: append(append([]byte{}, in[:12]...), in[16:]...), Tag: frame.MakeTag(frame.EtherTypeQinQ, 0, 6)})
	l.expect("beside", map[int][][]byte{2: one(want)})
}

// The VLAN of a service tag is no VLAN of this switch, whatever it wraps.
func TestServiceTagOverCustomerTagIsPayload(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 4,
		native(5, everyVLAN...), access(5), access(20), access(30))
	inner := mem.Tagged(bcast, macA, 30, 0, "customer")
	in := append(append(append([]byte{}, inner[:12]...), 0x88, 0xa8, 0, 20), inner[12:]...)
	l.send(1, in)
	l.expect("in band", map[int][][]byte{2: one(in)})
	l.sendFrames(1, frame.Frame{Data: inner, Tag: frame.MakeTag(frame.EtherTypeQinQ, 0, 20)})
	l.expect("beside", map[int][][]byte{2: one(in)})
}

// A tag does not count against the MTU (802.3 3.2.7), however it came.
func TestOneTagPassesAboveTheMTU(t *testing.T) {
	for _, filtering := range []bool{false, true} {
		for _, tpid := range []uint16{frame.EtherTypeVLAN, frame.EtherTypeQinQ} {
			l := newLab(t, vswitch.Config{VLANFiltering: filtering}, 2, native(1, everyVLAN...), native(1, everyVLAN...))
			in := mem.Build(bcast, macA, frame.MakeTag(tpid, 0, 7), 0x88b5, make([]byte, 1500))
			l.send(1, in)
			l.expect("in band", map[int][][]byte{2: one(in)})
			l.sendFrames(1, frame.Frame{Data: append(append([]byte{}, in[:12]...), in[16:]...), Tag: frame.MakeTag(tpid, 0, 7)})
			l.expect("beside", map[int][][]byte{2: one(in)})
			if t.Failed() {
				t.Fatalf("filtering %v, TPID %#x", filtering, tpid)
			}
		}
	}
}

func TestDoubleTagDoesNotHopVLANs(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 3, access(10), native(10, 20), access(20))
	inner := mem.Tagged(bcast, macA, 20, 0, "hop")
	double := append(append(append([]byte{}, inner[:12]...), 0x81, 0, 0, 10), inner[12:]...)
	l.send(1, double)
	l.expect("double tag on an access port", nil)
}

func TestStationsAreLearnedPerVLAN(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 4, access(10), access(20), trunk(10, 20), access(10))
	l.send(1, mem.Ethernet(bcast, macA, ""))
	l.send(2, mem.Ethernet(bcast, macA, ""))
	for _, p := range l.ports {
		p.Sent()
	}
	l.send(3, mem.Tagged(macA, macB, 10, 0, "x"))
	if n := len(l.ports[0].Sent()); n != 1 {
		t.Errorf("VLAN 10: p1 sent %d frames, want 1", n)
	}
	l.send(3, mem.Tagged(macA, macB, 20, 0, "x"))
	if n := len(l.ports[1].Sent()); n != 1 {
		t.Errorf("VLAN 20: p2 sent %d frames, want 1", n)
	}
	if n := len(l.ports[3].Sent()); n != 0 {
		t.Errorf("p4 sent %d frames of stations known elsewhere, want 0", n)
	}
}

func TestLeavingAVLANFlushesItsStations(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 2, trunk(10, 20), trunk(10, 20))
	l.send(1, mem.Tagged(bcast, macA, 10, 0, ""), mem.Tagged(bcast, macA, 20, 0, ""))
	cfg, err := l.PortConfig("p1")
	if err != nil {
		t.Fatal(err)
	}
	cfg.VLAN.DelVID(10)
	if err := l.SetPort("p1", cfg); err != nil {
		t.Fatal(err)
	}
	entries, _ := l.FDB("", 0)
	if len(entries) != 1 || entries[0].VLAN != 20 {
		t.Errorf("FDB = %+v, want VLAN 20's entry alone", entries)
	}
	l.ports[1].Sent()
	l.send(1, mem.Tagged(bcast, macA, 10, 0, ""))
	l.expect("left", nil)
	if l.drops(1, "vlan-member") != 1 {
		t.Error("a frame of a VLAN that the port left is not counted as vlan-member")
	}
}

// A worker that learns until the last moment leaves nothing behind, or its
// station could not be reached until the entry aged.
func TestLeavingAVLANUnderTrafficLeavesNoStation(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true, MaxEntries: 64}, 0)
	src := mem.NewEndless([]frame.Frame{{Data: mem.Tagged(bcast, macA, 10, 0, "x")}})
	src.Lend(1 << 60)
	in, out := vswitch.NewPortConfig("memory"), vswitch.NewPortConfig("memory")
	trunk(10, 20)(&in)
	trunk(20)(&out)
	if _, err := l.AddPort("p1", src, in); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		eventually(t, "the station is learned", func() bool { e, _ := l.FDB("p1", 10); return len(e) == 1 })
		if err := l.SetPort("p1", out); err != nil {
			t.Fatal(err)
		}
		if e, _ := l.FDB("p1", 10); len(e) != 0 {
			t.Fatalf("p1 has left VLAN 10, and %+v is still there", e)
		}
		if err := l.SetPort("p1", in); err != nil {
			t.Fatal(err)
		}
	}
}

// Thousands of VLANs left at once cost one walk of the table, not one each: the
// switch hears no BPDU meanwhile.
func TestLeavingEveryVLANOfALargeTable(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true, MaxEntries: 1 << 20}, 1, trunk(everyVLAN...))
	cfg, _ := l.PortConfig("p1")
	access(10)(&cfg)
	done := make(chan error, 1)
	go func() { done <- l.SetPort("p1", cfg) }()
	eventually(t, "the port has left its VLANs", func() bool {
		select {
		case err := <-done:
			return err == nil
		default:
			return false
		}
	})
}

func TestTagsAreTransparentWithoutFiltering(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	in := mem.Tagged(bcast, macA, 4095, 7, "any tag")
	l.send(1, in)
	l.expect("in band", map[int][][]byte{2: one(in)})
	l.sendFrames(1, frame.Frame{Data: append(append([]byte{}, in[:12]...), in[16:]...), Tag: frame.MakeTag(0x8100, 14, 4095)})
	l.expect("beside", map[int][][]byte{2: one(in)})
}

// A checksum that is to start within the tag would start in the Ethernet header
// of an untagged copy: such a frame goes nowhere. One that starts behind it does.
func TestChecksumThatStartsInTheTagIsDropped(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 2, trunk(5), access(5))
	f := superFrame(t, 1000)
	inBand := append(append(append([]byte(nil), f.Data[:12]...), 0x81, 0, 0, 5), f.Data[12:]...)
	for start := uint16(0); start < 20; start++ {
		h := frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: start, CsumOffset: 16, HdrLen: 2}
		l.sendFrames(1, frame.Frame{Data: inBand, Hdr: h})
		got := l.ports[1].Sent()
		if want := min(1, int(start)/18); len(got) != want {
			t.Fatalf("checksum from %d: %d frames arrived, want %d", start, len(got), want)
		}
		if len(got) == 1 && (got[0].Hdr.CsumStart != start-4 || int(got[0].Hdr.HdrLen) > len(got[0].Wire)) {
			t.Errorf("checksum from %d: arrived with %+v", start, got[0].Hdr)
		}
	}
	if n := l.drops(1, "runt"); n != 18 {
		t.Errorf("%d dropped as runts, want 18", n)
	}
}
