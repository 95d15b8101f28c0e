package vswitch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/porttest"
)

// lab is a running switch with ports in memory, named p1, p2, …
type lab struct {
	*vswitch.Switch
	t     testing.TB
	ports []*porttest.Port
}

// newLab runs a switch with n ports configured by words such as "vlan=10".
func newLab(t testing.TB, cfg vswitch.Config, n int, words ...[]vswitch.KeyValue) *lab {
	t.Helper()
	if cfg.STP.Mode == "" {
		cfg.STP.Mode = "off"
	}
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := vswitch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Switch: s, t: t}
	for i := range n {
		p := porttest.NewPort()
		pc := vswitch.NewPortConfig("memory")
		if i < len(words) {
			if err := pc.Set(words[i]...); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.AddPort(fmt.Sprintf("p%d", i+1), p, pc); err != nil {
			t.Fatal(err)
		}
		l.ports = append(l.ports, p)
	}
	l.run()
	return l
}

func (l *lab) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	})
}

// send injects frames into port n (1…) and waits until the switch is done with them.
func (l *lab) send(n int, wires ...[]byte) {
	l.t.Helper()
	l.ports[n-1].Inject(wires...)
	l.settle()
}

func (l *lab) sendFrames(n int, frames ...frame.Frame) {
	l.t.Helper()
	l.ports[n-1].InjectFrames(frames...)
	l.settle()
}

func (l *lab) settle() {
	l.t.Helper()
	eventually(l.t, "the switch takes every frame", func() bool {
		for _, p := range l.ports {
			if !p.Closed() && !p.Idle() {
				return false
			}
		}
		return true
	})
}

// expect checks what left by every port since the last call: want[n] for port n.
func (l *lab) expect(what string, want map[int][][]byte) {
	l.t.Helper()
	for i, p := range l.ports {
		got := p.Sent()
		w := want[i+1]
		if len(got) != len(w) {
			l.t.Errorf("%s: p%d sent %d frames, want %d", what, i+1, len(got), len(w))
			continue
		}
		for j := range got {
			if !bytes.Equal(got[j].Wire, w[j]) {
				l.t.Errorf("%s: p%d frame %d:\n got %x\nwant %x", what, i+1, j, got[j].Wire, w[j])
			}
		}
	}
}

// drops is a drop counter of port n.
func (l *lab) drops(n int, reason string) uint64 {
	l.t.Helper()
	ps, err := l.PortStatus(fmt.Sprintf("p%d", n))
	if err != nil {
		l.t.Fatal(err)
	}
	return ps.Drops[reason]
}

// eventually polls for a condition; ten seconds is far more than any takes.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func words(kv ...string) (list []vswitch.KeyValue) {
	for i := 0; i < len(kv); i += 2 {
		list = append(list, vswitch.KeyValue{Key: kv[i], Value: kv[i+1]})
	}
	return list
}

var (
	macA, macB, macC = porttest.MAC(1), porttest.MAC(2), porttest.MAC(3)
	bcast            = frame.Broadcast
)

func one(b []byte) [][]byte { return [][]byte{b} }

func TestUnknownUnicastIsFloodedAndKnownIsNot(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	ab := porttest.Ethernet(macB, macA, "to an unknown station")
	l.send(1, ab)
	l.expect("unknown", map[int][][]byte{2: one(ab), 3: one(ab)})
	ba := porttest.Ethernet(macA, macB, "back")
	l.send(2, ba)
	l.expect("learned", map[int][][]byte{1: one(ba)})
	l.send(1, ab)
	l.expect("both known", map[int][][]byte{2: one(ab)})
}

