package netdev

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

func TestStateIsWhatTheDeviceIs(t *testing.T) {
	sw, far := cable(t)
	sw.MTU("port", 4000)
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	s := p.State()
	if s.MAC != sw.MAC("port") || s.MTU != 4000 || s.Speed == 0 || s.HalfDup {
		t.Errorf("state %+v of a veth", s)
	}
	if o := s.Offloads; !o.Csum || !o.TSO4 || !o.TSO6 {
		t.Errorf("offloads %+v", o)
	}
	d := p.Detail().(Detail)
	if d.Interface != "port" || d.Index != sw.Index("port") || d.Kind != "veth" || d.Rings != 1 || d.Slots == 0 {
		t.Errorf("detail %+v", d)
	}
	mac := mem.MAC(77)
	sw.SetMAC("port", mac)
	awaitState(t, p, "the new address", func(s frame.State) bool { return s.MAC == mac })
	far.Down("eth0")
	awaitState(t, p, "no carrier", func(s frame.State) bool { return !s.Up && s.Reason == "no carrier" })
	far.Up("eth0")
	awaitState(t, p, "carrier", up)
}

// roundTrip fails the test unless a frame crosses the cable both ways.
func roundTrip(t *testing.T, p *Port, far *netns.Station, n int) {
	t.Helper()
	in := mem.Ethernet(frame.Broadcast, mem.MAC(1), fmt.Sprint("in ", n))
	far.Send(in)
	if got := receive(t, p, 1); string(got[0].data) != string(in) {
		t.Fatalf("round %d: received % x", n, got[0].data)
	}
	out := mem.Ethernet(frame.Broadcast, mem.MAC(2), fmt.Sprint("out ", n))
	send(t, p, out)
	if got, ok := far.Recv(5 * time.Second); !ok || string(got) != string(out) {
		t.Fatalf("round %d: the far end received % x, %v", n, got, ok)
	}
}

func TestPortSurvivesDownUpAndRename(t *testing.T) { eachWay(t, testPortSurvivesDownUpAndRename) }

func testPortSurvivesDownUpAndRename(t *testing.T) {
	sw, far := cable(t)
	p := openOn(t, sw, "port", Options{})
	station := far.Station("eth0")
	awaitState(t, p, "up", up)
	roundTrip(t, p, station, 1)

	sw.Down("port")
	awaitState(t, p, "set down", func(s frame.State) bool { return !s.Up && s.Reason == "interface is set down" })
	if n := p.Tx(0, []frame.Out{{Frame: &frame.Frame{Data: mem.Ethernet(frame.Broadcast, mem.MAC(2), "lost")}}}); n != 1 {
		t.Errorf("Tx on a device that is down took %d of 1", n)
	}
	if c := p.Counters(); c.TxErrors != 1 {
		t.Errorf("a frame lost on a device that is down: %+v", c)
	}
	sw.Run("ip", "link", "set", "port", "name", "renamed")
	sw.Up("renamed")
	awaitState(t, p, "up under another name", up)
	awaitCable(t, sw, "renamed", far, "eth0")
	if d := p.Detail().(Detail); d.Interface != "renamed" || p.Name() != "port" {
		t.Errorf("name %s, detail %+v", p.Name(), d)
	}
	roundTrip(t, p, station, 2)
}

func TestDeviceThatWentDownDoesNotKeepTheWorkerAwake(t *testing.T) {
	eachWay(t, testDeviceThatWentDownDoesNotKeepTheWorkerAwake)
}

func testDeviceThatWentDownDoesNotKeepTheWorkerAwake(t *testing.T) {
	sw, _ := cable(t)
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	for _, q := range p.Queues() {
		q.Arm()
	}
	check := func(what string) {
		t.Helper()
		for i, q := range p.Queues() {
			netns.Await(t, 10*time.Second, what, func() error {
				n, err := unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 0)
				if n != 0 || err != nil {
					return fmt.Errorf("queue %d is readable", i)
				}
				return nil
			})
		}
	}
	for range 50 {
		sw.Down("port")
		sw.Up("port") // at once: the port hears of both together
	}
	awaitState(t, p, "up", up)
	check("quiet after going up and down")
	sw.Down("port")
	awaitState(t, p, "down", func(s frame.State) bool { return !s.Up })
	check("quiet when down")
	sw.Delete("port")
	awaitState(t, p, "gone", func(s frame.State) bool { return s.Reason == "interface is gone" })
	check("quiet when gone")
}

