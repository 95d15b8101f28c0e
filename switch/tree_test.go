package vswitch_test

import (
	"fmt"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// ring is three switches in a triangle, each with a station: the smallest
// network that a broadcast would circle in for ever.
type ring struct {
	sw       [3]*lab
	stations [3]*mem.Port
	cables   [3]*mem.Port // one end of the cable from switch i to i+1
}

func newRing(t *testing.T, mode vswitch.STPMode) *ring {
	r := &ring{}
	for i := range r.sw {
		r.sw[i] = newTreeLab(t, vswitch.Config{
			Name: fmt.Sprintf("s%d", i), MAC: frame.MAC{2, 0, 0, 0, 0, byte(i + 1)},
			STP: vswitch.STPConfig{Mode: mode, Hello: time.Second, MaxAge: 6 * time.Second, ForwardDelay: 4 * time.Second},
		}, 0)
		r.stations[i] = mem.NewPort()
		r.add(t, i, "station", r.stations[i], vswitch.NewPortConfig("memory"))
	}
	for i := range r.sw {
		a, b := mem.NewCable()
		r.cables[i] = a
		uplink := vswitch.NewPortConfig("memory")
		uplink.Uplink = true
		next := (i + 1) % len(r.sw)
		r.add(t, i, fmt.Sprintf("to-s%d", next), a, uplink)
		r.add(t, next, fmt.Sprintf("to-s%d", i), b, uplink)
	}
	return r
}

func (r *ring) add(t *testing.T, i int, name string, p *mem.Port, cfg vswitch.PortConfig) {
	t.Helper()
	if _, err := r.sw[i].AddPort(name, p, cfg); err != nil {
		t.Fatal(err)
	}
}

// converged waits until all agree on the root and exactly blocked ports of
// cables that are up discard.
func (r *ring) converged(t *testing.T, root string, blocked int) {
	t.Helper()
	eventually(t, fmt.Sprintf("all agree on root %s with %d blocked ports", root, blocked), func() bool {
		n := 0
		for _, s := range r.sw {
			st := s.Status()
			if st.STP.RootID != root {
				return false
			}
			for _, p := range st.Ports {
				if p.Link == "up" && p.STP.State != "forwarding" {
					n++
				}
			}
		}
		return n == blocked
	})
}

// crosses sends broadcasts from station 0 until the others have heard one.
func (r *ring) crosses(t *testing.T, what string) {
	t.Helper()
	for _, p := range r.stations {
		p.Sent()
	}
	w := mem.Ethernet(bcast, macA, what)
	for i, p := range r.stations[1:] {
		eventually(t, fmt.Sprintf("%s: station %d hears the broadcast", what, i+1), func() bool {
			r.stations[0].Inject(w)
			for _, got := range p.Sent() {
				if string(got.Wire) == string(w) {
					return true
				}
			}
			return false
		})
	}
}

func TestTriangleConvergesAndHealsWithoutAStorm(t *testing.T) {
	r := newRing(t, vswitch.ModeRSTP)
	r.converged(t, "8000.020000000001", 1)
	r.crosses(t, "whole")
	// With a loop a broadcast would pass for ever; with a tree, a few frames.
	var seen uint64
	for _, s := range r.sw {
		for _, p := range s.Status().Ports {
			seen += p.RX.Frames
		}
	}
	if seen > 10_000 {
		t.Errorf("%d frames received by a ring that was given a few: a storm", seen)
	}
	start := time.Now()
	r.cables[0].Cut(true)
	r.crosses(t, "cut")
	t.Logf("traffic again %v after the cut", time.Since(start))
	r.converged(t, "8000.020000000001", 0)
	r.cables[0].Cut(false)
	r.converged(t, "8000.020000000001", 1)
	r.crosses(t, "mended")
}

func TestStationPortForwardsItsFirstFrame(t *testing.T) {
	l := newTreeLab(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeRSTP}}, 2)
	w := mem.Ethernet(bcast, macA, "first")
	l.send(1, w)
	got := l.ports[1].Wait(1)
	found := false
	for _, g := range got {
		found = found || string(g.Wire) == string(w)
	}
	if !found {
		t.Error("the first frame of a new port was not forwarded")
	}
}

