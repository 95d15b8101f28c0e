package pair_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/port/pair"
)

func watcher(t *testing.T, h *netns.Host) *link.Watcher {
	t.Helper()
	var w *link.Watcher
	if err := h.Do(func() (err error) { w, err = link.NewWatcher(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func open(t *testing.T, w *link.Watcher, o pair.Options) *pair.Port {
	t.Helper()
	p, err := pair.Open(w, "kvs0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if err := p.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	return p
}

// eventually waits for what the watcher has yet to hear of.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

var mac = frame.MAC{2, 0, 0, 0, 0, 7}

func TestTheHostInterfaceSaysWhatThePortIs(t *testing.T) {
	h := netns.New(t).Host("h")
	p := open(t, watcher(t, h), pair.Options{MAC: mac, MTU: 1400})
	eventually(t, "it is up", func() bool { return p.State().Up })
	if s := p.State(); s.MAC != mac || s.MTU != 1400 || s.Device != h.Index("kvs0-sw") || h.MAC("kvs0") != mac {
		t.Errorf("state %+v", s)
	}
	h.MTU("kvs0", 9000)
	eventually(t, "the far end has the host interface's MTU", func() bool {
		return p.State().MTU == 9000 && p.Port.State().MTU == 9000
	})
	h.Down("kvs0")
	eventually(t, "the host interface's being down is said", func() bool {
		s := p.State()
		return !s.Up && s.Reason == "kvs0 is set down; `ip link set kvs0 up`"
	})
	h.Up("kvs0")
	eventually(t, "it is up again", func() bool { return p.State().Up })
	h.Delete("kvs0")
	eventually(t, "its being deleted is said", func() bool { s := p.State(); return s.Gone && !s.Up })
	if err := p.Close(); err != nil {
		t.Errorf("close a port whose devices are gone: %v", err)
	}
}

func TestThePairGoesWithThePort(t *testing.T) {
	h := netns.New(t).Host("h")
	before := h.Links()
	p := open(t, watcher(t, h), pair.Options{MAC: mac})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if after := h.Links(); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("links %q, before %q", after, before)
	}
	if err := p.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
}

// What a crash leaves behind is taken over, addresses and all; what is somebody
// else's is not touched.
func TestALeftoverIsTakenOver(t *testing.T) {
	h := netns.New(t).Host("h")
	w := watcher(t, h)
	h.Run("ip", "link", "add", "kvs0", "type", "veth", "peer", "name", "x0")
	if _, err := pair.Open(w, "kvs0", pair.Options{}); err == nil || !strings.Contains(err.Error(), "a veth device has that name: `ip link del kvs0`") {
		t.Errorf("somebody else's pair: %v", err)
	}
	if !h.Exists("kvs0") || !h.Exists("x0") {
		t.Fatal("somebody else's pair was deleted")
	}
	h.Run("ip", "link", "set", "kvs0", "alias", "host interface kvs0 of kvswitch")
	h.Addr("kvs0", "192.0.2.1/24")
	p := open(t, w, pair.Options{MAC: mac})
	eventually(t, "it is up", func() bool { return p.State().Up })
	if s := p.State(); s.Device != h.Index("x0") || s.MAC != mac {
		t.Errorf("state %+v", s)
	}
	if out := h.Run("ip", "addr", "show", "kvs0"); !strings.Contains(out, "192.0.2.1/24") {
		t.Errorf("it lost its address:\n%s", out)
	}
}

func TestALongNameHasAFarEnd(t *testing.T) {
	h := netns.New(t).Host("h")
	p, err := pair.Open(watcher(t, h), "fifteen-letters", pair.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !h.Exists("fifteen-lett-sw") {
		t.Errorf("links are %q", h.Links())
	}
}