func TestPortTakesADeletedDeviceBackByItsName(t *testing.T) {
	eachWay(t, testPortTakesADeletedDeviceBackByItsName)
}

func testPortTakesADeletedDeviceBackByItsName(t *testing.T) {
	for _, queues := range []int{1, 3} {
		t.Run(fmt.Sprint(queues, " queues"), func(t *testing.T) {
			sw, far := cable(t)
			var told atomic.Int64
			p, err := tryOpen(sw, "port", Options{Queues: queues})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := p.Start(func() { told.Add(1) }); err != nil {
				t.Fatal(err)
			}
			fds := make(map[int]bool)
			for _, q := range p.Queues() {
				fds[q.FD()] = true
				q.Arm()
			}
			for n := range 3 {
				awaitState(t, p, "up", up)
				awaitCable(t, sw, "port", far, "eth0")
				station := far.Station("eth0")
				roundTrip(t, p, station, n)
				station.Close()
				before := told.Load()
				sw.Delete("port")
				awaitState(t, p, "gone", func(s frame.State) bool { return !s.Up && !s.Gone && s.Reason == "interface is gone" })
				netns.Await(t, 10*time.Second, "news of the loss", func() error {
					if told.Load() == before {
						return errors.New("not notified")
					}
					return nil
				})
				if p.Tx(0, make([]frame.Out, 2)) != 2 {
					t.Error("Tx without a device did not take the frames")
				}
				sw.Run("ip", "link", "add", "other", "type", "veth", "peer", "name", "eth0", "netns", far.Name())
				far.Up("eth0")
				sw.Run("ip", "link", "set", "other", "name", "port", "up") // by its name, not by its birth
			}
			awaitState(t, p, "up", up)
			awaitCable(t, sw, "port", far, "eth0")
			for _, q := range p.Queues() {
				if !fds[q.FD()] {
					t.Error("a queue changed its descriptor")
				}
			}
			// A worker that sleeps hears of frames on the new device.
			station := far.Station("eth0")
			for _, q := range p.Queues() {
				q.Arm()
			}
			station.Send(mem.Ethernet(frame.Broadcast, mem.MAC(1), "wake up"))
			netns.Await(t, 10*time.Second, "wake-up", func() error {
				for _, q := range p.Queues()[1:] {
					if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 0); n > 0 {
						return nil
					}
				}
				return errors.New("no queue is readable")
			})
			receive(t, p, 1)
		})
	}
}

func TestPortFollowsItsDeviceToAnotherNamespaceAndBack(t *testing.T) {
	eachWay(t, testPortFollowsItsDeviceToAnotherNamespaceAndBack)
}

func testPortFollowsItsDeviceToAnotherNamespaceAndBack(t *testing.T) {
	lab := netns.New(t)
	sw, far, away := lab.Host("sw"), lab.Host("far"), lab.Host("away")
	lab.Cable(sw, "port", far, "eth0")
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	sw.Run("ip", "link", "set", "port", "netns", away.Name())
	awaitState(t, p, "gone", func(s frame.State) bool { return !s.Up && s.Reason == "interface is gone" })
	away.Run("ip", "link", "set", "port", "netns", sw.Name())
	sw.Up("port")
	awaitState(t, p, "up", up)
	awaitCable(t, sw, "port", far, "eth0")
	roundTrip(t, p, far.Station("eth0"), 1)
}

func TestLargerMTUGetsLargerSlotsAndLosesNothingReceivedBefore(t *testing.T) {
	eachWay(t, testLargerMTUGetsLargerSlotsAndLosesNothingReceivedBefore)
}

