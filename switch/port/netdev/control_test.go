package netdev

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// bpdu is a frame with the addresses of one, to 01:80:c2:00:00:NN, whose number
// of use is in its payload.
func bpdu(last byte, payload ...byte) []byte {
	b := mem.Build(frame.MAC{0x01, 0x80, 0xc2, 0, 0, last}, mem.MAC(1), 0, 38, append([]byte{0x42, 0x42, 3, 0, 0}, payload...))
	return b
}

func TestBPDUsPassAFloodOfData(t *testing.T) { eachWay(t, testBPDUsPassAFloodOfData) }

func testBPDUsPassAFloodOfData(t *testing.T) {
	a, b := pair(t, Options{RingBytes: 2 * blockSize})
	for i := range 10 * b.Detail().(Detail).Slots {
		send(t, a, numbered(i, 60))
	}
	for i := range byte(20) {
		send(t, a, bpdu(0, i))
	}
	i := byte(0)
	for _, g := range take(b) {
		if g.queue != 0 {
			continue
		}
		if !bytes.Equal(g.data, bpdu(0, i)) || g.tag != 0 {
			t.Errorf("BPDU %d is % x, tag %08x", i, g.data, uint32(g.tag))
		}
		i++
	}
	if i != 20 {
		t.Errorf("%d of 20 BPDUs came through the flood", i)
	}
	if b.Counters().RxDropped == 0 {
		t.Error("it was no flood")
	}
}

func TestEveryFrameComesByOneQueue(t *testing.T) { eachWay(t, testEveryFrameComesByOneQueue) }

func testEveryFrameComesByOneQueue(t *testing.T) {
	t.Run("one ring", func(t *testing.T) {
		a, b := pair(t, Options{})
		oneQueueEach(t, a, b)
	})
	t.Run("three rings", func(t *testing.T) {
		a, b := pair(t, Options{Queues: 3})
		oneQueueEach(t, a, b)
	})
	t.Run("no shield", func(t *testing.T) {
		sw, far := cable(t)
		w := watcherOf(t, sw)
		w.Do(func() { dropCapabilities(t, unix.CAP_BPF, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN) })
		b, err := Open("port", Options{Watcher: w})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if d := b.Detail().(Detail); d.Shield != shieldNone {
			t.Errorf("shield %q", d.Shield)
		}
		awaitState(t, b, "up", up)
		oneQueueEach(t, openOn(t, far, "eth0", Options{}), b)
	})
}

func oneQueueEach(t *testing.T, a, b *Port) {
	const control, data = true, false
	linkLocal := func(last byte) frame.MAC { return frame.MAC{0x01, 0x80, 0xc2, 0, 0, last} }
	build := func(dst frame.MAC, etherType uint16, payload ...byte) []byte {
		return mem.Build(dst, mem.MAC(1), 0, etherType, payload)
	}
	for _, c := range []struct {
		what  string
		frame []byte
		tag   frame.Tag
		want  bool
	}{
		{"BPDU", bpdu(0), 0, control},
		{"BPDU to the provider's address", bpdu(8), 0, control},
		{"BPDU to the last address", bpdu(15), 0, control},
		{"BPDU beyond the last address", bpdu(16), 0, data},
		{"tagged BPDU", bpdu(0), frame.MakeTag(0x8100, 0, 5), data},
		{"priority-tagged BPDU", bpdu(0), frame.MakeTag(0x8100, 14, 0), data},
		{"service-tagged BPDU", bpdu(0), frame.MakeTag(0x88a8, 0, 5), data},
		{"LLC of a BPDU, another protocol identifier", build(linkLocal(0), 38, 0x42, 0x42, 3, 0, 1), 0, data},
		{"LLC of a BPDU, yet another", build(linkLocal(0), 38, 0x42, 0x42, 3, 1, 0), 0, data},
		{"other LLC to a link-local address", build(linkLocal(0), 38, 0xaa, 0xaa, 3), 0, data},
		{"raw 802.3 to a link-local address", build(linkLocal(0), 38, 0xff, 0xff), 0, data},
		{"LLDP", build(linkLocal(14), 0x88cc), 0, data},
		{"LACP", build(linkLocal(2), 0x8809, 0x42, 0x42), 0, data},
		{"LLC to anybody", build(frame.Broadcast, 38, 0x42, 0x42, 3), 0, data},
		{"IPv4", build(frame.Broadcast, 0x0800), 0, data},
	} {
		for a.Tx(0, []frame.Out{{Frame: &frame.Frame{Data: c.frame}, EgressTag: c.tag}}) != 1 { // the processor's backlog is everybody's
		}
		got := receive(t, b, 1)[0]
		if (got.queue == 0) != c.want || !bytes.Equal(got.data, c.frame) || got.tag != c.tag {
			t.Errorf("%s came by queue %d as % x, tag %08x", c.what, got.queue, got.data, uint32(got.tag))
		}
	}
	if got := take(b); len(got) != 0 {
		t.Errorf("%d frames came twice: %x", len(got), got[0].data)
	}
	if c := b.Counters(); c != (frame.Counters{}) {
		t.Errorf("counters %+v", c)
	}
}

// A worker that spins without end arms nothing. It asks epoll about queues that
// are not polled, also after many frames.
func TestControlQueueIsReadableWithoutArm(t *testing.T) {
	a, b := pair(t, Options{})
	q := b.Queues()[0]
	for i := range 3 * busySpell {
		send(t, a, bpdu(0, byte(i)))
		netns.Await(t, 10*time.Second, "readable", func() error {
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
	for i := range byte(2 * controlBatch) {
		send(t, a, bpdu(0, i))
	}
	q := b.Queues()[0]
	var first, second [frame.BatchSize]frame.Frame
	n := 0
	netns.Await(t, 10*time.Second, "control frames", func() error {
		if n = q.Rx(first[:]); n == 0 {
			return errors.New("none")
		}
		return nil
	})
	if q.Rx(second[:]) != 0 || !bytes.Equal(first[0].Data, bpdu(0, 0)) {
		t.Error("lent frames were overwritten")
	}
	q.Release()
	if q.Polled() || !b.Queues()[1].Polled() {
		t.Error("the ring is looked at, the control queue is asked")
	}
}
