package gen

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// album keeps a copy of every frame.
type album struct{ frames [][]byte }

func (a *album) Enter(b []byte) { a.frames = append(a.frames, bytes.Clone(b)) }

// received are the frames that arrive at port 1 while send runs.
func received(t *testing.T, top *topo.Topology, longest int, send func() error) [][]byte {
	t.Helper()
	a, err := sink.NewAuditor(top, 1, longest)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var all album
	if err := a.Watch(t.Context(), &all, send); err != nil {
		t.Fatal(err)
	}
	return all.frames
}

func TestEveryFrameSentIsTheFrameAskedFor(t *testing.T) {
	top := cable(t)
	const n, rate = 300, 20_000
	flows := probe.Flows{From: 0, To: []int{1}, Count: 7}
	for _, name := range []string{"64", "imix", "1518"} {
		size := parse(t, name)
		s, err := NewSender(top, size, flows)
		if err != nil {
			t.Fatal(err)
		}
		frames := received(t, top, size.MaxLength(), func() error {
			_, err := s.Send(t.Context(), Load{Rate: rate, Frames: n, Stamp: true})
			return err
		})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if len(frames) != n {
			t.Fatalf("%s: %d frames, want %d", name, len(frames), n)
		}
		begin, last := int64(0), int64(0)
		for i, b := range frames {
			p, verdict := probe.Parse(b)
			if i == 0 {
				begin = p.At
			}
			dst, src := flows.Address(uint32(i))
			due := begin + int64(float64(i-1)*1e9/rate) // never earlier, but a frame is due at once
			if verdict != probe.Intact || len(b) != size.Lengths[i%len(size.Lengths)] ||
				p.Dst != dst || p.Src != src || p.Seq != uint32(i) || p.At < due || p.At < last {
				t.Fatalf("%s, frame %d: %d bytes, %+v (%v); want %v to %v, at %d or later", name, i, len(b), p, verdict, src, dst, due)
			}
			last = p.At
		}
	}
}

func TestEveryLiveFrameIsTheFrameAskedFor(t *testing.T) {
	top := cable(t)
	size := parse(t, "512")
	flows := probe.Flows{From: 0, To: []int{1}}
	want := probe.Build(make([]byte, size.Lengths[0]), false, 0)
	dst, src := flows.Address(0)
	want.Stamp(dst, src, 0, 0)
	s, err := NewLiveSender(top, size, flows)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var sent Sent
	frames := received(t, top, size.MaxLength(), func() (err error) {
		sent, err = s.Send(t.Context(), Load{Length: 5 * time.Millisecond, Warm: time.Millisecond})
		return err
	})
	if total := sent.Warm + sent.Frames + sent.After; len(frames) == 0 || uint64(len(frames)) > total || sent.Stopping <= 0 {
		t.Fatalf("%d frames arrived, %+v", len(frames), sent)
	}
	// Some may be lost; the others come in their order, numbered and as they were
	// asked for.
	next := uint32(0)
	at := probe.StampOffset(false) + 2
	for i, b := range frames {
		if len(b) < at+4 {
			t.Fatalf("frame %d has %d bytes", i, len(b))
		}
		seq := binary.BigEndian.Uint32(b[at:])
		binary.BigEndian.PutUint32(b[at:], 0)
		if seq < next || !bytes.Equal(b, want.Bytes()) {
			t.Fatalf("frame %d is number %d after %d:\n%x, want\n%x", i, seq, next, b, want.Bytes())
		}
		next = seq + 1
	}
}

