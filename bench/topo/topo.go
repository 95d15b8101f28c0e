// Package topo builds what a contender is attached to: a namespace for the
// switch, cables into it, and the far ends of the cables where frames are sent
// and counted. Each contender gets a topology of its own, so that all can stand
// ready while one is measured.
//
// It is the bench's way into package netns, which was made for tests: what would fail
// a test is an error here. Namespaces carry the process id in their name and are
// removed when the topology is closed, and by a guard process when this one is
// killed.
//
// A Topology is used by one goroutine; its fields don't change after Build, or
// after Adopt.
package topo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	nsfd "github.com/vishvananda/netns"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// Spec says what to build.
type Spec struct {
	// Ports is the number of cables, 2 to probe.MaxPorts.
	Ports int
	// Direct joins ports 0 and 1 by one cable with no switch between them: the
	// ceiling that every contender is seen against. Ports must be 2.
	Direct bool
	// Bare lays no cables: the contender makes the far ends itself, as a switch
	// that holds taps does, and hands them over with Adopt.
	Bare bool
	// Sockets gives every port a path for a vhost-user socket instead of devices:
	// the contender listens there, and package guest plays the guest.
	Sockets bool
	// Taps makes every port a tap in the switch's namespace whose descriptor the
	// far end holds, as QEMU does.
	Taps bool
	// Hung adds one more port, the last: a tap whose owner never reads but by Take,
	// as that of a virtual machine that hangs. It has no far end.
	Hung bool
	// Stacks gives every far end a namespace of its own and an IPv4 address, for
	// tests that talk TCP. Otherwise all ends share one and have none.
	Stacks bool
}

// Port is one cable.
type Port struct {
	Name  string      // device on the switch's side; empty with Spec.Direct and Spec.Bare
	End   string      // device at the far end; empty for Spec.Hung's port
	Host  *netns.Host // namespace of End
	Index int         // interface index of End
	Addr  netip.Addr  // of End, with Spec.Stacks

	Socket string   // with Spec.Sockets
	File   *os.File // with Spec.Taps
}

// Topology is a built Spec.
type Topology struct {
	Spec   Spec
	Switch *netns.Host // nil with Spec.Direct
	Ports  []Port

	lab   *netns.Lab
	scope *scope
	hung  *os.File
	spill [2048]byte // what is read from it
}

// Allowed says what this process lacks to build topologies.
func Allowed() error {
	s := newScope(context.Background())
	return errors.Join(s.do(func() { netns.RequirePrivilege(s) }), s.close())
}

// Build makes the topology: every device is up and none attached to a switch.
// ctx ends everything that is started in it later.
func Build(ctx context.Context, spec Spec) (*Topology, error) {
	if spec.Hung && (spec.Direct || spec.Bare || spec.Sockets || spec.Taps) {
		return nil, fmt.Errorf("build topology: no place for a hung port")
	}
	if spec.Ports < 2 || spec.Ports > probe.MaxPorts || spec.Direct && (spec.Ports != 2 || spec.Bare) {
		return nil, fmt.Errorf("build topology: %d ports, want 2–%d", spec.Ports, probe.MaxPorts)
	}
	t := &Topology{Spec: spec, scope: newScope(ctx)}
	err := t.Do(func() {
		t.lab = netns.New(t.scope)
		t.lay()
	})
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("build topology: %w", err)
	}
	return t, nil
}

// lay makes the namespaces and cables.
func (t *Topology) lay() {
	var ends *netns.Host
	host := func(i int) *netns.Host {
		if t.Spec.Stacks {
			return t.lab.Host(fmt.Sprintf("end%d", i))
		}
		if ends == nil {
			ends = t.lab.Host("ends")
		}
		return ends
	}
	if t.Spec.Sockets || t.Spec.Taps {
		t.userland()
		return
	}
	for i := range t.Spec.Ports {
		t.Ports = append(t.Ports, Port{End: fmt.Sprintf("e%d", i), Host: host(i)})
	}
	if t.Spec.Direct {
		t.lab.Cable(t.Ports[0].Host, t.Ports[0].End, t.Ports[1].Host, t.Ports[1].End)
	} else {
		t.Switch = t.lab.Host("switch")
	}
	if t.Spec.Bare {
		return
	}
	for i := range t.Ports {
		p := &t.Ports[i]
		if !t.Spec.Direct {
			p.Name = fmt.Sprintf("p%d", i)
			t.lab.Cable(p.Host, p.End, t.Switch, p.Name)
		}
		t.finish(i)
	}
	if t.Spec.Hung {
		t.hang()
	}
}

