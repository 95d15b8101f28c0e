package afpacket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/porttest"
	"github.com/kvswitch/kvswitch/switch/porttest/netlab"
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
	b := porttest.Build(frame.Broadcast, porttest.MAC(9), 0, 0x88b5, make([]byte, length-frame.HeaderLen))
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
	netlab.Await(t, 10*time.Second, "frames, one at a call", func() error {
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
	a, b := pair(t, Options{})
	const n = 400 // 24 MiB, where bigBuffer is 8
	for i := range n {
		for a.Tx(0, []frame.Out{gso(i, 60000)}) == 0 {
		}
	}
	var got []lent
	netlab.Await(t, 10*time.Second, "an end", func() error {
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
	if len(got) == n || len(got) < 50 {
		t.Errorf("%d of %d frames came", len(got), n)
	}
	a.Tx(0, []frame.Out{gso(n, 60000)})
	if g := receive(t, b, 1); gsoNumber(g[0].data) != n {
		t.Errorf("after the loss, number %d", gsoNumber(g[0].data))
	}
}

// Where the devices allow GSO frames beyond 64 KiB ("BIG TCP"), they are refused
// and counted, and what comes after them is what it is.
func TestFramesBeyondTheLimitAreRefusedAlone(t *testing.T) {
	sw, far := cable(t)
	link, err := far.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := far.Netlink().LinkSetGSOIPv4MaxSize(link, 200000); err != nil {
		t.Skipf("this kernel has no BIG TCP: %v", err) // Linux 6.3
	}
	a, b := openOn(t, far, "eth0", Options{}), openOn(t, sw, "port", Options{})
	awaitState(t, b, "up", up)
	for i, length := range []int{30000, 150000, 40000, frame.MaxLen + 1, 60} {
		o := gso(i, max(length, 80))
		if length == 60 {
			o.Hdr = frame.VnetHdr{}
		}
		if a.Tx(0, []frame.Out{o}) != 1 {
			t.Fatal("no room")
		}
	}
	for i, g := range receive(t, b, 3) {
		if gsoNumber(g.data) != 2*i {
			t.Errorf("frame %d is number %d of %d bytes", i, gsoNumber(g.data), len(g.data))
		}
	}
	if c := b.Counters(); c.RxErrors != 2 || c.RxDropped != 0 {
		t.Errorf("counters %+v, want 2 errors", c)
	}
}

func TestControlFramesPassAFloodOfData(t *testing.T) {
	a, b := pair(t, Options{RingBytes: 2 * blockSize})
	linkLocal := []frame.MAC{
		{0x01, 0x80, 0xc2, 0, 0, 0}, {0x01, 0x80, 0xc2, 0, 0, 2}, {0x01, 0x80, 0xc2, 0, 0, 0x0e}, {0x01, 0x80, 0xc2, 0, 0, 0x0f},
	}
	ordinary := []frame.MAC{
		{0x01, 0x80, 0xc2, 0, 0, 0x10}, {0x01, 0x80, 0xc2, 0, 1, 0}, {0x01, 0x80, 0xc2, 1, 0, 0}, {0x01, 0x80, 0xc3, 0, 0, 0}, {0x00, 0x80, 0xc2, 0, 0, 0},
	}
	var want []byte
	for _, dst := range append(linkLocal, ordinary...) {
		send(t, a, porttest.Ethernet(dst, porttest.MAC(1), "who gets it"))
	}
	for _, g := range receive(t, b, len(linkLocal)+len(ordinary)) {
		if dst := frame.MAC(g.data[:6]); dst.IsLinkLocal() != (g.queue == 0) {
			t.Errorf("%v came by queue %d", dst, g.queue)
		}
	}
	for i := range 10 * b.Detail().(Detail).Slots {
		send(t, a, numbered(i, 60))
	}
	tagged := porttest.Build(linkLocal[0], porttest.MAC(1), frame.MakeTag(0x88a8, 7, 100), 0x88b5, []byte("tagged"))
	for i := range 20 {
		want = porttest.Ethernet(linkLocal[0], porttest.MAC(1), fmt.Sprint("hello ", i))
		if i == 10 {
			want = tagged
		}
		send(t, a, want)
	}
	i := 0
	for _, g := range take(b) {
		if g.queue != 0 {
			continue
		}
		if i == 10 {
			if !bytes.Equal(g.wire(), tagged) || g.tag != frame.MakeTag(0x88a8, 7, 100) {
				t.Errorf("tagged control frame came as % x, tag %x", g.data, g.tag)
			}
		} else if !bytes.Contains(g.data, fmt.Append(nil, "hello ", i)) {
			t.Errorf("control frame %d is % x", i, g.data)
		}
		i++
	}
	if i != 20 {
		t.Errorf("%d of 20 control frames came through the flood", i)
	}
	if b.Counters().RxDropped == 0 {
		t.Error("it was no flood")
	}
}

// A worker that spins without end arms nothing. It asks epoll about queues that
// are not polled, also after many frames.
func TestControlQueueIsReadableWithoutArm(t *testing.T) {
	a, b := pair(t, Options{})
	q := b.Queues()[0]
	for i := range 3 * busySpell {
		send(t, a, porttest.Ethernet(frame.MAC{0x01, 0x80, 0xc2}, porttest.MAC(i), "hello"))
		netlab.Await(t, 10*time.Second, "readable", func() error {
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 0); n != 1 {
				return fmt.Errorf("frame %d: poll says %d, %v", i, n, err)
			}
			return nil
		})
		receive(t, b, 1)
	}
}

func TestControlQueueLendsNothingTwiceBeforeRelease(t *testing.T) {
	a, b := pair(t, Options{})
	dst := frame.MAC{0x01, 0x80, 0xc2, 0, 0, 0}
	for i := range 2 * controlBatch {
		send(t, a, porttest.Ethernet(dst, porttest.MAC(1), string(rune('a'+i))))
	}
	q := b.Queues()[0]
	var first, second [frame.BatchSize]frame.Frame
	n := 0
	netlab.Await(t, 10*time.Second, "control frames", func() error {
		if n = q.Rx(first[:]); n == 0 {
			return errors.New("none")
		}
		return nil
	})
	if q.Rx(second[:]) != 0 || first[0].Data[frame.HeaderLen] != 'a' {
		t.Error("lent frames were overwritten")
	}
	q.Release()
	if q.Polled() || !b.Queues()[1].Polled() {
		t.Error("the ring is looked at, the control queue is asked")
	}
}

func TestTagsComeBesideTheFrameAndLeaveInIt(t *testing.T) {
	a, b := pair(t, Options{})
	src := porttest.MAC(3)
	payload := bytes.Repeat([]byte("tagged "), 12)
	inner := porttest.Build(frame.Broadcast, src, frame.MakeTag(0x8100, 3, 42), 0x88b5, payload)
	for _, tag := range []frame.Tag{
		frame.MakeTag(0x8100, 0, 1), frame.MakeTag(0x8100, 0, 0), frame.MakeTag(0x8100, 14, 0), frame.MakeTag(0x8100, 15, 4095),
		frame.MakeTag(0x88a8, 0, 1), frame.MakeTag(0x88a8, 9, 4094), frame.MakeTag(0x88a8, 0, 0),
	} {
		untagged := porttest.Build(frame.Broadcast, src, 0, 0x88b5, payload)
		for _, c := range []struct {
			what string
			out  frame.Out
			data []byte // what must come
		}{
			{"put in", frame.Out{Frame: &frame.Frame{Data: untagged}, EgressTag: tag}, untagged},
			{"in band already", frame.Out{Frame: &frame.Frame{Data: porttest.Build(frame.Broadcast, src, tag, 0x88b5, payload)}}, untagged},
			{"in place of another", frame.Out{Frame: &frame.Frame{Data: inner, Strip: 4, Tag: frame.MakeTag(0x8100, 3, 42)}, EgressTag: tag}, untagged},
			{"around another", frame.Out{Frame: &frame.Frame{Data: inner}, EgressTag: tag}, inner},
			{"in pieces", frame.Out{Frame: &frame.Frame{Data: untagged[:14], Rest: [][]byte{untagged[14:20], nil, untagged[20:]}}, EgressTag: tag}, untagged},
		} {
			if a.Tx(0, []frame.Out{c.out}) != 1 {
				t.Fatal("no room")
			}
			got := receive(t, b, 1)[0]
			if got.tag != tag || !bytes.Equal(got.data, c.data) {
				t.Errorf("tag %08x %s: came with %08x and % x", uint32(tag), c.what, uint32(got.tag), got.data)
			}
		}
	}
	// Without a tag, and stripped of one.
	for _, o := range []frame.Out{
		{Frame: &frame.Frame{Data: inner, Strip: 4, Tag: frame.MakeTag(0x8100, 3, 42)}},
		{Frame: &frame.Frame{Data: porttest.Build(frame.Broadcast, src, 0, 0x88b5, payload), Tag: frame.MakeTag(0x8100, 0, 7)}},
	} {
		a.Tx(0, []frame.Out{o})
		if got := receive(t, b, 1)[0]; got.tag != 0 || !bytes.Equal(got.data, porttest.Build(frame.Broadcast, src, 0, 0x88b5, payload)) {
			t.Errorf("untagged: came with %08x and % x", uint32(got.tag), got.data)
		}
	}
	if c := a.Counters(); c.TxErrors != 0 {
		t.Errorf("counters %+v", c)
	}
}

// Offsets in the header count from the frame as the receiver sees it, without
// the tag that comes beside it, and move when a tag goes in band.
func TestOffloadOffsetsExcludeTheTag(t *testing.T) {
	a, b := pair(t, Options{})
	tag := frame.MakeTag(0x8100, 0, 5)
	plain := gso(1, 3000)
	inBand := gso(1, 3000)
	inBand.Data = (&frame.Out{Frame: plain.Frame, EgressTag: tag}).AppendWire(nil)
	inBand.Hdr.CsumStart += 4
	inBand.Hdr.HdrLen += 4
	stripped := inBand
	stripped.Frame = &frame.Frame{Data: inBand.Data, Hdr: inBand.Hdr, Strip: 4, Tag: tag}
	for what, c := range map[string]struct {
		out frame.Out
		tag frame.Tag
	}{
		"untagged":           {plain, 0},
		"put in":             {frame.Out{Frame: plain.Frame, EgressTag: tag}, tag},
		"in band, untouched": {inBand, tag},
		"taken out":          {stripped, 0},
		"replaced":           {frame.Out{Frame: stripped.Frame, EgressTag: tag.WithVID(9)}, tag.WithVID(9)},
	} {
		a.Tx(0, []frame.Out{c.out})
		got := receive(t, b, 1)[0]
		if got.tag != c.tag || got.hdr.CsumStart != 34 || got.hdr.CsumOffset != 16 || got.hdr.GSOSize != 1448 || !bytes.Equal(got.data, plain.Data) {
			t.Errorf("%s: tag %08x header %+v, %d bytes", what, uint32(got.tag), got.hdr, len(got.data))
		}
	}
}

func TestFanoutKeepsEachFlowInOrderAndOnce(t *testing.T) {
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

// A queue that is busy spares its senders the wake-up, and one that is armed
// again wakes.
func TestBusyQueueWakesNobodyUntilItIsArmedAgain(t *testing.T) {
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
		netlab.Await(t, 10*time.Second, "a frame", func() error {
			if !b.queues[1].cur.ready() {
				return errors.New("not there")
			}
			return nil
		})
		if readable() {
			t.Error("readable while busy")
		}
		if !q.Arm() || !readable() {
			t.Error("not readable after Arm")
		}
		receive(t, b, 1)
	}
}

func TestQueueSaysWhenItHasFrames(t *testing.T) {
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
	netlab.Await(t, 10*time.Second, "readable", func() error {
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
