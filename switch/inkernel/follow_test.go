package inkernel

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// device is a port of a network device that isn't there.
type device struct {
	frame.Port
	target frame.Target
	bound  []int
}

func (d *device) Target() frame.Target { return d.target }
func (d *device) Bind(n int)           { d.bound = append(d.bound, n) }

// testTier is a tier whose grace periods are counted, not waited for.
type testTier struct {
	*Tier
	graces int
	seen   func() // called in each
}

func newTestTier(t *testing.T, filtering bool) *testTier {
	t.Helper()
	tier, err := New(Options{MaxEntries: 64, Filtering: filtering})
	if errors.Is(err, unix.EPERM) || errors.Is(err, ErrArch) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tier.Close)
	tt := &testTier{Tier: tier, seen: func() {}}
	tier.grace = func() error { tt.graces++; tt.seen(); return nil }
	return tt
}

// views makes views of two devices that a test changes.
type views struct {
	seq   uint64
	ports [3]relay.Port
}

func newViews(a, b *device) *views {
	v := &views{}
	for n, d := range []*device{1: a, 2: b} {
		if d != nil {
			v.ports[n] = relay.Port{Name: "p", Tx: d, Gen: 7, PVID: 1, MaxLen: 1514, Learn: true, Learning: true, Forward: true,
				Member: new(frame.VIDSet), Untagged: new(frame.VIDSet)}
		}
	}
	return v
}

func (v *views) next() *relay.View {
	v.seq++
	return &relay.View{Seq: v.seq, Ports: slices.Clone(v.ports[:])}
}

func TestWhatIsForbiddenIsWaitedFor(t *testing.T) {
	tier := newTestTier(t, true)
	a, b := &device{target: frame.Target{Index: 11}}, &device{target: frame.Target{Index: 12}}
	v := newViews(a, b)
	open := uint64(7 | mayReceive | maySend | refreshes)
	steps := []struct {
		name   string
		change func()
		waits  bool
		during uint64 // state of port 1 while programs that saw the old one may run
		after  uint64
	}{
		{"both forward", func() {}, false, 0, open},
		{"nothing new", func() {}, false, 0, open},
		{"isolated", func() { v.ports[1].Isolated = true }, true, open | isolated, open | isolated},
		{"not isolated", func() { v.ports[1].Isolated = false }, true, open, open},
		{"no learning", func() { v.ports[1].Learn = false }, true, open &^ refreshes, open &^ refreshes},
		{"learning", func() { v.ports[1].Learn = true }, false, 0, open},
		{"flushed", func() { v.ports[1].Gen = 8 }, true, open + 1, open + 1},
		{"blocked", func() { v.ports[1].Forward = false }, true, 0, 0},
		{"forwarding", func() { v.ports[1].Forward = true }, false, 0, open + 1},
		{"another MTU", func() { v.ports[1].MaxLen = 9014 }, true, 0, open + 1},
		{"another VLAN", func() { m := new(frame.VIDSet); m.Add(5); v.ports[1].Member = m }, true, 0, open + 1},
		{"tunnel", func() { v.ports[1].Tunnel = true }, true, 0, 0},
		{"no tunnel", func() { v.ports[1].Tunnel = false }, false, 0, open + 1},
		{"a step for the relay", func() { v.ports[1].Extra = relay.ExtraLocked << 1 }, true, 0, 0},
		{"locked", func() { v.ports[1].Extra = relay.ExtraLocked }, false, 0, open + 1},
		{"another device", func() { a = &device{target: frame.Target{Index: 13}}; v.ports[1].Tx = a }, true, 0, open + 1},
		{"device gone", func() { a.target = frame.Target{Why: "interface is gone"} }, true, 0, 0},
		{"port gone", func() { v.ports[1] = relay.Port{} }, false, 0, 0},
	}
	for _, s := range steps {
		s.change()
		graces := tier.graces
		tier.seen = func() {
			if got := tier.rows[1].state.Load(); got != s.during {
				t.Errorf("%s: state %#x while older programs may run, want %#x", s.name, got, s.during)
			}
		}
		tier.Follow(v.next())
		if waited := tier.graces - graces; waited != 0 != s.waits || waited > 1 {
			t.Errorf("%s: %d grace periods", s.name, waited)
		}
		if got := tier.rows[1].state.Load(); got != s.after {
			t.Errorf("%s: state %#x, want %#x", s.name, got, s.after)
		}
	}
	if r := &tier.rows[2]; r.ifindex != 12 || r.maxLen != 1514 || r.pvid != 1 || r.state.Load() != open {
		t.Errorf("the other port's row is %+v", r)
	}
	if !slices.Equal(b.bound, []int{2}) || !slices.Equal(a.bound, []int{1, -1}) {
		t.Errorf("bound to %v and %v", a.bound, b.bound)
	}
	if c := tier.Carried(1); c.Active || c.Why != "" {
		t.Errorf("a number without a port: %+v", c)
	}
}