func TestGuestThatBridgesIsGuardedAlone(t *testing.T) {
	l := newTreeLab(t, vswitch.Config{MAC: frame.MAC{2, 0, 0, 0, 0, 9}, STP: vswitch.STPConfig{Mode: vswitch.ModeRSTP}}, 3)
	events, cancel := l.Subscribe(100)
	defer cancel()
	// A superior RST BPDU: priority 0, root of everything (802.1D-2004 9.3.3).
	pdu := []byte{0, 0, 2, 2, 0x7c,
		0, 0, 2, 0xbd, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0xbd, 0, 0, 0, 1, 0x80, 1, 0, 0, 0x14, 0, 2, 0, 0x0f, 0, 0}
	wire := append([]byte{1, 0x80, 0xc2, 0, 0, 0}, macA[:]...)
	wire = append(wire, 0, byte(3+len(pdu)), 0x42, 0x42, 3)
	wire = append(wire, pdu...)
	l.send(1, wire)
	eventually(t, "the guard holds the port", func() bool { st, _ := l.PortStatus("p1"); return st.STP.Guard != "" })
	for e := range events {
		if e.Event == vswitch.EventGuardTrip {
			if e.Port != "p1" || e.MAC == nil || *e.MAC != macA || e.From != "0000.02bd00000001" {
				t.Errorf("guard.trip = %+v, MAC %v", e, e.MAC)
			}
			break
		}
	}
	st := l.Status()
	if st.STP.RootID != st.BridgeID {
		t.Errorf("root is %s: the guest took the tree over", st.STP.RootID)
	}
	l.ports[1].Sent()
	l.ports[2].Sent()
	w := mem.Ethernet(bcast, macB, "others")
	l.send(2, w)
	eventually(t, "the others go on", func() bool {
		for _, g := range l.ports[2].Sent() {
			if string(g.Wire) == string(w) {
				return true
			}
		}
		return false
	})
	if err := l.RecoverPort("p1"); err != nil {
		t.Fatal(err)
	}
	if st, _ := l.PortStatus("p1"); st.STP.State != "forwarding" {
		t.Errorf("recovered port is %s", st.STP.State)
	}
}

func TestFloodOfBPDUsIsLimited(t *testing.T) {
	l := newTreeLab(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeRSTP}}, 2, func(c *vswitch.PortConfig) { c.STP.BPDUGuard = vswitch.Off })
	wire := append([]byte{1, 0x80, 0xc2, 0, 0, 0}, macA[:]...)
	wire = append(wire, 0, 7, 0x42, 0x42, 3, 0, 0, 0, 0x80)
	wire = append(wire, make([]byte, 60-len(wire))...)
	for range 20 {
		batch := make([][]byte, 64)
		for i := range batch {
			batch[i] = wire
		}
		l.send(1, batch...)
	}
	if n := l.drops(1, "bpdu-rate"); n < 900 {
		t.Errorf("bpdu-rate = %d of 1280, want all but a second or two's allowance", n)
	}
}

// A guest with two cards that bridges them without a spanning tree of its own
// sends the switch's BPDUs back to it, under the switch's own address where ports
// have none.
func TestSwitchHearsItsOwnBPDUs(t *testing.T) {
	for name, c := range map[string]struct {
		set   setting
		state func(a, b vswitch.PortStatus) bool
	}{
		"ports of guests": {nil, func(a, b vswitch.PortStatus) bool {
			return a.STP.Guard != "" || b.STP.Guard != ""
		}},
		"ports that find out": {func(c *vswitch.PortConfig) { c.STP.Edge, c.STP.BPDUGuard = vswitch.Off, vswitch.Off }, func(a, b vswitch.PortStatus) bool {
			return a.STP.Role == "designated" && b.STP.Role == "backup" && b.STP.State != "forwarding"
		}},
	} {
		for _, mode := range []vswitch.STPMode{vswitch.ModeRSTP, vswitch.ModeSTP} {
			t.Run(name+", "+mode.String(), func(t *testing.T) {
				l := newTreeLab(t, vswitch.Config{MAC: frame.MAC{2, 0, 0, 0, 0, 9}, STP: vswitch.STPConfig{Mode: mode}}, 0)
				a, b := mem.NewCable()
				for i, p := range []*mem.Port{a, b} {
					cfg := vswitch.NewPortConfig("memory")
					if c.set != nil {
						c.set(&cfg)
					}
					if _, err := l.AddPort([]string{"a", "b"}[i], p, cfg); err != nil {
						t.Fatal(err)
					}
				}
				eventually(t, "the loop is cut", func() bool {
					sa, _ := l.PortStatus("a")
					sb, _ := l.PortStatus("b")
					return c.state(sa, sb)
				})
			})
		}
	}
}

