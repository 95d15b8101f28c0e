package e2e

import (
	"fmt"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
)

func TestV1EveryModeOfPortWithEveryTag(t *testing.T) {
	inKernelModes(t, testV1EveryModeOfPortWithEveryTag)
}

func testV1EveryModeOfPortWithEveryTag(t *testing.T) {
	b := newVLANBench(t, vlanPorts)
	n := 0
	for in := range vlanPorts {
		for _, vid := range []uint16{0, 1, 10, 20, 30, 40, 4094, 4095} {
			for _, prio := range []uint8{0, 5, 10, 15} { // with and without drop eligibility
				n++
				tag := frame.MakeTag(frame.EtherTypeVLAN, prio, vid)
				build := func(tags ...frame.Tag) []byte { return ether(frame.Broadcast, mac(in), body(n), tags...) }
				b.expectAs(fmt.Sprintf("p%d (%s), VID %d, priority %d", in, vlanPorts[in].spec, vid, prio),
					in, build(tag), deliver(vlanPorts, in, tag, build))
			}
		}
		n++
		build := func(tags ...frame.Tag) []byte { return ether(frame.Broadcast, mac(in), body(n), tags...) }
		b.expectAs(fmt.Sprintf("p%d (%s), untagged", in, vlanPorts[in].spec), in, build(), deliver(vlanPorts, in, 0, build))
	}
}

func TestV2IngressFiltersByName(t *testing.T) {
	inKernelModes(t, testV2IngressFiltersByName)
}

func testV2IngressFiltersByName(t *testing.T) {
	b := newVLANBench(t, vlanPorts)
	f := func(tags ...frame.Tag) []byte { return ether(frame.Broadcast, mac(1), body(0), tags...) }
	b.expectDropped("VID that the trunk has not", "vlan-member", 4, f(cTag(30)), f(cTag(4094)))
	b.expectDropped("VID 4095", "vlan-reserved", 4, f(cTag(4095)), f(frame.MakeTag(frame.EtherTypeVLAN, 15, 4095)))
	b.expectDropped("no tag on a port without PVID", "vlan-untagged", 4, f())
	b.expectDropped("VID 0 on a port without PVID", "vlan-untagged", 4, f(cTag(0)))
	b.expectDropped("tag on an access port", "vlan-tagged", 0, f(cTag(10)), f(cTag(20)))
}

func TestV3APriorityTagIsNoVLAN(t *testing.T) {
	inKernelModes(t, testV3APriorityTagIsNoVLAN)
}

func testV3APriorityTagIsNoVLAN(t *testing.T) {
	b := newVLANBench(t, vlanPorts)
	prio := frame.MakeTag(frame.EtherTypeVLAN, 5, 0)
	b.expectAs("from an access port", 0, ether(frame.Broadcast, mac(1), body(0), prio), map[int][]byte{
		1: ether(frame.Broadcast, mac(1), body(0)),
		4: ether(frame.Broadcast, mac(1), body(0), frame.MakeTag(frame.EtherTypeVLAN, 5, 10)),
		5: ether(frame.Broadcast, mac(1), body(0), frame.MakeTag(frame.EtherTypeVLAN, 5, 10)),
		6: ether(frame.Broadcast, mac(1), body(0), frame.MakeTag(frame.EtherTypeVLAN, 5, 10)),
		7: ether(frame.Broadcast, mac(1), body(0), frame.MakeTag(frame.EtherTypeVLAN, 5, 10)),
	})
}

func TestV4VLANsLearnEachForItself(t *testing.T) {
	inKernelModes(t, testV4VLANsLearnEachForItself)
}

func testV4VLANsLearnEachForItself(t *testing.T) {
	b := newVLANBench(t, vlanPorts)
	// The same address behind an access port of VLAN 10 and one of VLAN 20.
	b.hears(1, ether(frame.Broadcast, mac(1), body(0)))
	b.hears(2, ether(frame.Broadcast, mac(1), body(1)))
	b.expectAs("in VLAN 10", 4, ether(mac(1), mac(2), body(2), cTag(10)), map[int][]byte{1: ether(mac(1), mac(2), body(2))})
	b.expectAs("in VLAN 20", 4, ether(mac(1), mac(2), body(3), cTag(20)), map[int][]byte{2: ether(mac(1), mac(2), body(3))})
	build := func(tags ...frame.Tag) []byte { return ether(mac(1), mac(3), body(4), tags...) }
	b.expectAs("in VLAN 30, where it is unknown", 3, build(), deliver(vlanPorts, 3, 0, build))
	on := map[uint16]string{}
	for _, e := range b.kvs.table() {
		if e.MAC == mac(1).String() {
			on[e.VLAN] = e.Port
		}
	}
	if len(on) != 2 || on[10] != "p1" || on[20] != "p2" {
		t.Errorf("table has the station, by VLAN, on %v", on)
	}
}

