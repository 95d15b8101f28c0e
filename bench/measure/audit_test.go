package measure

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// session is a run of a few moments on path veth that counts every trial.
func session(length time.Duration, rounds int, kinds ...subject.Kind) *trial.Session {
	set := trial.Settings{Path: "veth", Sizes: []string{"64", "1518"}, Flows: []int{1}, Runs: rounds, Length: length, Quick: true}
	s := trial.New(set, "test", kinds, io.Discard)
	s.Referee.Tolerant = true
	return s
}

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
	cable, kernel := subject.Kinds("veth")[0], subject.Kinds("veth")[1]
	learnless := kernel
	learnless.Name, learnless.New = "hub", func() subject.Subject { return hub{kernel.New()} }
	s := session(20*time.Millisecond, 2, cable, kernel, learnless)
	if err := Plan(s)[0].Run(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cable", "kernel", "hub"} {
		f := s.Results.Contender(name).Faults
		if (name == "hub") != (len(f) > 0) || len(f) > 0 && !strings.Contains(f[0], "flooded") {
			t.Errorf("%s: faults %q", name, f)
		}
	}
}
