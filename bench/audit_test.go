package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// hub is a switch that learns nothing.
type hub struct{ subject.Subject }

func (h hub) Attach(t *topo.Topology) error {
	if err := h.Subject.Attach(t); err != nil {
		return err
	}
	nl := t.Switch.Netlink()
	for _, p := range t.Ports {
		l, err := nl.LinkByName(p.Name)
		if err != nil {
			return err
		}
		if err := nl.LinkSetLearning(l, false); err != nil {
			return err
		}
	}
	return nil
}

func TestHubIsCaughtAndNamed(t *testing.T) {
	netns.RequirePrivilege(t)
	kind := kernelOnly()[1]
	bridge := kind.New
	kind.Name, kind.New = "hub", func() subject.Subject { return hub{bridge()} }
	o := Options{Quick: true, tolerant: true, trialLength: 20 * time.Millisecond, kinds: append(kernelOnly()[:2:2], kind)}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	b := newRun(o)
	b.start()
	if err := b.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cable", "kernel", "hub"} {
		f := b.rep.Contender(name).Faults
		if (name == "hub") != (len(f) > 0) || len(f) > 0 && !strings.Contains(f[0], "flooded") {
			t.Errorf("%s: faults %q", name, f)
		}
	}
}
