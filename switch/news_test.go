package vswitch_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/stp"
	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// newsroom is a switch in hand on a clock that the test moves, with its log and
// its events.
type newsroom struct {
	*vswitch.Switch
	t      *testing.T
	now    time.Time
	log    lines
	hand   *vswitch.Hand
	ports  []*mem.Port
	events <-chan vswitch.Event
}

// Now is the clock's.
func (n *newsroom) Now() time.Time { return n.now }

var ownMAC = frame.MAC{0x02, 0, 0, 0, 0, 0x99}

// plainWords are words of an owner who has few.
type plainWords struct{}

func (plainWords) Mend(port, guard string) string { return "look after " + port + " and " + guard }
func (plainWords) PortChange(old, new *vswitch.PortConfig) (from, to string) {
	return fmt.Sprint(old.Isolated), fmt.Sprint(new.Isolated)
}
func (plainWords) SwitchChange(old, new *vswitch.Config) (from, to string) {
	return old.Ageing.String(), new.Ageing.String()
}

func newNewsroom(t *testing.T, cfg vswitch.Config, settings ...setting) *newsroom {
	t.Helper()
	n := &newsroom{t: t, now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}
	cfg.MAC, cfg.Clock, cfg.Words, cfg.Logger = ownMAC, n, plainWords{}, slog.New(slog.NewTextHandler(&n.log, nil))
	var err error
	if n.Switch, err = vswitch.New(cfg); err != nil {
		t.Fatal(err)
	}
	if n.hand, err = n.Hand(); err != nil {
		t.Fatal(err)
	}
	for i, set := range settings {
		pc := vswitch.NewPortConfig("memory")
		if set != nil {
			set(&pc)
		}
		p := mem.NewPort()
		n.ports = append(n.ports, p)
		if _, err := n.AddPort(fmt.Sprintf("p%d", i+1), p, pc); err != nil {
			t.Fatal(err)
		}
	}
	events, stop := n.Subscribe(10000)
	n.events = events
	t.Cleanup(func() {
		stop()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// pass moves the clock, a second at a time.
func (n *newsroom) pass(seconds int) {
	for range seconds {
		n.now = n.now.Add(time.Second)
		n.hand.Tick()
	}
}

// send has frames come in by a port.
func (n *newsroom) send(port int, wires ...[]byte) {
	for _, w := range wires {
		n.ports[port-1].Inject(w)
	}
	for n.hand.Turn() > 0 {
	}
}

// heard takes the events there are of these names.
func (n *newsroom) heard(names ...string) (list []vswitch.Event) {
	for {
		select {
		case e := <-n.events:
			for _, name := range names {
				if e.Event == name {
					list = append(list, e)
				}
			}
		default:
			return list
		}
	}
}

func (n *newsroom) one(name string) vswitch.Event {
	n.t.Helper()
	list := n.heard(name)
	if len(list) != 1 {
		n.t.Fatalf("%d events %s, want one: %+v", len(list), name, list)
	}
	return list[0]
}

func off() vswitch.Config {
	return vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeOff}}
}

// broadcasts are frames of as many stations, from the first on.
func broadcasts(first, stations int) (wires [][]byte) {
	for i := range stations {
		wires = append(wires, mem.Ethernet(bcast, mem.MAC(first+i), ""))
	}
	return wires
}

// What makes a switch flood, or shows a loop, is one line in the log and one event
// with the port, at once, and then no more than one in ten seconds.
func TestTroublesAreTold(t *testing.T) {
	limited := func(c *vswitch.PortConfig) { c.MaxLearned = 4 }
	small := off()
	small.MaxEntries = 8
	for _, tc := range []struct {
		name   string
		cfg    vswitch.Config
		set    setting
		frames [][]byte
		event  string
		count  int
		reason string
		line   string
	}{
		{"a full table", small, nil, broadcasts(100, 11), vswitch.EventFDBFull, 3, "the table has its 8 stations", "what is for them is flooded"},
		{"a full port", off(), limited, broadcasts(100, 9), vswitch.EventFDBFull, 5, "the port has its 4 stations", "what is for them is flooded"},
		{"a loop", off(), nil, [][]byte{mem.Ethernet(bcast, ownMAC, "back again")}, vswitch.EventPortOwn, 1,
			"a loop, or another station with the switch's address; the spanning tree, which ends loops, is off", "frames from the switch's own address came in"},
		{"another station with the address", vswitch.Config{}, nil, [][]byte{mem.Ethernet(bcast, ownMAC, "mine")}, vswitch.EventPortOwn, 1,
			"a loop, or another station with the switch's address", "frames from the switch's own address came in"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNewsroom(t, tc.cfg, nil, tc.set, nil)
			n.send(2, tc.frames...)
			n.pass(1)
			if e := n.one(tc.event); e.Port != "p2" || e.Count != tc.count || e.Reason != tc.reason {
				t.Errorf("event %+v, want port p2, count %d, %q", e, tc.count, tc.reason)
			}
			for range 9 { // a storm
				n.send(2, tc.frames...)
				n.pass(1)
			}
			if more := n.heard(tc.event); len(more) != 0 {
				t.Errorf("within ten seconds there were %d events more", len(more))
			}
			n.pass(1)
			if e := n.one(tc.event); e.Count < 9 {
				t.Errorf("the storm counts %d", e.Count)
			}
			n.pass(30)
			if more := n.heard(tc.event); len(more) != 0 {
				t.Errorf("after the storm: %+v", more)
			}
			if got := n.log.count(tc.line); got != 2 {
				t.Errorf("%d lines in the log, want 2", got)
			}
		})
	}
}