func TestV5NoHoppingByDoubleTag(t *testing.T) {
	inKernelModes(t, testV5NoHoppingByDoubleTag)
}

func testV5NoHoppingByDoubleTag(t *testing.T) {
	b := newVLANBench(t, vlanPorts)
	for _, outer := range []frame.Tag{cTag(10), cTag(20), cTag(1)} {
		b.expectDropped("two tags into an access port", "vlan-tagged", 0, ether(frame.Broadcast, mac(1), body(0), outer, cTag(20)))
	}
	// Under a priority tag the inner tag is payload: it stays in VLAN 10.
	build := func(tags ...frame.Tag) []byte {
		return ether(frame.Broadcast, mac(1), body(1), append(tags, cTag(20))...)
	}
	b.expectAs("a tag under a priority tag", 0, build(cTag(0)), deliver(vlanPorts, 0, cTag(0), build))
}

func TestV6OtherTagsAreNoVLANTags(t *testing.T) {
	inKernelModes(t, testV6OtherTagsAreNoVLANTags)
}

func testV6OtherTagsAreNoVLANTags(t *testing.T) {
	b := newVLANBench(t, vlanPorts)
	for i, tpid := range []uint16{frame.EtherTypeQinQ, 0x9100, 0x9200} {
		other := frame.MakeTag(tpid, 3, 20)
		// In a port's own VLAN, with the foreign tag as payload.
		build := func(tags ...frame.Tag) []byte {
			return ether(frame.Broadcast, mac(1), body(i), append(tags, other)...)
		}
		b.expectAs(fmt.Sprintf("TPID %#x into an access port", tpid), 0, build(), deliver(vlanPorts, 0, 0, build))
		b.expectDropped(fmt.Sprintf("TPID %#x into a port without PVID", tpid), "vlan-untagged", 4, build())
	}
}

func TestV7ADeletedVLANIsGone(t *testing.T) {
	inKernelModes(t, testV7ADeletedVLANIsGone)
}

func testV7ADeletedVLANIsGone(t *testing.T) {
	b := newVLANBench(t, vlanPorts)
	b.hears(1, ether(frame.Broadcast, mac(1), body(0)))
	b.hears(4, ether(frame.Broadcast, mac(2), body(1), cTag(10)), ether(frame.Broadcast, mac(3), body(1), cTag(20)))
	b.kvs.do("vlan", "del", "p4", "10")
	without := append([]vlanPort{}, vlanPorts...)
	without[4] = vlanPort{tagged: []uint16{20}}
	b.sweep = vlanSweep(without)
	b.expectDropped("into the VLAN that the port left", "vlan-member", 4, ether(mac(1), mac(2), body(2), cTag(10)))
	build := func(tags ...frame.Tag) []byte { return ether(mac(2), mac(1), body(3), tags...) }
	b.expectAs("to a station that was there: flooded", 1, build(), deliver(without, 1, 0, build))
	b.expectAs("the port's other VLAN goes on", 2, ether(mac(3), mac(5), body(4)), map[int][]byte{4: ether(mac(3), mac(5), body(4), cTag(20))})
	b.kvs.do("vlan", "add", "p4", "10")
	b.sweep = vlanSweep(vlanPorts)
	b.expectAs("and back", 4, ether(mac(1), mac(2), body(5), cTag(10)), map[int][]byte{1: ether(mac(1), mac(2), body(5))})
}

func TestV8ManyVLANs(t *testing.T) {
	inKernelModes(t, testV8ManyVLANs)
}

func testV8ManyVLANs(t *testing.T) {
	vids := []uint16{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 4094}
	ports := []vlanPort{
		{spec: "trunk=1-4094", tagged: vids},
		{spec: "trunk=1-4094", tagged: vids},
		{spec: "vlan=4094", pvid: 4094, bare: []uint16{4094}},
		{spec: "", pvid: 1, bare: []uint16{1}}, // what a port is when nothing is said
	}
	b := newVLANBench(t, ports)
	for i, vid := range vids {
		build := func(tags ...frame.Tag) []byte { return ether(frame.Broadcast, mac(i), body(i), tags...) }
		b.expectAs(fmt.Sprint("VLAN ", vid), 0, build(cTag(vid)), deliver(ports, 0, cTag(vid), build))
		b.expectAs(fmt.Sprint("known in VLAN ", vid), 1, ether(mac(i), mac(50+i), body(i), cTag(vid)),
			map[int][]byte{0: ether(mac(i), mac(50+i), body(i), cTag(vid))})
	}
}