func testLargerMTUGetsLargerSlotsAndLosesNothingReceivedBefore(t *testing.T) {
	sw, far := cable(t)
	far.MTU("eth0", 9000)
	p := openOn(t, sw, "port", Options{})
	station := far.Station("eth0")
	small := p.Detail().(Detail).SlotBytes
	early := mem.Ethernet(frame.Broadcast, mem.MAC(1), "before")
	station.Send(early)
	netns.Await(t, 10*time.Second, "the frame in the ring", func() error {
		if !p.queues[1].Arm() {
			return errors.New("not there")
		}
		return nil
	})
	sw.MTU("port", 9000)
	awaitState(t, p, "MTU 9000", func(s frame.State) bool { return up(s) && s.MTU == 9000 })
	if d := p.Detail().(Detail); ringsOnly && (d.SlotBytes <= small || d.SlotBytes < 9014) {
		t.Errorf("slots of %d bytes, with MTU 1500 they were %d", d.SlotBytes, small)
	}
	jumbo := mem.Build(frame.Broadcast, mem.MAC(1), 0, 0x88b5, make([]byte, 9000))
	station.Send(jumbo)
	got := receive(t, p, 2)
	if string(got[0].data) != string(early) || string(got[1].data) != string(jumbo) {
		t.Errorf("received %d and %d bytes, want %d and %d", len(got[0].data), len(got[1].data), len(early), len(jumbo))
	}
	roundTrip(t, p, station, 1)
}

func TestKernelBridgeThatTakesThePortsDeviceTakesThePortDown(t *testing.T) {
	sw, _ := cable(t)
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	sw.Bridge("br0", "port")
	awaitState(t, p, "down", func(s frame.State) bool { return !s.Up && s.Reason == "belongs to kernel bridge br0" })
	sw.Run("ip", "link", "set", "port", "nomaster")
	awaitState(t, p, "up", up)
}

func TestOpenSetsTheDeviceUpOnlyWhenAsked(t *testing.T) {
	sw, _ := cable(t)
	sw.Down("port")
	p := openOn(t, sw, "port", Options{})
	if s := p.State(); s.Up || s.Reason != "interface is set down" {
		t.Errorf("state %+v", s)
	}
	p.Close()
	awaitState(t, openOn(t, sw, "port", Options{Up: true}), "up", up)
}

func TestOpeningAndClosingLeavesNothing(t *testing.T) { eachWay(t, testOpeningAndClosingLeavesNothing) }

func testOpeningAndClosingLeavesNothing(t *testing.T) {
	lab := netns.New(t)
	sw, far := lab.Host("sw"), lab.Host("far")
	names := []string{"p1", "p2", "p3", "p4"}
	for _, name := range names {
		lab.Cable(sw, name, far, name)
	}
	w := watcherOf(t, sw)
	cycle := func(name string) error {
		p, err := Open(name, Options{Watcher: w, Queues: 2, Up: true})
		if err != nil {
			return err
		}
		if err := p.Start(func() {}); err != nil {
			return err
		}
		for _, q := range p.Queues() {
			q.Rx(make([]frame.Frame, 1))
			q.Arm()
		}
		// A second Close is nothing.
		return errors.Join(p.Close(), p.Close())
	}
	cycles := func(n int) {
		done := make(chan error)
		for _, name := range names {
			go func() {
				var err error
				for range n {
					err = errors.Join(err, cycle(name))
				}
				done <- err
			}()
		}
		for range names {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	cycles(1)
	state := func() string {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		s := fmt.Sprintf("%d ring mappings, devices %v, sockets %q",
			strings.Count(string(maps), "socket:"), sw.Links(), sw.Run("cat", "/proc/net/packet"))
		for _, name := range names {
			link, err := sw.Netlink().LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			s += fmt.Sprintf(", %s promiscuous %d %q", name, link.Attrs().Promisc, sw.Run("tc", "qdisc", "show", "dev", name))
		}
		return s
	}
	before, files, goroutines := state(), openFiles(t), runtime.NumGoroutine()
	cycles(25) // a hundred in all
	if after := state(); after != before {
		t.Errorf("before: %s\nafter:  %s", before, after)
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d open files before, %d after", files, n)
	}
	netns.Await(t, 10*time.Second, "the goroutines there were before", func() error {
		if n := runtime.NumGoroutine(); n > goroutines { // those of this test take a moment to end
			return fmt.Errorf("%d before, now %d", goroutines, n)
		}
		return nil
	})
}

func TestCloseAfterTheWatcherEndedStillFreesTheDevice(t *testing.T) {
	eachWay(t, testCloseAfterTheWatcherEndedStillFreesTheDevice)
}

func testCloseAfterTheWatcherEndedStillFreesTheDevice(t *testing.T) {
	sw, _ := cable(t)
	w := watcherOf(t, sw)
	p, err := Open("port", Options{Watcher: w})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := p.Start(func() {}); err == nil {
		t.Error("started without a watcher")
	}
	p.Close()
	openOn(t, sw, "port", Options{})
}
