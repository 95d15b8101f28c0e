package vhostuser

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// udp is a frame of flow n; back is the way back. seq is told by sequence.
func udp(n, seq int, back bool) []byte {
	b := testFrame(64)
	b[14], b[23] = 0x45, protocolUDP
	clear(b[20:22])
	copy(b[26:], []byte{10, 0, 0, 1, 10, 0, byte(n >> 8), byte(n)})
	binary.BigEndian.PutUint16(b[34:], 5000+uint16(n%7))
	binary.BigEndian.PutUint16(b[36:], 53)
	if back {
		copy(b[0:6], testFrame(64)[6:12])
		copy(b[6:12], testFrame(64)[0:6])
		copy(b[26:30], []byte{10, 0, byte(n >> 8), byte(n)})
		copy(b[30:34], []byte{10, 0, 0, 1})
		binary.BigEndian.PutUint16(b[34:], 53)
		binary.BigEndian.PutUint16(b[36:], 5000+uint16(n%7))
	}
	binary.BigEndian.PutUint32(b[50:], uint32(n))
	binary.BigEndian.PutUint32(b[54:], uint32(seq))
	return b
}

func TestFlowHashIsTheFlows(t *testing.T) {
	v4 := udp(3, 0, false)
	v6 := testFrame(100)
	v6[12], v6[13], v6[14], v6[20] = 0x86, 0xdd, 0x60, protocolTCP
	v6back := append([]byte(nil), v6...)
	copy(v6back[22:38], v6[38:54])
	copy(v6back[38:54], v6[22:38])
	copy(v6back[54:56], v6[56:58])
	copy(v6back[56:58], v6[54:56])
	other := func(b []byte, at int) []byte {
		b = append([]byte(nil), b...)
		b[at] ^= 1
		return b
	}
	tagged := append(append(append([]byte(nil), v4[:12]...), 0x81, 0, 0, 5), v4[12:]...)
	frag := append([]byte(nil), v4...)
	frag[20] = 0x20
	arp := testFrame(60)
	arp[12], arp[13] = 0x08, 0x06
	arpBack := append([]byte(nil), arp...)
	copy(arpBack, arp[6:12])
	copy(arpBack[6:], arp[:6])
	whole := func(b []byte) frame.Frame { return frame.Frame{Data: b} }
	for _, tc := range []struct {
		name string
		a, b frame.Frame
		same bool
	}{
		{"both directions, IPv4", whole(v4), whole(udp(3, 9, true)), true},
		{"both directions, IPv6", whole(v6), whole(v6back), true},
		{"both directions, no IP", whole(arp), whole(arpBack), true},
		{"in pieces", whole(v4), inPieces(v4, 18), true},
		{"in pieces, IPv6", whole(v6), inPieces(v6, 30), true},
		{"with a tag in band", whole(v4), whole(tagged), true},
		{"payload", whole(v4), whole(other(v4, 60)), true},
		{"another address", whole(v4), whole(other(v4, 30)), false},
		{"another port", whole(v4), whole(other(v4, 35)), false},
		{"another IPv6 address", whole(v6), whole(other(v6, 30)), false},
		{"another IPv6 port", whole(v6), whole(other(v6, 55)), false},
		{"another station, no IP", whole(arp), whole(other(arp, 11)), false},
		{"fragments have no ports", whole(frag), whole(other(frag, 35)), true},
	} {
		if got := flowHash(&tc.a) == flowHash(&tc.b); got != tc.same {
			t.Errorf("%s: the same: %v", tc.name, got)
		}
	}
	for n := 14; n < len(v6); n++ { // however short
		flowHash(&frame.Frame{Data: v6[:n]})
		flowHash(&frame.Frame{Data: v4[:min(n, len(v4))]})
		flowHash(&frame.Frame{Data: tagged[:min(n, len(tagged))]})
	}
	options := append([]byte(nil), v4...)
	options[14] = 0x4f // a header longer than the frame
	flowHash(&frame.Frame{Data: options})
}

// steered is a guest with pairs and a port for it, all rings full.
func steered(t testing.TB, pairs int) (*guest, *Port) {
	t.Helper()
	g := newGuest(t, guestOptions{pairs: pairs, size: 256})
	p := g.attach(modern | featMQ)
	for i := range pairs {
		for range 200 {
			g.post(i, 256)
		}
		g.rings[2*i].Publish()
	}
	return g, p
}

// 5.1.6.5.6: "After the driver transmitted a packet of a flow on transmitqX, the
// device SHOULD cause incoming packets for that flow to be steered to receiveqX".
func TestFlowsComeBackWhereTheyAreSent(t *testing.T) {
	g, p := steered(t, 4)
	const flows = 40
	queue := func(n int) int { return n * 7 % 4 }
	for n := range flows {
		g.send(queue(n), false, packet(frame.VnetHdr{}, 12, udp(n, 0, true)))
	}
	var b [frame.BatchSize]frame.Frame
	for i, q := range p.queues {
		g.rings[2*i+1].Publish()
		q.Rx(b[:])
		q.Release()
	}
	var list []frame.Frame
	for n := range flows {
		list = append(list, frame.Frame{Data: udp(n, 0, false)})
	}
	if n := p.Tx(0, outs(list)); n != flows {
		t.Fatalf("Tx = %d", n)
	}
	for i := range p.sinks {
		for _, r := range g.receive(i, 12) {
			if n := int(binary.BigEndian.Uint32(r.frame[50:])); queue(n) != i {
				t.Errorf("flow %d came by queue %d, and is sent by %d", n, i, queue(n))
			}
		}
	}
}

