package netdev

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

func TestFrameThatTheKernelRefusesCostsOnlyItself(t *testing.T) {
	a, b := pair(t, Options{})
	good := func(n int) frame.Out { return frame.Out{Frame: &frame.Frame{Data: numbered(n, 60)}} }
	bad := map[string]frame.Out{
		"longer than the MTU":          {Frame: &frame.Frame{Data: numbered(9, 1600)}},
		"segments of nothing":          {Frame: &frame.Frame{Data: numbered(9, 1600), Hdr: frame.VnetHdr{GSOType: frame.GSOTCPv4}}},
		"no such segmentation":         {Frame: &frame.Frame{Data: numbered(9, 1600), Hdr: frame.VnetHdr{GSOType: 77, GSOSize: 100}}},
		"checksum beyond the end":      {Frame: &frame.Frame{Data: numbered(9, 60), Hdr: frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 5000}}},
		"more pieces than are allowed": {Frame: &frame.Frame{Data: numbered(9, 60), Rest: make([][]byte, sysio.MaxIovecs)}},
	}
	for what, o := range bad {
		before := a.Counters().TxErrors
		if n := a.Tx(0, []frame.Out{good(0), o, good(1), o, o, good(2)}); n != 6 {
			t.Errorf("%s: %d of 6 frames taken care of", what, n)
		}
		for i, g := range receive(t, b, 3) {
			if number(g.data) != i {
				t.Errorf("%s: frame %d is number %d", what, i, number(g.data))
			}
		}
		if n := a.Counters().TxErrors - before; n != 3 {
			t.Errorf("%s: %d errors counted, want 3", what, n)
		}
	}
}

// What the kernel finds out only while it sends is no reason to give the others up.
func TestFrameThatCannotBeSentCostsOnlyItself(t *testing.T) {
	good := func(n int) frame.Out { return frame.Out{Frame: &frame.Frame{Data: numbered(n, 60)}} }
	wrong := gso(9, 5000)
	wrong.Hdr.CsumStart += 50 // where there is no TCP header
	for what, c := range map[string]struct {
		frame  frame.Out
		ofHost string // who runs the command
		argv   []string
	}{
		"longer than the peer's MTU": {frame.Out{Frame: &frame.Frame{Data: numbered(9, 1500)}}, "far", []string{"ip", "link", "set", "eth0", "mtu", "1000"}},
		"not to be segmented":        {wrong, "sw", []string{"ethtool", "-K", "port", "tso", "off"}},
	} {
		sw, far := cable(t)
		map[string]*netns.Host{"sw": sw, "far": far}[c.ofHost].Run(c.argv...)
		a, b := openOn(t, sw, "port", Options{}), openOn(t, far, "eth0", Options{})
		awaitState(t, a, "up", up)
		awaitState(t, b, "up", up)
		before := a.Counters().TxErrors
		if n := a.Tx(0, []frame.Out{good(0), c.frame, good(1), c.frame, good(2)}); n != 5 {
			t.Errorf("%s: %d of 5 frames taken care of", what, n)
		}
		for i, g := range receive(t, b, 3) {
			if number(g.data) != i {
				t.Errorf("%s: frame %d is number %d", what, i, number(g.data))
			}
		}
		if n := a.Counters().TxErrors - before; n != 2 {
			t.Errorf("%s: %d errors counted, want 2", what, n)
		}
	}
}

// A header length is a hint that senders get wrong (virtio 1.2, 5.1.6.2).
func TestWrongHeaderLengthDoesNoHarm(t *testing.T) {
	a, b := pair(t, Options{})
	for _, length := range []uint16{0, 1, 54, 1000, 3000, 65535} {
		o := gso(7, 3000)
		o.Hdr.HdrLen = length
		pieces := o
		pieces.Frame = &frame.Frame{Data: o.Data[:20], Rest: [][]byte{o.Data[20:40], o.Data[40:]}, Hdr: o.Hdr}
		if n := a.Tx(0, []frame.Out{o, pieces}); n != 2 {
			t.Fatalf("hint %d: %d of 2 taken", length, n)
		}
		for _, g := range receive(t, b, 2) {
			if !bytes.Equal(g.data, o.Data) {
				t.Errorf("hint %d: %d bytes came", length, len(g.data))
			}
		}
	}
	if c := a.Counters(); c.TxErrors != 0 {
		t.Errorf("%+v", c)
	}
}

