package tap_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/switch/port/mem"
	"github.com/kvswitch/kvswitch/switch/port/tap"
)

// watcher listens in a host's namespace for the length of the test.
func watcher(t *testing.T, h *netns.Host) *link.Watcher {
	t.Helper()
	var w *link.Watcher
	if err := h.Do(func() (err error) { w, err = link.NewWatcher(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// join carries frames between two ports until the test ends: a switch of two.
func join(t *testing.T, a, b *tap.Port) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	ep, err := sysio.NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	ends := []*tap.Port{a, b}
	for i, p := range ends {
		if err := p.Start(func() {}); err != nil {
			t.Fatal(err)
		}
		if err := ep.Add(p.Queues()[0].FD(), uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(done)
		frames, outs, events := make([]frame.Frame, frame.BatchSize), make([]frame.Out, frame.BatchSize), make([]sysio.Event, 2)
		for ctx.Err() == nil {
			n, _ := ep.Wait(20, events)
			for _, e := range events[:n] {
				from, to := ends[e.Value()], ends[1-e.Value()]
				q := from.Queues()[0]
				k := q.Rx(frames)
				for i := range frames[:k] {
					outs[i] = frame.Out{Frame: &frames[i], EgressTag: frames[i].Tag}
				}
				to.Tx(0, outs[:k])
				q.Release()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		ep.Close()
		for _, p := range ends {
			p.Close()
		}
	})
}

// Two hosts that have nothing but taps talk TCP in super-frames.
func TestTapsCarryTCPWithEveryOffload(t *testing.T) {
	lab := netns.New(t)
	var ports [2]*tap.Port
	hosts := []*netns.Host{lab.Host("a"), lab.Host("b")}
	macs := []frame.MAC{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}
	for i, h := range hosts {
		p, err := tap.Open(watcher(t, h), "host0", tap.Options{MAC: macs[i], MTU: 9000})
		if err != nil {
			t.Fatal(err)
		}
		st := p.State()
		if st.MAC != macs[i] || st.MTU != 9000 || !st.Up || !st.Offloads.TSO4 || !st.Offloads.Csum {
			t.Errorf("state %+v", st)
		}
		ports[i] = p
		h.Addr("host0", []string{"192.0.2.1/24", "192.0.2.2/24"}[i])
	}
	join(t, ports[0], ports[1])

	data := bytes.Repeat([]byte("kvswitch"), 1<<20)
	got := make(chan []byte, 1)
	var ln net.Listener
	if err := hosts[0].Do(func() (err error) { ln, err = net.Listen("tcp", "192.0.2.1:7"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- nil
			return
		}
		b, _ := io.ReadAll(c)
		got <- b
	}()
	if err := hosts[1].Do(func() error {
		c, err := net.DialTimeout("tcp", "192.0.2.1:7", 10*time.Second)
		if err != nil {
			return err
		}
		if _, err := c.Write(data); err != nil {
			return err
		}
		return c.Close()
	}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, data) {
		t.Error("the bytes that arrived are not those that were sent")
	}
}

func TestPortFollowsItsDevice(t *testing.T) {
	h := netns.New(t).Host("a")
	p, err := tap.Open(watcher(t, h), "host0", tap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	changed := make(chan struct{}, 16)
	if err := p.Start(func() { changed <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	await := func(what string, ok func(frame.State) bool) {
		t.Helper()
		netns.Await(t, 10*time.Second, what, func() error {
			if !ok(p.State()) {
				return errors.New(what)
			}
			return nil
		})
		<-changed
	}
	h.Down("host0")
	await("down", func(s frame.State) bool { return !s.Up && strings.Contains(s.Reason, "set down") })
	h.Up("host0")
	await("up", func(s frame.State) bool { return s.Up && s.Reason == "" })
	h.MTU("host0", 4000)
	await("MTU", func(s frame.State) bool { return s.MTU == 4000 })
	h.Delete("host0")
	await("gone", func(s frame.State) bool { return s.Gone && !s.Up })
	// A deleted device must not keep the switch awake.
	ep, err := sysio.NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	if err := ep.Add(p.Queues()[0].FD(), 0); err != nil {
		t.Fatal(err)
	}
	if n, _ := ep.Wait(50, make([]sysio.Event, 1)); n != 0 {
		t.Error("the deleted tap's descriptor still reports readiness")
	}
}

func TestCreateMakesAPersistentTapAndDeleteRemovesIt(t *testing.T) {
	h := netns.New(t).Host("a")
	w := watcher(t, h)
	owner := uint32(65534)
	for _, queues := range []int{1, 4} {
		o := tap.Options{Queues: queues, MTU: 4000, MAC: frame.MAC{0xfe, 0, 0, 0, 0, 1}, Owner: &owner}
		if err := tap.Create(w, "vm1", o); err != nil {
			t.Fatal(err)
		}
		out := h.Run("ip", "-d", "link", "show", "vm1")
		for _, want := range []string{"mtu 4000", "fe:00:00:00:00:01", "persist on", "user nobody"} {
			if !strings.Contains(out, want) {
				t.Errorf("%d queues: no %q in %s", queues, want, out)
			}
		}
		if multi := strings.Contains(out, "multi_queue"); multi != (queues > 1) {
			t.Errorf("%d queues: multi_queue %v", queues, multi)
		}
		if err := tap.Create(w, "vm1", o); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("Create of an existing tap = %v", err)
		}
		if err := tap.Delete(w, "vm1"); err != nil {
			t.Fatal(err)
		}
		if h.Exists("vm1") {
			t.Error("the tap is still there")
		}
	}
}

func TestWhatCannotBeIsRefusedAndLeavesNothing(t *testing.T) {
	h := netns.New(t).Host("a")
	w := watcher(t, h)
	h.Run("ip", "link", "add", "bridge0", "type", "bridge")
	before := h.Links()
	fds := openFiles(t)
	for name, err := range map[string]error{
		"no name":      tap.Create(w, "", tap.Options{}),
		"slash":        tap.Create(w, "a/b", tap.Options{}),
		"too long":     tap.Create(w, "sixteen-chars-xx", tap.Options{}),
		"queues":       tap.Create(w, "vm1", tap.Options{Queues: 257}),
		"open queues":  second(tap.Open(w, "vm1", tap.Options{Queues: -1})),
		"MTU":          tap.Create(w, "vm1", tap.Options{MTU: 1 << 20}),
		"group MAC":    tap.Create(w, "vm1", tap.Options{MAC: frame.Broadcast}),
		"other device": tap.Delete(w, "bridge0"),
		"none":         tap.Delete(w, "vm1"),
		"open other":   second(tap.Open(w, "bridge0", tap.Options{})),
		"open MTU":     second(tap.Open(w, "vm1", tap.Options{MTU: 1 << 20})),
	} {
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q, want one line", name, err)
		}
	}
	if after := h.Links(); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("devices %v, want %v", after, before)
	}
	if n := openFiles(t); n > fds {
		t.Errorf("%d open files, want %d", n, fds)
	}
}

func second(_ *tap.Port, err error) error { return err }

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestCloseLeavesNothing(t *testing.T) {
	h := netns.New(t).Host("a")
	w := watcher(t, h)
	before, fds := h.Links(), openFiles(t)
	for range 50 {
		p, err := tap.Open(w, "host0", tap.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(func() {}); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	}
	if after := h.Links(); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("devices %v, want %v", after, before)
	}
	if n := openFiles(t); n > fds {
		t.Errorf("%d open files, want %d", n, fds)
	}
}

// host0 opens a tap on a fresh host, with a raw station on the stack's side.
func host0(t *testing.T, o tap.Options) (*tap.Port, *netns.Host, *netns.Station) {
	t.Helper()
	h := netns.New(t).Host("a")
	p, err := tap.Open(watcher(t, h), "host0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if err := p.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	return p, h, h.Station("host0")
}

func TestLentFramesStayUntilReleaseHoweverManyCalls(t *testing.T) {
	p, _, station := host0(t, tap.Options{})
	q := p.Queues()[0]
	for i := range 200 {
		station.Send(mem.Build(frame.Broadcast, mem.MAC(i), 0, 0x88b5, make([]byte, 1400)))
	}
	lent, frames := []frame.Frame{}, make([]frame.Frame, 1)
	for q.Rx(frames) == 1 {
		lent = append(lent, frames[0])
	}
	if len(lent) < frame.BatchSize || len(lent) == 200 {
		t.Errorf("%d frames lent before Release", len(lent))
	}
	for i, f := range lent {
		if f.Src() != mem.MAC(i) {
			t.Fatalf("frame %d is from %v, want %v", i, f.Src(), mem.MAC(i))
		}
	}
	q.Release()
	if q.Rx(frames) != 1 || frames[0].Src() != mem.MAC(len(lent)) {
		t.Errorf("after Release the next is from %v, want %v", frames[0].Src(), mem.MAC(len(lent)))
	}
}

func TestFramesReachTheStackAsTheyAreOnTheWire(t *testing.T) {
	p, _, station := host0(t, tap.Options{})
	src, tag := mem.MAC(1), frame.MakeTag(0x8100, 4, 77)
	untagged := mem.Build(frame.Broadcast, src, 0, 0x88b5, make([]byte, 100))
	tagged := mem.Build(frame.Broadcast, src, tag, 0x88b5, make([]byte, 100))
	service := mem.Build(frame.Broadcast, src, frame.MakeTag(0x88a8, 0, 5), 0x88b5, make([]byte, 100))
	for name, c := range map[string]struct {
		out  frame.Out
		want []byte
	}{
		"untagged":        {frame.Out{Frame: &frame.Frame{Data: untagged}}, untagged},
		"tag in band":     {frame.Out{Frame: &frame.Frame{Data: tagged}}, tagged},
		"tag put in":      {frame.Out{Frame: &frame.Frame{Data: untagged}, EgressTag: tag}, tagged},
		"tag taken out":   {frame.Out{Frame: &frame.Frame{Data: tagged, Strip: 4, Tag: tag}}, untagged},
		"tag replaced":    {frame.Out{Frame: &frame.Frame{Data: tagged, Strip: 4, Tag: tag}, EgressTag: frame.MakeTag(0x88a8, 0, 5)}, service},
		"in many pieces":  {frame.Out{Frame: pieces(untagged, 90)}, untagged},
		"hint too long":   {frame.Out{Frame: &frame.Frame{Data: untagged, Hdr: frame.VnetHdr{HdrLen: 65535}}}, untagged},
		"verified before": {frame.Out{Frame: &frame.Frame{Data: untagged, Hdr: frame.VnetHdr{Flags: frame.HdrDataValid}}}, untagged},
	} {
		if n := p.Tx(0, []frame.Out{c.out}); n != 1 {
			t.Fatalf("%s: %d of 1 taken", name, n)
		}
		if got, ok := station.Recv(5 * time.Second); !ok || !bytes.Equal(got, c.want) {
			t.Errorf("%s: the stack got % x, want % x", name, got, c.want)
		}
	}
	if c := p.Counters(); c != (frame.Counters{}) {
		t.Errorf("counters %+v", c)
	}
}

// pieces cuts a frame into its header and n pieces.
func pieces(b []byte, n int) *frame.Frame {
	f := &frame.Frame{Data: b[:frame.HeaderLen]}
	b = b[frame.HeaderLen:]
	for ; n > 1; n-- {
		f.Rest, b = append(f.Rest, b[:1]), b[1:]
	}
	f.Rest = append(f.Rest, b)
	return f
}

func TestFrameThatTheKernelRefusesCostsOnlyItself(t *testing.T) {
	p, h, station := host0(t, tap.Options{})
	data := mem.Build(frame.Broadcast, mem.MAC(1), 0, 0x88b5, make([]byte, 1000))
	good := frame.Out{Frame: &frame.Frame{Data: data}}
	for name, bad := range map[string]frame.Out{
		"too many pieces":         {Frame: &frame.Frame{Data: data, Rest: make([][]byte, 10000)}},
		"no such segmentation":    {Frame: &frame.Frame{Data: data, Hdr: frame.VnetHdr{GSOType: 77, GSOSize: 100}}},
		"checksum beyond the end": {Frame: &frame.Frame{Data: data, Hdr: frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 5000}}},
	} {
		before := p.Counters().TxErrors
		if n := p.Tx(0, []frame.Out{good, bad, good}); n != 3 {
			t.Errorf("%s: %d of 3 taken care of", name, n)
		}
		for range 2 {
			if got, ok := station.Recv(5 * time.Second); !ok || !bytes.Equal(got, data) {
				t.Errorf("%s: a good frame is missing", name)
			}
		}
		if n := p.Counters().TxErrors - before; n != 1 {
			t.Errorf("%s: %d errors counted, want 1", name, n)
		}
	}
	h.Down("host0")
	before := p.Counters().TxErrors
	if n := p.Tx(0, []frame.Out{good, good}); n != 2 || p.Counters().TxErrors-before != 2 {
		t.Errorf("device down: %d of 2 taken care of, %d errors counted", n, p.Counters().TxErrors-before)
	}
}

func TestMultiQueueTapCarriesEachFrameOnce(t *testing.T) {
	p, h, station := host0(t, tap.Options{Queues: 3})
	if n := len(p.Queues()); n != 3 {
		t.Fatalf("%d queues, want 3", n)
	}
	if out := h.Run("ip", "-d", "link", "show", "host0"); !strings.Contains(out, "multi_queue") {
		t.Errorf("not multi-queue: %s", out)
	}
	// From the stack: whatever queue a frame comes by, it comes once.
	for i := range 50 {
		station.Send(mem.Build(frame.Broadcast, mem.MAC(i), 0, 0x88b5, nil))
	}
	got, frames := make(map[frame.MAC]int), make([]frame.Frame, frame.BatchSize)
	netns.Await(t, 10*time.Second, "50 frames", func() error {
		for _, q := range p.Queues() {
			for _, f := range frames[:q.Rx(frames)] {
				got[f.Src()]++
			}
			q.Release()
		}
		if len(got) < 50 {
			return errors.New("not all yet")
		}
		return nil
	})
	for src, n := range got {
		if n != 1 {
			t.Errorf("%d copies of the frame from %v", n, src)
		}
	}
	// To the stack: by any lane.
	for hint := range 5 {
		data := mem.Ethernet(frame.Broadcast, mem.MAC(hint), "down")
		if n := p.Tx(hint, []frame.Out{{Frame: &frame.Frame{Data: data}}}); n != 1 {
			t.Fatalf("hint %d: %d of 1 taken", hint, n)
		}
		if b, ok := station.Recv(5 * time.Second); !ok || !bytes.Equal(b, data) {
			t.Errorf("hint %d: the stack got % x", hint, b)
		}
	}
}

func TestReceivingAndSendingAllocateNothing(t *testing.T) {
	h := netns.New(t).Host("a")
	p, err := tap.Open(watcher(t, h), "host0", tap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f := frame.Frame{Data: make([]byte, 60), Rest: [][]byte{make([]byte, 100)}}
	out := []frame.Out{{Frame: &f}, {Frame: &f, EgressTag: frame.MakeTag(0x8100, 0, 5)}}
	frames := make([]frame.Frame, frame.BatchSize)
	q := p.Queues()[0]
	if n := testing.AllocsPerRun(100, func() {
		p.Tx(0, out)
		q.Rx(frames)
		q.Release()
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
