package subject

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/topo"
)

// cableKind is no switch at all.
func cableKind() Kind {
	return Kind{
		Name: "cable", Family: "cable", Direct: true,
		About:   "one veth pair from sender to receiver, no switch: the ceiling of this generator and sink",
		Absent:  func() error { return nil },
		Version: func() string { return firstLine("uname", "-r") },
		New:     func() Subject { return cable{} },
	}
}

type cable struct{}

func (cable) Name() string                { return "cable" }
func (cable) Attach(*topo.Topology) error { return nil }
func (cable) Detach() error               { return nil }
func (cable) Processes() []int            { return nil }

// kernelKinds are the kernel bridge as it comes, and as one who knows would set
// it for this race.
func kernelKinds() []Kind {
	version := func() string { return firstLine("uname", "-r") }
	return []Kind{
		{
			Name: "kernel", Family: "kernel",
			About:  "Linux bridge as `ip link add type bridge` makes it (snooping on, STP off); br_netfilter hooks off",
			Absent: bridgeAbsent, Version: version,
			New: func() Subject { return &kernel{name: "kernel"} },
		},
		{
			Name: "kernel-rps", Family: "kernel",
			About:  "Linux bridge, multicast snooping off, receive packet steering of its ports to the second core",
			Absent: rpsAbsent, Version: version,
			New: func() Subject { return &kernel{name: "kernel-rps", tuned: true} },
		},
	}
}

func bridgeAbsent() error {
	// The sysctl directory is there when the bridge is built in or loaded;
	// otherwise the kernel loads the module when the first bridge is made.
	for _, p := range []string{"/sys/module/bridge", "/proc/sys/net/bridge",
		"/lib/modules/" + firstLine("uname", "-r") + "/kernel/net/bridge"} {
		if _, err := os.Stat(p); err == nil {
			return nil
		}
	}
	return fmt.Errorf("this kernel has no bridge")
}

func rpsAbsent() error {
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("there is no second core to steer to")
	}
	if _, err := os.Stat("/sys/class/net/lo/queues/rx-0/rps_cpus"); err != nil {
		return fmt.Errorf("this kernel has no receive packet steering")
	}
	return bridgeAbsent()
}

const bridgeName = "bench0"

type kernel struct {
	name  string
	tuned bool
	t     *topo.Topology
}

func (k *kernel) Name() string     { return k.name }
func (k *kernel) Processes() []int { return nil }

func (k *kernel) Attach(t *topo.Topology) error {
	k.t = t
	nl := t.Switch.Netlink()
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	br.Name = bridgeName
	ageing := uint32(Ageing.Seconds()) * 100 // in hundredths of a second
	br.AgeingTime = &ageing
	if k.tuned {
		off := false
		br.MulticastSnooping = &off
	}
	if err := nl.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	for _, p := range t.Ports {
		l, err := nl.LinkByName(p.Name)
		if err != nil {
			return fmt.Errorf("find port %s: %w", p.Name, err)
		}
		if err := nl.LinkSetMaster(l, br); err != nil {
			return fmt.Errorf("add port %s to bridge: %w", p.Name, err)
		}
	}
	if err := nl.LinkSetUp(br); err != nil {
		return fmt.Errorf("set bridge up: %w", err)
	}
	if !k.tuned {
		return nil
	}
	return k.steer()
}

// steer hands what the ports receive to the second core. /sys shows the
// namespace in which it was mounted, so it is mounted once more, on a thread
// with a view of the file systems of its own, which ends with it.
func (k *kernel) steer() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- k.t.Switch.Do(func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("unshare mounts: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("make mounts private: %w", err)
			}
			sys := filepath.Join(k.t.Dir(), "sys")
			if err := os.MkdirAll(sys, 0o700); err != nil {
				return err
			}
			if err := unix.Mount("sysfs", sys, "sysfs", 0, ""); err != nil {
				return fmt.Errorf("mount sysfs: %w", err)
			}
			for _, p := range k.t.Ports {
				path := filepath.Join(sys, "class/net", p.Name, "queues/rx-0/rps_cpus")
				if err := os.WriteFile(path, []byte("2\n"), 0); err != nil { // a mask: CPU 1
					return fmt.Errorf("steer port %s: %w", p.Name, err)
				}
			}
			return nil
		})
	}()
	return <-result
}

func (k *kernel) Detach() error {
	nl := k.t.Switch.Netlink()
	br, err := nl.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	if err := nl.LinkDel(br); err != nil {
		return fmt.Errorf("delete bridge: %w", err)
	}
	return nil
}
