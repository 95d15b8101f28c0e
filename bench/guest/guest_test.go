package guest

import (
	"fmt"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
)

func parse(t *testing.T, size string) probe.Size {
	t.Helper()
	s, err := probe.ParseSize(size)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// attach puts a contender between the two ends of a path.
func attach(t *testing.T, path, name string) *topo.Topology {
	t.Helper()
	netns.RequirePrivilege(t)
	top, err := topo.Build(t.Context(), topo.Spec{Ports: 2, Sockets: path == "vhost-user", Taps: path == "tap"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := top.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, k := range subject.Kinds(path) {
		if k.Name != name {
			continue
		}
		netns.Need(t, "contender", k.Absent())
		s := k.New()
		if err := s.Attach(top); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Detach(); err != nil {
				t.Error(err)
			}
		})
		return top
	}
	t.Fatalf("no contender %s on path %s", name, path)
	return nil
}

func TestGuestsReachEachOther(t *testing.T) {
	for _, tc := range []struct{ path, name string }{
		{"tap", "kernel"}, {"tap", "kvswitch"}, {"vhost-user", "kvswitch"}, {"vhost-user", "testpmd"},
	} {
		t.Run(tc.path+"/"+tc.name, func(t *testing.T) {
			top := attach(t, tc.path, tc.name)
			for _, size := range []string{"64", "imix", "1518"} { // one guest after the other, on the same port
				through(t, top, parse(t, size))
			}
		})
	}
}

// through sends frames from end to end and checks every one of them.
func through(t *testing.T, top *topo.Topology, size probe.Size) {
	t.Helper()
	d, err := Open(top, size, probe.Flows{From: 0, To: []int{1}, Count: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	netns.Await(t, 20*time.Second, "frames pass", func() error {
		if err := d.Teach(t.Context()); err != nil {
			return err
		}
		if err := d.Reset(); err != nil {
			return err
		}
		if _, err := d.Send(t.Context(), gen.Load{Rate: 10_000, Frames: 5, Sleep: true}); err != nil {
			return err
		}
		if n, err := d.Read(); err != nil || n.Frames != 5 {
			return &notYet{n, err}
		}
		return nil
	})
	if err := d.Reset(); err != nil {
		t.Fatal(err)
	}
	first := d.Sequence()
	// A burst is less than any queue on the way holds, and the next one waits
	// until it has arrived: a busy machine may be slow, but not lossy.
	const bursts, burst = 20, 100
	o, err := d.Audit(sink.NewLedger(0, 1, first), func() (uint64, error) {
		for i := range uint64(bursts) {
			if _, err := d.Send(t.Context(), gen.Load{Rate: 1e6, Frames: burst, Stamp: true}); err != nil {
				return 0, err
			}
			netns.Await(t, 10*time.Second, "burst arrives", func() error {
				n, err := d.Read()
				if err != nil || n.Frames < (i+1)*burst {
					_ = d.drain(t.Context(), still)
					return &notYet{n, err}
				}
				return nil
			})
		}
		return bursts * burst, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if f := o.Fault(true); f != "" || o.Intact != 2000 {
		t.Errorf("%s: %+v: %s", size.Name, o, f)
	}
	n, err := d.Read()
	if err != nil || n.Frames != 2000 || n.Late+n.Astray+n.Foreign != 0 {
		t.Errorf("%s: counted %+v, error %v, want 2000 frames", size.Name, n, err)
	}
	if h, err := d.Latencies(); err != nil || h.TotalCount() != 2000 || h.Min() <= 0 {
		t.Errorf("%s: latencies of %d frames, from %d ns, error %v", size.Name, h.TotalCount(), h.Min(), err)
	}
}

type notYet struct {
	n   sink.Counts
	err error
}

func (e *notYet) Error() string { return fmt.Sprintf("arrived: %+v, error %v", e.n, e.err) }

func TestRingsHandBuffersOutInTheOrderOfTheirReturn(t *testing.T) {
	var f fifo
	for i := range uint16(ringSize) {
		f.push(i)
	}
	for round := range 3 * ringSize {
		b := f.front()
		if want := uint16(round % ringSize); b != want {
			t.Fatalf("turn %d: buffer %d, want %d", round, b, want)
		}
		f.pop()
		f.push(b)
	}
	if f.n != ringSize {
		t.Errorf("%d buffers, want all", f.n)
	}
}

func TestSuperFramesAreRefused(t *testing.T) {
	if _, err := dialVirtio("/nonexistent", parse(t, "gso"), probe.Flows{}); err == nil {
		t.Error("a virtio guest took super-frames")
	}
	if _, err := dialVirtio("/nonexistent", parse(t, "64"), probe.Flows{}); err == nil {
		t.Error("a guest attached to nothing")
	}
}
