package vhostuser

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

const modern = featVersion1 | featMrgRxbuf | featIndirect

const allOffloads = featCsum | featGuestCsum | featGuestTSO4 | featGuestTSO6 | featGuestECN | featGuestUSO4 | featGuestUSO6 |
	featHostTSO4 | featHostTSO6 | featHostECN | featHostUSO

// 5.1.6, "no assumption on framing" (2.7.4): however the driver cuts a packet
// into buffers, the switch sees the same frame, with the Ethernet header and a
// tag in the first piece.
func TestRxTakesEveryFraming(t *testing.T) {
	cuts := [][]int{
		{}, {12}, {10}, {1}, {12, 14}, {26}, {30}, {12, 1, 1, 1}, {6, 6, 6, 6}, {12, 13}, {12, 17}, {12, 18}, {13},
		{11, 2, 1, 40}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
	}
	for _, features := range []uint64{modern, featIndirect, featIndirect | featMrgRxbuf} {
		hdrLen := headerLen(features)
		for _, size := range []int{14, 15, 17, 18, 19, 60, 64, 128, 1514, 9014, frame.MaxLen} {
			for _, cut := range cuts {
				for _, indirect := range []bool{false, true} {
					t.Run(fmt.Sprintf("header=%d/size=%d/cut=%v/indirect=%v", hdrLen, size, cut, indirect), func(t *testing.T) {
						g := newGuest(t, guestOptions{size: 64})
						p := g.attach(features)
						want := testFrame(size)
						g.send(0, indirect, packet(frame.VnetHdr{}, hdrLen, want), cut...)
						g.rings[1].Publish()
						var b [4]frame.Frame
						q := p.queues[0]
						if n := q.Rx(b[:]); n != 1 {
							t.Fatalf("Rx = %d, errors %d", n, q.errors.Load())
						}
						if got := wire(&b[0]); !bytes.Equal(got, want) {
							t.Fatalf("got %d bytes % x…, want %d", len(got), got[:14], size)
						}
						if len(b[0].Data) < min(size, 18) || b[0].Hdr != (frame.VnetHdr{}) || b[0].Len() != size {
							t.Fatalf("%d bytes in the first piece of %d, header %+v", len(b[0].Data), b[0].Len(), b[0].Hdr)
						}
						if g.sent(0) != 0 {
							t.Fatal("returned while lent")
						}
						q.Release()
						if g.sent(0) != 1 {
							t.Fatal("not returned by Release")
						}
					})
				}
			}
		}
	}
}

