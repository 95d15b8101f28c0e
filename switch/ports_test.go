package vswitch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

func TestStaticStationDoesNotMoveAndSurvivesFlush(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	if err := l.AddFDB(macA, 0, "p1", true); err != nil {
		t.Fatal(err)
	}
	l.send(2, mem.Ethernet(bcast, macA, "pretender"))
	if _, err := l.FlushFDB("", 0); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.ports {
		p.Sent()
	}
	w := mem.Ethernet(macA, macC, "")
	l.send(3, w)
	l.expect("static", map[int][][]byte{1: one(w)})
}

func TestPortDownForgetsItsStations(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	l.send(1, mem.Ethernet(bcast, macA, ""))
	l.ports[0].SetState(func(s *frame.State) { s.Up, s.Reason = false, "no carrier" })
	eventually(t, "the port is down", func() bool { st, _ := l.PortStatus("p1"); return st.Link == "down" })
	l.ports[1].Sent()
	l.ports[2].Sent()
	w := mem.Ethernet(macA, macB, "")
	l.send(2, w)
	l.expect("down", map[int][][]byte{3: one(w)})
	l.ports[0].SetState(func(s *frame.State) { s.Up = true })
	eventually(t, "the port is up", func() bool { st, _ := l.PortStatus("p1"); return st.Link == "up" })
	w = mem.Ethernet(macC, macB, "")
	l.send(2, w)
	l.expect("up again", map[int][][]byte{1: one(w), 3: one(w)})
}

func TestRemovedPortIsClosedAndItsNumberReused(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	l.send(2, mem.Ethernet(bcast, macA, ""))
	if err := l.RemovePort("p2"); err != nil {
		t.Fatal(err)
	}
	if !l.ports[1].Closed() {
		t.Error("the removed port is not closed")
	}
	l.ports[0].Sent()
	l.ports[2].Sent()
	p := mem.NewPort()
	id, err := l.AddPort("new", p, vswitch.NewPortConfig("memory"))
	if err != nil || id != 2 {
		t.Fatalf("AddPort = %d, %v; want 2", id, err)
	}
	w := mem.Ethernet(macA, macB, "")
	l.send(1, w)
	l.ports[1] = p
	l.expect("the number's former stations are unknown", map[int][][]byte{2: one(w), 3: one(w)})
}

func TestHostInterface(t *testing.T) {
	own := frame.MAC{0x02, 0, 0, 0, 0, 0x77}
	s, err := vswitch.New(vswitch.Config{MAC: own, STP: vswitch.STPConfig{Mode: vswitch.ModeOff}})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Switch: s, t: t, ports: []*mem.Port{mem.NewPort(), mem.NewPort(), mem.NewPort()}}
	if err := s.SetHost("kvs0", l.ports[0]); err != nil {
		t.Fatal(err)
	}
	for i, p := range l.ports[1:] {
		if id, err := s.AddPort(fmt.Sprintf("p%d", i+2), p, vswitch.NewPortConfig("memory")); err != nil || id != i+1 {
			t.Fatalf("AddPort = %d, %v", id, err)
		}
	}
	l.run()
	in := mem.Ethernet(own, macA, "to the host")
	l.send(2, in)
	l.expect("to the host", map[int][][]byte{1: one(in)})
	out := mem.Ethernet(macA, own, "from the host")
	l.send(1, out)
	l.expect("from the host", map[int][][]byte{2: one(out)})
	st := s.Status()
	if st.Host != "kvs0" || len(st.Ports) != 2 || st.HostPort == nil {
		t.Errorf("status: host %q, %d ports", st.Host, len(st.Ports))
	}
	entries, _ := s.FDB("kvs0", 0)
	if len(entries) != 1 || entries[0].Type != "local" {
		t.Errorf("FDB of the host = %+v", entries)
	}
	if err := s.RemovePort("kvs0"); err == nil || !strings.Contains(err.Error(), "it is the host interface") {
		t.Errorf("RemovePort of the host interface: %v", err)
	}
	if l.ports[0].Closed() || s.Status().Host != "kvs0" {
		t.Error("the host interface went although that was refused")
	}
}

