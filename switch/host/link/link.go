// Package link follows Linux network devices: what they are, and when they
// change. It asks and listens by rtnetlink and never looks at a frame.
//
// One Watcher serves every port of a network namespace. What it runs, it runs
// one thing at a time on its own goroutine, whose thread stays in the namespace
// that the Watcher was made in, so its users need no lock among themselves.
package link

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Link is a network device as the kernel last described it.
type Link struct {
	Index    int
	Name     string
	AltNames []string // other names that it goes by (`ip link property`, systemd's AlternativeName=)
	Kind     string   // "veth", "tun", "bridge", …; "device" for hardware
	MAC      frame.MAC
	MTU      int  // bytes
	Up       bool // set up by the administrator (IFF_UP)
	Running  bool // and operational: there is carrier (IFF_RUNNING)
	Lower    int  // index of the device that it stands on (VLAN, macvlan, …) or, a veth, is plugged into; 0 = none in this namespace
	Master   int  // index of the bridge, bond or VRF it is part of; 0 = none
	Loopback bool
	Ethernet bool // frames on it start with an Ethernet header
}

func fromNetlink(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Index: a.Index, Name: a.Name, AltNames: a.AltNames, Kind: l.Type(), MTU: a.MTU, Master: a.MasterIndex,
		Up:       a.RawFlags&unix.IFF_UP != 0,
		Running:  a.RawFlags&unix.IFF_RUNNING != 0,
		Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
		Ethernet: a.EncapType == "ether",
	}
	if a.NetNsID < 0 { // else the index is another namespace's
		out.Lower = a.ParentIndex
	}
	copy(out.MAC[:], a.HardwareAddr)
	return out
}

// Called reports whether name is the device's name or one of its other names.
func (l *Link) Called(name string) bool { return l.Name == name || slices.Contains(l.AltNames, name) }

// StandsOn reports whether what l receives comes from device index beneath it.
func (l *Link) StandsOn(index int) bool {
	return l.Lower == index && l.Lower != 0 && l.Index != index && l.Kind != "veth" && l.Kind != "netkit"
}

// MaxAltName is the longest other name that a device can have, in bytes
// (ALTIFNAMSIZ-1).
const MaxAltName = 127

// CheckAnyName reports why name can be neither that of a network device nor one
// of its other names: empty, or longer than MaxAltName.
func CheckAnyName(name string) error {
	if name != "" && len(name) > unix.IFNAMSIZ-1 {
		if len(name) > MaxAltName {
			return fmt.Errorf("interface name %q: %d bytes long, the limit is %d, and %d for an altname", name, len(name), unix.IFNAMSIZ-1, MaxAltName)
		}
		return nil // the kernel looks at nothing else in them
	}
	return CheckName(name)
}

// CheckName reports why name can't be that of a network device: empty, longer
// than 15 bytes (IFNAMSIZ-1), or with a byte that the kernel refuses
// (dev_valid_name, for which 0xa0 is white space whatever stands around it).
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("interface name %q: not a name", name)
	case len(name) > unix.IFNAMSIZ-1:
		return fmt.Errorf("interface name %q: %d bytes long, the limit is %d", name, len(name), unix.IFNAMSIZ-1)
	case strings.ContainsAny(name, "/: \t\n\v\f\r\x00") || strings.IndexByte(name, 0xa0) >= 0:
		return fmt.Errorf("interface name %q: slash, colon and white space are not allowed", name)
	}
	return nil
}
