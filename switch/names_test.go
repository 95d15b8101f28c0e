package vswitch_test

import (
	"errors"
	"sync"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// named is a port whose device has names.
type named struct {
	*mem.Port
	mu     sync.Mutex
	names  []string
	notify func()
}

func (p *named) Start(notify func()) error { p.notify = notify; return p.Port.Start(notify) }

func (p *named) Names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names
}

func (p *named) called(names ...string) {
	p.mu.Lock()
	p.names = names
	p.mu.Unlock()
	p.notify()
}

func addNamed(t *testing.T, l *lab, asked string, names ...string) *named {
	t.Helper()
	p := &named{Port: mem.NewPort(), names: names}
	if _, err := l.AddPort(asked, p, vswitch.NewPortConfig("netdev")); err != nil {
		t.Fatal(err)
	}
	return p
}

// ports are the names of all ports, by number.
func (l *lab) names() (list []string) {
	for _, p := range l.Status().Ports {
		list = append(list, p.Name)
	}
	return list
}

func (l *lab) awaitNames(want ...string) {
	l.t.Helper()
	eventually(l.t, "the ports' names", func() bool {
		have := l.names()
		if len(have) != len(want) {
			return false
		}
		for i := range have {
			if have[i] != want[i] {
				return false
			}
		}
		return true
	})
}

func TestAPortIsCalledWhatItsDeviceIsCalledTodayAndHearsToTheNameItHad(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 0)
	p := addNamed(t, l, "eth0", "eth0")
	p.called("wan0", "uplink-of-the-building")
	l.awaitNames("wan0")
	for _, name := range []string{"wan0", "eth0", "uplink-of-the-building"} {
		st, err := l.PortStatus(name)
		if err != nil || st.Name != "wan0" || st.AskedFor != "eth0" {
			t.Errorf("by %s: %+v, %v", name, st, err)
		}
	}
	// What was learned, and set by hand, is shown under the name of today.
	if err := l.AddFDB(mem.MAC(5), 0, "eth0", true); err != nil {
		t.Fatal(err)
	}
	if list, err := l.FDB("wan0", 0); err != nil || len(list) != 1 || list[0].Port != "wan0" {
		t.Errorf("its stations: %+v, %v", list, err)
	}
	if err := l.RemovePort("eth0"); err != nil {
		t.Errorf("remove by the name it had: %v", err)
	}
}

func TestANameThatADeviceHasLostIsFree(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 0)
	p := addNamed(t, l, "eth0", "eth0")
	if _, err := l.AddPort("eth0", mem.NewPort(), vswitch.NewPortConfig("netdev")); !errors.Is(err, vswitch.ErrPortExists) {
		t.Errorf("while it has the name: %v", err)
	}
	p.called("wan0")
	l.awaitNames("wan0")
	addNamed(t, l, "eth0", "eth0") // another device has it now
	l.awaitNames("wan0", "eth0")
	if st, err := l.PortStatus("eth0"); err != nil || st.ID != 2 {
		t.Errorf("eth0 is %+v, %v: want the device that has the name now", st, err)
	}
}

func TestDevicesMayExchangeTheirNames(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 0)
	a, b := addNamed(t, l, "a", "a"), addNamed(t, l, "b", "b")
	a.called("b") // b has not heard yet
	eventually(t, "a is told", func() bool { _, err := l.PortStatus("a"); return err == nil })
	b.called("a")
	l.awaitNames("b", "a")
	if st, err := l.PortStatus("a"); err != nil || st.ID != 2 {
		t.Errorf("a is %+v, %v", st, err)
	}
}

func TestRenamingIsAnEvent(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 0)
	p := addNamed(t, l, "eth0", "eth0")
	events, stop := l.Subscribe(16)
	defer stop()
	p.called("wan0")
	for e := range events {
		if e.Event == vswitch.EventPortRename {
			if e.Port != "wan0" || e.From != "eth0" || e.To != "wan0" {
				t.Errorf("event %+v", e)
			}
			return
		}
	}
}
