package netdev

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// cable is a switch's host and one neighbour, joined by a veth pair: "port" on
// the switch's side, "eth0" on the neighbour's.
func cable(t *testing.T) (sw, far *netns.Host) {
	t.Helper()
	lab := netns.New(t)
	sw, far = lab.Host("sw"), lab.Host("far")
	lab.Cable(sw, "port", far, "eth0")
	awaitCable(t, sw, "port", far, "eth0")
	return sw, far
}

// awaitCable waits until both ends can send. After an end comes up the kernel
// takes up to a second to notice that it has carrier; until then it drops what
// is sent there, and tells nobody (the noop queueing discipline).
func awaitCable(t *testing.T, a *netns.Host, aName string, b *netns.Host, bName string) {
	t.Helper()
	netns.Await(t, 10*time.Second, "the cable", func() error {
		for name, h := range map[string]*netns.Host{aName: a, bName: b} {
			if s := h.Run("ip", "link", "show", name); !strings.Contains(s, "qdisc noqueue") || !strings.Contains(s, "state UP") {
				return errors.New(s)
			}
		}
		return nil
	})
}

// ringsOnly has ports receive by rings, as on kernels that have no intakes.
var ringsOnly bool

// eachWay runs a test both ways.
func eachWay(t *testing.T, test func(*testing.T)) {
	for _, way := range []string{receiveIntake, receiveRing} {
		t.Run(way, func(t *testing.T) {
			ringsOnly = way == receiveRing
			defer func() { ringsOnly = false }()
			test(t)
		})
	}
}

// openOn opens and starts a port on a host's device and closes it with the test.
func openOn(t *testing.T, h *netns.Host, name string, o Options) *Port {
	t.Helper()
	p, err := tryOpen(h, name, o)
	if err != nil {
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

func tryOpen(h *netns.Host, name string, o Options) (p *Port, err error) {
	o.noIntake = o.noIntake || ringsOnly
	_ = h.Do(func() error { p, err = Open(name, o); return nil })
	return p, err
}

// watcherOf listens on a host for as long as the test runs.
func watcherOf(t *testing.T, h *netns.Host) *link.Watcher {
	t.Helper()
	var w *link.Watcher
	if err := h.Do(func() (err error) { w, err = link.NewWatcher(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// awaitState waits until the port says of itself what is wanted.
func awaitState(t *testing.T, p *Port, what string, ok func(frame.State) bool) {
	t.Helper()
	netns.Await(t, 10*time.Second, what, func() error {
		if s := p.State(); !ok(s) {
			return fmt.Errorf("the port says %+v", s)
		}
		return nil
	})
}

func up(s frame.State) bool { return s.Up && s.Reason == "" && !s.Gone }

// lent is a copy of a frame that a queue lent.
type lent struct {
	queue int // 0 is the one for link-local addresses
	data  []byte
	hdr   frame.VnetHdr
	tag   frame.Tag
}

// receive takes frames from all queues of a port until it has want of them.
func receive(t *testing.T, p *Port, want int) (got []lent) {
	t.Helper()
	netns.Await(t, 10*time.Second, fmt.Sprintf("%d frames on %s", want, p.Name()), func() error {
		got = append(got, take(p)...)
		if len(got) < want {
			return fmt.Errorf("%d frames so far", len(got))
		}
		return nil
	})
	if len(got) > want {
		t.Fatalf("%d frames, want %d: %x", len(got), want, got)
	}
	return got
}

// take takes what is there.
func take(p *Port) (got []lent) {
	var b [frame.BatchSize]frame.Frame
	for i, q := range p.Queues() {
		for {
			n := q.Rx(b[:])
			if n == 0 {
				break
			}
			for _, f := range b[:n] {
				got = append(got, lent{i, bytes.Join(append([][]byte{f.Data}, f.Rest...), nil), f.Hdr, f.Tag})
			}
			q.Release()
		}
	}
	return got
}

// send sends frames given as their bytes, and wants all of them taken.
func send(t *testing.T, p *Port, wires ...[]byte) {
	t.Helper()
	for _, w := range wires {
		if n := p.Tx(0, []frame.Out{{Frame: &frame.Frame{Data: w}}}); n != 1 {
			t.Fatalf("%s took %d of 1 frame", p.Name(), n)
		}
	}
}

// join carries frames between ports until the test ends, as a hub would: what
// one lends, all others send, with the tag it came with, and finished where a
// port can't be given it as it is. It sleeps when there is
// nothing to do, as a worker does. look, if not nil, sees every frame.
func join(t *testing.T, look func(in int, f *frame.Frame), ports ...frame.Port) {
	t.Helper()
	stop, err := sysio.NewEventFD()
	if err != nil {
		t.Fatal(err)
	}
	ready, err := sysio.NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	h := hub{t: t, ports: ports, look: look, ready: ready}
	const stopped = 0
	ready.Add(stop.FD(), stopped)
	for _, p := range ports {
		for _, q := range p.Queues() {
			if err := ready.Add(q.FD(), 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for h.turn() {
		}
	}()
	t.Cleanup(func() {
		stop.Signal()
		<-done
		ready.Close()
		stop.Close()
	})
}

type hub struct {
	t     *testing.T
	ports []frame.Port
	look  func(in int, f *frame.Frame)
	ready *sysio.Epoll

	finisher frame.Finisher
}

// turn serves every queue once and sleeps if none had anything. It reports false
// when the hub shall stop.
func (h *hub) turn() bool {
	timeout := -1
	for in, p := range h.ports {
		for _, q := range p.Queues() {
			if h.carry(in, q) > 0 || q.Arm() {
				timeout = 0
			}
		}
	}
	var events [16]sysio.Event
	n, err := h.ready.Wait(timeout, events[:])
	if err != nil {
		h.t.Error(err)
		return false
	}
	for i := range events[:n] {
		if events[i].Value() == 0 {
			return false
		}
	}
	return true
}

func (h *hub) carry(in int, q frame.Queue) int {
	var frames [frame.BatchSize]frame.Frame
	var out [frame.BatchSize]frame.Out
	n := q.Rx(frames[:])
	for i := range n {
		if h.look != nil {
			h.look(in, &frames[i])
		}
		out[i] = frame.Out{Frame: &frames[i], EgressTag: frames[i].Tag}
	}
	for to, p := range h.ports {
		if to == in || n == 0 {
			continue
		}
		var finished []frame.Out
		for i := range n {
			var err error
			if finished, err = h.finisher.Finish(out[i], p.State().Offloads, finished); err != nil {
				h.t.Errorf("%v: %+v", err, out[i].Hdr)
			}
		}
		p.Tx(0, finished)
		h.finisher.Reset()
	}
	if n > 0 {
		q.Release()
	}
	return n
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