// What a frame may not be is dropped and counted, its buffers come back, and its
// neighbours pass.
func TestRxDropsMalformedPackets(t *testing.T) {
	need := func(h frame.VnetHdr) frame.VnetHdr { h.Flags |= frame.HdrNeedsCsum; return h }
	tcp := frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: 1448, HdrLen: 54, CsumStart: 34, CsumOffset: 16}
	with := func(f func(*frame.VnetHdr)) frame.VnetHdr { h := tcp; f(&h); return h }
	for _, tc := range []struct {
		name     string
		features uint64
		hdr      frame.VnetHdr
		size     int // of the frame
		ok       bool
		want     frame.VnetHdr
	}{
		{"plain", 0, frame.VnetHdr{}, 64, true, frame.VnetHdr{}},
		{"stray offsets without flags mean nothing", 0, frame.VnetHdr{CsumStart: 9999, GSOSize: 7, HdrLen: 3}, 64, true, frame.VnetHdr{}},
		{"unknown flags are ignored", 0, frame.VnetHdr{Flags: 0xf8}, 64, true, frame.VnetHdr{}},
		{"DATA_VALID is not the guest's to say", allOffloads, frame.VnetHdr{Flags: frame.HdrDataValid}, 64, true, frame.VnetHdr{}},
		{"runt of 13 bytes", 0, frame.VnetHdr{}, 13, false, frame.VnetHdr{}},
		{"nothing but the header", 0, frame.VnetHdr{}, 0, false, frame.VnetHdr{}},
		{"longer than any frame", 0, frame.VnetHdr{}, frame.MaxLen + 1, false, frame.VnetHdr{}},
		{"checksum offload", allOffloads, need(frame.VnetHdr{CsumStart: 34, CsumOffset: 16}), 64, true, need(frame.VnetHdr{CsumStart: 34, CsumOffset: 16})},
		{"checksum offload that was not negotiated", 0, need(frame.VnetHdr{CsumStart: 34, CsumOffset: 16}), 64, false, frame.VnetHdr{}},
		{"checksum at the very end", allOffloads, need(frame.VnetHdr{CsumStart: 34, CsumOffset: 28}), 64, true, need(frame.VnetHdr{CsumStart: 34, CsumOffset: 28})},
		{"CVE-2024-11614: checksum past the end", allOffloads, need(frame.VnetHdr{CsumStart: 34, CsumOffset: 29}), 64, false, frame.VnetHdr{}},
		{"checksum start past the end", allOffloads, need(frame.VnetHdr{CsumStart: 64}), 64, false, frame.VnetHdr{}},
		{"checksum offsets that wrap together", allOffloads, need(frame.VnetHdr{CsumStart: 0xffff, CsumOffset: 0xffff}), 64, false, frame.VnetHdr{}},
		{"checksum over the Ethernet header", allOffloads, need(frame.VnetHdr{CsumStart: 13, CsumOffset: 16}), 64, false, frame.VnetHdr{}},
		{"TSO4", allOffloads, tcp, 4000, true, tcp},
		{"TSO4 with ECN", allOffloads, with(func(h *frame.VnetHdr) { h.GSOType |= frame.GSOECN }), 4000, true, with(func(h *frame.VnetHdr) { h.GSOType |= frame.GSOECN })},
		{"TSO4 with ECN not negotiated", allOffloads &^ featHostECN, with(func(h *frame.VnetHdr) { h.GSOType |= frame.GSOECN }), 4000, false, frame.VnetHdr{}},
		{"ECN of nothing", allOffloads, need(frame.VnetHdr{GSOType: frame.GSOECN, CsumStart: 34, CsumOffset: 16}), 64, false, frame.VnetHdr{}},
		{"TSO6", allOffloads, with(func(h *frame.VnetHdr) { h.GSOType = frame.GSOTCPv6 }), 4000, true, with(func(h *frame.VnetHdr) { h.GSOType = frame.GSOTCPv6 })},
		{"USO", allOffloads, with(func(h *frame.VnetHdr) { h.GSOType = frame.GSOUDPL4 }), 4000, true, with(func(h *frame.VnetHdr) { h.GSOType = frame.GSOUDPL4 })},
		{"TSO4 that was not negotiated", allOffloads &^ featHostTSO4, tcp, 4000, false, frame.VnetHdr{}},
		{"TSO6 that was not negotiated", allOffloads &^ featHostTSO6, with(func(h *frame.VnetHdr) { h.GSOType = frame.GSOTCPv6 }), 4000, false, frame.VnetHdr{}},
		{"USO that was not negotiated", allOffloads &^ featHostUSO, with(func(h *frame.VnetHdr) { h.GSOType = frame.GSOUDPL4 }), 4000, false, frame.VnetHdr{}},
		{"UFO, which is never offered", allOffloads, with(func(h *frame.VnetHdr) { h.GSOType = frame.GSOUDP }), 4000, false, frame.VnetHdr{}},
		{"unknown GSO type", allOffloads, with(func(h *frame.VnetHdr) { h.GSOType = 2 }), 4000, false, frame.VnetHdr{}},
		{"TSO without NEEDS_CSUM", allOffloads, with(func(h *frame.VnetHdr) { h.Flags = 0 }), 4000, false, frame.VnetHdr{}},
		{"TSO with segments of 0 bytes", allOffloads, with(func(h *frame.VnetHdr) { h.GSOSize = 0 }), 4000, false, frame.VnetHdr{}},
		{"hdr_len is but a hint", allOffloads, with(func(h *frame.VnetHdr) { h.HdrLen = 0xffff }), 4000, true, with(func(h *frame.VnetHdr) { h.HdrLen = 4000 })},
		{"gso_size without a type is dropped from the header", allOffloads, need(frame.VnetHdr{GSOSize: 99, CsumStart: 34, CsumOffset: 16}), 64, true, need(frame.VnetHdr{CsumStart: 34, CsumOffset: 16})},
	} {
		for _, cut := range [][]int{nil, {12}, {5, 7, 3}} {
			t.Run(fmt.Sprintf("%s/cut=%v", tc.name, cut), func(t *testing.T) {
				g := newGuest(t, guestOptions{size: 64})
				p := g.attach(modern | tc.features)
				good := testFrame(100)
				g.send(0, false, packet(frame.VnetHdr{}, 12, good))
				g.send(0, false, packet(tc.hdr, 12, append(testFrame(max(tc.size, 14))[:min(tc.size, 14)], make([]byte, max(tc.size-14, 0))...)), cut...)
				g.send(0, false, packet(frame.VnetHdr{}, 12, good))
				g.rings[1].Publish()
				var b [8]frame.Frame
				n := p.queues[0].Rx(b[:])
				want, drops := 2, uint64(1)
				if tc.ok {
					want, drops = 3, 0
				}
				if n != want || p.Counters().RxErrors != drops {
					t.Fatalf("Rx = %d with %d errors, want %d with %d", n, p.Counters().RxErrors, want, drops)
				}
				if !bytes.Equal(wire(&b[0]), good) || !bytes.Equal(wire(&b[n-1]), good) {
					t.Error("the neighbours suffered")
				}
				if tc.ok && b[1].Hdr != tc.want {
					t.Errorf("header %+v, want %+v", b[1].Hdr, tc.want)
				}
				p.queues[0].Release()
				if g.sent(0) != 3 {
					t.Error("not all were returned")
				}
			})
		}
	}
}

