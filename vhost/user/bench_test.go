package vhostuser

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

const modernFeatures = featVersion1 | featMrgRxbuf | featIndirect | featCsum | featGuestCsum |
	featGuestTSO4 | featGuestTSO6 | featHostTSO4 | featHostTSO6

// bouncer is a guest that sends back what it receives, as testpmd does in io
// mode: buffers go from its receive ring to its transmit ring and back.
type bouncer struct {
	*guest
	done    [64]virtq.Done
	spare   []int // buffers that are in no ring
	bounced uint64
	gpa     []uint64 // by offset/bufBytes: guest addresses of buffers
}

func newBouncer(b testing.TB, o guestOptions, frames, size int) *bouncer {
	g := &bouncer{guest: newGuest(b, o)}
	for off := 0; off < len(g.mem); off += bufBytes {
		g.gpa = append(g.gpa, g.addr(off))
	}
	for _, off := range g.buffers(0) {
		g.post(off)
	}
	g.rings[0].Publish()
	for i, off := range g.buffers(1) {
		f := g.mem[off:]
		copy(f[12:], []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0})
		if i < frames {
			g.send(off, 12+size)
		} else {
			g.spare = append(g.spare, off)
		}
	}
	g.rings[1].Publish()
	return g
}

func (g *bouncer) post(off int) {
	head, err := g.rings[0].Add(virtq.Buf{Addr: g.gpa[off/bufBytes], Len: bufBytes, Write: true})
	if err != nil {
		panic(err)
	}
	g.rings[0].bufs[head] = off
}

func (g *bouncer) send(off, n int) {
	head, err := g.rings[1].Add(virtq.Buf{Addr: g.gpa[off/bufBytes], Len: uint32(n)})
	if err != nil {
		panic(err)
	}
	g.rings[1].bufs[head] = off
}

// turn moves what came to what goes, and what went to where it comes.
func (g *bouncer) turn() int {
	n, err := g.rings[1].Reap(g.done[:])
	if err != nil {
		panic(err)
	}
	for _, d := range g.done[:n] {
		g.spare = append(g.spare, g.rings[1].bufs[d.Head])
	}
	n, err = g.rings[0].Reap(g.done[:])
	if err != nil {
		panic(err)
	}
	for _, d := range g.done[:n] {
		g.send(g.rings[0].bufs[d.Head], int(d.Len))
	}
	if n > 0 {
		g.rings[1].Publish()
	}
	k := min(len(g.spare), g.rings[0].Free())
	for _, off := range g.spare[len(g.spare)-k:] {
		g.post(off)
	}
	g.spare = g.spare[:len(g.spare)-k]
	if k > 0 {
		g.rings[0].Publish()
	}
	g.bounced += uint64(n)
	return n
}

// lane forwards one way, as a worker of the switch does, without a decision.
type lane struct {
	from   frame.Queue
	to     *Port
	frames [frame.BatchSize]frame.Frame
	out    [frame.BatchSize]frame.Out
	sum    uint64
}

func (l *lane) turn() int {
	n := l.from.Rx(l.frames[:])
	if n == 0 {
		return 0
	}
	for i := range n {
		l.sum += binary.LittleEndian.Uint64(l.frames[i].Data)
		l.out[i] = frame.Out{Frame: &l.frames[i]}
	}
	sent := l.to.Tx(0, l.out[:n])
	l.from.Release()
	return sent
}

// BenchmarkBounce: two guests that bounce, on one core, and a worker between
// them on another. One op is one frame forwarded.
func BenchmarkBounce(b *testing.B) {
	for _, size := range []int{64, 1514} {
		for _, regions := range []int{1, 8} {
			b.Run(fmt.Sprintf("%dB/regions=%d", size, regions), func(b *testing.B) {
				benchBounce(b, guestOptions{features: modernFeatures, size: 256, regions: regions}, size)
			})
		}
	}
}

func benchBounce(b *testing.B, o guestOptions, size int) {
	if runtime.NumCPU() < 2 {
		b.Skip("needs two cores")
	}
	x, y := newBouncer(b, o, 128, size), newBouncer(b, o, 128, size)
	lanes := []*lane{{from: x.port.queues[0], to: y.port}, {from: y.port.queues[0], to: x.port}}
	var stop atomic.Bool
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		for !stop.Load() {
			x.turn()
			y.turn()
		}
	}()
	b.SetBytes(int64(size))
	b.ResetTimer()
	start := time.Now()
	sent := 0
	for sent < b.N {
		sent += lanes[0].turn() + lanes[1].turn()
	}
	b.ReportMetric(float64(sent)/time.Since(start).Seconds()/1e6, "Mframes/s")
	b.StopTimer()
	stop.Store(true)
	<-ended
}

// BenchmarkForward: the worker's part alone, in one thread with the guests, so
// that all memory is in the first-level cache: what the instructions cost.
func BenchmarkForward(b *testing.B) {
	for _, size := range []int{64, 1514} {
		for _, regions := range []int{1, 8} {
			b.Run(fmt.Sprintf("%dB/regions=%d", size, regions), func(b *testing.B) {
				o := guestOptions{features: modernFeatures, size: 256, regions: regions}
				x, y := newBouncer(b, o, 128, size), newBouncer(b, o, 128, size)
				lanes := []*lane{{from: x.port.queues[0], to: y.port}, {from: y.port.queues[0], to: x.port}}
				var rx, tx, rel []float64
				b.ResetTimer()
				for sent := 0; sent < b.N; {
					for _, l := range lanes {
						t0 := time.Now()
						n := l.from.Rx(l.frames[:])
						t1 := time.Now()
						for i := range n {
							l.out[i] = frame.Out{Frame: &l.frames[i]}
						}
						t2 := time.Now()
						sent += l.to.Tx(0, l.out[:n])
						t3 := time.Now()
						l.from.Release()
						t4 := time.Now()
						if n == 64 {
							rx = append(rx, float64(t1.Sub(t0))/64)
							tx = append(tx, float64(t3.Sub(t2))/64)
							rel = append(rel, float64(t4.Sub(t3))/64)
						}
					}
					x.turn()
					y.turn()
				}
				for name, v := range map[string][]float64{"rx-ns": rx, "tx-ns": tx, "release-ns": rel} {
					slices.Sort(v)
					if len(v) > 0 {
						b.ReportMetric(v[len(v)/2], name)
					}
				}
			})
		}
	}
}
