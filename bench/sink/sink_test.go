package sink

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// newTestCounter loads the program for port 1 of two without attaching it.
func newTestCounter(t *testing.T, gso bool) *Counter {
	t.Helper()
	netns.RequirePrivilege(t)
	top, err := topo.Build(t.Context(), topo.Spec{Ports: 2, Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { top.Close() })
	c, err := NewCounter(top, []int{1}, gso)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// see has the kernel run the program on one frame.
func see(t *testing.T, c *Counter, b []byte) {
	t.Helper()
	verdict, err := c.ports[0].program.Run(&ebpf.RunOptions{Data: b})
	if err != nil {
		t.Fatal(err)
	}
	if verdict != 2 { // TC_ACT_SHOT
		t.Errorf("verdict %d, want the frame to end here", verdict)
	}
}

func now(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano()
}

func TestCounterSortsFrames(t *testing.T) {
	c := newTestCounter(t, false)
	tmpl := probe.Build(make([]byte, 200), false, 1)
	send := func(dst, src frame.MAC, seq uint32, at int64) {
		t.Helper()
		tmpl.Stamp(dst, src, seq, at)
		see(t, c, tmpl.Bytes())
	}
	here, there := probe.Station(1, 5), probe.Station(0, 5)
	send(here, there, 0, 0)
	send(here, there, 1, 0)
	send(here, there, 3, 0)
	send(here, there, 2, 0)            // overtaken
	send(frame.Broadcast, there, 4, 0) // for everybody
	send(probe.Station(2, 5), there, 5, 0)
	send(here, frame.MAC{0x52, 0x54, 0, 0, 0, 1}, 6, 0)

	got, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	want := Counts{Frames: 5, Bytes: 1000, Segments: 5, Foreign: 1, Astray: 1, Late: 1}
	if got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if h, err := c.Latencies(); err != nil || h.TotalCount() != 0 {
		t.Errorf("latencies of frames without time stamp: %v, error %v", h, err)
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(); err != nil || got != (Counts{}) {
		t.Errorf("after Reset: %+v, error %v", got, err)
	}
}

// The arithmetic in C must agree with its Go twin over the whole range.
func TestProgramSortsLatenciesAsBucketDoes(t *testing.T) {
	c := newTestCounter(t, false)
	tmpl := probe.Build(make([]byte, 60), false, 1)
	for power := 10; power < 45; power++ {
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
		age := int64(1)<<power + int64(1)<<power/3
		before := now(t)
		if before < age {
			break // the machine has not been up for that long
		}
		tmpl.Stamp(probe.Station(1, 0), probe.Station(0, 0), 0, before-age)
		see(t, c, tmpl.Bytes())
		after := now(t)
		h, err := c.Latencies()
		if err != nil {
			t.Fatal(err)
		}
		low, _ := lowest(bucket(uint64(age)))
		top, width := lowest(bucket(uint64(age + after - before)))
		if h.TotalCount() != 1 || h.Min() < int64(float64(low)*0.99) || h.Max() > int64(float64(top+width)*1.01) {
			t.Errorf("a frame between %d and %d ns old was sorted as %d–%d", age, age+after-before, h.Min(), h.Max())
		}
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	tmpl.Stamp(probe.Station(1, 0), probe.Station(0, 0), 0, now(t)+1e12)
	see(t, c, tmpl.Bytes())
	if h, err := c.Latencies(); err != nil || h.TotalCount() != 1 || h.Max() > 1 {
		t.Errorf("a frame from the future: %v, error %v; want latency 0", h, err)
	}
}

func TestCounterIgnoresFramesTooShortToBeProbes(t *testing.T) {
	c := newTestCounter(t, false)
	see(t, c, make([]byte, 42))
	if got, err := c.Read(); err != nil || got != (Counts{}) {
		t.Errorf("counted %+v, error %v", got, err)
	}
}

func TestCounterCountsLaterSegmentsOfASuperFrame(t *testing.T) {
	c := newTestCounter(t, true)
	tmpl := probe.Build(make([]byte, 1502), true, 1)
	tmpl.Stamp(probe.Station(1, 0), probe.Station(0, 0), 7, 0)
	see(t, c, tmpl.Bytes())
	later := append([]byte{}, tmpl.Bytes()...)
	copy(later[probe.StampOffset(true):], []byte{1, 2, 3, 4})
	see(t, c, later)
	if got, err := c.Read(); err != nil || got.Frames != 2 || got.Bytes != 3004 || got.Late != 0 {
		t.Errorf("counted %+v, error %v", got, err)
	}
}