func TestGuardedPortIsDeafToBPDUs(t *testing.T) {
	l := newTreeLab(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeRSTP}}, 2)
	wire := append([]byte{1, 0x80, 0xc2, 0, 0, 0}, macA[:]...)
	wire = append(wire, 0, 7, 0x42, 0x42, 3, 0, 0, 0, 0x80)
	l.send(1, wire)
	eventually(t, "the guard holds the port", func() bool { st, _ := l.PortStatus("p1"); return st.STP.Guard != "" })
	for range 300 {
		l.send(1, wire)
	}
	if rate, state := l.drops(1, "bpdu-rate"), l.drops(1, "port-state"); rate != 0 || state != 300 {
		t.Errorf("bpdu-rate = %d, port-state = %d; want 0 and 300", rate, state)
	}
}

func TestTaggedFrameToTheBridgeAddressIsNoBPDU(t *testing.T) {
	l := newTreeLab(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeRSTP}}, 2)
	l.send(1, mem.Tagged(frame.MAC{1, 0x80, 0xc2, 0, 0, 0}, macA, 1, 7, "\x42\x42\x03\x00\x00\x02\x02"))
	if n := l.drops(1, "link-local"); n != 1 {
		t.Errorf("link-local = %d, want 1", n)
	}
	if st, _ := l.PortStatus("p1"); st.STP.Guard != "" {
		t.Errorf("guard %q: a tagged frame passed for a BPDU", st.STP.Guard)
	}
}

// With the tree off a switch is a cable to the switches beside it, which must see
// a loop that leads through it. A guest's port keeps its guard.
func TestBPDUsPassWhereThereIsNoTreeExceptFromGuardedPorts(t *testing.T) {
	uplink := func(c *vswitch.PortConfig) { c.Uplink = true }
	filter := func(c *vswitch.PortConfig) { c.Uplink, c.STP.BPDUFilter = true, true }
	guest := func(c *vswitch.PortConfig) { c.STP.BPDUGuard = vswitch.On }
	l := newLab(t, vswitch.Config{}, 4, uplink, uplink, guest, filter)
	wire := append([]byte{1, 0x80, 0xc2, 0, 0, 0}, macA[:]...)
	wire = append(wire, 0, 7, 0x42, 0x42, 3, 0, 0, 0, 0x80)
	l.send(1, wire)
	l.expect("a BPDU of an uplink", map[int][][]byte{2: {wire}, 3: {wire}, 4: {wire}})
	l.send(3, wire)
	l.send(4, wire)
	l.expect("BPDUs of a guarded port, and of one with a filter", nil)
	if a, b := l.drops(3, "link-local"), l.drops(4, "link-local"); a != 1 || b != 1 {
		t.Errorf("link-local = %d and %d, want 1 and 1", a, b)
	}
	other := append([]byte{1, 0x80, 0xc2, 0, 0, 3}, wire[6:]...)
	l.send(1, other)
	l.expect("another reserved address", nil)
	// With a tree they are its own.
	if err := l.SetSTP(vswitch.STPConfig{Mode: vswitch.ModeRSTP}); err != nil {
		t.Fatal(err)
	}
	l.send(1, wire)
	eventually(t, "the tree hears it", func() bool { return l.STPStatus().Ports[0].Counters.RxTCN == 1 })
}

// A delay that was set where there was no tree, as brctl does, is raised to what
// the standard has when there is to be one. Whoever sets it for a tree has it.
func TestForwardDelayThatWasSetWithoutATree(t *testing.T) {
	stp := vswitch.STPConfig{Mode: vswitch.ModeOff, ForwardDelay: 4 * time.Second}
	l := newLab(t, vswitch.Config{STP: stp}, 1)
	stp.Mode = vswitch.ModeRSTP
	if s, err := vswitch.New(vswitch.Config{STP: stp}); err != nil || s.STP().ForwardDelay != 4*time.Second {
		t.Errorf("a tree that is asked for with 4s: %v", err) // it warns
	}
	c := l.STP()
	c.Mode = vswitch.ModeRSTP
	if err := l.SetSTP(c); err != nil || l.STP().ForwardDelay != 11*time.Second {
		t.Errorf("the tree is on with %v, %v; want 11s", l.STP().ForwardDelay, err)
	}
}
