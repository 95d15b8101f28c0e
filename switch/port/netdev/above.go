package netdev

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/switch/host/link"
)

// What stands on a device — a VLAN, a macvlan or macvtap, a tunnel that is bound to
// it — gets its frames from the device's receiving side, behind the shield. While
// the device is a port it gets none, and a host that is managed by it is lost. So
// such a device is refused, unless Options.CutOff says that they may go deaf; of
// those that are made later there is a warning.

// checkAbove refuses a device that something stands on, or that stands on a port.
func (p *Port) checkAbove(l link.Link) error {
	if p.opt.CutOff {
		return nil
	}
	if above := p.watcher.Above(l.Index); len(above) > 0 {
		var names []string
		for _, u := range above {
			names = append(names, p.describe(u))
		}
		slices.Sort(names)
		return fmt.Errorf("%s on it would hear nothing any more: move addresses to the switch's host interface and delete it (ip link del %s), or say cut-off=on",
			enumerate(names), above[0].Name)
	}
	if lower, err := p.watcher.ByIndex(l.Lower); err == nil && l.StandsOn(l.Lower) && marked(l.Lower) {
		return fmt.Errorf("it stands on %s, which is a port of a switch and keeps all frames from it: make that one a trunk, or say cut-off=on", lower.Name)
	}
	return nil
}

// describe names a device that stands on another: "vlan eth0.10, part of kernel bridge br10".
func (p *Port) describe(l link.Link) string {
	text := l.Kind + " " + l.Name
	if l.Master != 0 {
		text += ", part of " + p.master(l) + ","
	}
	return text
}

// enumerate writes at most a few names.
func enumerate(names []string) string {
	const few = 4
	if len(names) > few {
		names = append(names[:few:few], fmt.Sprintf("%d more", len(names)-few))
	}
	return strings.Join(names, " and ")
}

// cutOff notes what came to stand on the device, or left it, and reports whether l
// is such.
func (a *attachment) cutOff(l link.Link, gone bool) bool {
	_, known := a.above[l.Index]
	switch {
	case gone, !l.StandsOn(a.index):
		delete(a.above, l.Index)
		return known
	case a.above == nil:
		a.above = map[int]link.Link{}
	}
	a.above[l.Index] = l
	return true
}

// deaf is a warning for each device that hears nothing, for it stands on the port's.
func (p *Port) deaf(a *attachment) (warnings []string) {
	for _, index := range slices.Sorted(maps.Keys(a.above)) {
		warnings = append(warnings, fmt.Sprintf("%s: %s on it hears nothing, as the interface belongs to the switch; move its addresses to the switch's host interface",
			p.link.Name, p.describe(a.above[index])))
	}
	return warnings
}

// addresses are those that the device still has, but for link-local ones, which
// every device makes for itself.
func addresses(h *netlink.Handle, index int) (list []string) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		addrs, err := h.AddrList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, family)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if family == netlink.FAMILY_V4 || !a.IP.IsLinkLocalUnicast() {
				list = append(list, a.IPNet.String())
			}
		}
	}
	return list
}