// A thousand ports that close cost one wait.
func TestOneWaitForAllPorts(t *testing.T) {
	tier := newTestTier(t, false)
	v := &relay.View{Seq: 1, Ports: make([]relay.Port, 1000)}
	for n := range v.Ports {
		v.Ports[n] = relay.Port{Tx: &device{target: frame.Target{Index: n + 1}}, Forward: true, Learning: true}
	}
	tier.Follow(v)
	shut := &relay.View{Seq: 2, Ports: slices.Clone(v.Ports)}
	for n := range shut.Ports {
		shut.Ports[n].Forward = false
	}
	tier.Follow(shut)
	if tier.graces != 1 {
		t.Errorf("%d grace periods, want 1", tier.graces)
	}
}

func TestCountersBeginAnewWithEachPort(t *testing.T) {
	tier := newTestTier(t, false)
	v := newViews(&device{target: frame.Target{Index: 5}}, nil)
	tier.Follow(v.next())
	tier.counts[0][1] = count{1, 100, 2, 200}
	if c := tier.Carried(1); c.RxFrames != 1 || c.RxBytes != 100 || c.TxFrames != 2 || c.TxBytes != 200 || !c.Active {
		t.Errorf("carried %+v", c)
	}
	v.ports[1].Tx = &device{target: frame.Target{Index: 6}}
	tier.Follow(v.next())
	if c := tier.Carried(1); c.RxFrames != 0 || c.TxBytes != 0 {
		t.Errorf("another port's carried %+v", c)
	}
	v.ports[1].Tx = &struct{ frame.Port }{}
	tier.Follow(v.next())
	if c := tier.Carried(1); c.Active || c.Why != "not a network device" {
		t.Errorf("a socket's carried %+v", c)
	}
}

// Programs go on as long as the switch is heard of, and after a beat that came too
// late only with the next.
func TestBeat(t *testing.T) {
	tier := newTestTier(t, false)
	alive := func() bool { return coarse() < tier.head.until.Load() }
	if alive() {
		t.Error("programs forward before the first beat")
	}
	if !tier.Beat(time.Hour) || !alive() {
		t.Error("not after the first beat")
	}
	if !tier.Beat(0) {
		t.Error("a beat in time is late")
	}
	for alive() {
	}
	if tier.Beat(time.Hour) || alive() {
		t.Error("a late beat is taken for one in time")
	}
	if !tier.Beat(time.Hour) || !alive() {
		t.Error("not after the next beat")
	}
	tier.offset -= 2 * time.Second // as if the host had been suspended
	if tier.Beat(time.Hour) || alive() {
		t.Error("a suspend is not noticed")
	}
	if !tier.Beat(time.Hour) || !alive() {
		t.Error("not after the one that follows a suspend")
	}
}

func TestGracePeriodsCanBeWaitedFor(t *testing.T) {
	newTestTier(t, false) // skips without rights
	for _, way := range []func() (func() error, func(), error){newGrace, graceByMap} {
		wait, free, err := way()
		if err != nil {
			t.Fatal(err)
		}
		if err := wait(); err != nil {
			t.Error(err)
		}
		free()
	}
}
