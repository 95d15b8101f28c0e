package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// pair is two ports with a cable between them: what one sends the other lends.
func pair(t *testing.T, o Options) (a, b *Port) {
	t.Helper()
	sw, far := cable(t)
	a, b = openOn(t, sw, "port", o), openOn(t, far, "eth0", o)
	awaitState(t, a, "up", up)
	awaitState(t, b, "up", up)
	return a, b
}

// numbered is a frame of that length with a number in it.
func numbered(n, length int) []byte {
	b := mem.Build(frame.Broadcast, mem.MAC(9), 0, 0x88b5, make([]byte, length-frame.HeaderLen))
	binary.BigEndian.PutUint32(b[frame.HeaderLen:], uint32(n))
	return b
}

func number(b []byte) int { return int(binary.BigEndian.Uint32(b[frame.HeaderLen:])) }

// gso makes a frame one that is to be segmented, so that it may exceed the MTU:
// UDP over IPv4 with all the headers that the kernel looks at.
func gso(n, length int) frame.Out {
	b := numbered(n, length)
	ip := b[frame.HeaderLen:]
	number := binary.BigEndian.Uint32(ip)
	copy(ip, []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(b[12:], frame.EtherTypeIPv4)
	binary.BigEndian.PutUint16(ip[2:], uint16(min(length-frame.HeaderLen, 65535)))
	tcp := ip[20:]
	binary.BigEndian.PutUint32(tcp[4:], number) // the sequence number
	tcp[12] = 5 << 4
	return frame.Out{Frame: &frame.Frame{Data: b, Hdr: frame.VnetHdr{
		Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16,
	}}}
}

func gsoNumber(b []byte) int { return int(binary.BigEndian.Uint32(b[38:])) }

func TestFramesKeepTheirBytesLengthAndOrder(t *testing.T) {
	eachWay(t, testFramesKeepTheirBytesLengthAndOrder)
}

func testFramesKeepTheirBytesLengthAndOrder(t *testing.T) {
	a, b := pair(t, Options{})
	var want [][]byte
	for i, length := range []int{60, 61, 64, 127, 128, 1513, 1514} {
		want = append(want, numbered(i, length))
	}
	for i := range 200 {
		want = append(want, numbered(100+i, 60+7*i))
	}
	send(t, a, want...)
	for i, got := range receive(t, b, len(want)) {
		if !bytes.Equal(got.data, want[i]) || got.tag != 0 || !got.hdr.Plain() {
			t.Fatalf("frame %d: %d bytes % x, header %+v, want %d bytes", i, len(got.data), got.data[:20], got.hdr, len(want[i]))
		}
	}
	if len(take(a)) != 0 {
		t.Error("a port receives what it sends")
	}
}

func TestFramesLongerThanASlotComeWholeAndInOrder(t *testing.T) {
	eachWay(t, testFramesLongerThanASlotComeWholeAndInOrder)
}

func testFramesLongerThanASlotComeWholeAndInOrder(t *testing.T) {
	a, b := pair(t, Options{})
	// 65535 is the most that the kernel sends unsegmented (gso_max_size).
	lengths := []int{65535, 60, 40000, 1514, 1515 + 100, 65534, 2000, 64, 30000, 60000, 60000, 60000, 60000, 60000, 60000, 60}
	for i, length := range lengths {
		o := gso(i, max(length, 80))
		if length <= 1514 {
			o.Hdr = frame.VnetHdr{}
		}
		if a.Tx(0, []frame.Out{o}) != 1 {
			t.Fatal("no room to send")
		}
	}
	got := receive(t, b, len(lengths))
	for i, g := range got {
		want := gso(i, max(lengths[i], 80))
		if !bytes.Equal(g.data, want.Data) {
			t.Errorf("frame %d: number %d, %d bytes, want %d", i, gsoNumber(g.data), len(g.data), len(want.Data))
		}
		if lengths[i] > 1514 && (g.hdr.GSOType != frame.GSOTCPv4 || g.hdr.GSOSize != 1448 || g.hdr.CsumStart != 34 || g.hdr.CsumOffset != 16 || g.hdr.Flags&frame.HdrNeedsCsum == 0) {
			t.Errorf("frame %d: header %+v", i, g.hdr)
		}
	}
	if c, d := a.Counters(), b.Counters(); c != (frame.Counters{}) || d != (frame.Counters{}) {
		t.Errorf("counters %+v, %+v", c, d)
	}
}

func TestLentFramesStayUntilReleaseHoweverManyCalls(t *testing.T) {
	eachWay(t, testLentFramesStayUntilReleaseHoweverManyCalls)
}

func testLentFramesStayUntilReleaseHoweverManyCalls(t *testing.T) {
	a, b := pair(t, Options{})
	const n = 20
	for i := range n {
		if i%4 == 0 {
			a.Tx(0, []frame.Out{gso(i, 50000)})
		} else {
			a.Tx(0, []frame.Out{{Frame: &frame.Frame{Data: gso(i, 80).Data}}})
		}
	}
	q := b.queues[1]
	var lent []frame.Frame
	var buf [1]frame.Frame
	netns.Await(t, 10*time.Second, "frames, one at a call", func() error {
		for q.Rx(buf[:]) == 1 {
			lent = append(lent, buf[0])
		}
		// Five long frames are more than are lent at once; the fifth waits.
		if len(lent) < 16 {
			return fmt.Errorf("%d so far", len(lent))
		}
		return nil
	})
	for i, f := range lent {
		if gsoNumber(f.Data) != i {
			t.Errorf("frame %d has become number %d", i, gsoNumber(f.Data))
		}
	}
	first := len(lent)
	q.Release()
	for i, g := range receive(t, b, n-first) {
		if gsoNumber(g.data) != first+i {
			t.Errorf("frame %d after Release is number %d", i, gsoNumber(g.data))
		}
	}
}

func TestRingThatIsFullCountsWhatItLosesAndRecovers(t *testing.T) {
	eachWay(t, testRingThatIsFullCountsWhatItLosesAndRecovers)
}

func testRingThatIsFullCountsWhatItLosesAndRecovers(t *testing.T) {
	a, b := pair(t, Options{RingBytes: 2 * blockSize})
	slots := b.Detail().(Detail).Slots
	const extra = 100
	for i := range slots + extra {
		send(t, a, numbered(i, 60))
	}
	got := receive(t, b, slots)
	for i, g := range got {
		if number(g.data) != i {
			t.Fatalf("frame %d is number %d", i, number(g.data))
		}
	}
	if c := b.Counters(); c.RxDropped != extra || c.RxErrors != 0 {
		t.Errorf("counters %+v, want %d dropped", c, extra)
	}
	for i := range slots { // once around, from wherever the kernel stands
		send(t, a, numbered(i, 60))
	}
	for i, g := range receive(t, b, slots) {
		if number(g.data) != i {
			t.Fatalf("second time around, frame %d is number %d", i, number(g.data))
		}
	}
	if c := b.Counters(); c.RxDropped != extra {
		t.Errorf("counters %+v, still want %d dropped", c, extra)
	}
}

func TestLongFramesWithoutRoomForACopyAreCountedNotCutShort(t *testing.T) {
	eachWay(t, testLongFramesWithoutRoomForACopyAreCountedNotCutShort)
}

func testLongFramesWithoutRoomForACopyAreCountedNotCutShort(t *testing.T) {
	a, b := pair(t, Options{})
	const n = 400 // 24 MiB, where bigBuffer is 8 and an intake 2
	for i := range n {
		for a.Tx(0, []frame.Out{gso(i, 60000)}) == 0 {
		}
	}
	var got []lent
	netns.Await(t, 10*time.Second, "an end", func() error {
		got = append(got, take(b)...)
		if lost := int(b.Counters().RxDropped); len(got)+lost != n {
			return fmt.Errorf("%d frames and %d lost", len(got), lost)
		}
		return nil
	})
	last := -1
	for _, g := range got {
		if len(g.data) != 60000 || gsoNumber(g.data) <= last {
			t.Fatalf("number %d after %d, %d bytes", gsoNumber(g.data), last, len(g.data))
		}
		last = gsoNumber(g.data)
	}
	if len(got) == n || len(got) < 30 {
		t.Errorf("%d of %d frames came", len(got), n)
	}
	a.Tx(0, []frame.Out{gso(n, 60000)})
	if g := receive(t, b, 1); gsoNumber(g[0].data) != n {
		t.Errorf("after the loss, number %d", gsoNumber(g[0].data))
	}
}

// bigTCP has a host's device make GSO frames of up to 200,000 bytes.
func bigTCP(t *testing.T, h *netns.Host, device string) {
	t.Helper()
	link, err := h.Netlink().LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	netns.Need(t, "BIG TCP (Linux 6.3)", h.Netlink().LinkSetGSOIPv4MaxSize(link, 200000))
	netns.Need(t, "BIG TCP (Linux 6.3)", h.Netlink().LinkSetGROIPv4MaxSize(link, 200000))
	netns.Need(t, "BIG TCP (Linux 5.19)", h.Netlink().LinkSetGSOMaxSize(link, 200000))
	netns.Need(t, "BIG TCP (Linux 5.19)", h.Netlink().LinkSetGROMaxSize(link, 200000))
}

// Where the devices allow GSO frames beyond 64 KiB ("BIG TCP"), they come in parts
// that are no longer, by an intake. A ring refuses and counts them. What comes
// after them is what it is.
func TestFramesBeyondTheLimit(t *testing.T) { eachWay(t, testFramesBeyondTheLimit) }

func testFramesBeyondTheLimit(t *testing.T) {
	sw, far := cable(t)
	bigTCP(t, far, "eth0")
	a, b := openOn(t, far, "eth0", Options{}), openOn(t, sw, "port", Options{})
	awaitState(t, b, "up", up)
	const header = 54
	type arrival struct{ from, bytes int } // of TCP's payload
	var want []arrival
	refused := 0
	for i, length := range []int{30000, 150000, 40000, frame.MaxLen + 1, 80, frame.MaxLen} {
		start := i * 1000000
		if a.Tx(0, []frame.Out{gso(start, length)}) != 1 {
			t.Fatal("no room")
		}
		payload := length - header
		switch {
		case length <= frame.MaxLen:
			want = append(want, arrival{start, payload})
		case ringsOnly:
			refused++
		default:
			const part = (frame.MaxMTU - 40) / 1448 * 1448
			for off := 0; off < payload; off += part {
				want = append(want, arrival{start + off, min(part, payload-off)})
			}
		}
	}
	for i, g := range receive(t, b, len(want)) {
		if got := (arrival{gsoNumber(g.data), len(g.data) - header}); got != want[i] {
			t.Errorf("frame %d: %+v, want %+v", i, got, want[i])
		}
	}
	if c := b.Counters(); c.RxErrors != uint64(refused) || c.RxDropped != 0 {
		t.Errorf("counters %+v, want %d errors", c, refused)
	}
}

func TestBigTCPCrosses(t *testing.T) {
	s := segments[0].build(t, 1500)
	bigTCP(t, s.a, s.aDev)
	bigTCP(t, s.b, s.bDev)
	for _, ipv6 := range []bool{false, true} {
		_, addr := s.address(ipv6)
		s.a.Reaches(addr.String())
		before := s.crossed.parts.Load()
		s.a.Transfer(s.b, addr, 64<<20, 30*time.Second)
		if s.crossed.parts.Load() == before {
			t.Errorf("IPv6 %v: no frame was in parts: this proves little", ipv6)
		}
	}
	if n := s.crossed.longestTCP.Load(); n < 60000 || n > frame.MaxLen {
		t.Errorf("the longest TCP frame that crossed has %d bytes", n)
	}
	for _, h := range []*netns.Host{s.a, s.b} {
		if n := h.ChecksumErrors(); n != 0 {
			t.Errorf("host %s saw %d wrong checksums", h, n)
		}
	}
}

func TestFanoutKeepsEachFlowInOrderAndOnce(t *testing.T) {
	eachWay(t, testFanoutKeepsEachFlowInOrderAndOnce)
}

func testFanoutKeepsEachFlowInOrderAndOnce(t *testing.T) {
	sw, far := cable(t)
	b := openOn(t, sw, "port", Options{Queues: 4, RingBytes: 4 << 20})
	a := openOn(t, far, "eth0", Options{})
	awaitState(t, b, "up", up)
	const flows, each = 64, 30
	for i := range each {
		for f := range flows {
			o := gso(i, 100)
			o.Hdr = frame.VnetHdr{}
			binary.BigEndian.PutUint16(o.Data[34:], uint16(1000+f)) // source port
			send(t, a, o.Data)
		}
	}
	got := receive(t, b, flows*each)
	queueOf := make(map[uint16]int)
	next := make(map[uint16]int)
	load := make(map[int]int)
	for _, g := range got {
		flow := binary.BigEndian.Uint16(g.data[34:])
		if q, seen := queueOf[flow]; seen && q != g.queue {
			t.Fatalf("flow %d came by queues %d and %d", flow, q, g.queue)
		}
		queueOf[flow] = g.queue
		if n := gsoNumber(g.data); n != next[flow] {
			t.Fatalf("flow %d: frame %d where %d was due", flow, n, next[flow])
		}
		next[flow]++
		load[g.queue]++
	}
	if len(load) < 2 {
		t.Errorf("all %d flows came by one queue", flows)
	}
	// A group has its own idea of outgoing frames.
	for i := range 4 {
		if n := b.Tx(i, []frame.Out{{Frame: &frame.Frame{Data: numbered(i, 60)}}}); n != 1 {
			t.Fatal("no room")
		}
	}
	receive(t, a, 4)
	if own := take(b); len(own) != 0 {
		t.Errorf("the port received %d of the frames it sent", len(own))
	}
}

// there is ready, but that it arms nothing.
func there(r receiver) bool {
	if in, ok := r.(*intake); ok {
		_, ok := in.next()
		return ok
	}
	return r.ready()
}

// A queue that is busy spares its senders the wake-up, and one that is armed
// again wakes.
func TestBusyQueueWakesNobodyUntilItIsArmedAgain(t *testing.T) {
	eachWay(t, testBusyQueueWakesNobodyUntilItIsArmedAgain)
}

func testBusyQueueWakesNobodyUntilItIsArmedAgain(t *testing.T) {
	a, b := pair(t, Options{})
	q := b.Queues()[1]
	readable := func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 0)
		return err == nil && n == 1
	}
	for range 3 {
		q.Arm()
		for i := range busySpell {
			send(t, a, numbered(i, 60))
		}
		receive(t, b, busySpell)
		send(t, a, numbered(1, 60))
		netns.Await(t, 10*time.Second, "a frame", func() error {
			if !there(b.queues[1].cur) {
				return errors.New("not there")
			}
			return nil
		})
		if readable() {
			t.Error("readable while busy")
		}
		if !q.Arm() {
			t.Error("Arm overlooks the frame")
		}
		send(t, a, numbered(2, 60))
		netns.Await(t, 10*time.Second, "readable", func() error {
			if !readable() {
				return errors.New("not readable after Arm and another frame")
			}
			return nil
		})
		receive(t, b, 2)
	}
}