func TestMovedStationIsReachedFromTheFirstFrame(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	l.send(1, porttest.Ethernet(bcast, macA, "here"))
	l.send(2, porttest.Ethernet(bcast, macA, "moved"))
	l.expect("broadcasts", map[int][][]byte{
		1: one(porttest.Ethernet(bcast, macA, "moved")), 2: one(porttest.Ethernet(bcast, macA, "here")),
		3: {porttest.Ethernet(bcast, macA, "here"), porttest.Ethernet(bcast, macA, "moved")}})
	ca := porttest.Ethernet(macA, macC, "hello")
	l.send(3, ca)
	l.expect("moved", map[int][][]byte{2: one(ca)})
}

func TestFrameToItsOwnPortIsDroppedByName(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	l.send(1, porttest.Ethernet(bcast, macA, ""), porttest.Ethernet(bcast, macB, ""))
	l.ports[1].Sent()
	l.send(1, porttest.Ethernet(macB, macA, ""))
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
		{"group-source", porttest.Ethernet(macB, frame.MAC{1, 0, 0x5e, 0, 0, 1}, "")},
		{"zero-source", porttest.Ethernet(macB, frame.MAC{}, "")},
		{"own-source", porttest.Ethernet(macB, own, "")},
		{"link-local", porttest.Ethernet(frame.MAC{1, 0x80, 0xc2, 0, 0, 0}, macA, "")},
		{"link-local", porttest.Ethernet(frame.MAC{1, 0x80, 0xc2, 0, 0, 0x0f}, macA, "")},
		{"link-local", porttest.Tagged(frame.MAC{1, 0x80, 0xc2, 0, 0, 2}, macA, 5, 0, "")},
		{"egress-mtu", porttest.Ethernet(macB, macA, string(make([]byte, 1501)))},
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
		w := porttest.Ethernet(dst, macA, dst.String())
		l.send(1, w)
		l.expect(dst.String(), map[int][][]byte{2: one(w)})
	}
}

func TestFullPortLosesItsOwnFramesOnly(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	l.ports[1].SetRoom(1)
	a, b := porttest.Ethernet(bcast, macA, "1"), porttest.Ethernet(bcast, macA, "2")
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
	unknown, multi, broad := porttest.Ethernet(macB, macA, "u"), porttest.Ethernet(frame.MAC{1, 0, 0x5e, 0, 0, 9}, macA, "m"), porttest.Ethernet(bcast, macA, "b")
	for _, c := range []struct {
		name   string
		words  []vswitch.KeyValue // of port 2
		arrive [][]byte           // at port 2
	}{
		{"default", nil, [][]byte{unknown, multi, broad}},
		{"flood=off", words("flood", "off"), [][]byte{multi, broad}},
		{"mcast-flood=off", words("mcast-flood", "off"), [][]byte{unknown, broad}},
		{"bcast-flood=off", words("bcast-flood", "off"), [][]byte{unknown, multi}},
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
		l := newLab(t, vswitch.Config{}, 3, words("learning", "off"))
		l.send(1, broad)
		l.ports[1].Sent()
		l.ports[2].Sent()
		ba := porttest.Ethernet(macA, macB, "")
		l.send(2, ba)
		l.expect("not learned", map[int][][]byte{1: one(ba), 3: one(ba)})
	})
	t.Run("isolated", func(t *testing.T) {
		l := newLab(t, vswitch.Config{}, 3, words("isolated", "on"), words("isolated", "on"))
		l.send(1, broad)
		l.expect("flood", map[int][][]byte{3: one(broad)})
		l.send(2, porttest.Ethernet(macA, macB, ""))
		l.expect("unicast", nil)
		if l.drops(2, "isolated") != 1 {
			t.Error("unicast between isolated ports is not counted as isolated")
		}
	})
	t.Run("locked", func(t *testing.T) {
		l := newLab(t, vswitch.Config{}, 2, words("locked", "on"))
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
		l := newLab(t, vswitch.Config{}, 2, words("hairpin", "on"))
		l.send(1, broad)
		l.expect("back", map[int][][]byte{1: one(broad), 2: one(broad)})
	})
}

