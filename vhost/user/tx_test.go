package vhostuser

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// inPieces is a lent frame of the given bytes, cut after first bytes and then
// every 100.
func inPieces(b []byte, first int) frame.Frame {
	if first == 0 || first >= len(b) {
		return frame.Frame{Data: b}
	}
	f := frame.Frame{Data: b[:first]}
	for b = b[first:]; len(b) > 0; b = b[min(len(b), 100):] {
		f.Rest = append(f.Rest, b[:min(len(b), 100)])
	}
	return f
}

// The frame arrives whole, whatever pieces it comes in and goes into.
func TestTxFillsEveryKindOfBuffer(t *testing.T) {
	for _, features := range []uint64{modern, featVersion1, featMrgRxbuf, 0} {
		hdrLen, merge := headerLen(features), features&featMrgRxbuf != 0
		for _, size := range []int{14, 31, 32, 60, 64, 65, 100, 1514, 9014} {
			for _, first := range []int{0, 18, 64} {
				for name, bufs := range map[string][]int{
					"one buffer":           {10000},
					"header apart":         {hdrLen, 10000},
					"header in pieces":     {1, hdrLen - 2, 3, 10000},
					"many small":           slices.Repeat([]int{256}, 40),
					"just enough":          {hdrLen + size},
					"just enough in three": {hdrLen, 10, size - 10},
				} {
					t.Run(fmt.Sprintf("header=%d/merge=%v/size=%d/first=%d/%s", hdrLen, merge, size, first, name), func(t *testing.T) {
						g := newGuest(t, guestOptions{size: 64})
						p := g.attach(features)
						g.supply(0, bufs...)
						want := testFrame(size)
						f := inPieces(want, first)
						if n := p.Tx(0, []frame.Out{{Frame: &f}}); n != 1 {
							t.Fatalf("Tx = %d, errors %d", n, p.Counters().TxErrors)
						}
						got := g.receive(0, hdrLen)
						if len(got) != 1 || !bytes.Equal(got[0].frame, want) || got[0].hdr != (frame.VnetHdr{}) || got[0].num != 1 {
							t.Fatalf("got %d: %+v", len(got), got)
						}
					})
				}
			}
		}
	}
}

// 5.1.6.4.1: with MRG_RXBUF a packet takes as many buffers as it needs, all but
// the last full, and num_buffers tells how many (CVE-2021-3748 and CVE-2023-6693
// miscounted them).
func TestTxMergesBuffers(t *testing.T) {
	for _, bufSize := range []int{60, 1526, 2048, 4096} {
		for _, size := range []int{64, 1514, 4000, 65549} {
			need := (12 + size + bufSize - 1) / bufSize
			if need > frame.BatchSize {
				continue
			}
			t.Run(fmt.Sprintf("buffer=%d/size=%d", bufSize, size), func(t *testing.T) {
				g := newGuest(t, guestOptions{size: 256})
				p := g.attach(modern)
				const frames = 3
				for range frames*need + 1 {
					g.post(0, bufSize)
				}
				g.rings[0].Publish()
				var list [frames + 1]frame.Frame
				want := testFrame(size)
				for i := range list {
					list[i] = frame.Frame{Data: want}
				}
				n := p.Tx(0, outs(list[:]))
				got := g.receive(0, 12)
				if wantN := frames + min(1, 1/need); n != wantN || len(got) != wantN {
					t.Fatalf("Tx = %d, received %d, want %d", n, len(got), wantN)
				}
				for _, r := range got {
					if r.num != need || !bytes.Equal(r.frame, want) {
						t.Fatalf("%d buffers of %v bytes, want %d", r.num, r.lens, need)
					}
					for _, l := range r.lens[:need-1] {
						if int(l) != bufSize {
							t.Fatalf("buffers filled with %v, want %d in all but the last", r.lens, bufSize)
						}
					}
				}
				// What was left over is there for the next one.
				short := frame.Frame{Data: testFrame(min(bufSize-12, 48))}
				left := g.rings[0].Free()
				sent := p.Tx(0, []frame.Out{{Frame: &short}})
				if have := 256 - left; sent != min(have, 1) {
					t.Fatalf("one more: Tx = %d with %d buffers", sent, have)
				}
			})
		}
	}
}

