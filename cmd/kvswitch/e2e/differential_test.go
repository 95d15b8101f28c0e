package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// The differential test sends the same frames into two switches on identical
// stars and compares what comes out of each port, round by round.

const (
	differentialPorts  = 8
	differentialFrames = 20000
	roundFrames        = 32
	usualAgeing        = 300 * time.Second
)

// duel is two switches and the traffic that goes through both.
type duel struct {
	t        *testing.T
	seed     uint64
	a, b     contender
	traffic  *traffic
	taught   map[string]shipment // by source address: the last frame from it
	round    int
	compared int
}

// contender is one side of a duel.
type contender struct {
	name     string
	star     *star
	subject  subject
	sweep    *sweep
	reorders bool // does not promise to keep the order between two ports
}

// newDuel builds the stars; the makers put a switch on each.
func newDuel(t *testing.T, ports int, nameA string, makeA func(*star) subject, nameB string, makeB func(*star) subject) *duel {
	t.Helper()
	lab := netns.New(t)
	side := func(name string, mk func(*star) subject) contender {
		s := newStar(t, lab, name, ports)
		return contender{name: name, star: s, subject: mk(s), sweep: plainSweep(ports)}
	}
	d := &duel{t: t, seed: seed(t), taught: map[string]shipment{}}
	d.a, d.b = side(nameA, makeA), side(nameB, makeB)
	d.traffic = newTraffic(d.seed, ports)
	return d
}

// seed is the traffic's; KVSWITCH_SEED repeats a run.
func seed(t *testing.T) uint64 {
	t.Helper()
	if s := os.Getenv("KVSWITCH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("KVSWITCH_SEED: %v", err)
		}
		return n
	}
	return 1
}

// warmUp sends sweeps until both switches forward.
func (d *duel) warmUp() {
	d.t.Helper()
	for _, c := range []*contender{&d.a, &d.b} {
		netns.Await(d.t, 20*time.Second, c.name+" forwards between all ports", func() error {
			_, err := c.star.settle(c.sweep)
			return err
		})
	}
}

// play sends one round through both and returns how the results differ.
func (d *duel) play(round []shipment) error {
	d.t.Helper()
	d.round++
	for _, c := range []*contender{&d.a, &d.b} {
		for _, s := range round {
			c.star.send(s.port, s.frame)
		}
	}
	heardA, errA := d.a.star.settle(d.a.sweep)
	heardB, errB := d.b.star.settle(d.b.sweep)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	for port := range heardA {
		if err := d.compare(port, heardA[port], heardB[port]); err != nil {
			return err
		}
		errA, errB := d.inOrder(&d.a, port, round, heardA[port]), d.inOrder(&d.b, port, round, heardB[port])
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
	}
	for _, s := range round {
		d.taught[string(s.frame[6:12])] = s
	}
	d.compared += len(round)
	return nil
}

// compare compares what came out of one port as multisets: the order between
// ports is nobody's promise.
func (d *duel) compare(port int, a, b [][]byte) error {
	count := map[string]int{}
	for _, f := range a {
		count[string(f)]++
	}
	for _, f := range b {
		count[string(f)]--
	}
	for f, n := range count {
		if n == 0 {
			continue
		}
		who, other := d.a.name, d.b.name
		if n < 0 {
			who, other, n = other, who, -n
		}
		text := fmt.Sprintf("port p%d of %s sent %d more than %s of: %s", port, who, n, other, describe([]byte(f)))
		if s, ok := d.taught[f[:6]]; ok {
			text += fmt.Sprintf("\nits destination was last heard on p%d: %s", s.port, describe(s.frame))
		}
		return errors.New(text)
	}
	return nil
}

// inOrder reports a frame that overtook another on its way between two ports. If
// the kernel forwards what it can, that is nobody's promise but for frames between
// the same stations in one VLAN (802.1Q 8.6.6): what goes that way needn't wait for
// others.
func (d *duel) inOrder(c *contender, port int, round []shipment, heard [][]byte) error {
	if c.reorders {
		return nil
	}
	type way struct {
		from     int    // port
		stations string // destination and source, or "" for all
		vlan     uint16
	}
	mode := inKernelMode(d.t)
	ways := map[int]way{} // by number of the frame
	for _, s := range round {
		w := way{from: s.port}
		if mode != inKernelOff {
			w.stations = string(s.frame[:12])
			w.vlan, _ = d.traffic.vlan(s.port, outerTag(s.frame))
		}
		ways[serialOf(s.frame)] = w
	}
	last := map[way]int{} // number
	for _, f := range heard {
		n := serialOf(f)
		w := ways[n]
		if n < last[w] {
			return fmt.Errorf("port p%d of %s: overtaken on the way from p%d: %s", port, c.name, w.from, describe(f))
		}
		last[w] = n
	}
	return nil
}

