package e2e

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// More flags of an RST BPDU, 802.1D-2004 9.3.3.
const (
	rstLearning   = 1 << 4
	rstForwarding = 1 << 5
	rstAgreement  = 1 << 6
)

// rstFlags are the flags of an RST BPDU, or 0 if the frame is none.
func rstFlags(f []byte) byte {
	const version, flags = frame.HeaderLen + 3 + 2, frame.HeaderLen + 3 + 4
	if !isBPDU(f) || len(f) <= flags || f[version] != 2 {
		return 0
	}
	return f[flags]
}

// betweenBridges is a switch with a station at p0, the root at p1, and at p2 a
// bridge that is farther from it, behind which there is a station, too. The test is
// both bridges.
type betweenBridges struct {
	*wires
	cost   atomic.Uint32 // what the root's side says that it costs to get to the root
	agrees atomic.Bool   // the bridge at p2 agrees to what it is told
	agreed atomic.Int64  // how often the switch agreed, at p1
	guest  *ear          // at p0
}

var (
	rootAbove = bridgeID{0, frame.MAC{0x52, 0x54, 0, 0, 0xaa, 1}}
	way       = bridgeID{0x1000, frame.MAC{0x52, 0x54, 0, 0, 0xaa, 2}}
	below     = bridgeID{0xf000, frame.MAC{0x52, 0x54, 0, 0, 0xaa, 3}}
)

func newBetweenBridges(t *testing.T) *betweenBridges {
	t.Helper()
	b := &betweenBridges{wires: newWires(t, 3, "--stp", "rstp"), guest: newEar()}
	b.kvs.do("stp", "port", "p1", "edge=off", "p2p=on", "bpdu-guard=off")
	b.kvs.do("stp", "port", "p2", "edge=off", "p2p=on", "bpdu-guard=off")
	b.listen(0, b.guest.hear)
	b.listen(1, func(f []byte) {
		if rstFlags(f)&rstAgreement != 0 {
			b.agreed.Add(1)
		}
	})
	b.agrees.Store(true)
	b.listen(2, func(f []byte) {
		if rstFlags(f)&rstProposal != 0 && b.agrees.Load() {
			_ = b.send(2, rstBPDU(below.addr, rootAbove, 1<<28, below, rstRoot|rstAgreement|rstLearning|rstForwarding))
		}
	})
	b.cost.Store(1000)
	stop := make(chan struct{})
	var hellos sync.WaitGroup
	hellos.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			_ = b.hello(0)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	t.Cleanup(func() { close(stop); hellos.Wait() })
	return b
}

// hello is what the root's side says at p1.
func (b *betweenBridges) hello(flags byte) error {
	return b.send(1, rstBPDU(way.addr, rootAbove, b.cost.Load(), way, rstDesignated|rstLearning|rstForwarding|flags))
}

// TestNothingIsForwardedOnceABPDUSaysSo has a port stop forwarding for a root that
// is farther away than before: the switch agrees only when that is in force, in
// every program that may run. From when the agreement is heard, not one frame that
// is sent into the port may come out.
func TestNothingIsForwardedOnceABPDUSaysSo(t *testing.T) {
	inKernelModes(t, testNothingIsForwardedOnceABPDUSaysSo)
}