// bpduFrom is a configuration BPDU of another bridge.
func bpduFrom(priority uint16) []byte {
	b := stp.BPDU{Type: stp.TypeConfig, Root: stp.BridgeID{Priority: priority, Addr: mem.MAC(7)}, Bridge: stp.BridgeID{Priority: priority, Addr: mem.MAC(7)},
		MaxAge: 20 * 256, HelloTime: 2 * 256, ForwardDelay: 15 * 256}
	pdu := b.Append(nil)
	w := append([]byte{0x01, 0x80, 0xc2, 0, 0, 0}, mem.Ethernet(bcast, mem.MAC(7), "")[6:12]...)
	w = append(w, 0, byte(3+len(pdu)), 0x42, 0x42, 0x03)
	return append(append(w, pdu...), make([]byte, 60-len(w)-len(pdu))...)
}

// Every event of the tree names its port, also of one that goes, and what was.
func TestTreeEventsSayWhereAndFromWhat(t *testing.T) {
	uplink := func(c *vswitch.PortConfig) { c.Uplink = true }
	n := newNewsroom(t, vswitch.Config{}, uplink, nil)
	own := "8000." + strings.ReplaceAll(ownMAC.String(), ":", "")
	n.send(1, bpduFrom(0x1000))
	for range 40 {
		n.pass(1)
		n.send(1, bpduFrom(0x1000))
	}
	var roles, states, roots []string
	for _, e := range n.heard(vswitch.EventSTPRole, vswitch.EventSTPState, vswitch.EventSTPRoot, vswitch.EventSTPChange) {
		if e.Port != "p1" {
			t.Errorf("event without its port: %+v", e)
		}
		step := e.From + " " + e.To
		switch e.Event {
		case vswitch.EventSTPRole:
			roles = append(roles, step)
		case vswitch.EventSTPState:
			states = append(states, step)
		case vswitch.EventSTPRoot:
			roots = append(roots, step)
		case vswitch.EventSTPChange:
			if e.From != own || e.Reason != "detected" {
				t.Errorf("its own topology change: %+v", e)
			}
		}
	}
	if got := strings.Join(roles, ", "); got != "designated root" {
		t.Errorf("roles: %s", got)
	}
	if got := strings.Join(states, ", "); got != "discarding forwarding" {
		t.Errorf("states: %s", got)
	}
	if got, want := strings.Join(roots, ", "), own+" 1000."+strings.ReplaceAll(mem.MAC(7).String(), ":", ""); got != want {
		t.Errorf("roots: %s, want %s", got, want)
	}
	if err := n.RemovePort("p1"); err != nil {
		t.Fatal(err)
	}
	gone := n.heard(vswitch.EventSTPRole, vswitch.EventSTPState)
	for _, e := range gone {
		if e.Port != "p1" || e.From == "" || e.To != "disabled" {
			t.Errorf("of the port that went: %+v", e)
		}
	}
	if len(gone) != 2 {
		t.Errorf("the port that went: %+v", gone)
	}
}