// outerTag is the 802.1Q tag behind a frame's addresses, if there is one.
func outerTag(f []byte) []frame.Tag {
	if t := frame.Tag(binary.BigEndian.Uint32(f[12:])); uint32(t)>>16 == frame.EtherTypeVLAN {
		return []frame.Tag{t}
	}
	return nil
}

// run plays rounds until that many frames are compared; ageings times on the
// way it lets every station age out. It stops at the first difference.
func (d *duel) run(frames, ageings int) error {
	d.t.Helper()
	start := time.Now()
	d.warmUp()
	for phase := range ageings + 1 {
		for d.compared < frames*(phase+1)/(ageings+1) {
			if err := d.play(d.traffic.round(roundFrames)); err != nil {
				return fmt.Errorf("seed %d, round %d: %w", d.seed, d.round, err)
			}
		}
		if phase < ageings {
			d.ageOut()
		}
	}
	d.t.Logf("%d frames through %s and %s: no difference, in %v", d.compared, d.a.name, d.b.name, time.Since(start).Round(time.Millisecond))
	return nil
}

// ageOut makes both forget every station by the passing of time.
func (d *duel) ageOut() {
	d.t.Helper()
	for _, c := range []*contender{&d.a, &d.b} {
		c.subject.ageing(time.Second)
	}
	for _, c := range []*contender{&d.a, &d.b} {
		netns.Await(d.t, 15*time.Second, c.name+" forgets every station", func() error {
			if n := c.subject.learned(); n > 0 {
				return fmt.Errorf("%d left", n)
			}
			return nil
		})
		c.subject.ageing(usualAgeing)
	}
	d.traffic.forgetAll()
}

// TestDifferentialHarnessSeesNoDifferenceWhereThereIsNone compares the kernel's
// bridge with itself: what the harness reports elsewhere is not its own doing.
func TestDifferentialHarnessSeesNoDifferenceWhereThereIsNone(t *testing.T) {
	d := newDuel(t, differentialPorts, "one bridge", newKernelBridge, "another bridge", newKernelBridge)
	if err := d.run(differentialFrames/5, 1); err != nil {
		t.Fatal(err)
	}
}

// TestDifferentialHarnessFindsAFault compares the kernel's bridge with one that
// has a fault, of the kinds that a switch with a cache in its path can have.
func TestDifferentialHarnessFindsAFault(t *testing.T) {
	for name, fault := range map[string][]string{
		"a port doesn't learn":    {"bridge", "link", "set", "dev", "p3", "learning", "off"},
		"a port isn't flooded":    {"bridge", "link", "set", "dev", "p5", "flood", "off"},
		"multicast isn't flooded": {"bridge", "link", "set", "dev", "p1", "mcast_flood", "off"},
		"a station can't move":    {"bridge", "fdb", "add", mac(3).String(), "dev", "p2", "master", "static", "sticky"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDuel(t, differentialPorts, "bridge", newKernelBridge, "faulty bridge", func(s *star) subject {
				b := newKernelBridge(s)
				s.host.Run(fault...)
				return b
			})
			d.mustDiffer()
		})
	}
}

// TestDifferentialFindsAStaleCache compares the kernel's bridge with Open
// vSwitch, whose cached flows notice that a station moved some time after its
// first frame from the new place. Where stations stay the two agree.
func TestDifferentialFindsAStaleCache(t *testing.T) {
	for _, still := range []bool{true, false} {
		d := newDuel(t, differentialPorts, "bridge", newKernelBridge, "Open vSwitch", func(s *star) subject {
			return newOpenVSwitch(s, func(int) []string { return nil })
		})
		d.b.reorders = true
		d.traffic.still = still
		d.traffic.sane = true   // it forwards frames from groups and from nobody
		d.traffic.tags = noTags // and learns in each VLAN by itself
		if !still {
			d.mustDiffer()
		} else if err := d.run(differentialFrames, 0); err != nil {
			t.Error(err)
		}
	}
}

// mustDiffer fails the test if a whole run finds nothing.
func (d *duel) mustDiffer() {
	d.t.Helper()
	if err := d.run(differentialFrames, 0); err == nil {
		d.t.Error("no difference found")
	} else {
		d.t.Logf("found: %v", err)
	}
}
