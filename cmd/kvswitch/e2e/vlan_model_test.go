package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// vlanPort is a port's part in the VLANs, in the words of 802.1Q: what the
// tests expect is derived from it, and both kvswitch and Open vSwitch are
// configured by it.
type vlanPort struct {
	spec   string   // kvswitch's keys
	ovs    []string // columns of Open vSwitch's Port record
	pvid   uint16   // VLAN of untagged frames; 0 drops them
	tagged []uint16 // VLANs that enter and leave with a tag
	bare   []uint16 // VLANs that leave without one
}

// vlanPorts are one port of each mode, and company for each.
var vlanPorts = []vlanPort{
	{spec: "vlan=10", ovs: []string{"tag=10"}, pvid: 10, bare: []uint16{10}},
	{spec: "vlan=10", ovs: []string{"tag=10"}, pvid: 10, bare: []uint16{10}},
	{spec: "vlan=20", ovs: []string{"tag=20"}, pvid: 20, bare: []uint16{20}},
	{spec: "vlan=30", ovs: []string{"tag=30"}, pvid: 30, bare: []uint16{30}},
	{spec: "trunk=10+20", ovs: []string{"trunks=10,20"}, tagged: []uint16{10, 20}},
	{spec: "trunk=10-30", ovs: []string{"trunks=" + vidRange(10, 30)}, tagged: []uint16{10, 20, 30}},
	{spec: "trunk=10+20,native=30", ovs: []string{"trunks=10,20", "tag=30", "vlan_mode=native-untagged"},
		pvid: 30, tagged: []uint16{10, 20}, bare: []uint16{30}},
	{spec: "trunk=20,native-tagged=10", ovs: []string{"trunks=20", "tag=10", "vlan_mode=native-tagged"},
		pvid: 10, tagged: []uint16{10, 20}},
}

// vidRange lists the ids from lo to hi.
func vidRange(lo, hi int) string {
	var ids []string
	for v := lo; v <= hi; v++ {
		ids = append(ids, fmt.Sprint(v))
	}
	return strings.Join(ids, ",")
}

// access reports a port that refuses tags.
func (p *vlanPort) access() bool { return len(p.tagged) == 0 }

func (p *vlanPort) member(vid uint16) bool {
	return slices.Contains(p.tagged, vid) || slices.Contains(p.bare, vid)
}

// admits is the VLAN that a frame with this tag belongs to when it comes in, or
// false when it is refused.
func (p *vlanPort) admits(tag frame.Tag) (vid uint16, ok bool) {
	switch vid = tag.VID(); {
	case vid == 0:
		return p.pvid, p.pvid != 0
	case vid == 4095 || p.access():
		return 0, false
	}
	return vid, p.member(vid)
}

// deliver is what a broadcast becomes that comes in by a port with a tag, or
// without one if it is zero: by port, the frame that leaves there. make builds
// the frame with the tags it is given.
func deliver(ports []vlanPort, in int, tag frame.Tag, build func(...frame.Tag) []byte) map[int][]byte {
	out := map[int][]byte{}
	vid, ok := ports[in].admits(tag)
	for i := range ports {
		switch p := &ports[i]; {
		case !ok || i == in || !p.member(vid):
		case slices.Contains(p.bare, vid):
			out[i] = build()
		default: // the priority of the tag it came with lives on
			out[i] = build(frame.MakeTag(frame.EtherTypeVLAN, uint8(tag.TCI()>>12), vid))
		}
	}
	return out
}

// vlanSweep sweeps every VLAN of every port.
func vlanSweep(ports []vlanPort) *sweep {
	members := map[uint16]int{}
	vlans := func(p *vlanPort) []uint16 { return append(slices.Clone(p.tagged), p.bare...) }
	for i := range ports {
		for _, vid := range vlans(&ports[i]) {
			members[vid]++
		}
	}
	return &sweep{
		to: frame.Broadcast,
		tags: func(port int) (tags []frame.Tag) {
			for _, vid := range ports[port].tagged {
				tags = append(tags, cTag(vid))
			}
			for range ports[port].bare {
				tags = append(tags, 0)
			}
			return tags
		},
		heard: func(port int) (n int) {
			for _, vid := range vlans(&ports[port]) {
				n += members[vid] - 1
			}
			return n
		},
	}
}

// newVLANBench runs kvswitch with VLAN filtering on these ports.
func newVLANBench(t *testing.T, ports []vlanPort) *bench {
	t.Helper()
	s := newStar(t, netns.New(t), "switch", len(ports))
	return &bench{s, vlanKvswitch(s, ports), vlanSweep(ports)}
}

func vlanKvswitch(s *star, ports []vlanPort, args ...string) *kvs {
	s.t.Helper()
	args = append([]string{"--stp", "off", "--no-host", "--vlan-filtering"}, args...)
	for i, p := range s.ports {
		args = append(args, "--port", strings.TrimSuffix("netdev:"+p+","+ports[i].spec, ","))
	}
	k := run(s.t, s.host, args...)
	k.awaitForwarding(s.ports...)
	return k
}
