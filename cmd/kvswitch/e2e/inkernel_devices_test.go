package e2e

import (
	"errors"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// TestDevicesComeAndGoUnderTraffic does to p2's device what can be done to one,
// while two stations talk between p0 and p1: those lose nothing, and p2's frames
// take the short way again, in both directions, whenever it has a device.
func TestDevicesComeAndGoUnderTraffic(t *testing.T) {
	inKernelModes(t, testDevicesComeAndGoUnderTraffic)
}

func testDevicesComeAndGoUnderTraffic(t *testing.T) {
	const device = 2
	w := newWires(t, 3, "--stp", "off")
	ears := []*ear{newEar(), newEar(), newEar()}
	for i, e := range ears {
		w.listen(i, e.hear)
	}
	there, back := orderFlows(1)
	streams := []*stream{
		startStream(t, w.into(0), 200*time.Microsecond, there...),
		startStream(t, w.into(1), 200*time.Microsecond, back...),
	}
	w.awaitShort(0, func() {})
	w.awaitShort(1, func() {})
	down := func() { w.kvs.awaitPort("p2", "is down", func(p portDoc) bool { return p.Link == "down" }) }
	open := func() {
		w.taps[device] = w.openTap("p2")
		w.listen(device, ears[device].hear)
	}
	called := func(from, to string) { // which the port is then, too
		rename(t, w.host, from, to)
		w.names[device] = to
		netns.Await(t, startPatience, "the port is called "+to, func() error {
			if _, stderr, code := w.kvs.try("port", "show", to); code != 0 {
				return errors.New(stderr)
			}
			return nil
		})
	}
	n := uint64(0)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"at first", func() {}},
		{"set down and up", func() { w.host.Down("p2"); down(); w.host.Up("p2") }},
		{"no carrier", func() { w.carrier(device, false); down(); w.carrier(device, true) }},
		{"renamed", func() { called("p2", "other") }},
		{"renamed back", func() { called("other", "p2") }},
		{"gone, and another by its name later", func() { w.taps[device].Close(); down(); open() }},
		{"replaced at once", func() { w.taps[device].Close(); open() }},
		{"another MTU", func() { w.host.MTU("p2", 1400) }},
		{"out of the switch and in again", func() {
			w.kvs.do("port", "del", "p2")
			w.kvs.do("port", "add", "netdev:p2")
		}},
	} {
		step.do()
		name := w.names[device]
		w.kvs.awaitForwarding(name)
		station := mac(100)
		w.says(device, ether(frame.Broadcast, station, step.name))
		var before uint64
		w.awaitShort(device, func() {
			n++
			w.says(device, numbered(mac(0), station, n))
			before = w.kvs.port(name).InKernel.TxFrames
			w.says(0, numbered(station, mac(0), n))
		})
		if inKernelMode(t) == inKernelOff {
			continue
		}
		w.kvs.awaitPort(name, "is served the short way: "+step.name, func(p portDoc) bool {
			n++
			w.says(0, numbered(station, mac(0), n))
			return p.InKernel.TxFrames > before
		})
	}
	sent := [2]uint64{streams[0].stop(t), streams[1].stop(t)}
	for i, f := range []talk{back[0], there[0]} { // what p0 hears was sent into p1
		w.kvs.awaitPort(w.names[i], "has put out all", func(portDoc) bool { return uint64(ears[i].of(f)) >= sent[1-i] })
		if heard := uint64(ears[i].of(f)); heard != sent[1-i] {
			t.Errorf("%s heard %d of %d frames of two stations that had nothing to do with p2", w.names[i], heard, sent[1-i])
		}
	}
	for i, e := range ears[:2] {
		e.inOrder(t, w.names[i])
	}
}
