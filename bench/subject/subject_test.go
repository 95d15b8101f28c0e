package subject

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// passes sends a few frames and reports whether the right end got one.
func passes(t *testing.T, top *topo.Topology, from, to int) error {
	t.Helper()
	c, err := sink.NewCounter(top, []int{to}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	size, err := probe.ParseSize("64")
	if err != nil {
		t.Fatal(err)
	}
	s, err := gen.NewSender(top, size, probe.Flows{From: from, To: []int{to}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Send(t.Context(), gen.Load{Rate: 1000, Length: 10 * time.Millisecond, Sleep: true}); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	if n.Frames == 0 {
		return fmt.Errorf("no frame arrived: %+v", n)
	}
	return nil
}

func TestEveryContenderForwardsAndLetsGo(t *testing.T) {
	netns.RequirePrivilege(t)
	for _, k := range Kinds("veth") {
		t.Run(k.Name, func(t *testing.T) {
			netns.Need(t, "contender", k.Absent())
			spec := topo.Spec{Ports: 3, Direct: k.Direct, Bare: k.Bare}
			if k.Direct {
				spec.Ports = 2
			}
			top, err := topo.Build(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			defer top.Close()
			s := k.New()
			if s.Name() != k.Name {
				t.Errorf("kind %s makes %s", k.Name, s.Name())
			}
			if err := s.Attach(top); err != nil {
				t.Fatal(err)
			}
			pids := s.Processes()
			last := spec.Ports - 1
			netns.Await(t, 20*time.Second, "frames pass", func() error { return passes(t, top, 0, last) })
			netns.Await(t, 20*time.Second, "frames pass back", func() error { return passes(t, top, last, 0) })
			if err := s.Detach(); err != nil {
				t.Errorf("detach: %v", err)
			}
			for _, pid := range pids {
				if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
					t.Errorf("process %d is left", pid)
				}
			}
			if !k.Direct && !k.Bare {
				if err := passes(t, top, 0, last); err == nil {
					t.Error("frames still pass after Detach")
				}
			}
			if k.Version() == "" {
				t.Error("no version")
			}
		})
	}
}

func TestSteeringReachesThePortsOfTheTopology(t *testing.T) {
	netns.RequirePrivilege(t)
	netns.Need(t, "receive packet steering", rpsAbsent())
	top, err := topo.Build(t.Context(), topo.Spec{Ports: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	k := &kernel{name: "kernel-rps", tuned: true}
	if err := k.Attach(top); err != nil {
		t.Fatal(err)
	}
	defer k.Detach()
	var mask string
	err = top.Do(func() {
		mask = top.Switch.Run("ip", "netns", "exec", top.Switch.Name(), "cat", "/sys/class/net/p1/queues/rx-0/rps_cpus")
	})
	if err != nil {
		t.Fatal(err)
	}
	if mask != "2" {
		t.Errorf("p1 is steered to mask %q, want 2", mask)
	}
	// and nowhere else
	if _, err := net.InterfaceByName("p1"); err == nil {
		t.Error("the port is in the machine's own namespace")
	}
}

func TestAbsentContendersSayWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, k := range Kinds("veth") {
		switch err := k.Absent(); k.Family {
		case "ovs", "vde":
			if err == nil {
				t.Errorf("%s is not named as absent", k.Name)
			}
		case "cable":
			if err != nil {
				t.Errorf("%s: %v", k.Name, err)
			}
		}
	}
}

func TestKvswitchIsTheProgramNamedOrTheOneBeside(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KVSWITCH_BIN", "")
	t.Setenv("PATH", t.TempDir())
	if err := os.WriteFile(filepath.Join(os.Getenv("PATH"), "kvswitch"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if bin, err := kvswitchBinary(); err == nil {
		t.Errorf("none beside this test, and yet %s is found", bin)
	}
	beside := filepath.Join(filepath.Dir(self), "kvswitch")
	if err := os.WriteFile(beside, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(beside)
	if bin, err := kvswitchBinary(); err != nil || bin != beside {
		t.Errorf("%s beside this test is taken for %q: %v", beside, bin, err)
	}
	t.Setenv("KVSWITCH_BIN", self)
	if bin, err := kvswitchBinary(); err != nil || bin != self {
		t.Errorf("%s is named, %q is taken: %v", self, bin, err)
	}
	t.Setenv("KVSWITCH_BIN", "/nonexistent/kvswitch")
	if bin, err := kvswitchBinary(); err == nil {
		t.Errorf("a program that does not exist is taken for %s", bin)
	}
}