func TestTxMixesFramesOfAllSizesInOrder(t *testing.T) {
	g := newGuest(t, guestOptions{size: 256})
	p := g.attach(modern | allOffloads)
	for range 256 {
		g.post(0, 600)
	}
	g.rings[0].Publish()
	var list [frame.BatchSize]frame.Frame
	var want [][]byte
	for i := range list {
		b := testFrame(14 + i*53%3000)
		want = append(want, b)
		list[i] = inPieces(b, []int{0, 20, 64}[i%3])
	}
	sent := 0
	var got []received
	for sent < len(list) {
		n := p.Tx(0, outs(list[sent:]))
		if n == 0 {
			t.Fatalf("stuck at %d", sent)
		}
		sent += n
		got = append(got, g.receive(0, 12)...)
		for g.rings[0].Free() > 0 {
			g.post(0, 600)
		}
		g.rings[0].Publish()
	}
	for i := range want {
		if !bytes.Equal(got[i].frame, want[i]) {
			t.Fatalf("frame %d: %d bytes, want %d", i, len(got[i].frame), len(want[i]))
		}
	}
}

// What this guest can't be sent is dropped and counted, once; its neighbours go.
func TestTxDropsWhatCantBeSent(t *testing.T) {
	tso := frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	for name, tc := range map[string]struct {
		features uint64
		f        frame.Frame
	}{
		"longer than the buffer, unmerged":   {featVersion1, frame.Frame{Data: testFrame(1600)}},
		"more buffers than a batch":          {modern, frame.Frame{Data: make([]byte, 65*1536)}},
		"unfinished checksum not negotiated": {modern, frame.Frame{Data: testFrame(64), Hdr: frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 34, CsumOffset: 16}}},
		"TSO not negotiated":                 {modern | featGuestCsum, frame.Frame{Data: testFrame(64), Hdr: tso}},
		"TSO of a guest without GUEST_CSUM":  {modern | featGuestTSO4, frame.Frame{Data: testFrame(64), Hdr: tso}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, guestOptions{size: 128})
			p := g.attach(tc.features)
			for range 128 {
				g.post(0, 1536)
			}
			g.rings[0].Publish()
			good := frame.Frame{Data: testFrame(100)}
			list := []frame.Frame{good, tc.f, good}
			if n := p.Tx(0, outs(list)); n != 3 {
				t.Fatalf("took care of %d", n)
			}
			if got := g.receive(0, 12); len(got) != 2 || !bytes.Equal(got[0].frame, good.Data) || !bytes.Equal(got[1].frame, good.Data) {
				t.Fatalf("received %d", len(got))
			}
			if c := p.Counters(); c.TxErrors != 1 {
				t.Errorf("counted %d", c.TxErrors)
			}
		})
	}
}