// A guard that holds a port says what to do about it, wherever it is told.
func TestHeldPortsComeWithTheMend(t *testing.T) {
	n := newNewsroom(t, vswitch.Config{}, nil)
	n.send(1, bpduFrom(0x9000))
	const mend = "look after p1 and bpdu-guard"
	if e := n.one(vswitch.EventGuardTrip); e.Port != "p1" || e.Mend != mend || e.To != "bpdu-guard" {
		t.Errorf("event %+v", e)
	}
	if n.log.count(`mend="`+mend+`"`) != 1 {
		t.Error("the log does not say what to do")
	}
	if p, _ := n.PortStatus("p1"); p.STP.Held != "bpdu-guard" || p.STP.Mend != mend {
		t.Errorf("port %+v", p.STP)
	}
	if tree := n.STPStatus(); tree.Ports[0].Mend != mend {
		t.Errorf("tree %+v", tree.Ports[0])
	}
}

// A port is guarded as a guest's unless it is said to lead elsewhere, or may.
func TestGuestsAloneAreGuardedEdges(t *testing.T) {
	for _, tc := range []struct {
		name          string
		set           setting
		edge, guarded bool
	}{
		{"guest", nil, true, true},
		{"uplink", func(c *vswitch.PortConfig) { c.Uplink = true }, false, false},
		{"network", func(c *vswitch.PortConfig) { c.Network = true }, false, false},
		{"network said to be edge", func(c *vswitch.PortConfig) { c.Network, c.STP.Edge = true, vswitch.On }, true, false},
		{"guarded network", func(c *vswitch.PortConfig) { c.Network, c.STP.BPDUGuard = true, vswitch.On }, false, true},
		{"guest said to find out", func(c *vswitch.PortConfig) { c.STP.Edge = vswitch.Auto }, false, false},
	} {
		n := newNewsroom(t, vswitch.Config{}, tc.set)
		p, err := n.PortStatus("p1")
		if err != nil || p.STP.Edge != tc.edge || p.STP.BPDUGuard != tc.guarded {
			t.Errorf("%s: %+v, %v", tc.name, p.STP, err)
		}
		for range 8 {
			n.pass(1)
			n.send(1)
		}
		if p, _ := n.PortStatus("p1"); !p.STP.Edge || p.STP.State != "forwarding" {
			t.Errorf("%s after eight seconds of silence: %+v", tc.name, p.STP)
		}
	}
}

