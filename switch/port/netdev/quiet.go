package netdev

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/switch/host/link"
)

// A device that comes up gives itself an IPv6 link-local address, and then the
// host speaks on the segment: duplicate address detection, multicast reports,
// router solicitations. With address generation off ("none") it stays silent.
// Unlike disable_ipv6 that takes no address away. The setting outlives a process
// that is killed, and so does the record of what it was: restore.go.

// addrGenNone is IN6_ADDR_GEN_MODE_NONE.
const addrGenNone = 1

func addrGenFile(name string) string {
	return "/proc/sys/net/ipv6/conf/" + name + "/addr_gen_mode"
}

// silence turns the generation of IPv6 addresses on a device off, and reports
// the setting to put back, "" if there is none. The caller's thread must be in the
// device's network namespace, as nl must be.
func silence(nl *netlink.Handle, keep keeping, l link.Link) (before string, err error) {
	old, err := os.ReadFile(addrGenFile(l.Name))
	if err != nil {
		return "", nil // a kernel without IPv6, or a device without it
	}
	now := strings.TrimSpace(string(old))
	none := strconv.Itoa(addrGenNone)
	before = keep(settingAddrGen, now, none)
	if now != none {
		if err := setAddrGen(nl, l, addrGenNone); err != nil {
			return "", fmt.Errorf("turn IPv6 address generation off: %w", err)
		}
	}
	return before, nil
}

// setAddrGen writes the setting to /proc/sys, which makes the kernel generate an
// address at once if it is to, or by netlink where that is read-only, as in most
// containers.
func setAddrGen(nl *netlink.Handle, l link.Link, mode int) error {
	err := os.WriteFile(addrGenFile(l.Name), []byte(strconv.Itoa(mode)), 0)
	if err == nil {
		return nil
	}
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}
	if nl.LinkSetIP6AddrGenMode(device, mode) == nil {
		return nil
	}
	return err
}
