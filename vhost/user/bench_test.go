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

// bouncer is a guest that sends back what it receives, as testpmd does in io
// mode: a buffer goes from the receive ring to the transmit ring and back.
type bouncer struct {
	*guest
	indirect bool
	done     [64]virtq.Done
	held     [2][]buffer // by head, what is in each ring
	spare    []buffer    // what is in none
}

// buffer is one buffer, and a table for an indirect descriptor of it.
type buffer struct {
	addr      uint64
	tableAddr uint64
	table     []byte
}

// newBouncer makes a guest with all of its receive ring filled, and frames
// frames of size bytes on their way.
func newBouncer(b *testing.B, o guestOptions, features uint64, indirect bool, frames, size int) *bouncer {
	g := &bouncer{guest: newGuest(b, o), indirect: indirect}
	g.attach(features)
	g.held = [2][]buffer{make([]buffer, o.size), make([]buffer, o.size)}
	tables, tableMem := g.alloc(bufBytes) // 128 tables of one
	for i := range o.size + frames {
		off, mem := g.alloc(bufBytes)
		t := i % (bufBytes / 16) * 16
		buf := buffer{g.gpa(off), g.gpa(tables + t), tableMem[t : t+16]}
		if i < o.size {
			g.post(buf)
			continue
		}
		copy(mem[frame.VnetHdrMrgRxbufLen:], testFrame(size))
		g.send(buf, frame.VnetHdrMrgRxbufLen+size)
	}
	g.rings[0].Publish()
	g.rings[1].Publish()
	for _, r := range g.rings {
		r.DisableCalls()
	}
	return g
}

func (g *bouncer) post(b buffer) {
	head, err := g.rings[0].Add(virtq.Buf{Addr: b.addr, Len: bufBytes, Write: true})
	if err != nil {
		panic(err)
	}
	g.held[0][head] = b
}

func (g *bouncer) send(b buffer, n int) {
	buf := virtq.Buf{Addr: b.addr, Len: uint32(n)}
	var head uint16
	var err error
	if g.indirect {
		head, err = g.rings[1].AddIndirect(b.tableAddr, b.table, buf)
	} else {
		head, err = g.rings[1].Add(buf)
	}
	if err != nil {
		panic(err)
	}
	g.held[1][head] = b
}

// turn moves what came to what goes, and what went to where the next comes.
func (g *bouncer) turn() {
	rx, tx := &g.rings[0], &g.rings[1]
	n, err := tx.Reap(g.done[:])
	if err != nil {
		panic(err)
	}
	for _, d := range g.done[:n] {
		g.spare = append(g.spare, g.held[1][d.Head])
	}
	if n, err = rx.Reap(g.done[:min(len(g.done), tx.Free())]); err != nil {
		panic(err)
	}
	for _, d := range g.done[:n] {
		g.send(g.held[0][d.Head], int(d.Len))
	}
	if n > 0 {
		tx.Publish()
	}
	if k := min(len(g.spare), rx.Free()); k > 0 {
		for _, b := range g.spare[len(g.spare)-k:] {
			g.post(b)
		}
		g.spare = g.spare[:len(g.spare)-k]
		rx.Publish()
	}
}

// lane forwards one way as a worker of the switch does, but for the decision: it
// looks at both addresses of every frame, and nothing else.
type lane struct {
	from   frame.Queue
	to     *Port
	frames [frame.BatchSize]frame.Frame
	out    [frame.BatchSize]frame.Out
	sum    uint64
}

func (l *lane) receive() int {
	n := l.from.Rx(l.frames[:])
	for i := range n {
		f := &l.frames[i]
		l.sum += binary.LittleEndian.Uint64(f.Data) ^ binary.LittleEndian.Uint64(f.Data[6:14])
		l.out[i] = frame.Out{Frame: f}
	}
	return n
}

func (l *lane) turn() int {
	n := l.receive()
	if n == 0 {
		return 0
	}
	n = l.to.Tx(0, l.out[:n])
	l.from.Release()
	return n
}

