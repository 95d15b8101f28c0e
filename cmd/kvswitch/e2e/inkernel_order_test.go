package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// stations that talk to each other in tests of order: those of an even number
// live at p0, the others at p1.
func orderFlows(n int) (there, back []talk) {
	for i := range n {
		a, b := mac(2*i), mac(2*i+1)
		there, back = append(there, talk{b, a}), append(back, talk{a, b})
	}
	return there, back
}

// TestNoFrameOvertakesAnotherOfItsFlow changes the way of flows in both
// directions, all the time: stations are flushed, move away and come back, ports
// lose the carrier, can't reach each other any more, and can again.
func TestNoFrameOvertakesAnotherOfItsFlow(t *testing.T) {
	inKernelModes(t, testNoFrameOvertakesAnotherOfItsFlow)
}

func testNoFrameOvertakesAnotherOfItsFlow(t *testing.T) {
	const (
		pairs  = 8
		busy   = 4 * time.Second // a bound on the load: what counts is what was heard
		nobody = 9999
	)
	w := newWires(t, 4, "--stp", "off")
	ears := w.ears()
	there, back := orderFlows(pairs)
	streams := []*stream{startStream(t, w.into(0), 0, there...), startStream(t, w.into(1), 0, back...)}

	for round, end := 0, time.Now().Add(busy); time.Now().Before(end); round++ {
		f := there[round%pairs]
		w.says(2, ether(mac(nobody), f.dst, "moves away"))
		w.says(3, ether(mac(nobody), f.src, "moves away"))
		switch round % 8 {
		case 0:
			w.kvs.do("fdb", "flush")
		case 2:
			w.carrier(2, round%16 < 8)
		case 4:
			state := map[bool]string{true: "isolated=on", false: "isolated=off"}[round%16 < 8]
			w.kvs.do("port", "set", "p0", state)
			w.kvs.do("port", "set", "p1", state)
		case 6:
			w.carrier(1, false)
			w.carrier(1, true)
		}
		time.Sleep(time.Millisecond)
	}
	sent := streams[0].stop(t) + streams[1].stop(t)
	heard := 0
	for i, e := range ears {
		e.inOrder(t, w.names[i])
		heard += e.all()
	}
	if heard == 0 {
		t.Error("nothing was heard")
	}
	p := w.kvs.port("p0")
	t.Logf("%d frames sent, %d heard; of %d that p0 took in %d went the short way", sent, heard, p.RX.Frames, p.InKernel.RxFrames)
	if off := inKernelMode(t) == inKernelOff; off != (p.InKernel.RxFrames == 0) || p.InKernel.RxFrames >= p.RX.Frames {
		t.Errorf("of %d frames that p0 took in %d went the short way: both ways are to be tried", p.RX.Frames, p.InKernel.RxFrames)
	}
}

// TestAFlowFasterThanTheRelayGetsToTheShortWay forgets the stations of a flow that
// comes as fast as it can, and of its answers. Nothing else lets it get there.
func TestAFlowFasterThanTheRelayGetsToTheShortWay(t *testing.T) {
	inKernelOnly(t)
	w := newWires(t, 2, "--stp", "off")
	ears := w.ears()
	there, back := orderFlows(1)
	fast := startStream(t, w.into(0), 0, there...)
	startStream(t, w.into(1), time.Millisecond, back...)
	for range 5 {
		w.kvs.do("fdb", "flush")
		before := w.short(0)
		netns.Await(t, startPatience, "the flow takes the short way again", func() error {
			if n := w.short(0) - before; n < 10000 {
				return fmt.Errorf("%d frames did", n)
			}
			return nil
		})
	}
	fast.stop(t)
	for i, e := range ears {
		e.inOrder(t, w.names[i])
	}
}

// TestAFloodOfSourcesLeavesKnownFlowsAlone sends frames from ever new stations into
// the port of some that are known: those stay on the short way with every frame,
// and lose none, with room for new stations and without.
func TestAFloodOfSourcesLeavesKnownFlowsAlone(t *testing.T) {
	inKernelOnly(t)
	for _, limit := range []string{"0", "64"} {
		t.Run("max-learned="+limit, func(t *testing.T) { floodOfSources(t, limit) })
	}
}

