package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// newOwnDuel is a duel between kvswitch that forwards in the kernel what it can, as
// a, and kvswitch that doesn't.
func newOwnDuel(t *testing.T, ports int, run func(s *star, args ...string) *kvs) *duel {
	t.Helper()
	inKernelOnly(t) // this test says by itself who runs how
	side := func(mode string) func(*star) subject {
		return func(s *star) subject { return run(s, "--in-kernel", mode) }
	}
	d := newDuel(t, ports, "the kernel", side(inKernelAuto), "the relay", side(inKernelOff))
	d.traffic.still, d.traffic.sane = true, true
	return d
}

// awaitShort waits until frames between two ports, which nothing keeps apart, take
// the short way of a; b gets the same. A switch forwards in the kernel from its
// first full second on.
func (d *duel) awaitShort(from, to int) {
	d.t.Helper()
	d.warmUp()
	k := d.a.subject.(*kvs)
	netns.Await(d.t, startPatience, "frames take the short way", func() error {
		for _, c := range []*contender{&d.a, &d.b} {
			c.star.send(from, ether(sweepSource(to), sweepSource(from), "known"))
			if _, err := c.star.settle(c.sweep); err != nil {
				return err
			}
		}
		if p := k.port(fmt.Sprint("p", from)); p.InKernel.RxFrames == 0 {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	})
}

// tallies are the counters of a switch's ports that two switches with the same
// traffic have in common, and where the stations are.
func (k *kvs) tallies() (ports []portDoc, table []string) {
	k.t.Helper()
	for _, p := range k.status().Ports {
		ports = append(ports, portDoc{Name: p.Name, Learned: p.Learned, RX: p.RX, TX: p.TX, Drops: p.Drops})
	}
	for _, e := range k.table() {
		table = append(table, fmt.Sprint(e.MAC, e.VLAN, e.Port, e.Type))
	}
	slices.Sort(table)
	return ports, table
}

// sameTallies checks that both counted the same and know the same. The relay
// counts a batch when it is through.
func (d *duel) sameTallies() {
	d.t.Helper()
	a, b := d.a.subject.(*kvs), d.b.subject.(*kvs)
	netns.Await(d.t, startPatience, "both have counted the same", func() error {
		portsA, tableA := a.tallies()
		portsB, tableB := b.tallies()
		var different []error
		for i := range portsA {
			if x, y := fmt.Sprintf("%+v", portsA[i]), fmt.Sprintf("%+v", portsB[i]); x != y {
				different = append(different, fmt.Errorf("%s says %s\n%s %s", d.a.name, x, d.b.name, y))
			}
		}
		if !slices.Equal(tableA, tableB) {
			different = append(different, fmt.Errorf("%s knows %s\n%s %s", d.a.name, tableA, d.b.name, tableB))
		}
		return errors.Join(different...)
	})
	short := uint64(0)
	for _, p := range a.status().Ports {
		short += p.InKernel.RxFrames
	}
	d.t.Logf("%d of the %d frames went the short way", short, d.compared)
	if short < uint64(d.compared)/50 {
		d.t.Error("too few to tell")
	}
}

// TestTheKernelDoesWithVLANsWhatTheRelayDoes sends tagged, untagged and priority
// tagged frames between ports of every mode: tags are put on and taken off.
func TestTheKernelDoesWithVLANsWhatTheRelayDoes(t *testing.T) {
	d := newOwnDuel(t, len(vlanPorts), func(s *star, args ...string) *kvs { return vlanKvswitch(s, vlanPorts, args...) })
	d.a.sweep, d.b.sweep = vlanSweep(vlanPorts), vlanSweep(vlanPorts)
	d.traffic.tags = vlanTags
	d.traffic.vlan = func(port int, tags []frame.Tag) (uint16, bool) { return vlanPorts[port].admits(append(tags, 0)[0]) }
	d.awaitShort(0, 1)
	if err := d.run(differentialFrames, 0); err != nil {
		t.Fatal(err)
	}
	d.sameTallies()
}

// TestTheKernelKeepsTheRulesOfPorts is a switch whose ports have what can be had:
// isolated ones, a hairpin, one that is locked, one that learns few stations, one
// that learns none, static entries, and one with a small MTU.
func TestTheKernelKeepsTheRulesOfPorts(t *testing.T) {
	const isolatedA, isolatedB, hairpin, locked, few, deaf, small, plain, ports = 0, 1, 2, 3, 4, 5, 6, 7, 8
	d := newOwnDuel(t, ports, func(s *star, args ...string) *kvs {
		s.host.MTU(s.ports[small], 600)
		k := onStar(s, args...)
		for port, settings := range map[int]string{
			isolatedA: "isolated=on", isolatedB: "isolated=on", hairpin: "hairpin=on",
			locked: "locked=on", few: "max-learned=2", deaf: "learning=off",
		} {
			k.do("port", "set", s.ports[port], settings)
		}
		for _, station := range []frame.MAC{sweepSource(locked), mac(locked), mac(locked + ports)} {
			k.do("fdb", "add", station.String(), "--port", s.ports[locked], "--static")
		}
		k.do("fdb", "add", mac(plain).String(), "--port", s.ports[plain], "--static")
		return k
	})
	heard := func(port int) int {
		switch port {
		case isolatedA, isolatedB:
			return ports - 2
		case hairpin:
			return ports
		}
		return ports - 1
	}
	d.a.sweep, d.b.sweep = plainSweep(ports), plainSweep(ports)
	d.a.sweep.heard, d.b.sweep.heard = heard, heard
	d.traffic.tags = noTags
	d.traffic.longest = map[int]int{small: 600 + frame.HeaderLen}
	d.awaitShort(hairpin, plain)
	if err := d.run(differentialFrames, 0); err != nil {
		t.Fatal(err)
	}
	d.sameTallies()
}

// TestCountersCountWhatPassed compares the ports' counters with what was written
// into one and read from the other, frames and bytes, where tags are as they were,
// put on and taken off.
func TestCountersCountWhatPassed(t *testing.T) {
	inKernelModes(t, testCountersCountWhatPassed)
}

func testCountersCountWhatPassed(t *testing.T) {
	w := newWires(t, 3, "--stp", "off", "--vlan-filtering")
	w.kvs.do("port", "set", "p0", "vlan=10")
	w.kvs.do("port", "set", "p1", "trunk=10")
	w.kvs.do("port", "set", "p2", "trunk=10")
	var ears [3]tally
	for i := range ears {
		w.listen(i, ears[i].hear)
	}
	tags := [3][]frame.Tag{nil, {cTag(10)}, {frame.MakeTag(frame.EtherTypeVLAN, 5<<1, 10)}}
	for i := range tags {
		w.says(i, ether(frame.Broadcast, mac(i), body(0), tags[i]...))
	}
	for _, from := range []int{0, 1, 2} {
		w.awaitShort(from, func() { w.says(from, ether(mac((from+1)%3), mac(from), body(0), tags[from]...)) })
	}
	for _, tc := range []struct{ from, to int }{{0, 1}, {1, 0}, {1, 2}, {2, 0}} {
		name := fmt.Sprintf("%s to %s", w.names[tc.from], w.names[tc.to])
		before := [2]portDoc{w.kvs.port(w.names[tc.from]), w.kvs.port(w.names[tc.to])}
		ears[tc.to].clear()
		var sent tally
		for i := range 200 {
			f := ether(mac(tc.to), mac(tc.from), body(i)+strings.Repeat("x", 7*i), tags[tc.from]...)
			sent.hear(f)
			w.says(tc.from, f)
		}
		var after [2]portDoc
		netns.Await(t, startPatience, name+": all is counted", func() error {
			after = [2]portDoc{w.kvs.port(w.names[tc.from]), w.kvs.port(w.names[tc.to])}
			if n := after[1].TX.Frames - before[1].TX.Frames; n != sent.frames() || ears[tc.to].frames() != n {
				return fmt.Errorf("%d sent, %d counted, %d heard", sent.frames(), n, ears[tc.to].frames())
			}
			return nil
		})
		for _, c := range []struct {
			what      string
			got, want uint64
		}{
			{"rx frames", after[0].RX.Frames - before[0].RX.Frames, sent.frames()},
			{"rx bytes", after[0].RX.Bytes - before[0].RX.Bytes, sent.bytes()},
			{"tx frames", after[1].TX.Frames - before[1].TX.Frames, ears[tc.to].frames()},
			{"tx bytes", after[1].TX.Bytes - before[1].TX.Bytes, ears[tc.to].bytes()},
		} {
			if c.got != c.want {
				t.Errorf("%s: %s %d, want %d", name, c.what, c.got, c.want)
			}
		}
		short := [2]uint64{after[0].InKernel.RxFrames - before[0].InKernel.RxFrames, after[1].InKernel.TxFrames - before[1].InKernel.TxFrames}
		want := map[string]uint64{inKernelAuto: sent.frames(), inKernelOff: 0}[inKernelMode(t)]
		if short[0] != want || short[1] != want {
			t.Errorf("%s: %d frames in and %d out by the short way, want %d", name, short[0], short[1], want)
		}
		if tc.from == 2 && !bytes.Equal(ears[0].latest(), ether(mac(0), mac(2), body(199)+strings.Repeat("x", 7*199))) {
			t.Errorf("%s: came out as %s", name, describe(ears[0].latest()))
		}
	}
}

// TestAStationOfTheShortWayIsNotForgotten has two stations talk past the relay,
// which never hears of them, for many times the ageing time of one that is silent.
func TestAStationOfTheShortWayIsNotForgotten(t *testing.T) {
	inKernelOnly(t)
	const ageing = 3 * time.Second
	w := newWires(t, 2, "--stp", "off", "--ageing", ageing.String())
	ears := w.ears()
	there, back := orderFlows(1)
	startStream(t, w.into(0), 10*time.Millisecond, there...)
	startStream(t, w.into(1), 10*time.Millisecond, back...)
	w.awaitShort(0, func() {})
	w.awaitShort(1, func() {})
	relayed := func() (n uint64) {
		for _, name := range w.names {
			p := w.kvs.port(name)
			n += p.RX.Frames - p.InKernel.RxFrames
		}
		return n
	}
	before := relayed()
	const rounds = 3
	for range rounds {
		w.says(1, ether(mac(9), mac(100), body(0))) // floods to p0
		netns.Await(t, 2*startPatience, "the silent station is known", func() error {
			if w.kvs.where(mac(100)) == "" {
				return errors.New("it isn't")
			}
			return nil
		})
		netns.Await(t, 2*startPatience, "the silent station is forgotten", func() error {
			if w.kvs.where(mac(100)) != "" {
				return errors.New("it is known")
			}
			return nil
		})
	}
	if n := relayed() - before; n != rounds {
		t.Errorf("%d frames went by the relay, want the %d of the silent station", n, rounds)
	}
	for i, want := range []string{"p0", "p1"} {
		if at := w.kvs.where(mac(i)); at != want {
			t.Errorf("station %d is on %q, want %s", i, at, want)
		}
	}
	for i, e := range ears {
		e.inOrder(t, w.names[i])
	}
}
