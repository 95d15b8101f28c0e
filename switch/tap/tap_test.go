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

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/netdev"
	"github.com/kvswitch/kvswitch/switch/porttest/netlab"
	"github.com/kvswitch/kvswitch/switch/sysio"
	"github.com/kvswitch/kvswitch/switch/tap"
)

// watcher listens in a host's namespace for the length of the test.
func watcher(t *testing.T, h *netlab.Host) *netdev.Watcher {
	t.Helper()
	var w *netdev.Watcher
	if err := h.Do(func() (err error) { w, err = netdev.NewWatcher(); return err }); err != nil {
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
	lab := netlab.New(t)
	var ports [2]*tap.Port
	hosts := []*netlab.Host{lab.Host("a"), lab.Host("b")}
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
	h := netlab.New(t).Host("a")
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
		netlab.Await(t, 10*time.Second, what, func() error {
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
	h := netlab.New(t).Host("a")
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
	h := netlab.New(t).Host("a")
	w := watcher(t, h)
	h.Run("ip", "link", "add", "bridge0", "type", "bridge")
	before := h.Links()
	fds := openFiles(t)
	for name, err := range map[string]error{
		"no name":      tap.Create(w, "", tap.Options{}),
		"slash":        tap.Create(w, "a/b", tap.Options{}),
		"too long":     tap.Create(w, "sixteen-chars-xx", tap.Options{}),
		"queues":       tap.Create(w, "vm1", tap.Options{Queues: 257}),
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
	if n := openFiles(t); n != fds {
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
	h := netlab.New(t).Host("a")
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
	}
	if after := h.Links(); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("devices %v, want %v", after, before)
	}
	if n := openFiles(t); n != fds {
		t.Errorf("%d open files, want %d", n, fds)
	}
}

func TestReceivingAndSendingAllocateNothing(t *testing.T) {
	h := netlab.New(t).Host("a")
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
