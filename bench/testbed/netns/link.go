package netns

import (
	"net"
	"sync/atomic"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// firstCable is the interface index of the first cable's end on its host a. The
// kernel takes a veth whose ends have the same index, each on its host, for a
// physical device, and keeps the news of a lost carrier back for up to a second
// when there was other such news just before, anywhere on the machine. So ends
// on a count from here and ends on b, as all devices do, from 2.
const firstCable = 1 << 20

var cables atomic.Int32

// Cable joins two hosts by a veth pair, with the names that its ends get there,
// and brings both ends up. The kernel's default offloads stay on.
func (l *Lab) Cable(a *Host, aName string, b *Host, bName string) {
	l.tb.Helper()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.NewLinkAttrs(),
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(b.ns),
	}
	veth.Name, veth.Index = aName, firstCable+int(cables.Add(1))
	if err := a.nl.LinkAdd(veth); err != nil {
		l.tb.Fatalf("lay cable %s:%s to %s:%s: %v", a.name, aName, b.name, bName, err)
	}
	a.Up(aName)
	b.Up(bName)
}

// link is the named device, or the end of the test.
func (h *Host) link(name string) netlink.Link {
	h.tb.Helper()
	l, err := h.nl.LinkByName(name)
	if err != nil {
		h.tb.Fatalf("find %s on %s: %v", name, h.name, err)
	}
	return l
}

func (h *Host) must(verb, name string, err error) {
	h.tb.Helper()
	if err != nil {
		h.tb.Fatalf("%s %s on %s: %v", verb, name, h.name, err)
	}
}

// Up sets devices up.
func (h *Host) Up(names ...string) {
	h.tb.Helper()
	for _, n := range names {
		h.must("set up", n, h.nl.LinkSetUp(h.link(n)))
	}
}

// Down sets devices down.
func (h *Host) Down(names ...string) {
	h.tb.Helper()
	for _, n := range names {
		h.must("set down", n, h.nl.LinkSetDown(h.link(n)))
	}
}

// Addr gives a device an address such as 192.0.2.1/24.
func (h *Host) Addr(name, cidr string) {
	h.tb.Helper()
	a, err := netlink.ParseAddr(cidr)
	h.must("parse address for", name, err)
	h.must("give address to", name, h.nl.AddrReplace(h.link(name), a))
}

// MTU sets the largest payload of a device, in bytes.
func (h *Host) MTU(name string, mtu int) {
	h.tb.Helper()
	h.must("set MTU of", name, h.nl.LinkSetMTU(h.link(name), mtu))
}

// Delete removes a device.
func (h *Host) Delete(name string) {
	h.tb.Helper()
	h.must("delete", name, h.nl.LinkDel(h.link(name)))
}

// MAC is a device's hardware address.
func (h *Host) MAC(name string) frame.MAC {
	h.tb.Helper()
	return frame.MAC(h.link(name).Attrs().HardwareAddr)
}

// SetMAC gives a device another hardware address.
func (h *Host) SetMAC(name string, mac frame.MAC) {
	h.tb.Helper()
	h.must("set MAC of", name, h.nl.LinkSetHardwareAddr(h.link(name), net.HardwareAddr(mac[:])))
}

// Links are the names of the host's network devices, loopback left out, in the
// order of their index.
func (h *Host) Links() []string {
	h.tb.Helper()
	links, err := h.nl.LinkList()
	h.must("list", "links", err)
	names := []string{}
	for _, l := range links {
		if n := l.Attrs().Name; n != "lo" {
			names = append(names, n)
		}
	}
	return names
}

// Bridge makes a kernel bridge of the named devices: no spanning tree, no
// snooping, no VLANs. It is what kvswitch is compared with.
func (h *Host) Bridge(name string, ports ...string) {
	h.tb.Helper()
	off := false
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &off}
	br.Name = name
	h.must("add bridge", name, h.nl.LinkAdd(br))
	for _, p := range ports {
		h.must("enslave", p, h.nl.LinkSetMaster(h.link(p), br))
		h.Up(p)
	}
	h.Up(name)
}

// Statistics are a device's counters.
func (h *Host) Statistics(name string) netlink.LinkStatistics {
	h.tb.Helper()
	return *h.link(name).Attrs().Statistics
}

// Index is a device's interface index.
func (h *Host) Index(name string) int {
	h.tb.Helper()
	return h.link(name).Attrs().Index
}

// Exists reports whether the host has a device of this name.
func (h *Host) Exists(name string) bool {
	var err error
	if doErr := h.Do(func() error { _, err = net.InterfaceByName(name); return nil }); doErr != nil {
		h.tb.Fatalf("find %s: %v", name, doErr)
	}
	return err == nil
}