// Settings that change are told, whoever changes them; those that stay are not.
func TestSettingsAreEvents(t *testing.T) {
	n := newNewsroom(t, vswitch.Config{}, nil)
	cfg, _ := n.PortConfig("p1")
	if err := n.SetPort("p1", cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Isolated = true
	if err := n.SetPort("p1", cfg); err != nil {
		t.Fatal(err)
	}
	if e := n.one(vswitch.EventPortSet); e.Port != "p1" || e.From != "false" || e.To != "true" {
		t.Errorf("event %+v", e)
	}
	tree := n.STP()
	tree.Priority = 4096
	for name, change := range map[string]func() error{
		"ageing":      func() error { return n.SetAgeing(10 * time.Second) },
		"no learning": func() error { return n.SetAgeing(vswitch.AgeingOff) },
		"tree":        func() error { return n.SetSTP(tree) },
		"address":     func() error { return n.SetMAC(mem.MAC(3)) },
	} {
		for again := range 2 {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			if got := len(n.heard(vswitch.EventSwitchSet)); got != 1-again {
				t.Errorf("%s, time %d: %d events", name, again+1, got)
			}
		}
	}
}

// What ages out is told, within the ten seconds that the sweep takes.
func TestAgeingOutIsAnEvent(t *testing.T) {
	n := newNewsroom(t, off(), nil, nil)
	if err := n.SetAgeing(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	n.send(1, broadcasts(100, 1)...)
	n.pass(10)
	if early := n.heard(vswitch.EventFDBAge); len(early) != 0 {
		t.Errorf("after ten seconds: %+v", early)
	}
	n.pass(10)
	if e := n.one(vswitch.EventFDBAge); e.Port != "p1" || e.MAC == nil || *e.MAC != mem.MAC(100) {
		t.Errorf("event %+v", e)
	}
}

// In a full table stations of the port that floods give way, and each is told.
func TestStationThatGivesWayIsAnEvent(t *testing.T) {
	small := off()
	small.MaxEntries = 8
	n := newNewsroom(t, small, nil, nil)
	n.send(1, broadcasts(100, 11)...)
	n.pass(1)
	gone := n.heard(vswitch.EventFDBAge)
	if len(gone) != 3 {
		t.Fatalf("%d events: %+v", len(gone), gone)
	}
	known, err := n.FDB("", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range gone {
		if e.Port != "p1" || slices.ContainsFunc(known, func(f vswitch.FDBEntry) bool { return f.MAC == *e.MAC }) {
			t.Errorf("event %+v; known are %+v", e, known)
		}
	}
}

// With an ageing time of 0 the switch is a hub, as the kernel's bridge is.
func TestAgeingOfZeroLearnsNothing(t *testing.T) {
	n := newNewsroom(t, off(), nil, nil, nil)
	if err := n.SetAgeing(vswitch.AgeingOff); err != nil {
		t.Fatal(err)
	}
	n.send(1, broadcasts(100, 1)...)
	w := mem.Ethernet(mem.MAC(100), mem.MAC(101), "")
	n.ports[2].Sent()
	n.send(2, w)
	if got := n.ports[2].Sent(); len(got) != 1 {
		t.Errorf("a frame to a station that was heard left by %d other ports, want 1", len(got))
	}
	if st := n.Status(); st.AgeingS != 0 || st.FDB.Entries != 0 {
		t.Errorf("%+v", st)
	}
}

// Warnings follow what is so, in the log and in the status.
func TestVLANSettingsWithoutFilteringAreWarnedOf(t *testing.T) {
	n := newNewsroom(t, off(), access(10))
	if got := n.log.count("its VLAN settings have no effect"); got != 1 {
		t.Errorf("%d lines in the log", got)
	}
	check := func(want int) {
		t.Helper()
		if p, _ := n.PortStatus("p1"); len(p.Warnings) != want {
			t.Errorf("warnings %q", p.Warnings)
		}
		if list := n.Warnings(); len(list) != want {
			t.Errorf("warnings %+v", list)
		}
	}
	check(1)
	cfg := vswitch.NewPortConfig("memory")
	if err := n.SetPort("p1", cfg); err != nil {
		t.Fatal(err)
	}
	check(0)
	cfg.VLAN = vswitch.AccessVLAN(7)
	if err := n.SetPort("p1", cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Isolated = true // says nothing of VLANs
	if err := n.SetPort("p1", cfg); err != nil {
		t.Fatal(err)
	}
	check(1)
	if got := n.log.count("its VLAN settings have no effect"); got != 2 {
		t.Errorf("%d lines in the log, want 2", got)
	}
}

// The table is as full as it says: what can't be learned doesn't count.
func TestTableIsFullAtItsLimit(t *testing.T) {
	small := off()
	small.MaxEntries = 8
	n := newNewsroom(t, small, nil, nil)
	host := mem.NewPort()
	if err := n.SetHost("host", host); err != nil {
		t.Fatal(err)
	}
	if err := n.AddFDB(mem.MAC(5), 0, "p2", true); err != nil {
		t.Fatal(err)
	}
	n.send(1, broadcasts(100, 20)...)
	if f := n.Status().FDB; f.Entries != 8 || f.Max != 8 || f.Fixed != 2 {
		t.Errorf("%+v", f)
	}
}
