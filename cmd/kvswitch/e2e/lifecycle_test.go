package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// TestL15TwoSwitchesNeverLeak runs two switches side by side on one host, sends
// every kind of frame into one of them, and listens to the other.
func TestL15TwoSwitchesNeverLeak(t *testing.T) {
	inKernelModes(t, testL15TwoSwitchesNeverLeak)
}

func testL15TwoSwitchesNeverLeak(t *testing.T) {
	s := newStar(t, netns.New(t), "switch", 6)
	dir := netns.Dir(t)
	start := func(name string, ports ...string) *kvs {
		args := []string{"--name", name, "--stp", "off", "--no-host"}
		for _, p := range ports {
			args = append(args, "--port", "netdev:"+p)
		}
		k := launch(t, s.host, dir, args...)
		k.name = name
		k.awaitReady()
		k.awaitForwarding(ports...)
		return k
	}
	start("one", "p0", "p1", "p2")
	start("two", "p3", "p4", "p5")
	w := plainSweep(6)
	w.heard = func(int) int { return 2 }
	vids := []uint16{0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 4094}
	var sent [][]byte
	for i, vid := range vids {
		for j, dst := range []frame.MAC{mac(99), {0x01, 0, 0x5e, 1, 2, 3}, frame.Broadcast} {
			for k, payload := range []string{body(i), ipv4Body} {
				f := ether(dst, mac(i*6+j*2+k), payload)
				if vid != 0 {
					f = ether(dst, mac(i*6+j*2+k), payload, cTag(vid))
				}
				sent = append(sent, f)
			}
		}
	}
	s.send(0, sent...)
	heard, err := s.settle(w)
	if err != nil {
		t.Fatal(err)
	}
	for p, got := range heard {
		want := 0
		if p == 1 || p == 2 {
			want = len(sent)
		}
		if len(got) != want {
			t.Errorf("p%d put out %d frames, want %d", p, len(got), want)
		}
	}
}

// ipv4Body looks like the start of an IPv4 packet.
const ipv4Body = "\x45\x00\x00\x20\x00\x01\x00\x00\x40\x11\x00\x00\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x07\x00\x07\x00\x0c\x00\x00test"

func TestL16APortThatGoesTakesItsStationsAlong(t *testing.T) {
	inKernelModes(t, testL16APortThatGoesTakesItsStationsAlong)
}

func testL16APortThatGoesTakesItsStationsAlong(t *testing.T) {
	for _, tc := range []struct {
		name        string
		leave, back func(b *bench)
		stays       bool // a port of the switch, though its link is down
	}{
		{"set down", func(b *bench) { b.host.Down("p2") }, func(b *bench) { b.host.Up("p2") }, true},
		{"no carrier", func(b *bench) { b.far.Down("p2") }, func(b *bench) { b.far.Up("p2") }, true},
		{"removed", func(b *bench) { b.kvs.do("port", "del", "p2") }, func(b *bench) { b.kvs.do("port", "add", "netdev:p2") }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, 4)
			b.teach(2, mac(1))
			b.teach(3, mac(2))
			tc.leave(b)
			if tc.stays {
				b.kvs.awaitPort("p2", "is down", func(p portDoc) bool { return p.Link == "down" })
			}
			netns.Await(t, startPatience, "its stations are forgotten", func() error {
				if at := b.kvs.where(mac(1)); at != "" {
					return fmt.Errorf("still on %s", at)
				}
				return nil
			})
			if at := b.kvs.where(mac(2)); at != "p3" {
				t.Errorf("the station of another port is on %q", at)
			}
			whole := b.sweep
			b.sweep = sweepAmong(0, 1, 3)
			b.expect("flooded while it is away", 0, ether(mac(1), mac(3), body(0)), 1, 3)
			tc.back(b)
			b.kvs.awaitForwarding("p2")
			// The far end's kernel drops what is sent before it has noticed that its
			// link is back.
			netns.Await(t, startPatience, "the far end has its link", func() error {
				l, err := b.far.Netlink().LinkByName("p2")
				if err == nil && l.Attrs().OperState != netlink.OperUp {
					err = fmt.Errorf("it is %v", l.Attrs().OperState)
				}
				return err
			})
			b.sweep = whole
			b.expect("flooded when it is back", 0, ether(mac(1), mac(3), body(1)), 1, 2, 3)
			b.teach(2, mac(1))
			b.expect("learned again", 0, ether(mac(1), mac(3), body(2)), 2)
		})
	}
}

func TestL16AFlushMakesTheSwitchFlood(t *testing.T) {
	inKernelModes(t, testL16AFlushMakesTheSwitchFlood)
}

func testL16AFlushMakesTheSwitchFlood(t *testing.T) {
	b := newBench(t, 4)
	for _, tc := range []struct {
		args   []string
		forget []int // stations, each on the port of its number
	}{
		{[]string{"fdb", "flush", "--port", "p2"}, []int{2}},
		{[]string{"fdb", "flush", "--vlan", "1"}, []int{1, 2, 3}},
		{[]string{"fdb", "flush", "--vlan", "7"}, nil},
		{[]string{"fdb", "flush"}, []int{1, 2, 3}},
	} {
		for n := 1; n <= 3; n++ {
			b.hears(n, ether(frame.Broadcast, mac(n), "here I am"))
		}
		b.kvs.do(tc.args...)
		for n := 1; n <= 3; n++ {
			want := []int{n}
			if slices.Contains(tc.forget, n) {
				want = []int{1, 2, 3}
			}
			b.expect(fmt.Sprint(tc.args, " to station ", n), 0, ether(mac(n), mac(9), body(n)), want...)
		}
	}
}
