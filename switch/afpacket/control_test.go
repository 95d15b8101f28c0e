package afpacket

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/porttest"
	"github.com/kvswitch/kvswitch/switch/porttest/netlab"
)

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