// What the guest has sent nothing of is spread over its queues, whatever worker
// it comes from, and each flow keeps its order.
func TestUnknownFlowsAreSpreadInOrder(t *testing.T) {
	g, p := steered(t, 3)
	const flows, each = 30, 10
	var list []frame.Frame
	for seq := range each {
		for n := range flows {
			list = append(list, frame.Frame{Data: udp(n, seq, false)})
		}
	}
	for i := 0; i < len(list); i += 50 {
		if n := p.Tx(i, outs(list[i:i+50])); n != 50 {
			t.Fatalf("Tx = %d", n)
		}
	}
	next, where := map[int]int{}, map[int]int{}
	for i := range p.sinks {
		got := g.receive(i, 12)
		if len(got) < len(list)/10 {
			t.Errorf("queue %d got %d of %d", i, len(got), len(list))
		}
		for _, r := range got {
			n, seq := int(binary.BigEndian.Uint32(r.frame[50:])), int(binary.BigEndian.Uint32(r.frame[54:]))
			if at, ok := where[n]; ok && at != i {
				t.Fatalf("flow %d comes by queues %d and %d", n, at, i)
			}
			if where[n] = i; seq != next[n] {
				t.Fatalf("flow %d: frame %d, want %d", n, seq, next[n])
			}
			next[n]++
		}
	}
}

// Frames that a full ring leaves are the last of the batch afterwards, for the
// caller counts those; the other rings get theirs.
func TestSpreadLeavesTheUnsentLast(t *testing.T) {
	g := newGuest(t, guestOptions{pairs: 2, size: 64})
	p := g.attach(modern | featMQ)
	for range 60 {
		g.post(1, 256)
	}
	g.rings[2].Publish() // and nothing for the first queue
	var list []frame.Frame
	for n := range 60 {
		list = append(list, frame.Frame{Data: udp(n, 0, false)})
	}
	out := outs(list)
	sent := p.Tx(0, out)
	got := g.receive(1, 12)
	if sent != len(got) || sent == 0 || sent == len(list) {
		t.Fatalf("Tx = %d, %d arrived", sent, len(got))
	}
	arrived := map[uint32]bool{}
	for _, r := range got {
		arrived[binary.BigEndian.Uint32(r.frame[50:])] = true
	}
	for _, o := range out[sent:] {
		if n := binary.BigEndian.Uint32(o.Data[50:]); arrived[n] {
			t.Errorf("frame %d arrived and is among those that did not", n)
		}
	}
}

// Two flows whose hashes meet don't throw each other about: the slot follows a
// flow that moves for good, and no other.
func TestSteeringIsNotMovedByAFewFrames(t *testing.T) {
	s := new(steering)
	for range 100 {
		s.sent(7, 2, 20)
		if q := s.ring(7, 4); q != 2 {
			t.Fatalf("queue %d", q)
		}
		s.sent(7, 0, 20)
	}
	if q := s.ring(7, 4); q != 2 && q != 0 {
		t.Fatalf("queue %d", q)
	}
	for range 5 {
		s.sent(9, 2, 64)
	}
	moves, last := 0, 2
	for range 1000 {
		s.sent(9, 1, 10)
		s.sent(9, 2, 11)
		if q := s.ring(9, 4); q != last {
			moves, last = moves+1, q
		}
	}
	if moves != 0 {
		t.Errorf("moved %d times by another one's frames", moves)
	}
	s.sent(9, 1, 64)
	s.sent(9, 1, 1)
	if q := s.ring(9, 4); q != 1 {
		t.Errorf("a flow that moved is sent to queue %d", q)
	}
	if q := s.ring(9, 1); q != 0 {
		t.Errorf("queue %d of one", q)
	}
}

// A sender's memory that is gone when flows are told apart is that sender's loss.
func TestSpreadOfFramesThatAreGone(t *testing.T) {
	_, p := steered(t, 2)
	list := outs([]frame.Frame{{Data: goneMemory(t)[:100]}})
	if n := p.Tx(0, list); n != 0 { // by a worker that is not ready for faults
		t.Errorf("Tx = %d", n)
	}
	if guarded(func() { p.Tx(0, list) }) == nil {
		t.Error("Tx kept the sender's fault to itself")
	}
	if !p.State().Up {
		t.Error("the receiver paid for it")
	}
}

func TestSpreadAllocatesNothing(t *testing.T) {
	g, p := steered(t, 2)
	var list []frame.Frame
	for n := range frame.BatchSize {
		list = append(list, frame.Frame{Data: udp(n, 0, false)})
	}
	out := outs(list)
	if n := testing.AllocsPerRun(2, func() { p.Tx(0, out) }); n != 0 {
		t.Errorf("%v allocations for a batch", n)
	}
	g.receive(0, 12)
}

// BenchmarkSteer: what telling flows apart costs, in one batch.
func BenchmarkSteer(b *testing.B) {
	for _, flows := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%dflows", flows), func(b *testing.B) {
			var list []frame.Frame
			for n := range frame.BatchSize {
				list = append(list, frame.Frame{Data: udp(n%flows, 0, false)})
			}
			p := &Port{steer: new(steering)}
			out := outs(list)
			var which [frame.BatchSize]uint8
			rings := make([]*ring, 2)
			for b.Loop() {
				p.steer.learn(0, list)
				p.choose(rings, out, &which)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/frame.BatchSize, "ns/frame")
		})
	}
}
