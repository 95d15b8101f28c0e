package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

func TestL1UnknownUnicastIsFloodedToAllPortsButIngress(t *testing.T) {
	inKernelModes(t, testL1UnknownUnicastIsFloodedToAllPortsButIngress)
}

func testL1UnknownUnicastIsFloodedToAllPortsButIngress(t *testing.T) {
	b := newBench(t, 4)
	for port := range b.ports {
		b.expect(fmt.Sprint("from p", port), port, ether(mac(99), mac(port), body(port)), b.others(port)...)
	}
}

func TestL2LearnedStationIsReachedThroughOnePortAndShown(t *testing.T) {
	inKernelModes(t, testL2LearnedStationIsReachedThroughOnePortAndShown)
}

func testL2LearnedStationIsReachedThroughOnePortAndShown(t *testing.T) {
	b := newBench(t, 4)
	b.teach(2, mac(1))
	b.expect("known unicast", 0, ether(mac(1), mac(2), body(0)), 2)
	b.expect("and back", 2, ether(mac(2), mac(1), body(1)), 0)
	for _, e := range b.kvs.table() {
		if e.MAC == mac(1).String() {
			if e.Port != "p2" || e.VLAN != 1 || e.Type != "dynamic" || e.AgeS < 0 || e.AgeS > 60 {
				t.Errorf("entry %+v", e)
			}
		}
	}
	if at := b.kvs.where(mac(1)); at != "p2" {
		t.Errorf("table has the station on %q", at)
	}
	// showmacs is brctl's view of it: number, address, is local, age.
	line := b.kvs.do("showmacs")
	number := b.kvs.port("p2").ID
	if want := fmt.Sprintf("%3d\t%s\tno\t\t", number, mac(1)); !strings.Contains(line, want) {
		t.Errorf("showmacs prints no %q:\n%s", want, line)
	}
}

func TestL3StationsAgeOut(t *testing.T) {
	inKernelModes(t, testL3StationsAgeOut)
}

func testL3StationsAgeOut(t *testing.T) {
	b := newBench(t, 3)
	if s := b.kvs.status().AgeingS; s != 300 {
		t.Errorf("ageing time %v s by default, want 300 (802.1D table 7-5)", s)
	}
	b.teach(1, mac(1))
	b.ageOut(mac(1))
	b.expect("aged out: flooded", 0, ether(mac(1), mac(2), body(0)), 1, 2)
}

// ageOut lets the time run out for a station.
func (b *bench) ageOut(station frame.MAC) {
	b.t.Helper()
	b.kvs.ageing(time.Second)
	netns.Await(b.t, 30*time.Second, "the station is forgotten", func() error {
		if at := b.kvs.where(station); at != "" {
			return fmt.Errorf("still on %s", at)
		}
		return nil
	})
}

func TestL3AStationThatSpeaksIsNotForgotten(t *testing.T) {
	inKernelModes(t, testL3AStationThatSpeaksIsNotForgotten)
}

func testL3AStationThatSpeaksIsNotForgotten(t *testing.T) {
	b := newBench(t, 3)
	b.teach(1, mac(1))
	b.teach(1, mac(2))
	b.kvs.ageing(3 * time.Second)
	netns.Await(t, 30*time.Second, "the silent station is forgotten and the other one not", func() error {
		b.send(1, ether(mac(9), mac(1), "still here"))
		if b.kvs.where(mac(2)) != "" {
			return fmt.Errorf("the silent one is still known")
		}
		return nil
	})
	if at := b.kvs.where(mac(1)); at != "p1" {
		t.Errorf("the speaking one is on %q", at)
	}
}

func TestL4LearningAndFloodingCanBeSwitchedOffPerPort(t *testing.T) {
	inKernelModes(t, testL4LearningAndFloodingCanBeSwitchedOffPerPort)
}

func testL4LearningAndFloodingCanBeSwitchedOffPerPort(t *testing.T) {
	b := newBench(t, 4)
	multicast := frame.MAC{0x01, 0, 0x5e, 1, 2, 3}
	for _, tc := range []struct {
		key string
		dst frame.MAC
	}{
		{"flood", mac(99)},
		{"mcast-flood", multicast},
		{"bcast-flood", frame.Broadcast},
	} {
		if tc.key == "bcast-flood" {
			b.sweep.to = multicast // a broadcast would not sweep p3
		}
		b.kvs.do("port", "set", "p3", tc.key+"=off")
		for _, dst := range []frame.MAC{mac(99), multicast, frame.Broadcast} {
			want := []int{1, 2, 3}
			if dst == tc.dst {
				want = []int{1, 2}
			}
			b.expect(fmt.Sprintf("%s=off, to %v", tc.key, dst), 0, ether(dst, mac(1), body(0)), want...)
		}
		b.kvs.do("port", "set", "p3", tc.key+"=on")
		b.sweep.to = frame.Broadcast
	}
	b.kvs.do("port", "set", "p3", "learning=off")
	b.teach(3, mac(5))
	b.expect("a station behind learning=off is unknown", 0, ether(mac(5), mac(1), body(1)), 1, 2, 3)
	b.kvs.do("port", "set", "p3", "learning=on")
	b.teach(3, mac(5))
	b.expect("and known with learning=on", 0, ether(mac(5), mac(1), body(2)), 3)
}

func TestL5AMovedStationIsFollowedFromItsFirstFrame(t *testing.T) {
	inKernelModes(t, testL5AMovedStationIsFollowedFromItsFirstFrame)
}

func testL5AMovedStationIsFollowedFromItsFirstFrame(t *testing.T) {
	b := newBench(t, 4)
	b.teach(3, mac(9))
	for i, port := range []int{0, 1, 2, 1, 0, 2} {
		// Its first frame from the new place is to a known station: no flood
		// tells anybody about it.
		b.expect(fmt.Sprintf("move %d, first frame", i), port, ether(mac(9), mac(1), body(i)), 3)
		b.expect(fmt.Sprintf("move %d, answer", i), 3, ether(mac(1), mac(9), body(i)), port)
	}
}

func TestL6AStationOnTheIngressPortFiltersItsFrames(t *testing.T) {
	inKernelModes(t, testL6AStationOnTheIngressPortFiltersItsFrames)
}

func testL6AStationOnTheIngressPortFiltersItsFrames(t *testing.T) {
	b := newBench(t, 3)
	b.teach(1, mac(1))
	b.teach(1, mac(2))
	b.expectDropped("to a neighbour on the same cable", "same-port", 1, ether(mac(2), mac(1), body(0)), ether(mac(1), mac(2), body(1)))
	b.kvs.do("port", "set", "p1", "hairpin=on")
	b.sweep.heard = func(port int) int { return map[bool]int{true: 3, false: 2}[port == 1] }
	b.expect("with hairpin=on", 1, ether(mac(2), mac(1), body(2)), 1)
}
