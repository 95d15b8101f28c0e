package gen

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// build makes a topology that ends with the test.
func build(t *testing.T, spec topo.Spec) *topo.Topology {
	t.Helper()
	netns.RequirePrivilege(t)
	top, err := topo.Build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := top.Close(); err != nil {
			t.Error(err)
		}
	})
	return top
}

func cable(t *testing.T) *topo.Topology {
	t.Helper()
	return build(t, topo.Spec{Ports: 2, Direct: true})
}

func parse(t *testing.T, size string) probe.Size {
	t.Helper()
	s, err := probe.ParseSize(size)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEveryFrameSentArrivesOverACable(t *testing.T) {
	top := cable(t)
	for _, name := range probe.StandardSizes {
		size := parse(t, name)
		c, err := sink.NewCounter(top, []int{1}, size.GSO)
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSender(top, size, probe.Flows{From: 0, To: []int{1}, Count: 10})
		if err != nil {
			t.Fatal(err)
		}
		marks := 0
		sent, err := s.Send(t.Context(), Load{
			Rate: 5000, Frames: 200, Stamp: true, Sleep: true, Mark: func() { marks++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if sent.Frames != 200 || s.Sequence(0) != 200 || got.Frames != 200 || got.Astray+got.Late+got.Foreign != 0 {
			t.Errorf("%s: sent %+v, counted %+v, want 200 frames", name, sent, got)
		}
		if want := uint64(200 * size.MeanLength()); size.Name != "imix" && got.Bytes != want {
			t.Errorf("%s: %d bytes arrived, want %d", name, got.Bytes, want)
		}
		if size.GSO && got.Segments != 200*45 {
			t.Errorf("gso: %d segments, want 45 in each frame", got.Segments)
		}
		h, err := c.Latencies()
		if err != nil || h.TotalCount() != 200 {
			t.Errorf("%s: latencies of %d frames, error %v", name, h.TotalCount(), err)
		}
		if marks != 2 {
			t.Errorf("%s: %d marks, want begin and end", name, marks)
		}
		if err := errors.Join(s.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestFullSpeedLastsItsTimeAndWarmUpDoesNotCount(t *testing.T) {
	top := cable(t)
	s, err := NewSender(top, parse(t, "64"), probe.Flows{From: 0, To: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent, err := s.Send(t.Context(), Load{Length: 20 * time.Millisecond, Warm: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if sent.Elapsed < 20*time.Millisecond || sent.Frames == 0 || sent.Warm == 0 || uint64(s.Sequence(0)) != sent.Warm+sent.Frames {
		t.Errorf("%+v, %d frames with warm-up", sent, s.Sequence(0))
	}
}

func TestWarmUpHasNoStamps(t *testing.T) {
	l := Load{Rate: 5, Length: time.Second, Frames: 7, Warm: time.Minute, Stamp: true, Sleep: true}
	if w := l.WarmUp(); w.Stamp || w.Length != time.Minute || w.Frames != 0 || w.Rate != 5 || !w.Sleep {
		t.Errorf("%+v", w)
	}
}

func TestSendStopsAfterTheFramesAskedFor(t *testing.T) {
	top := cable(t)
	s, err := NewSender(top, parse(t, "imix"), probe.Flows{From: 0, To: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, rate := range []float64{0, 1e5} {
		sent, err := s.Send(t.Context(), Load{Rate: rate, Frames: 777})
		if err != nil || sent.Frames != 777 || sent.Elapsed <= 0 {
			t.Errorf("rate %v: %+v, error %v, want 777 frames", rate, sent, err)
		}
	}
}

func TestStreamsTakeTurns(t *testing.T) {
	top := build(t, topo.Spec{Ports: 3})
	var flows []probe.Flows
	for p := range 3 {
		flows = append(flows, probe.Flows{From: p, To: []int{(p + 1) % 3, (p + 2) % 3}})
	}
	s, err := NewSender(top, parse(t, "64"), flows...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Send(t.Context(), Load{Rate: 30_000, Frames: 600}); err != nil {
		t.Fatal(err)
	}
	total := 0
	for i := range 3 {
		total += int(s.Sequence(i))
	}
	for i := range 3 {
		if n := int(s.Sequence(i)); n < total/3-64 || n > total/3+64 {
			t.Errorf("stream %d sent %d of %d frames", i, n, total)
		}
	}
	if total != 600 {
		t.Errorf("%d frames, want 600", total)
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	top := cable(t)
	s, err := NewSender(top, parse(t, "64"), probe.Flows{From: 0, To: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, rate := range []float64{0, 10} {
		if _, err := s.Send(ctx, Load{Rate: rate, Length: time.Hour}); !errors.Is(err, context.Canceled) {
			t.Errorf("rate %v: error %v, want canceled", rate, err)
		}
	}
}

func TestSendingAllocatesNothing(t *testing.T) {
	top := cable(t)
	s, err := NewSender(top, parse(t, "imix"), probe.Flows{From: 0, To: []int{1}, Count: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := testing.AllocsPerRun(100, func() {
		if _, errno := s.streams[0].send(batch, 1); errno != 0 {
			t.Fatal(errno)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a batch", n)
	}
}

func TestLiveFramesArriveNumbered(t *testing.T) {
	top := cable(t)
	c, err := sink.NewCounter(top, []int{1}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := NewLiveSender(top, parse(t, "128"), probe.Flows{From: 0, To: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	sent, err := s.Send(t.Context(), Load{Length: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var got sink.Counts
	netns.Await(t, time.Second, "frames arrive", func() error {
		if got, err = c.Read(); err != nil || got.Frames == 0 {
			return errors.Join(errors.New("none yet"), err)
		}
		return nil
	})
	// A veth queue holds 256 frames, so some may be lost at this speed; none may
	// be out of order or damaged.
	total, err := s.sent()
	if err != nil || sent.Frames == 0 || sent.Frames > total {
		t.Errorf("%+v of %d frames in all, error %v", sent, total, err)
	}
	if got.Frames > total || got.Late+got.Astray+got.Foreign != 0 || got.Bytes != 124*got.Frames {
		t.Errorf("sent %+v, counted %+v", sent, got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if on, err := topo.Offloads(top.Ports[1].Host, top.Ports[1].End); err != nil || on["rx-gro"] {
		t.Errorf("offloads were not put back: %v, error %v", on, err)
	}
}