// benchCases are the rings that both benchmarks run on. With several regions
// buffers lie in them in turn, so that no frame is where the last one was.
func benchCases(b *testing.B, run func(b *testing.B, size int, features uint64, o guestOptions, indirect bool)) {
	const plain = featVersion1 | allOffloads
	for _, size := range []int{64, 1514} {
		for _, c := range []struct {
			name     string
			features uint64
			regions  int
			indirect bool
		}{
			{"merge", plain | featMrgRxbuf, 1, false},
			{"merge/8regions", plain | featMrgRxbuf, 8, false},
			{"single", plain, 1, false},
			{"indirect", plain | featMrgRxbuf | featIndirect, 1, true},
		} {
			b.Run(fmt.Sprintf("%dB/%s", size, c.name), func(b *testing.B) {
				run(b, size, c.features, guestOptions{size: 256, regions: c.regions}, c.indirect)
			})
		}
	}
}

// BenchmarkBounce: two guests that bounce, on one core, and a worker between
// them on another. One op is one frame forwarded.
func BenchmarkBounce(b *testing.B) {
	if runtime.NumCPU() < 2 {
		b.Skip("needs two cores")
	}
	benchCases(b, func(b *testing.B, size int, features uint64, o guestOptions, indirect bool) {
		x, y := newBouncer(b, o, features, indirect, 128, size), newBouncer(b, o, features, indirect, 128, size)
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
		b.ResetTimer()
		// Other load on the machine stops one of the two now and then; the median
		// and the best of short spells tell what the code does.
		const spell = 1 << 16
		var rates []float64
		for sent := 0; sent < b.N; {
			start, n := time.Now(), 0
			for n < min(spell, b.N-sent) {
				n += lanes[0].turn() + lanes[1].turn()
			}
			rates = append(rates, float64(n)/time.Since(start).Seconds()/1e6)
			sent += n
		}
		b.StopTimer()
		slices.Sort(rates)
		b.ReportMetric(rates[len(rates)/2], "median-Mframes/s")
		b.ReportMetric(rates[len(rates)-1], "best-Mframes/s")
		stop.Store(true)
		<-ended
	})
}

// BenchmarkForward: the worker's part alone, in one thread with the guests, so
// that all memory is in its cache: what the instructions cost. The metrics are
// medians over full batches, in ns a frame.
func BenchmarkForward(b *testing.B) {
	benchCases(b, func(b *testing.B, size int, features uint64, o guestOptions, indirect bool) {
		x, y := newBouncer(b, o, features, indirect, 128, size), newBouncer(b, o, features, indirect, 128, size)
		lanes := []*lane{{from: x.port.queues[0], to: y.port}, {from: y.port.queues[0], to: x.port}}
		var rx, tx, release []float64
		b.ResetTimer()
		for sent := 0; sent < b.N; {
			for _, l := range lanes {
				t0 := time.Now()
				n := l.receive()
				t1 := time.Now()
				sent += l.to.Tx(0, l.out[:n])
				t2 := time.Now()
				l.from.Release()
				t3 := time.Now()
				if n == frame.BatchSize {
					rx = append(rx, float64(t1.Sub(t0))/float64(n))
					tx = append(tx, float64(t2.Sub(t1))/float64(n))
					release = append(release, float64(t3.Sub(t2))/float64(n))
				}
			}
			x.turn()
			y.turn()
		}
		report := func(name string, v []float64) float64 {
			if len(v) == 0 {
				return 0
			}
			slices.Sort(v)
			b.ReportMetric(v[len(v)/2], name)
			return v[len(v)/2]
		}
		report("all-ns", []float64{report("rx-ns", rx) + report("tx-ns", tx) + report("release-ns", release)})
	})
}

// BenchmarkIdle: what a port costs that nothing comes from, each time a spinning
// worker looks.
func BenchmarkIdle(b *testing.B) {
	p := newGuest(b, guestOptions{size: 64}).attach(featVersion1)
	var frames [frame.BatchSize]frame.Frame
	q := p.Queues()[0]
	for b.Loop() {
		q.Rx(frames[:])
	}
}