func floodOfSources(t *testing.T, limit string) {
	const (
		pairs  = 16
		frames = 2000 // of each known flow
		sink   = 5000
		// A full table may forget a station of the port that fills it.
		strangers, room = 900000, "1000000"
	)
	w := newWires(t, 3, "--stp", "off", "--max-entries", room)
	ears := w.ears()
	there, back := orderFlows(pairs)
	w.says(2, ether(frame.Broadcast, mac(sink), "here I am"))
	for i := range there {
		w.says(1, numbered(back[i].dst, back[i].src, 1))
	}
	w.kvs.do("port", "set", "p0", "max-learned="+limit)
	n := uint64(0)
	say := func() {
		n++
		for _, f := range there {
			w.says(0, numbered(f.dst, f.src, n))
		}
	}
	netns.Await(t, startPatience, "every known flow takes the short way", func() error {
		before := w.short(0)
		say()
		if got := w.short(0) - before; got != pairs {
			return fmt.Errorf("%d of %d do", got, pairs)
		}
		return nil
	})
	before, already := w.short(0), n

	halt, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := range strangers {
			select {
			case <-halt:
				done <- nil
				return
			default:
			}
			src := frame.MAC{0x06, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
			if err := w.send(0, ether(mac(sink), src, body(i))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range frames {
		say()
		time.Sleep(100 * time.Microsecond)
	}
	close(halt)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Each of the flood's stations speaks once, and speaking once is no short way.
	if got, want := w.short(0)-before, (n-already)*pairs; got != want {
		t.Errorf("%d frames of p0 went the short way during the flood, want the %d of the known flows", got, want)
	}
	netns.Await(t, startPatience, "every frame of the known flows is heard", func() error {
		var missing []error
		for _, f := range there {
			if got := ears[1].of(f); uint64(got) != n {
				missing = append(missing, fmt.Errorf("%d of %d of %v > %v", got, n, f.src, f.dst))
			}
		}
		return errors.Join(missing...)
	})
	ears[1].inOrder(t, "p1")
	if learned := w.kvs.port("p0").Learned; limit != "0" && fmt.Sprint(learned) != limit {
		t.Errorf("p0 has learned %d stations, the limit is %s", learned, limit)
	}
}

// TestATagDoesNotHelpToOvertake sends many frames with the tag of their VLAN and then
// one without, of a station that moves away all the time. Those with the tag fill the
// intake; what is without must not pass them.
func TestATagDoesNotHelpToOvertake(t *testing.T) {
	inKernelOnly(t)
	const busy = 2 * time.Second // a bound on the load: what counts is what was heard
	w := newWires(t, 3, "--stp", "off", "--vlan-filtering")
	w.kvs.do("port", "set", "p0", "trunk=20", "native-tagged=10")
	w.kvs.do("port", "set", "p1", "vlan=10")
	w.kvs.do("port", "set", "p2", "vlan=10")
	ears := w.ears()
	there, back := orderFlows(1)
	n := 0
	s := startStream(t, func(f []byte) error {
		if n++; n%50 != 0 {
			f = slices.Insert(f, 12, 0x81, 0, 0, 10)
		}
		return w.send(0, f)
	}, 0, there...)
	startStream(t, w.into(1), 0, back...)
	for end := time.Now().Add(busy); time.Now().Before(end); {
		w.says(2, ether(mac(9999), there[0].src, "moves away"))
		time.Sleep(time.Millisecond)
	}
	s.stop(t)
	ears[1].inOrder(t, "p1")
	p := w.kvs.port("p0")
	t.Logf("%d frames heard; of %d that p0 took in %d went the short way", ears[1].of(there[0]), p.RX.Frames, p.InKernel.RxFrames)
	if p.InKernel.RxFrames == 0 || p.InKernel.RxFrames == p.RX.Frames {
		t.Error("both ways are to be tried")
	}
}