// CVE-2022-2132: a header over more than two descriptors.
func TestRxTakesAHeaderInTwelvePieces(t *testing.T) {
	g := newGuest(t, guestOptions{size: 64})
	p := g.attach(modern)
	g.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(64)), 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	g.send(0, false, make([]byte, 11), 1, 1, 1, 1, 1, 1, 1, 1, 1, 1) // and one that ends within it
	g.rings[1].Publish()
	var b [4]frame.Frame
	if n := p.queues[0].Rx(b[:]); n != 1 || !bytes.Equal(wire(&b[0]), testFrame(64)) || p.Counters().RxErrors != 1 {
		t.Fatalf("Rx = %d, errors %d", n, p.Counters().RxErrors)
	}
	p.queues[0].Release()
}

// A batch is BatchSize frames, also over several calls of Rx before Release.
func TestRxLendsNoMoreThanABatch(t *testing.T) {
	g := newGuest(t, guestOptions{size: 256})
	p := g.attach(modern)
	for i := range 200 {
		g.send(0, false, packet(frame.VnetHdr{}, 12, testFrame(64+i)))
	}
	g.rings[1].Publish()
	q := p.queues[0]
	seen := 0
	var b [frame.BatchSize]frame.Frame
	for _, ask := range []int{10, 20, 64, 64} {
		n := q.Rx(b[:ask])
		for i := range n {
			if b[i].Len() != 64+seen {
				t.Fatalf("frame %d is %d bytes long", seen, b[i].Len())
			}
			seen++
		}
	}
	if seen != frame.BatchSize {
		t.Fatalf("lent %d", seen)
	}
	for seen < 200 {
		q.Release()
		n := q.Rx(b[:])
		if n == 0 {
			t.Fatalf("stuck at %d", seen)
		}
		seen += n
	}
	q.Release()
	q.Release() // once too often does no harm
	if n := g.sent(0); n != 200 {
		t.Fatalf("%d returned", n)
	}
}

// A ring of nothing but bad chains comes back without a Release, which the
// worker would not call for no frames.
func TestRxReturnsABatchOfBadChainsByItself(t *testing.T) {
	g := newGuest(t, guestOptions{size: 256})
	p := g.attach(modern)
	for range 100 {
		g.send(0, false, make([]byte, 5))
	}
	g.rings[1].Publish()
	var b [frame.BatchSize]frame.Frame
	for range 4 {
		if n := p.queues[0].Rx(b[:]); n != 0 {
			t.Fatalf("Rx = %d", n)
		}
	}
	if g.sent(0) != 100 || p.Counters().RxErrors != 100 {
		t.Fatalf("errors %d", p.Counters().RxErrors)
	}
	if locked(p.queues[0]) {
		t.Fatal("the ring stays locked")
	}
}

// locked reports whether the control side would have to wait for the worker.
func locked(q *queue) bool {
	free := q.mu.TryLock()
	if free {
		q.mu.Unlock()
	}
	return !free
}

// The worker owns the ring while frames are lent, and at no other time, whatever
// happens in between.
func TestRingIsLockedWhileFramesAreLent(t *testing.T) {
	var b [4]frame.Frame
	lend := func(t *testing.T, g *guest, q *queue) {
		t.Helper()
		g.transmit(0, 60)
		if n := q.Rx(b[:]); n != 1 || !locked(q) {
			t.Fatalf("Rx = %d, locked: %v", n, locked(q))
		}
	}
	gone := func(t *testing.T, g *guest) {
		t.Helper()
		if err := unix.Ftruncate(g.fd, 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, call := range map[string]func(*testing.T, *guest, *queue){
		"Rx finds nothing":  func(_ *testing.T, _ *guest, q *queue) { q.Rx(b[:]) },
		"Rx faults":         func(t *testing.T, g *guest, q *queue) { gone(t, g); q.Rx(b[:]) },
		"Arm finds nothing": func(_ *testing.T, _ *guest, q *queue) { q.Arm() },
		"Arm faults":        func(t *testing.T, g *guest, q *queue) { gone(t, g); q.Arm() },
		"Fault":             func(_ *testing.T, _ *guest, q *queue) { q.Fault(errors.New("found by the worker")) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, guestOptions{size: 64})
			q := g.attach(modern).queues[0]
			if call(t, g, q); locked(q) {
				t.Error("locked with nothing lent")
			}
		})
		t.Run(name+" while frames are lent", func(t *testing.T) {
			g := newGuest(t, guestOptions{size: 64})
			q := g.attach(modern).queues[0]
			lend(t, g, q)
			if call(t, g, q); !locked(q) {
				t.Error("the control side could unmap the frames")
			}
			if q.Release(); locked(q) {
				t.Error("locked after Release")
			}
		})
	}
	t.Run("Release faults", func(t *testing.T) {
		g := newGuest(t, guestOptions{size: 64})
		q := g.attach(modern).queues[0]
		lend(t, g, q)
		gone(t, g)
		if q.Release(); locked(q) || q.broken.Load() == nil {
			t.Errorf("locked %v, broken %v", locked(q), q.broken.Load())
		}
	})
}