func TestStaticStationDoesNotMoveAndSurvivesFlush(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	if err := l.AddFDB(macA, 0, "p1", true); err != nil {
		t.Fatal(err)
	}
	l.send(2, porttest.Ethernet(bcast, macA, "pretender"))
	if _, err := l.FlushFDB("", 0); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.ports {
		p.Sent()
	}
	w := porttest.Ethernet(macA, macC, "")
	l.send(3, w)
	l.expect("static", map[int][][]byte{1: one(w)})
}

func TestPortDownForgetsItsStations(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	l.send(1, porttest.Ethernet(bcast, macA, ""))
	l.ports[0].SetState(func(s *frame.State) { s.Up, s.Reason = false, "no carrier" })
	eventually(t, "the port is down", func() bool { st, _ := l.PortStatus("p1"); return st.Link == "down" })
	l.ports[1].Sent()
	l.ports[2].Sent()
	w := porttest.Ethernet(macA, macB, "")
	l.send(2, w)
	l.expect("down", map[int][][]byte{3: one(w)})
	l.ports[0].SetState(func(s *frame.State) { s.Up = true })
	eventually(t, "the port is up", func() bool { st, _ := l.PortStatus("p1"); return st.Link == "up" })
	w = porttest.Ethernet(macC, macB, "")
	l.send(2, w)
	l.expect("up again", map[int][][]byte{1: one(w), 3: one(w)})
}

func TestRemovedPortIsClosedAndItsNumberReused(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 3)
	l.send(2, porttest.Ethernet(bcast, macA, ""))
	if err := l.RemovePort("p2"); err != nil {
		t.Fatal(err)
	}
	if !l.ports[1].Closed() {
		t.Error("the removed port is not closed")
	}
	l.ports[0].Sent()
	l.ports[2].Sent()
	p := porttest.NewPort()
	id, err := l.AddPort("new", p, vswitch.NewPortConfig("memory"))
	if err != nil || id != 2 {
		t.Fatalf("AddPort = %d, %v; want 2", id, err)
	}
	w := porttest.Ethernet(macA, macB, "")
	l.send(1, w)
	l.ports[1] = p
	l.expect("the number's former stations are unknown", map[int][][]byte{2: one(w), 3: one(w)})
}

func TestHostInterface(t *testing.T) {
	own := frame.MAC{0x02, 0, 0, 0, 0, 0x77}
	s, err := vswitch.New(vswitch.Config{MAC: own, STP: vswitch.STPConfig{Mode: "off"}})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Switch: s, t: t, ports: []*porttest.Port{porttest.NewPort(), porttest.NewPort(), porttest.NewPort()}}
	if err := s.SetHost("kvs0", l.ports[0]); err != nil {
		t.Fatal(err)
	}
	for i, p := range l.ports[1:] {
		if id, err := s.AddPort(fmt.Sprintf("p%d", i+2), p, vswitch.NewPortConfig("memory")); err != nil || id != i+1 {
			t.Fatalf("AddPort = %d, %v", id, err)
		}
	}
	l.run()
	in := porttest.Ethernet(own, macA, "to the host")
	l.send(2, in)
	l.expect("to the host", map[int][][]byte{1: one(in)})
	out := porttest.Ethernet(macA, own, "from the host")
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
}

func TestHundredSwitchesInOneProcess(t *testing.T) {
	for i := range 100 {
		l := newLab(t, vswitch.Config{Name: fmt.Sprintf("kvs%d", i)}, 2)
		w := porttest.Ethernet(bcast, macA, fmt.Sprint(i))
		l.send(1, w)
		l.expect("each its own", map[int][][]byte{2: one(w)})
	}
}

func TestASecondRunChangesNothing(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	w := porttest.Ethernet(bcast, macA, "x")
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
	*porttest.Port
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
		if _, err := s.AddPort(fmt.Sprintf("p%d", i), togetherPort{porttest.NewPort(), &closing, &alone}, vswitch.NewPortConfig("memory")); err != nil {
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
