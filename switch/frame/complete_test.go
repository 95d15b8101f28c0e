package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// finish runs Finish and returns the wire bytes of what came out, after it has
// checked that the input was not written to and nothing is left to do.
func finish(t testing.TB, x *Finisher, o Out, to Offloads) ([][]byte, error) {
	t.Helper()
	before := o.AppendWire(nil)
	outs, err := x.Finish(o, to, nil)
	if !bytes.Equal(before, o.AppendWire(nil)) {
		t.Fatal("Finish wrote to its input")
	}
	var all [][]byte
	for i := range outs {
		out := &outs[i]
		if !out.Hdr.Plain() {
			t.Fatalf("frame %d still has work left: %+v", i, out.Hdr)
		}
		if out.EgressTag != o.EgressTag || out.Frame.Tag != o.Frame.Tag {
			t.Fatalf("frame %d wears tags %x %x, want %x %x", i, out.EgressTag, out.Frame.Tag, o.EgressTag, o.Frame.Tag)
		}
		all = append(all, out.AppendWire(nil))
		if got := out.Len(); got != len(all[i]) {
			t.Fatalf("frame %d: Len %d, %d bytes on the wire", i, got, len(all[i]))
		}
	}
	return all, err
}

// wantFrames compares frames with what gopacket made, byte by byte.
func wantFrames(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d of %d:\n got %x\nwant %x", i, len(got), got[i], want[i])
		}
	}
}

func TestChecksumIsCompletedAsGopacketWouldComputeIt(t *testing.T) {
	var x Finisher
	for _, p := range packets(rand.New(rand.NewPCG(1, 2)), 0, 1, 2, 7, 8, 63, 64, 65, 1400, 1401) {
		t.Run(p.String(), func(t *testing.T) {
			b, hdr := p.unfinished(t)
			got, err := finish(t, &x, Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{})
			if err != nil {
				t.Fatal(err)
			}
			wantFrames(t, got, [][]byte{p.wire(t)})
			x.Reset()
		})
	}
}

func TestSegmentsAreThoseThatGopacketWouldSerialize(t *testing.T) {
	var x Finisher
	for _, p := range packets(rand.New(rand.NewPCG(3, 4)), 0, 1, 999, 1000, 1001, 4000, 4567) {
		for _, flags := range []uint8{HdrNeedsCsum, HdrDataValid} {
			t.Run(fmt.Sprintf("%v/flags=%d", p, flags), func(t *testing.T) {
				b, hdr := p.unfinished(t)
				if flags == HdrDataValid { // as after receive offload: the whole sum is there
					b, hdr = p.wire(t), VnetHdr{Flags: HdrDataValid}
				}
				hdr.GSOType, hdr.GSOSize, hdr.HdrLen = p.gsoType(), 1000, 0xffff
				if !p.udp {
					hdr.GSOType |= GSOECN
				}
				got, err := finish(t, &x, Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{})
				if err != nil {
					t.Fatal(err)
				}
				wantFrames(t, got, p.segments(t, 1000))
				x.Reset()
			})
		}
	}
}

// Every place a tag can be, against the same packet tagged by gopacket.
func TestTagsInAndOutOfBandComeOutAsAsked(t *testing.T) {
	outer, other := MakeTag(EtherTypeVLAN, 5, 42), MakeTag(EtherTypeVLAN, 5, 43)
	inner := MakeTag(EtherTypeVLAN, 0, 7)
	r := rand.New(rand.NewPCG(5, 6))
	var x Finisher
	for _, gso := range []bool{false, true} {
		for _, below := range [][]Tag{nil, {inner}} {
			for _, inBand := range []bool{false, true} {
				for _, egress := range []Tag{0, outer, other} {
					t.Run(fmt.Sprintf("gso=%v/below=%d/inBand=%v/egress=%x", gso, len(below), inBand, egress), func(t *testing.T) {
						p := packet{tags: below, payload: randomBytes(r, 333), psh: true}
						in := p
						f := &Frame{Tag: outer}
						if inBand {
							in.tags, f.Strip = append([]Tag{outer}, below...), TagLen
						}
						f.Data, f.Hdr = in.unfinished(t)
						if gso {
							f.Hdr.GSOType, f.Hdr.GSOSize = GSOTCPv4, 100
						}
						want := p
						if egress != 0 {
							want.tags = append([]Tag{egress}, below...)
						}
						got, err := finish(t, &x, Out{Frame: f, EgressTag: egress}, Offloads{})
						if err != nil {
							t.Fatal(err)
						}
						if gso {
							wantFrames(t, got, want.segments(t, 100))
						} else {
							wantFrames(t, got, [][]byte{want.wire(t)})
						}
						x.Reset()
					})
				}
			}
		}
	}
}

