package afpacket

import (
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/porttest/netlab"
	"github.com/kvswitch/kvswitch/switch/sysio"
)

// openOn opens a port on a host's device and closes it with the test.
func openOn(t *testing.T, h *netlab.Host, name string, o Options) *Port {
	t.Helper()
	var p *Port
	if err := h.Do(func() (err error) { p, err = Open(name, o); return err }); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

// patch joins ports as a hub would: what one lends, every other one sends, with
// the tag it came with. It sleeps as a worker does, and ends with the test.
type patch struct {
	t       *testing.T
	short   int // frames that Tx had no room for
	observe func(in int, f *frame.Frame)
}

func join(t *testing.T, observe func(in int, f *frame.Frame), ports ...frame.Port) *patch {
	t.Helper()
	p := &patch{t: t, observe: observe}
	stop, err := sysio.NewEventFD()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run(stop, ports)
	}()
	t.Cleanup(func() {
		stop.Signal()
		<-done
		stop.Close()
	})
	return p
}

func (p *patch) run(stop *sysio.EventFD, ports []frame.Port) {
	ep, err := sysio.NewEpoll()
	if err != nil {
		p.t.Error(err)
		return
	}
	defer ep.Close()
	ep.Add(stop.FD(), 0)
	for _, port := range ports {
		for _, q := range port.Queues() {
			ep.Add(q.FD(), 1)
		}
	}
	var events [16]sysio.Event
	for {
		busy := false
		for in, port := range ports {
			for _, q := range port.Queues() {
				busy = p.turn(in, q, ports) || busy
				busy = q.Arm() || busy
			}
		}
		timeout := -1
		if busy {
			timeout = 0
		}
		n, err := ep.Wait(timeout, events[:])
		if err != nil {
			p.t.Error(err)
			return
		}
		for i := range events[:n] {
			if events[i].Value() == 0 {
				return
			}
		}
	}
}

func (p *patch) turn(in int, q frame.Queue, ports []frame.Port) bool {
	var frames [frame.BatchSize]frame.Frame
	var out [frame.BatchSize]frame.Out
	n := q.Rx(frames[:])
	if n == 0 {
		return false
	}
	for i := range n {
		if p.observe != nil {
			p.observe(in, &frames[i])
		}
		out[i] = frame.Out{Frame: &frames[i], EgressTag: frames[i].Tag}
	}
	for to, port := range ports {
		if to != in {
			p.short += n - port.Tx(0, out[:n])
		}
	}
	q.Release()
	return true
}

// drain lends and copies whatever a port has, until nothing came for a while or
// ok says it is enough.
func drain(t *testing.T, p *Port, ok func(got [][]byte) bool) (got [][]byte) {
	t.Helper()
	var frames [frame.BatchSize]frame.Frame
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		for _, q := range p.queues {
			n := q.Rx(frames[:])
			for i := range n {
				o := frame.Out{Frame: &frames[i], EgressTag: frames[i].Tag}
				got = append(got, o.AppendWire(nil))
			}
			if n > 0 {
				q.Release()
			}
		}
		if ok(got) {
			return got
		}
	}
	t.Fatalf("not what was waited for: %d frames, last % x", len(got), got[max(len(got)-1, 0):])
	return nil
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

var _ = slices.Sort[[]int]
var _ = unix.AF_PACKET