// 5.1.6.4.1: the header tells a guest no more than it negotiated.
func TestTxHeaderFollowsNegotiation(t *testing.T) {
	tso := frame.VnetHdr{Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4 | frame.GSOECN, GSOSize: 1448, HdrLen: 54, CsumStart: 34, CsumOffset: 16}
	noECN := tso
	noECN.GSOType = frame.GSOTCPv4
	valid := frame.VnetHdr{Flags: frame.HdrDataValid}
	for name, tc := range map[string]struct {
		features uint64
		in, want frame.VnetHdr
	}{
		"all as it is":                     {modern | allOffloads, tso, tso},
		"ECN not negotiated":               {modern | allOffloads&^featGuestECN, tso, noECN},
		"verified, with GUEST_CSUM":        {modern | featGuestCsum, valid, valid},
		"verified, without: flags are 0":   {modern, valid, frame.VnetHdr{}},
		"no other flag":                    {modern | allOffloads, frame.VnetHdr{Flags: 0xfe}, frame.VnetHdr{Flags: frame.HdrDataValid}},
		"legacy, unmerged: 10-byte header": {allOffloads, tso, tso},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, guestOptions{size: 64})
			p := g.attach(tc.features)
			g.supply(0, 9000)
			f := frame.Frame{Data: testFrame(4000), Hdr: tc.in}
			p.Tx(0, []frame.Out{{Frame: &f}})
			got := g.receive(0, headerLen(tc.features))
			if len(got) != 1 || got[0].hdr != tc.want || !bytes.Equal(got[0].frame, f.Data) {
				t.Fatalf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// The tag travels beside the frame and is written in band, and offsets move
// with it.
func TestTxWritesTheTagInBand(t *testing.T) {
	tag := frame.MakeTag(frame.EtherTypeVLAN, 5, 77)
	inBand := append(append(testFrame(12), 0x81, 0, 0, 9), testFrame(100)[12:]...)
	for _, bufs := range [][]int{{2048}, {12, 2048}, {20, 20, 20, 2048}} {
		for name, tc := range map[string]struct {
			out  frame.Out
			want []byte
			hdr  frame.VnetHdr
		}{
			"untagged out":   {frame.Out{Frame: &frame.Frame{Data: testFrame(100), Tag: tag}}, testFrame(100), frame.VnetHdr{}},
			"tag put in":     {frame.Out{Frame: &frame.Frame{Data: testFrame(100)}, EgressTag: tag}, append(append(testFrame(100)[:12:12], 0x81, 0, 0x50, 77), testFrame(100)[12:]...), frame.VnetHdr{}},
			"tag taken out":  {frame.Out{Frame: &frame.Frame{Data: inBand, Strip: 4}}, testFrame(100), frame.VnetHdr{}},
			"tag exchanged":  {frame.Out{Frame: &frame.Frame{Data: inBand, Strip: 4}, EgressTag: tag}, append(append(testFrame(100)[:12:12], 0x81, 0, 0x50, 77), testFrame(100)[12:]...), frame.VnetHdr{}},
			"checksum moves": {frame.Out{Frame: &frame.Frame{Data: testFrame(100), Hdr: frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 34, CsumOffset: 16}}, EgressTag: tag}, append(append(testFrame(100)[:12:12], 0x81, 0, 0x50, 77), testFrame(100)[12:]...), frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 38, CsumOffset: 16}},
		} {
			t.Run(fmt.Sprintf("%s/buffers=%v", name, bufs), func(t *testing.T) {
				if len(tc.want) != 100 && len(tc.want) != 104 {
					t.Fatal("the test is wrong")
				}
				g := newGuest(t, guestOptions{size: 64})
				p := g.attach(modern | allOffloads)
				g.supply(0, bufs...)
				p.Tx(0, []frame.Out{tc.out})
				got := g.receive(0, 12)
				if len(got) != 1 || !bytes.Equal(got[0].frame, tc.want) || got[0].hdr != tc.hdr {
					t.Fatalf("got %+v\nwant % x", got, tc.want)
				}
			})
		}
	}
}

// A bad chain costs itself and the frame that was meant for it; it comes back
// with length 0.
func TestTxReturnsBadChainsEmpty(t *testing.T) {
	g := newGuest(t, guestOptions{size: 64})
	p := g.attach(modern)
	g.post(0, 2048)
	off, b := g.alloc(100)
	g.add(0, false, false, []int{off}, [][]byte{b}) // readable
	g.supply(0, 2048)
	list := []frame.Frame{{Data: testFrame(60)}, {Data: testFrame(61)}, {Data: testFrame(62)}}
	if n := p.Tx(0, outs(list)); n != 3 {
		t.Fatalf("took care of %d", n)
	}
	got := g.receive(0, 12)
	if len(got) != 3 || len(got[0].frame) != 60 || got[1].lens[0] != 0 || len(got[2].frame) != 62 {
		t.Fatalf("got %+v", got)
	}
	if d := p.Detail().(Detail); d.Rings[0].Errors != 1 || d.Rings[0].LastError == "" {
		t.Errorf("shown as %+v", d.Rings[0])
	}
}

func TestTxStopsWhereTheGuestHasNoBuffers(t *testing.T) {
	g := newGuest(t, guestOptions{size: 64})
	p := g.attach(modern)
	list := make([]frame.Frame, 10)
	for i := range list {
		list[i].Data = testFrame(60)
	}
	if n := p.Tx(0, outs(list)); n != 0 {
		t.Fatalf("Tx = %d into nothing", n)
	}
	for range 4 {
		g.post(0, 2048)
	}
	g.rings[0].Publish()
	if n := p.Tx(0, outs(list)); n != 4 || len(g.receive(0, 12)) != 4 {
		t.Fatalf("Tx = %d into 4 buffers", n)
	}
	if p.Counters() != (frame.Counters{}) {
		t.Errorf("counted %+v: these are the caller's", p.Counters())
	}
	if n := p.Tx(0, nil); n != 0 {
		t.Errorf("Tx of nothing = %d", n)
	}
}