func TestQueueSaysWhenItHasFrames(t *testing.T) { eachWay(t, testQueueSaysWhenItHasFrames) }

func testQueueSaysWhenItHasFrames(t *testing.T) {
	a, b := pair(t, Options{})
	q := b.Queues()[1]
	if q.Arm() {
		t.Error("armed with frames that nobody sent")
	}
	readable := func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 0)
		return err == nil && n == 1
	}
	if readable() {
		t.Error("readable without frames")
	}
	send(t, a, numbered(1, 60))
	netns.Await(t, 10*time.Second, "readable", func() error {
		if !readable() {
			return errors.New("not yet")
		}
		return nil
	})
	if !q.Arm() {
		t.Error("Arm overlooks the frame")
	}
	receive(t, b, 1)
	if q.Arm() || readable() {
		t.Error("still readable after Release")
	}
}

// A guest writes what it likes to its tap. What looks like a BPDU is left to the
// control socket, and must not stay in the ring.
func TestRingSurvivesNothingButLongBPDUs(t *testing.T) {
	eachWay(t, testRingSurvivesNothingButLongBPDUs)
}

func testRingSurvivesNothingButLongBPDUs(t *testing.T) {
	sw, _ := cable(t)
	guest := openTap(t, sw, "guest", 1500)
	p := openOn(t, sw, "guest", Options{})
	awaitState(t, p, "up", up)
	bpdu := numbered(0, 60000)
	copy(bpdu, []byte{1, 0x80, 0xc2, 0, 0, 0})
	copy(bpdu[12:], []byte{0, 38, 0x42, 0x42, 3, 0, 0, 2, 2})
	last := numbered(7, 60)
	for range 40 {
		if n := guest.Tx(0, []frame.Out{{Frame: &frame.Frame{Data: bpdu}}}); n != 1 {
			t.Fatal("the tap did not take a BPDU")
		}
	}
	guest.Tx(0, []frame.Out{{Frame: &frame.Frame{Data: last}}})
	netns.Await(t, 10*time.Second, "the frame behind the BPDUs", func() error {
		for _, l := range take(p) {
			if bytes.Equal(l.data, last) {
				return nil
			}
		}
		return errors.New("not yet")
	})
}
