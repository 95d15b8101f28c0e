package netdev

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// BenchmarkForward takes frames from one veth to another on a single thread that
// also sends them, so that all that the kernel does for them falls into the same
// account: CPU time is what a frame costs the machine, whatever else runs on it.
// The share of the port's own calls is reported apart.
func BenchmarkForward(b *testing.B) {
	for _, length := range []int{60, 1514, 60000} {
		for _, tagged := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d bytes, tagged %v", length, tagged), func(b *testing.B) { forward(b, length, tagged) })
		}
	}
}

func forward(b *testing.B, length int, tagged bool) {
	lab := netns.New(b)
	sw, far := lab.Host("sw"), lab.Host("far")
	lab.Cable(sw, "in", far, "source")
	lab.Cable(sw, "out", far, "sink")
	open := func(h *netns.Host, name string, o Options) *Port {
		p, err := tryOpen(h, name, o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { p.Close() })
		return p
	}
	source, in, out := open(far, "source", Options{}), open(sw, "in", Options{}), open(sw, "out", Options{})
	sink := open(far, "sink", Options{noIntake: true}) // for its shield: the far stack takes no part
	w := sink.watcher
	w.Do(func() { _ = shut(sink.at.rings[0].fd) })

	burst := frame.BatchSize
	o := frame.Out{Frame: &frame.Frame{Data: numbered(1, length)}}
	if length > 1514 {
		o, burst = gso(1, length), 4
	}
	send := make([]frame.Out, burst)
	for i := range send {
		send[i] = o
	}
	var frames [frame.BatchSize]frame.Frame
	var batch [frame.BatchSize]frame.Out
	var receiving, sending, all int64
	q := in.queues[1]
	b.ReportAllocs()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime()
	frameCount := 0
	for b.Loop() {
		for range 16 {
			source.Tx(0, send)
			for got := 0; got < burst; {
				t0 := threadTime()
				n := q.Rx(frames[:])
				t1 := threadTime()
				for i := range n {
					batch[i].Frame = &frames[i]
					if tagged {
						batch[i].EgressTag = frame.MakeTag(frame.EtherTypeVLAN, 0, 5)
					}
				}
				t2 := threadTime()
				out.Tx(0, batch[:n])
				t3 := threadTime()
				q.Release()
				receiving += t1 - t0 + threadTime() - t3
				sending += t3 - t2
				if n == 0 {
					b.Fatal("frames were lost")
				}
				got += n
			}
			frameCount += burst
		}
	}
	all = threadTime() - start
	per := func(ns int64, unit string) { b.ReportMetric(float64(ns)/float64(frameCount), unit) }
	per(receiving, "rx-ns/frame")
	per(sending, "tx-ns/frame")
	per(all, "cpu-ns/frame")
}

// threadTime is the CPU time of the calling thread, in nanoseconds.
func threadTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// BenchmarkGather is what the port itself does to send a frame, without the
// kernel.
func BenchmarkGather(b *testing.B) {
	var l lane
	out := make([]frame.Out, frame.BatchSize)
	for i := range out {
		out[i].Frame = &frame.Frame{Data: numbered(i, 60)}
	}
	for b.Loop() {
		_, pieces := l.gather(out)
		clear(l.iov[:pieces])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/frame.BatchSize, "ns/frame")
}

// BenchmarkIntakeProgram is what the program takes for a frame, with what the
// kernel does to run it over and over, and without a device.
func BenchmarkIntakeProgram(b *testing.B) {
	netns.RequirePrivilege(b)
	for _, queues := range []int{1, 2} {
		for _, length := range []int{60, 1514} {
			b.Run(fmt.Sprintf("%d bytes, %d queues", length, queues), func(b *testing.B) { fill(b, length, queues) })
		}
	}
}

func fill(b *testing.B, length, queues int) {
	set, err := newIntakeSet(queues, sizeOfIntake(DefaultRingBytes), nil)
	defer set.free()
	defer set.close()
	if err != nil {
		b.Fatal(err)
	}
	program, err := set.program()
	if err != nil {
		b.Fatal(err)
	}
	defer program.Close()
	spent, runs := time.Duration(0), 0
	for b.Loop() {
		_, each, err := program.Benchmark(numbered(1, length), 1000, nil)
		if err != nil {
			b.Fatal(err)
		}
		spent += 1000 * each
		runs += 1000
		for _, r := range set.intakes {
			r.shared.Tail = r.shared.Head
		}
	}
	for _, r := range set.intakes {
		if r.shared.Lost > 0 {
			b.Errorf("%d frames found no room", r.shared.Lost)
		}
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(runs), "ns/frame")
}