// The frames that found no room are the last ones of the batch, and left to the
// caller to count.
func TestWantOfRoomIsAShortfall(t *testing.T) {
	sw, _ := cable(t)
	p := openOn(t, sw, "port", Options{})
	awaitState(t, p, "up", up)
	out := make([]frame.Out, frame.BatchSize)
	for i := range out {
		out[i] = frame.Out{Frame: &frame.Frame{Data: numbered(i, 1514)}}
	}
	for what, c := range map[string]struct {
		limit string // of the queueing discipline, in bytes
		room  int    // SO_SNDBUF
	}{
		"the socket is full":              {"100000000", 32 << 10},
		"the queueing discipline is full": {"20000", 16 << 20},
	} {
		sw.Run("tc", "qdisc", "replace", "dev", "port", "root", "tbf", "rate", "8kbit", "burst", "2000", "limit", c.limit)
		setBuffer(p.lanes[0].fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, c.room)
		if n := p.Tx(0, out); n < 5 || n > 40 {
			t.Errorf("%s: %d of %d frames taken", what, n, len(out))
		}
		if n := p.Tx(0, out); n > 2 {
			t.Errorf("%s: %d more frames taken", what, n)
		}
		sw.Run("tc", "qdisc", "del", "dev", "port", "root")
		netns.Await(t, 10*time.Second, "room again", func() error {
			if n := p.Tx(0, out); n != len(out) {
				return fmt.Errorf("%d of %d taken", n, len(out))
			}
			return nil
		})
	}
	if c := p.Counters(); c.TxErrors != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestTransmitFromManyGoroutinesLosesNothing(t *testing.T) {
	a, b := pair(t, Options{Queues: 2, RingBytes: 4 << 20})
	const senders, each = 4, 300
	done := make(chan int)
	for s := range senders {
		go func() {
			taken := 0
			for i := range each {
				o := frame.Out{Frame: &frame.Frame{Data: numbered(s<<16|i, 60)}}
				for a.Tx(s, []frame.Out{o}) == 0 {
				}
				taken++
			}
			done <- taken
		}()
	}
	for range senders {
		<-done
	}
	next := make([]int, senders)
	for _, g := range receive(t, b, senders*each) {
		n := number(g.data)
		if next[n>>16] != n&0xffff {
			t.Fatalf("sender %d: frame %d where %d was due", n>>16, n&0xffff, next[n>>16])
		}
		next[n>>16]++
	}
}

// What the switch sends on a port can be seen there, as operators expect of
// tcpdump.
func TestCaptureOnThePortSeesBothDirections(t *testing.T) {
	sw, far := cable(t)
	p := openOn(t, sw, "port", Options{})
	station := far.Station("eth0")
	awaitState(t, p, "up", up)
	var fd int
	if err := sw.Do(func() (err error) { fd, err = openSocket(sw.Index("port"), false, nil); return err }); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := start(fd, sw.Index("port"), unix.ETH_P_ALL); err != nil {
		t.Fatal(err)
	}
	in, out := mem.Ethernet(frame.Broadcast, mem.MAC(1), "in"), mem.Ethernet(frame.Broadcast, mem.MAC(2), "out")
	station.Send(in)
	receive(t, p, 1)
	send(t, p, out)
	var seen [][]byte
	netns.Await(t, 10*time.Second, "the capture", func() error {
		b := make([]byte, 2000)
		for {
			n, errno := sysio.Read(fd, b)
			if errno != 0 {
				break
			}
			seen = append(seen, bytes.Clone(b[vnetLen:n]))
		}
		if len(seen) < 2 {
			return unix.EAGAIN
		}
		return nil
	})
	if !bytes.Equal(seen[0], in) || !bytes.Equal(seen[1], out) {
		t.Errorf("captured %x", seen)
	}
}

func TestReceivingAndSendingAllocateNothing(t *testing.T) {
	eachWay(t, testReceivingAndSendingAllocateNothing)
}

func testReceivingAndSendingAllocateNothing(t *testing.T) {
	a, b := pair(t, Options{Queues: 2})
	data := numbered(1, 60)
	out := []frame.Out{
		{Frame: &frame.Frame{Data: data}},
		{Frame: &frame.Frame{Data: data}, EgressTag: frame.MakeTag(0x8100, 0, 5)},
		{Frame: &frame.Frame{Data: data[:20], Rest: [][]byte{data[20:40], data[40:]}}},
		{Frame: &frame.Frame{Data: bpdu(0)}},
		gso(1, 60000),
	}
	var frames [frame.BatchSize]frame.Frame
	total := 0
	if n := testing.AllocsPerRun(200, func() {
		a.Tx(1, out)
		for _, q := range b.queues {
			total += q.Rx(frames[:])
			q.Release()
			q.Arm()
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if total == 0 {
		t.Error("nothing was received")
	}
}