func testNothingIsForwardedOnceABPDUSaysSo(t *testing.T) {
	const (
		rounds = 6
		after  = 2000       // frames in each
		late   = 1_000_000  // added to the number of a frame that was sent after the agreement
		most   = 10_000_000 // frames before it
	)
	b := newBetweenBridges(t)
	to, from := mac(1), mac(2)
	n := uint64(0)
	for round := range rounds {
		b.agrees.Store(true)
		b.kvs.awaitPort("p2", "forwards", func(p portDoc) bool { return p.STP.State == "forwarding" })
		b.awaitShort(2, func() {
			b.says(0, numbered(from, to, 1))
			n++
			b.says(2, numbered(to, from, n))
		})
		b.agrees.Store(false)
		before := b.agreed.Load()
		b.cost.Add(1000)
		if err := b.hello(rstProposal); err != nil {
			t.Fatal(err)
		}
		for i := 0; b.agreed.Load() == before; i++ {
			if i == most {
				t.Fatalf("round %d: no agreement: p1 is %+v", round, b.kvs.treePort("p1"))
			}
			n++
			b.says(2, numbered(to, from, n))
		}
		// Of another station, so that the guest can tell.
		for i := range after {
			b.says(2, numbered(to, mac(3), uint64(late+i)))
			n++
			b.says(2, numbered(to, from, late*uint64(round+1)+n))
		}
		if p := b.kvs.treePort("p2"); p.State != "discarding" {
			t.Fatalf("round %d: p2 is %s: it isn't known what was to be heard", round, p.State)
		}
		if heard := b.guest.of(talk{to, mac(3)}); heard != 0 {
			t.Fatalf("round %d: %d frames of p2 came out after the agreement that it is discarding", round, heard)
		}
		n = late*uint64(round+1) + n
	}
	if heard := b.guest.of(talk{to, from}); heard == 0 {
		t.Error("nothing was ever heard")
	}
}

// TestNoLoopWithKnownStationsOnly cuts and joins the cables of a triangle while
// stations that are known talk to each other: nothing comes twice, nothing goes
// round.
func TestNoLoopWithKnownStationsOnly(t *testing.T) {
	t.Parallel()
	inKernelModes(t, testNoLoopWithKnownStationsOnly)
}

func testNoLoopWithKnownStationsOnly(t *testing.T) {
	t.Parallel()
	plan := treePlan{name: "triangle", cables: []string{"a-b", "a-c", "b-c"}, pause: 500 * time.Millisecond}
	for i, name := range []string{"a", "b", "c"} {
		plan.bridges = append(plan.bridges, treeBridge{name: name, priority: (i + 1) << 12, maker: kvswitchTree("rstp")})
	}
	l := newTreeLab(t, plan)
	l.settles("a")
	// The chatter's stations are read by the chatter: these have sockets of their own.
	var hosts [3]*netns.Station
	var heard [3]census
	for i, b := range l.bridges {
		hosts[i] = l.far.Station(b.name)
		listenStation(t, hosts[i], heard[i].hear)
	}
	var streams []*stream
	for i := range hosts {
		var flows []talk
		for j := range hosts {
			if i != j {
				flows = append(flows, talk{mac(500 + j), mac(500 + i)})
			}
		}
		streams = append(streams, startStream(t, hosts[i].TrySend, 200*time.Microsecond, flows...))
	}
	if inKernelMode(t) == inKernelAuto {
		for _, b := range l.bridges {
			k := l.kvs(b.name)
			netns.Await(t, treePatience, b.name+" forwards in the kernel", func() error {
				if k.port(stationPort).InKernel.RxFrames == 0 {
					return errors.New("it doesn't")
				}
				return nil
			})
		}
	}
	for range 2 {
		for _, cable := range []string{"a-b", "a-c"} {
			l.cut(cable)
			l.converges("a", cable)
			l.heals(l.now())
			l.join(cable)
			l.settles("a")
		}
	}
	var sent uint64
	for _, s := range streams {
		sent += s.stop(t)
	}
	for i := range heard {
		all, twice, most := heard[i].totals()
		t.Logf("station %d heard %d of %d frames that were sent", i, all, sent)
		// In flight when the tree changes a flooded one may come by two ways.
		if most > 2 || twice*1000 > all {
			t.Errorf("station %d heard %d of %d frames more than once, up to %d times", i, twice, all, most)
		}
	}
	l.noStorm()
}

// census is how often each numbered frame was heard at one place.
type census struct {
	mu     sync.Mutex
	copies map[numberedTalk]int
}

type numberedTalk struct {
	talk
	number uint64
}

func (c *census) hear(f []byte) {
	n, _, ok := numberOf(f)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.copies == nil {
		c.copies = map[numberedTalk]int{}
	}
	c.copies[numberedTalk{talkOf(f), n}]++
}

// totals are how many frames were heard, how many of them more than once, and how
// often the one was that was heard most.
func (c *census) totals() (all, twice, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.copies {
		most = max(most, n)
		if n > 1 {
			twice++
		}
	}
	return len(c.copies), twice, most
}