func TestPiecesMayBeCutAnywhere(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var x Finisher
	for _, p := range []packet{{payload: randomBytes(r, 131)}, {v6: true, udp: true, tags: []Tag{MakeTag(EtherTypeVLAN, 0, 9)}, payload: randomBytes(r, 100)}} {
		b, hdr := p.unfinished(t)
		for _, size := range []uint16{0, 50} {
			want := [][]byte{p.wire(t)}
			if size > 0 {
				hdr.GSOType, hdr.GSOSize = p.gsoType(), size
				want = p.segments(t, int(size))
			}
			for i := HeaderLen; i <= len(b); i++ {
				for j := i; j <= len(b); j += 1 + r.IntN(9) {
					f := &Frame{Data: slices.Clone(b[:i]), Rest: [][]byte{slices.Clone(b[i:j]), {}, slices.Clone(b[j:])}, Hdr: hdr}
					got, err := finish(t, &x, Out{Frame: f}, Offloads{})
					if err != nil {
						t.Fatalf("cut at %d and %d: %v", i, j, err)
					}
					wantFrames(t, got, want)
					x.Reset()
				}
			}
		}
	}
}

// The partial sum of a packet with a routing header is that of its final
// destination, which the IPv6 header does not have.
func TestSegmentsKeepTheSendersPseudoHeader(t *testing.T) {
	p := packet{v6: true, options: 24, payload: bytes.Repeat([]byte{1, 2, 3}, 100)}
	b, hdr := p.unfinished(t)
	b[HeaderLen+ipv6Next] = 43
	hdr.GSOType, hdr.GSOSize = GSOTCPv6, 100
	field := b[p.l4()+tcpCsum:]
	const other = 0x0123 // what the final destination adds to the sum
	binary.BigEndian.PutUint16(field, uint16((int(binary.BigEndian.Uint16(field))+other)%0xffff))
	var x Finisher
	got, err := finish(t, &x, Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range p.segments(t, 100) {
		g := int(binary.BigEndian.Uint16(got[i][p.l4()+tcpCsum:]))
		w := int(binary.BigEndian.Uint16(want[p.l4()+tcpCsum:]))
		if (g+other)%0xffff != w%0xffff {
			t.Errorf("segment %d: checksum %04x, want %04x less %04x", i, g, w, other)
		}
	}
}

func TestChecksumZeroIsSentAsAllOnes(t *testing.T) {
	p := packet{udp: true, payload: []byte{0, 0}}
	done := p.wire(t)
	// With its own checksum as payload the packet sums to zero.
	copy(p.payload, done[p.l4()+udpCsum:])
	b, hdr := p.unfinished(t)
	var x Finisher
	got, err := finish(t, &x, Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{})
	if err != nil {
		t.Fatal(err)
	}
	if c := binary.BigEndian.Uint16(got[0][p.l4()+udpCsum:]); c != 0xffff {
		t.Errorf("checksum %04x, want ffff", c)
	}
}

// What lies behind the IP packet is padding: it must not become payload.
func TestPaddingIsNotSegmented(t *testing.T) {
	var x Finisher
	for _, p := range packets(rand.New(rand.NewPCG(11, 12)), 1, 150) {
		b, hdr := p.unfinished(t)
		hdr.GSOType, hdr.GSOSize = p.gsoType(), 100
		f := &Frame{Data: b, Rest: [][]byte{make([]byte, 77)}, Hdr: hdr}
		got, err := finish(t, &x, Out{Frame: f}, Offloads{})
		if err != nil {
			t.Fatal(err)
		}
		wantFrames(t, got, p.segments(t, 100))
		x.Reset()
	}
}

func TestUDPWithoutChecksumIsSegmentedWithoutOne(t *testing.T) {
	p := packet{udp: true, payload: bytes.Repeat([]byte{9}, 250)}
	b := p.wire(t)
	binary.BigEndian.PutUint16(b[p.l4()+udpCsum:], 0)
	var x Finisher
	got, err := finish(t, &x, Out{Frame: &Frame{Data: b, Hdr: VnetHdr{GSOType: GSOUDPL4, GSOSize: 100}}}, Offloads{})
	if err != nil {
		t.Fatal(err)
	}
	want := p.segments(t, 100)
	for i := range want {
		binary.BigEndian.PutUint16(want[i][p.l4()+udpCsum:], 0)
	}
	wantFrames(t, got, want)
}

func TestFramesThatThePortTakesAreNotCopied(t *testing.T) {
	p := packet{payload: make([]byte, 3000)}
	b, hdr := p.unfinished(t)
	gso := hdr
	gso.GSOType, gso.GSOSize = GSOTCPv4, 1000
	for _, c := range []struct {
		hdr    VnetHdr
		to     Offloads
		frames int
		same   bool
	}{
		{VnetHdr{}, Offloads{}, 1, true},
		{hdr, Offloads{Csum: true}, 1, true},
		{hdr, Offloads{TSO4: true}, 1, false},
		{gso, Offloads{Csum: true, TSO4: true}, 1, true},
		{gso, Offloads{Csum: true, TSO6: true, USO: true}, 3, false},
		{gso, Offloads{TSO4: true}, 3, false},
	} {
		var x Finisher
		f := &Frame{Data: b, Hdr: c.hdr}
		outs, err := x.Finish(Out{Frame: f}, c.to, nil)
		if err != nil || len(outs) != c.frames || (outs[0].Frame == f) != c.same {
			t.Errorf("%+v to %+v: %d frames, same=%v, err=%v", c.hdr, c.to, len(outs), outs[0].Frame == f, err)
		}
	}
}

func TestFinishedFramesStayValidUntilReset(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	var x Finisher
	var all []Out
	var want [][]byte
	for i := range 200 {
		p := packet{payload: randomBytes(r, i*7)}
		b, hdr := p.unfinished(t)
		hdr.GSOType, hdr.GSOSize = GSOTCPv4, 100
		var err error
		if all, err = x.Finish(Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{}, all); err != nil {
			t.Fatal(err)
		}
		want = append(want, p.segments(t, 100)...)
	}
	var got [][]byte
	for i := range all {
		got = append(got, all[i].AppendWire(nil))
	}
	wantFrames(t, got, want)
}

func TestFinishDoesNotAllocate(t *testing.T) {
	p := packet{payload: make([]byte, 60000)}
	b, hdr := p.unfinished(t)
	gso := hdr
	gso.GSOType, gso.GSOSize = GSOTCPv4, 1448
	bad := gso
	bad.CsumStart++
	var x Finisher
	dst := make([]Out, 0, BatchSize)
	frames := []Frame{{Data: b, Hdr: hdr}, {Data: b, Hdr: gso}, {Data: b, Hdr: bad}}
	n := testing.AllocsPerRun(100, func() {
		for i := range frames {
			dst, _ = x.Finish(Out{Frame: &frames[i]}, Offloads{}, dst[:0])
		}
		x.Reset()
	})
	if n != 0 {
		t.Errorf("%v allocations in a run", n)
	}
}
