package e2e

import (
	"fmt"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// linkLocal is one of the sixteen addresses of 802.1Q table 8-1.
func linkLocal(n int) frame.MAC { return frame.MAC{0x01, 0x80, 0xc2, 0, 0, byte(n)} }

func TestL7LinkLocalGroupsAreNeverForwarded(t *testing.T) {
	inKernelModes(t, testL7LinkLocalGroupsAreNeverForwarded)
}

func testL7LinkLocalGroupsAreNeverForwarded(t *testing.T) {
	for _, stp := range []string{"off", "rstp"} {
		t.Run("stp "+stp, func(t *testing.T) {
			b := newBench(t, 3, "--stp", stp)
			var plain, tagged [][]byte
			for n := range 16 {
				if n == 0 {
					continue // with a tree BPDUs are for the switch itself, see its tests; without one, see below
				}
				plain = append(plain, ether(linkLocal(n), mac(1), body(n)))
				tagged = append(tagged, ether(linkLocal(n), mac(1), body(n), cTag(7)), ether(linkLocal(n), mac(1), body(n), sTag(7)))
			}
			b.expectDropped("untagged", "link-local", 1, plain...)
			b.expectDropped("tagged", "link-local", 1, tagged...)
		})
	}
}

// The kernel's bridge does so, too: the switches on both sides must see a loop.
func TestL7BPDUsPassWhereThereIsNoTreeExceptFromGuardedPorts(t *testing.T) {
	b := newBench(t, 3, "--stp", "off")
	for _, name := range b.ports {
		b.kvs.do("port", "set", name, "bpdu-guard=off")
	}
	for i, f := range [][]byte{
		ether(linkLocal(0), mac(1), body(0)), ether(linkLocal(0), mac(1), body(1), cTag(7)),
	} {
		b.expect(fmt.Sprint("BPDU ", i), 1, f, 0, 2)
	}
	b.kvs.do("port", "set", b.ports[1], "bpdu-guard=on")
	b.expectDropped("from a guarded port", "link-local", 1, ether(linkLocal(0), mac(1), body(3)))
	b.expect("to a guarded port", 0, ether(linkLocal(0), mac(2), body(4)), 1, 2)
}

func TestL8OtherGroupsAreFlooded(t *testing.T) {
	inKernelModes(t, testL8OtherGroupsAreFlooded)
}

func testL8OtherGroupsAreFlooded(t *testing.T) {
	b := newBench(t, 3)
	for i, dst := range []frame.MAC{
		linkLocal(0x10), linkLocal(0x20), linkLocal(0x2f), {0x01, 0x80, 0xc2, 0, 1, 0}, {0x01, 0x80, 0xc3, 0, 0, 0},
		{0x01, 0, 0x5e, 0, 0, 1}, {0x01, 0, 0x5e, 0x7f, 0xff, 0xfa}, {0x33, 0x33, 0, 0, 0, 1}, {0x33, 0x33, 0xff, 1, 2, 3},
		{0x03, 0, 0, 0, 0, 0}, frame.Broadcast,
	} {
		b.expect(dst.String(), 1, ether(dst, mac(1), body(i)), 0, 2)
	}
}

func TestL9GroupAndZeroSourcesAreDroppedAndNeverLearned(t *testing.T) {
	inKernelModes(t, testL9GroupAndZeroSourcesAreDroppedAndNeverLearned)
}

func testL9GroupAndZeroSourcesAreDroppedAndNeverLearned(t *testing.T) {
	b := newBench(t, 3)
	group := frame.MAC{0x03, 0, 0, 0, 0, 1}
	b.expectDropped("from a group", "group-source", 0,
		ether(mac(9), group, body(0)), ether(frame.Broadcast, frame.Broadcast, body(1)), ether(mac(9), frame.MAC{1, 0, 0x5e, 0, 0, 1}, body(2)))
	b.expectDropped("from nobody", "zero-source", 0, ether(frame.Broadcast, frame.MAC{}, body(3)))
	for _, e := range b.kvs.table() {
		if m, err := frame.ParseMAC(e.MAC); err != nil || !m.IsUnicast() {
			t.Errorf("the table has %s", e.MAC)
		}
	}
	b.expect("to 00:00:00:00:00:00", 0, ether(frame.MAC{}, mac(1), body(4)), 1, 2)
}

func TestL10FramesPassBitForBitOnceAndInOrder(t *testing.T) {
	inKernelModes(t, testL10FramesPassBitForBitOnceAndInOrder)
}

func testL10FramesPassBitForBitOnceAndInOrder(t *testing.T) {
	b := newBench(t, 3)
	tags := map[string][]frame.Tag{
		"untagged": nil, "C-tag": {cTag(10)}, "VID 0": {cTag(0)}, "VID 4095": {cTag(4095)}, "priority": {frame.MakeTag(frame.EtherTypeVLAN, 0xf, 10)},
		"S-tag": {sTag(10)}, "QinQ": {sTag(100), cTag(10)}, "two C-tags": {cTag(1), cTag(2)}, "0x9100": {frame.Tag(0x9100_0005)},
	}
	n := 0
	for name, stack := range tags {
		for _, size := range []int{14, 15, 31, 59, 60, 64, 128, 512, 1024, 1499, 1500} {
			// The size is the payload's: with one tag the longest makes 1518
			// bytes, which is all that a veth's MTU lets a raw socket send.
			if len(stack) > 1 || len(stack) == 1 && stack[0].TPID() != frame.EtherTypeVLAN {
				size = min(size, 1500-4*len(stack))
			}
			n++
			payload := make([]byte, size)
			for i := range payload {
				payload[i] = byte(i*7 + n)
			}
			b.expect(fmt.Sprintf("%s, %d bytes", name, size), 0, ether(frame.Broadcast, mac(1), string(payload), stack...), 1, 2)
		}
	}
	var burst [][]byte
	for i := range 500 {
		burst = append(burst, ether(frame.Broadcast, mac(1), body(i)))
	}
	for p, got := range b.hears(0, burst...) {
		if p == 0 {
			continue
		}
		if len(got) != len(burst) {
			t.Fatalf("p%d put out %d of %d frames of a burst", p, len(got), len(burst))
		}
		for i := range got {
			if string(got[i]) != string(burst[i]) {
				t.Fatalf("p%d: frame %d of a burst is %s", p, i, describe(got[i]))
			}
		}
	}
}

func TestL11AFullTableMakesRoomFairly(t *testing.T) {
	inKernelModes(t, testL11AFullTableMakesRoomFairly)
}

func testL11AFullTableMakesRoomFairly(t *testing.T) {
	const limit = 64
	b := newBench(t, 3, "--max-entries", fmt.Sprint(limit))
	b.teach(2, mac(1))
	var flood [][]byte
	for i := range 4 * limit {
		flood = append(flood, ether(frame.Broadcast, mac(1000+i), body(i)))
	}
	b.hears(0, flood...)
	if n := b.kvs.status().FDB; n.Entries > limit || n.Max != limit {
		t.Errorf("table holds %d entries, its limit is shown as %d, want %d", n.Entries, n.Max, limit)
	}
	b.expect("known before the table was full", 0, ether(mac(1), mac(1000), body(0)), 2)
	b.teach(1, mac(5))
	b.expect("a new station takes the place of one of those who have most", 2, ether(mac(5), mac(1), body(1)), 1)
	b.kvs.do("fdb", "flush")
	b.teach(1, mac(2))
	b.expect("there is room after a flush", 0, ether(mac(2), mac(3), body(2)), 1)
}

func TestL11TheTableHoldsFourMillion(t *testing.T) {
	if n := newBench(t, 2).kvs.status().FDB.Max; n != 65536 {
		t.Errorf("by default the table takes %d stations, want 65536", n)
	}
	const most = 4 << 20
	b := newBench(t, 2, "--max-entries", fmt.Sprint(most))
	const stations = 1000
	for i := range stations {
		b.send(0, ether(frame.Broadcast, mac(i), body(i)))
		if i%100 == 99 { // no more at once than a receive ring takes
			b.hears(1)
		}
	}
	if n := b.kvs.status().FDB; n.Max != most || n.Entries < stations {
		t.Errorf("table of %d stations holds %d, sent from %d", n.Max, n.Entries, stations)
	}
}

func TestL12TheSwitchsOwnAddressIsNotLearnedFromAPort(t *testing.T) {
	inKernelModes(t, testL12TheSwitchsOwnAddressIsNotLearnedFromAPort)
}

func testL12TheSwitchsOwnAddressIsNotLearnedFromAPort(t *testing.T) {
	b := newBench(t, 3, "--host", "kvs0", "--no-host=false")
	own := b.host.MAC("kvs0")
	b.expectDropped("own address as source", "own-source", 1, ether(frame.Broadcast, own, body(0)), ether(mac(9), own, body(1)))
	if at := b.kvs.where(own); at != "kvs0" {
		t.Errorf("table has the own address on %q, want kvs0", at)
	}
	for _, e := range b.kvs.table() {
		if e.MAC == own.String() && e.Type != "local" {
			t.Errorf("own address is %s, want local", e.Type)
		}
	}
	b.expect("to the own address: to the host alone", 1, ether(own, mac(1), body(2)))
}

func TestL13StaticEntriesStayAndLimitsCountLearnedOnesOnly(t *testing.T) {
	inKernelModes(t, testL13StaticEntriesStayAndLimitsCountLearnedOnesOnly)
}

func testL13StaticEntriesStayAndLimitsCountLearnedOnesOnly(t *testing.T) {
	b := newBench(t, 3)
	b.kvs.do("fdb", "add", mac(1).String(), "--port", "p1", "--static")
	b.expect("static entry", 0, ether(mac(1), mac(2), body(0)), 1)
	b.hears(2, ether(frame.Broadcast, mac(1), "I moved"))
	b.expect("static entry after a move", 0, ether(mac(1), mac(2), body(1)), 1)
	b.kvs.do("fdb", "flush")
	b.expect("static entry after a flush", 0, ether(mac(1), mac(2), body(2)), 1)
	b.kvs.do("fdb", "del", mac(1).String())
	b.expect("deleted", 0, ether(mac(1), mac(2), body(3)), 1, 2)

	b.kvs.do("fdb", "flush")
	b.kvs.do("port", "set", "p2", "max-learned=3")
	b.kvs.do("fdb", "add", mac(50).String(), "--port", "p2", "--static")
	var many [][]byte
	for i := range 8 {
		many = append(many, ether(frame.Broadcast, mac(100+i), body(i)))
	}
	b.hears(2, many...)
	dynamic := 0
	for _, e := range b.kvs.table() {
		if e.Port == "p2" && e.Type == "dynamic" {
			dynamic++
		}
	}
	if dynamic != 3 {
		t.Errorf("p2 learned %d stations with max-learned=3 and a static entry", dynamic)
	}
}

func TestL14IsolatedAndLockedPorts(t *testing.T) {
	inKernelModes(t, testL14IsolatedAndLockedPorts)
}

func testL14IsolatedAndLockedPorts(t *testing.T) {
	b := newBench(t, 4)
	b.teach(1, mac(1))
	b.kvs.do("port", "set", "p0", "isolated=on")
	b.kvs.do("port", "set", "p1", "isolated=on")
	b.sweep.heard = func(port int) int { return map[bool]int{true: 2, false: 3}[port < 2] }
	b.expect("broadcast from an isolated port", 0, ether(frame.Broadcast, mac(2), body(0)), 2, 3)
	b.expectDropped("unicast between isolated ports", "isolated", 0, ether(mac(1), mac(2), body(1)))
	b.expect("from elsewhere", 2, ether(mac(1), mac(3), body(2)), 1)
	b.expect("to elsewhere", 1, ether(mac(3), mac(1), body(3)), 2)
	b.kvs.do("port", "set", "p0", "isolated=off")
	b.kvs.do("port", "set", "p1", "isolated=off", "locked=on")
	// The sweep of the locked port itself is from a source that was learned
	// before, and so it passes.
	b.sweep.heard = plainSweep(4).heard
	b.expect("a known source on a locked port", 1, ether(mac(3), mac(1), body(4)), 2)
	b.expectDropped("an unknown source on a locked port", "locked", 1, ether(mac(3), mac(77), body(5)), ether(frame.Broadcast, mac(77), body(6)))
	if at := b.kvs.where(mac(77)); at != "" {
		t.Errorf("learned on locked port: %s", at)
	}
	b.expectDropped("a source that is known elsewhere", "locked", 1, ether(frame.Broadcast, mac(3), body(7)))
}