// Settings of the host interface move its own address, and nothing else.
func TestHostInterfaceKeepsEntriesAndLimitWhenItIsSet(t *testing.T) {
	own := frame.MAC{0x02, 0, 0, 0, 0, 0x77}
	s, err := vswitch.New(vswitch.Config{MAC: own, VLANFiltering: true, STP: vswitch.STPConfig{Mode: vswitch.ModeOff}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetHost("kvs0", mem.NewPort()); err != nil {
		t.Fatal(err)
	}
	if err := s.AddFDB(macA, 1, "kvs0", true); err != nil {
		t.Fatal(err)
	}
	cfg, _ := s.PortConfig("kvs0")
	cfg.MaxLearned = 1
	native(1, 10, 11)(&cfg)
	for range 2 {
		if err := s.SetPort("kvs0", cfg); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddFDB(macB, 1, "kvs0", false); err != nil {
		t.Fatal(err)
	}
	if err := s.AddFDB(macC, 1, "kvs0", false); err == nil {
		t.Error("the limit on what is learned is gone")
	}
	cfg.VLAN.DelVID(11)
	if err := s.SetPort("kvs0", cfg); err != nil {
		t.Fatal(err)
	}
	entries, _ := s.FDB("kvs0", 0)
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%v %d %s", e.MAC, e.VLAN, e.Type))
	}
	slices.Sort(got)
	want := []string{fmt.Sprintf("%v 1 static", macA), fmt.Sprintf("%v 1 dynamic", macB), own.String() + " 1 local", own.String() + " 10 local"}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}
}

func TestHundredSwitchesInOneProcess(t *testing.T) {
	for i := range 100 {
		l := newLab(t, vswitch.Config{Name: fmt.Sprintf("kvs%d", i)}, 2)
		w := mem.Ethernet(bcast, macA, fmt.Sprint(i))
		l.send(1, w)
		l.expect("each its own", map[int][][]byte{2: one(w)})
	}
}

func TestASecondRunChangesNothing(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	w := mem.Ethernet(bcast, macA, "x")
	l.send(1, w) // Run runs
	l.expect("first", map[int][][]byte{2: one(w)})
	if err := l.Run(context.Background()); !errors.Is(err, vswitch.ErrRan) {
		t.Errorf("second Run: %v, want %v", err, vswitch.ErrRan)
	}
	if l.ports[0].Closed() {
		t.Fatal("a second Run closed the ports of the first")
	}
	l.send(1, w)
	l.expect("after a second Run", map[int][][]byte{2: one(w)})
}

// togetherPort is a port whose Close waits until others are closing, too.
type togetherPort struct {
	*mem.Port
	closing *sync.WaitGroup
	alone   *atomic.Bool
}

func (p togetherPort) Close() error {
	p.closing.Done()
	all := make(chan struct{})
	go func() { p.closing.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(5 * time.Second):
		p.alone.Store(true)
	}
	return p.Port.Close()
}

// Closing a port may take the kernel long; a switch of many must stop in the
// time of one.
func TestPortsAreClosedSideBySide(t *testing.T) {
	s, err := vswitch.New(vswitch.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	const n = 8
	var closing sync.WaitGroup
	var alone atomic.Bool
	closing.Add(n)
	for i := range n {
		if _, err := s.AddPort(fmt.Sprintf("p%d", i), togetherPort{mem.NewPort(), &closing, &alone}, vswitch.NewPortConfig("memory")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if alone.Load() {
		t.Error("a port was closed while others waited for their turn")
	}
}

// Listing a large table takes long, and whoever waits for the switch meanwhile,
// the spanning tree above all, must not.
func TestStaticEntriesGoWithTheVLAN(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 2, trunk(10, 11))
	for _, vid := range []uint16{10, 11} {
		if err := l.AddFDB(macA, vid, "p1", true); err != nil {
			t.Fatal(err)
		}
	}
	c, err := l.PortConfig("p1")
	if err == nil {
		trunk(11)(&c)
	}
	if err == nil {
		err = l.SetPort("p1", c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if e, err := l.FDB("p1", 0); err != nil || len(e) != 1 || e[0].VLAN != 11 {
		t.Errorf("left %+v, %v; want the entry in VLAN 11 alone", e, err)
	}
}

func TestListingTheTableHoldsNobodyUp(t *testing.T) {
	l := newLab(t, vswitch.Config{MaxEntries: 1 << 15}, 1)
	c, err := l.PortConfig("p1")
	if err != nil {
		t.Fatal(err)
	}
	c.MaxLearned = vswitch.NoLimit
	if err := l.SetPort("p1", c); err != nil {
		t.Fatal(err)
	}
	for i := range 1 << 15 {
		if err := l.AddFDB(mem.MAC(i+1), 0, "p1", false); err != nil {
			t.Fatal(err)
		}
	}
	// The scheduler may hold either of the two up, but not in every attempt.
	for range 20 {
		listed := make(chan time.Duration, 1)
		go func() {
			began := time.Now()
			if e, err := l.FDB("", 0); err != nil || len(e) != 1<<15 {
				t.Errorf("FDB: %d entries, %v", len(e), err)
			}
			listed <- time.Since(began)
		}()
		var longest time.Duration
		for len(listed) == 0 {
			began := time.Now()
			l.Config()
			longest = max(longest, time.Since(began))
		}
		if took := <-listed; longest < took/4 {
			return
		}
	}
	t.Error("in no attempt did a call get through while the table was listed")
}

// What a port may learn unless told otherwise is by what is behind it.
func TestGuestsPortsLearnSoManyStations(t *testing.T) {
	s, err := vswitch.New(vswitch.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetHost("host", mem.NewPort()); err != nil {
		t.Fatal(err)
	}
	const more = vswitch.GuestStations + 100
	station := 0
	learns := func(name string, c vswitch.PortConfig) (n int) {
		t.Helper()
		if name != "host" {
			if _, err := s.AddPort(name, mem.NewPort(), c); err != nil {
				t.Fatal(err)
			}
		}
		for range more {
			station++
			if s.AddFDB(mem.MAC(station), 0, name, false) == nil {
				n++
			}
		}
		return n
	}
	change := func(f func(*vswitch.PortConfig)) vswitch.PortConfig {
		c := vswitch.NewPortConfig("memory")
		f(&c)
		return c
	}
	for _, c := range []struct {
		name string
		cfg  vswitch.PortConfig
		want int
	}{
		{"guest", change(func(*vswitch.PortConfig) {}), vswitch.GuestStations},
		{"uplink", change(func(c *vswitch.PortConfig) { c.Uplink = true }), more},
		{"network", change(func(c *vswitch.PortConfig) { c.Network = true }), more},
		{"trusted", change(func(c *vswitch.PortConfig) { c.MaxLearned = vswitch.NoLimit }), more},
		{"poor", change(func(c *vswitch.PortConfig) { c.MaxLearned = 3 }), 3},
		{"bounded", change(func(c *vswitch.PortConfig) { c.Uplink, c.MaxLearned = true, 5 }), 5},
		{"host", vswitch.PortConfig{}, more},
	} {
		if n := learns(c.name, c.cfg); n != c.want {
			t.Errorf("%s: %d stations learned, want %d", c.name, n, c.want)
		}
	}
	// A limit that is set while the port runs.
	c, err := s.PortConfig("trusted")
	if err != nil {
		t.Fatal(err)
	}
	c.MaxLearned = 0
	if err := s.SetPort("trusted", c); err != nil {
		t.Fatal(err)
	}
	if err := s.AddFDB(mem.MAC(1<<20), 0, "trusted", false); err == nil {
		t.Error("a port that has become a guest's as any other learns beyond its limit")
	}
}