// userland makes ports whose far ends are no devices.
func (t *Topology) userland() {
	t.Switch = t.lab.Host("switch")
	for i := range t.Spec.Ports {
		p := Port{Name: fmt.Sprintf("p%d", i)}
		if t.Spec.Sockets {
			p.Socket = filepath.Join(t.lab.Dir(), p.Name+".sock")
		} else {
			p.File = t.tap(p.Name, netlink.TUNTAP_VNET_HDR)
		}
		t.Ports = append(t.Ports, p)
	}
}

// tap makes a tap in the switch's namespace and returns its other end.
func (t *Topology) tap(name string, flags netlink.TuntapFlag) *os.File {
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.TUNTAP_MODE_TAP,
		Flags: netlink.TUNTAP_DEFAULTS | netlink.TUNTAP_NO_PI | flags, Queues: 1, NonPersist: true,
	}
	tap.Name = name
	// A tap belongs to the namespace of the thread that makes it.
	if err := t.Switch.Do(func() error { return t.Switch.Netlink().LinkAdd(tap) }); err != nil {
		t.scope.Fatalf("make tap %s: %v", name, err)
	}
	f := tap.Fds[0]
	t.scope.Cleanup(func() { f.Close() })
	t.Switch.Up(name)
	return f
}

// hang makes the port that is never read.
func (t *Topology) hang() {
	const name = "hung"
	t.hung = t.tap(name, 0)
	if err := syscall.SetNonblock(int(t.hung.Fd()), true); err != nil {
		t.scope.Fatalf("make tap %s: %v", name, err)
	}
	t.Ports = append(t.Ports, Port{Name: name})
}

// Inject has the owner of the hung port send a frame.
func (t *Topology) Inject(b []byte) error {
	if _, err := t.hung.Write(b); err != nil {
		return fmt.Errorf("inject frame: %w", err)
	}
	return nil
}

// Take has the owner of the hung port read up to n frames, as many as there are.
func (t *Topology) Take(n int) error {
	for range n {
		_, errno := sysio.Read(int(t.hung.Fd()), t.spill[:])
		switch errno {
		case 0, syscall.EINTR:
		case syscall.EAGAIN:
			return nil
		default:
			return fmt.Errorf("read from the hung port: %w", errno)
		}
	}
	return nil
}

// finish makes a far end usable.
func (t *Topology) finish(i int) {
	p := &t.Ports[i]
	p.Host.Up(p.End)
	p.Index = p.Host.Index(p.End)
	if t.Spec.Stacks {
		p.Addr = netip.AddrFrom4([4]byte{10, 75, byte(i >> 8), byte(i + 1)})
		p.Host.Addr(p.End, p.Addr.String()+"/16")
	}
}

// adoptLimit is how long a contender that has been started may take to make its
// devices.
const adoptLimit = 10 * time.Second

// Adopt takes the devices named like the far ends from the switch's namespace to
// where they belong, as soon as they are there. With Spec.Bare it is called once, by the contender.
func (t *Topology) Adopt() error {
	for i, p := range t.Ports {
		if err := t.move(p); err != nil {
			return fmt.Errorf("adopt %s: %w", p.End, err)
		}
		if err := t.Do(func() { t.finish(i) }); err != nil {
			return fmt.Errorf("adopt %s: %w", p.End, err)
		}
	}
	return nil
}

func (t *Topology) move(p Port) error {
	ns, err := nsfd.GetFromName(p.Host.Name())
	if err != nil {
		return fmt.Errorf("find namespace: %w", err)
	}
	defer ns.Close()
	nl := t.Switch.Netlink()
	l, err := nl.LinkByName(p.End)
	for deadline := time.Now().Add(adoptLimit); err != nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
		l, err = nl.LinkByName(p.End)
	}
	if err != nil {
		return fmt.Errorf("find device: %w", err)
	}
	return nl.LinkSetNsFd(l, int(ns))
}

// Do runs f, which may use the topology's hosts and start processes on them.
// The first failure in f ends it and is returned.
func (t *Topology) Do(f func()) error { return t.scope.do(f) }

// TB is the topology's lifetime for packages that know tests only: what is
// started with it ends with the topology. What can fail belongs into Do.
func (t *Topology) TB() netns.TB { return t.scope }

// Dir is a directory of the topology's own, with a path short enough for
// sockets.
func (t *Topology) Dir() string { return t.lab.Dir() }

// Close ends the processes, and removes the namespaces and the directory.
func (t *Topology) Close() error { return t.scope.close() }
