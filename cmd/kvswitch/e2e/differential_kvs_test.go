package e2e

import (
	"fmt"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// TestDifferentialAgainstKernelBridge is the oracle test: whatever the kernel's
// bridge does with a frame, kvswitch does, but for deliberateDifferences, which
// the traffic avoids: it has no frames to 01:80:c2:00:00:00, sends to the other
// reserved groups from addresses of their own, and knows no device's address.
func TestDifferentialAgainstKernelBridge(t *testing.T) {
	inKernelModes(t, testDifferentialAgainstKernelBridge)
}

func testDifferentialAgainstKernelBridge(t *testing.T) {
	for _, tc := range []struct{ workers, ageings int }{{1, 2}, {3, 0}} {
		t.Run(fmt.Sprintf("%d workers", tc.workers), func(t *testing.T) {
			d := newDuel(t, differentialPorts, "kernel bridge", newKernelBridge,
				"kvswitch", func(s *star) subject { return onStar(s, "--workers", fmt.Sprint(tc.workers)) })
			if err := d.run(differentialFrames, tc.ageings); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// deliberateDifferences are where kvswitch does not as the kernel's bridge does
// with its spanning tree off. Each sends a frame into p0 of three ports, after
// another into p1 if before is not nil.
var deliberateDifferences = []struct {
	name             string
	before, frame    func(*star) []byte
	kernel, kvswitch []int // ports that put it out
}{
	{
		// 802.1Q 8.6.3 comes before learning, 8.7: a frame that is not forwarded
		// says nothing about where frames should go.
		name:     "frames to reserved groups teach nothing",
		before:   func(*star) []byte { return ether(linkLocal(2), mac(2), body(1)) },
		frame:    func(*star) []byte { return ether(mac(2), mac(1), body(2)) },
		kernel:   []int{1},
		kvswitch: []int{1, 2},
	},
	{
		// In the kernel the host is behind every port's own address. Here it is
		// behind its host interface alone, and a port's address is a station
		// like any other.
		name:     "the addresses of port devices are not the host's",
		frame:    func(s *star) []byte { return ether(s.host.MAC("p2"), mac(1), body(3)) },
		kvswitch: []int{1, 2},
	},
}

func TestDeliberateDifferencesFromTheKernelBridge(t *testing.T) {
	inKernelModes(t, testDeliberateDifferencesFromTheKernelBridge)
}

func testDeliberateDifferencesFromTheKernelBridge(t *testing.T) {
	for _, tc := range deliberateDifferences {
		t.Run(tc.name, func(t *testing.T) {
			lab := netns.New(t)
			for who, want := range map[string][]int{"kernel": tc.kernel, "kvswitch": tc.kvswitch} {
				s := newStar(t, lab, who, 3)
				if who == "kernel" {
					newKernelBridge(s)
				} else {
					onStar(s)
				}
				b := &bench{star: s, sweep: plainSweep(3)}
				netns.Await(t, startPatience, who+" forwards", func() error { _, err := s.settle(b.sweep); return err })
				if tc.before != nil {
					b.hears(1, tc.before(s))
				}
				b.expect(who, 0, tc.frame(s), want...)
			}
		})
	}
}

// TestDifferentialVLANsAgainstOpenVSwitch compares ports of every VLAN mode.
// What it leaves out are deeds of Open vSwitch that kvswitch doesn't follow: it
// notices late that a station moved, forwards frames from groups and from
// nobody and learns nobody's address, loses the drop eligibility of a tag, takes
// an 802.1ad tag for an 802.1Q one, and remembers stations for 15 s at least.
func TestDifferentialVLANsAgainstOpenVSwitch(t *testing.T) {
	inKernelModes(t, testDifferentialVLANsAgainstOpenVSwitch)
}

func testDifferentialVLANsAgainstOpenVSwitch(t *testing.T) {
	d := newDuel(t, len(vlanPorts),
		"Open vSwitch", func(s *star) subject {
			return newOpenVSwitch(s, func(port int) []string { return vlanPorts[port].ovs })
		},
		"kvswitch", func(s *star) subject { return vlanKvswitch(s, vlanPorts) })
	d.a.reorders = true
	d.a.sweep, d.b.sweep = vlanSweep(vlanPorts), vlanSweep(vlanPorts)
	d.traffic.sane, d.traffic.still = true, true
	d.traffic.tags = vlanTags
	d.traffic.vlan = func(port int, tags []frame.Tag) (uint16, bool) {
		return vlanPorts[port].admits(append(tags, 0)[0])
	}
	if err := d.run(differentialFrames, 0); err != nil {
		t.Fatal(err)
	}
}

// vlanTags are mostly tags that the ports of vlanPorts know.
func vlanTags(g *traffic, _ int) []frame.Tag {
	vids := []uint16{0, 10, 10, 20, 20, 30, 40, 4095}
	prio := uint8(g.rng.IntN(8)) << 1
	tag := frame.MakeTag(frame.EtherTypeVLAN, prio, vids[g.rng.IntN(len(vids))])
	switch g.rng.IntN(4) {
	case 0:
		return nil
	case 1:
		return []frame.Tag{tag, cTag(vids[g.rng.IntN(len(vids))])}
	}
	return []frame.Tag{tag}
}
