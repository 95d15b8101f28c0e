package vswitch_test

import (
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

func TestUnknownUnicastIsFloodedAndKnownIsNot(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	ab := mem.Ethernet(macB, macA, "to an unknown station")
	l.send(1, ab)
	l.expect("unknown", map[int][][]byte{2: one(ab), 3: one(ab)})
	ba := mem.Ethernet(macA, macB, "back")
	l.send(2, ba)
	l.expect("learned", map[int][][]byte{1: one(ba)})
	l.send(1, ab)
	l.expect("both known", map[int][][]byte{2: one(ab)})
}

func TestMovedStationIsReachedFromTheFirstFrame(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	l.send(1, mem.Ethernet(bcast, macA, "here"))
	l.send(2, mem.Ethernet(bcast, macA, "moved"))
	l.expect("broadcasts", map[int][][]byte{
		1: one(mem.Ethernet(bcast, macA, "moved")), 2: one(mem.Ethernet(bcast, macA, "here")),
		3: {mem.Ethernet(bcast, macA, "here"), mem.Ethernet(bcast, macA, "moved")}})
	ca := mem.Ethernet(macA, macC, "hello")
	l.send(3, ca)
	l.expect("moved", map[int][][]byte{2: one(ca)})
}

func TestFrameToItsOwnPortIsDroppedByName(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	l.send(1, mem.Ethernet(bcast, macA, ""), mem.Ethernet(bcast, macB, ""))
	l.ports[1].Sent()
	l.send(1, mem.Ethernet(macB, macA, ""))
	l.expect("filtered", nil)
	if n := l.drops(1, "same-port"); n != 1 {
		t.Errorf("same-port = %d, want 1", n)
	}
}

func TestBadFramesAreDroppedByName(t *testing.T) {
	own := frame.MAC{0x02, 0, 0, 0, 0, 0x77}
	cases := []struct {
		reason string
		wire   []byte
	}{
		{"runt", []byte{1, 2, 3}},
		{"runt", append(append([]byte{}, macB[:]...), macA[:]...)},
		{"group-source", mem.Ethernet(macB, frame.MAC{1, 0, 0x5e, 0, 0, 1}, "")},
		{"zero-source", mem.Ethernet(macB, frame.MAC{}, "")},
		{"own-source", mem.Ethernet(macB, own, "")},
		{"link-local", mem.Ethernet(frame.MAC{1, 0x80, 0xc2, 0, 0, 0}, macA, "")},
		{"link-local", mem.Ethernet(frame.MAC{1, 0x80, 0xc2, 0, 0, 0x0f}, macA, "")},
		{"link-local", mem.Tagged(frame.MAC{1, 0x80, 0xc2, 0, 0, 2}, macA, 5, 0, "")},
		{"egress-mtu", mem.Ethernet(macB, macA, string(make([]byte, 1501)))},
	}
	for _, c := range cases {
		t.Run(c.reason, func(t *testing.T) {
			l := newLab(t, vswitch.Config{MAC: own}, 2)
			l.send(1, c.wire)
			l.expect("dropped", nil)
			in := 1
			if c.reason == "egress-mtu" {
				in = 2
			}
			if n := l.drops(in, c.reason); n != 1 {
				t.Errorf("%s = %d, want 1", c.reason, n)
			}
		})
	}
}

func TestGroupAddressesBeyondLinkLocalAreForwarded(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	for _, dst := range []frame.MAC{{1, 0x80, 0xc2, 0, 0, 0x10}, {1, 0x80, 0xc2, 0, 0, 0x20}, {1, 0, 0x5e, 1, 2, 3}, {0x33, 0x33, 0, 0, 0, 1}} {
		w := mem.Ethernet(dst, macA, dst.String())
		l.send(1, w)
		l.expect(dst.String(), map[int][][]byte{2: one(w)})
	}
}

func TestFullPortLosesItsOwnFramesOnly(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	l.ports[1].SetRoom(1)
	a, b := mem.Ethernet(bcast, macA, "1"), mem.Ethernet(bcast, macA, "2")
	l.ports[0].Inject(a, b)
	l.settle()
	l.expect("slow port", map[int][][]byte{2: one(a), 3: {a, b}})
	if n := l.drops(2, "egress-full"); n != 1 {
		t.Errorf("egress-full = %d, want 1", n)
	}
	st, _ := l.PortStatus("p2")
	if st.TX.Frames != 1 || st.TX.Bytes != uint64(len(a)) || st.TX.Dropped != 1 {
		t.Errorf("tx = %+v", st.TX)
	}
}

func TestPortSettings(t *testing.T) {
	unknown, multi, broad := mem.Ethernet(macB, macA, "u"), mem.Ethernet(frame.MAC{1, 0, 0x5e, 0, 0, 9}, macA, "m"), mem.Ethernet(bcast, macA, "b")
	for _, c := range []struct {
		name   string
		words  setting  // of port 2
		arrive [][]byte // at port 2
	}{
		{"default", nil, [][]byte{unknown, multi, broad}},
		{"flood=off", func(c *vswitch.PortConfig) { c.NoFlood = true }, [][]byte{multi, broad}},
		{"mcast-flood=off", func(c *vswitch.PortConfig) { c.NoMulticastFlood = true }, [][]byte{unknown, broad}},
		{"bcast-flood=off", func(c *vswitch.PortConfig) { c.NoBroadcastFlood = true }, [][]byte{unknown, multi}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, vswitch.Config{}, 3, nil, c.words)
			for _, w := range [][]byte{unknown, multi, broad} {
				l.send(1, w)
			}
			l.expect(c.name, map[int][][]byte{2: c.arrive, 3: {unknown, multi, broad}})
		})
	}
	t.Run("learning=off", func(t *testing.T) {
		l := newLab(t, vswitch.Config{}, 3, func(c *vswitch.PortConfig) { c.NoLearning = true })
		l.send(1, broad)
		l.ports[1].Sent()
		l.ports[2].Sent()
		ba := mem.Ethernet(macA, macB, "")
		l.send(2, ba)
		l.expect("not learned", map[int][][]byte{1: one(ba), 3: one(ba)})
	})
	t.Run("isolated", func(t *testing.T) {
		l := newLab(t, vswitch.Config{}, 3, isolated, isolated)
		l.send(1, broad)
		l.expect("flood", map[int][][]byte{3: one(broad)})
		l.send(2, mem.Ethernet(macA, macB, ""))
		l.expect("unicast", nil)
		if l.drops(2, "isolated") != 1 {
			t.Error("unicast between isolated ports is not counted as isolated")
		}
	})
	t.Run("locked", func(t *testing.T) {
		l := newLab(t, vswitch.Config{}, 2, func(c *vswitch.PortConfig) { c.Locked = true })
		l.send(1, broad)
		l.expect("unknown source", nil)
		if err := l.AddFDB(macA, 0, "p1", true); err != nil {
			t.Fatal(err)
		}
		l.send(1, broad)
		l.expect("known source", map[int][][]byte{2: one(broad)})
		if l.drops(1, "locked") != 1 {
			t.Error("a frame from an unknown source is not counted as locked")
		}
	})
	t.Run("hairpin", func(t *testing.T) {
		l := newLab(t, vswitch.Config{}, 2, func(c *vswitch.PortConfig) { c.Hairpin = true })
		l.send(1, broad)
		l.expect("back", map[int][][]byte{1: one(broad), 2: one(broad)})
	})
}