// A tap whose owner knows no offloads gets what the kernel makes of super-frames.
func TestSuperFramesAreSegmentedForATap(t *testing.T) {
	netns.RequirePrivilege(t)
	top, err := topo.Build(t.Context(), topo.Spec{Ports: 2, Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	var far *os.File
	for i, p := range top.Ports {
		tap := &netlink.Tuntap{
			LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.TUNTAP_MODE_TAP, NonPersist: true,
			Flags: netlink.TUNTAP_DEFAULTS | netlink.TUNTAP_NO_PI, Queues: 1,
		}
		tap.Name = p.End
		if err := top.Switch.Do(func() error { return top.Switch.Netlink().LinkAdd(tap) }); err != nil {
			t.Fatal(err)
		}
		defer tap.Fds[0].Close()
		if i == 0 {
			far = tap.Fds[0]
		}
	}
	if err := top.Adopt(); err != nil {
		t.Fatal(err)
	}
	size := parse(t, "gso")
	s, err := NewSender(top, size, probe.Flows{From: 0, To: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const frames = 4
	if sent, err := s.Send(t.Context(), Load{Rate: 100, Frames: frames}); err != nil || sent.Frames != frames {
		t.Fatalf("%+v, error %v", sent, err)
	}
	got := 0
	netns.Await(t, 5*time.Second, "all segments arrive", func() error {
		b := make([]byte, 1<<16)
		for got < frames*size.Segments() {
			n, err := far.Read(b)
			if err != nil {
				return err
			}
			if dst, _ := (probe.Flows{To: []int{1}}).Address(0); n > 1514 || n < 60 || !bytes.Equal(b[:6], dst[:]) {
				continue // the kernel's own
			}
			got++
		}
		return nil
	})
}

// stacks is a cable between two hosts with addresses.
func stacks(t *testing.T) *topo.Topology {
	t.Helper()
	return build(t, topo.Spec{Ports: 2, Direct: true, Stacks: true})
}

func TestPingRecordsEveryRequestThatWasDue(t *testing.T) {
	top := stacks(t)
	const length = 100 * time.Millisecond
	h := sink.NewHistogram()
	n, err := Ping(t.Context(), top.Ports[0].Host, top.Ports[1].Addr, length, h)
	if err != nil {
		t.Fatal(err)
	}
	// What a stalled machine delays is recorded in the place of what was due.
	if n.Sent == 0 || n.Sent > 100 || h.TotalCount() < 100 || h.Min() < 500 || n.Lost == n.Sent {
		t.Errorf("%+v, %d round trips from %d ns on", n, h.TotalCount(), h.Min())
	}

	err = top.Ports[1].Host.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/icmp_echo_ignore_all", []byte("1"), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Reset()
	n, err = Ping(t.Context(), top.Ports[0].Host, top.Ports[1].Addr, length, h)
	if err != nil {
		t.Fatal(err)
	}
	if n.Lost != n.Sent || n.Sent < 1 || n.Sent > 5 || h.TotalCount() != int64(20*n.Sent) || h.Max() < 19*int64(time.Millisecond) {
		t.Errorf("nobody answers: %+v, %d round trips up to %d ns; want each lost one to stand for 20", n, h.TotalCount(), h.Max())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Ping(ctx, top.Ports[0].Host, top.Ports[1].Addr, time.Hour, h); err == nil {
		t.Error("a ping goes on when its context has ended")
	}
}

func TestBulkCountsWhatArrives(t *testing.T) {
	top := stacks(t)
	from, to := top.Ports[0], top.Ports[1]
	for _, network := range []string{"tcp", "udp"} {
		before, err := from.Host.Netlink().LinkByName(from.End)
		if err != nil {
			t.Fatal(err)
		}
		const warm, length = 20 * time.Millisecond, 80 * time.Millisecond
		bits, err := Bulk(t.Context(), network, from.Host, to.Host, to.Addr, warm, length)
		if err != nil {
			t.Fatal(err)
		}
		after, err := from.Host.Netlink().LinkByName(from.End)
		if err != nil {
			t.Fatal(err)
		}
		sent := 8 * float64(after.Attrs().Statistics.TxBytes-before.Attrs().Statistics.TxBytes)
		if got := bits * length.Seconds(); got <= 0 || got > sent {
			t.Errorf("%s: %.0f bits are said to have arrived of %.0f sent", network, got, sent)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Bulk(ctx, "tcp", from.Host, to.Host, to.Addr, time.Hour, time.Hour); err == nil {
		t.Error("a stream goes on when its context has ended")
	}
}
