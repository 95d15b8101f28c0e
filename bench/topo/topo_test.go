package topo

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

func TestTopologyIsBuiltAndRemoved(t *testing.T) {
	netns.RequirePrivilege(t)
	for _, spec := range []Spec{{Ports: 2, Direct: true}, {Ports: 3}, {Ports: 2, Stacks: true}, {Ports: 2, Hung: true}} {
		top, err := Build(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		names := []string{top.Ports[0].Host.Name()}
		if top.Switch != nil {
			names = append(names, top.Switch.Name())
		}
		dir := top.Dir()
		for i, p := range top.Ports {
			if p.End == "" {
				if !spec.Hung || i != 2 {
					t.Errorf("%+v: port %d has no far end", spec, i)
				}
				if err := top.Inject(make([]byte, 60)); err != nil {
					t.Error(err)
				}
				continue
			}
			var ifi *net.Interface
			if err := p.Host.Do(func() (err error) { ifi, err = net.InterfaceByName(p.End); return err }); err != nil {
				t.Fatal(err)
			}
			if ifi.Index != p.Index || ifi.Flags&net.FlagUp == 0 {
				t.Errorf("%+v: port %d is %+v", spec, i, ifi)
			}
			if spec.Stacks == !p.Addr.IsValid() {
				t.Errorf("%+v: port %d has address %v", spec, i, p.Addr)
			}
		}
		if err := top.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		for _, n := range names {
			if _, err := os.Stat("/run/netns/" + n); err == nil {
				t.Errorf("namespace %s is left", n)
			}
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("directory %s is left", dir)
		}
	}
}

func TestFailuresInATopologyAreErrors(t *testing.T) {
	netns.RequirePrivilege(t)
	top, err := Build(t.Context(), Spec{Ports: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	ran := false
	err = top.Do(func() {
		top.Switch.Up("nosuchdevice")
		ran = true
	})
	if err == nil || !strings.Contains(err.Error(), "nosuchdevice") || ran {
		t.Errorf("error %v, went on %v; want an error that names the device, and an end", err, ran)
	}
	if err := top.Do(func() { top.Switch.Up("p0") }); err != nil {
		t.Errorf("topology is of no use after a failure: %v", err)
	}
}

func TestImpossibleTopologiesAreRefused(t *testing.T) {
	for _, spec := range []Spec{{}, {Ports: 1}, {Ports: 257}, {Ports: 3, Direct: true}} {
		if _, err := Build(t.Context(), spec); err == nil {
			t.Errorf("%+v was built", spec)
		}
	}
}

func TestOffloadsAreSetAndRead(t *testing.T) {
	netns.RequirePrivilege(t)
	top, err := Build(t.Context(), Spec{Ports: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	for _, on := range []bool{true, false, true} {
		if err := SetOffload(top.Switch, "p0", "rx-gro", on); err != nil {
			t.Fatal(err)
		}
		got, err := Offloads(top.Switch, "p0")
		if err != nil {
			t.Fatal(err)
		}
		if got["rx-gro"] != on || !got["tx-tcp-segmentation"] {
			t.Errorf("after setting rx-gro to %v: %v", on, got)
		}
	}
	if err := SetOffload(top.Switch, "p0", "no-such-feature", true); err == nil {
		t.Error("a feature that does not exist was set")
	}
	if _, err := Offloads(top.Switch, "nodev"); err == nil {
		t.Error("a device that does not exist has offloads")
	}
}
