package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// packet describes a TCP or UDP packet; gopacket makes the bytes, so that it
// and not the code under test says what a finished frame looks like.
type packet struct {
	tags    []Tag // in band
	v6      bool
	udp     bool
	options int // bytes of IPv4 options or IPv6 hop-by-hop extension, a multiple of 8
	id      uint16
	seq     uint32
	fin     bool
	psh     bool
	cwr     bool
	payload []byte
}

var (
	testDst = MAC{0x52, 0x54, 0, 0, 0, 1}
	testSrc = MAC{0x52, 0x54, 0, 0, 0, 2}
)

// wire is the finished packet on the wire.
func (p packet) wire(t testing.TB) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: testSrc[:], DstMAC: testDst[:]}
	all := []gopacket.SerializableLayer{eth}
	next := &eth.EthernetType
	for _, tag := range p.tags {
		*next = layers.EthernetType(tag.TPID())
		q := &layers.Dot1Q{Priority: uint8(tag.TCI() >> 13), DropEligible: tag.TCI()&0x1000 != 0, VLANIdentifier: tag.VID()}
		all, next = append(all, q), &q.Type
	}
	proto := layers.IPProtocolTCP
	if p.udp {
		proto = layers.IPProtocolUDP
	}
	var network gopacket.NetworkLayer
	if p.v6 {
		*next = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, FlowLabel: 0x12345,
			SrcIP: bytes.Repeat([]byte{0xfd}, 16), DstIP: bytes.Repeat([]byte{0xfe}, 16)}
		all, network = append(all, ip), ip
		if p.options > 0 {
			ip.NextHeader = layers.IPProtocolIPv6Destination
			ext := make([]byte, p.options)
			ext[0], ext[1] = byte(proto), byte(p.options/8-1)
			ext[2], ext[3] = 1, byte(p.options-4) // PadN over the rest
			all = append(all, gopacket.Payload(ext))
		}
	} else {
		*next = layers.EthernetTypeIPv4
		ip := &layers.IPv4{Version: 4, TTL: 64, Id: p.id, Flags: layers.IPv4DontFragment, Protocol: proto,
			SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}}
		for range p.options {
			ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 1}) // no operation
		}
		all, network = append(all, ip), ip
	}
	if p.udp {
		udp := &layers.UDP{SrcPort: 4000, DstPort: 5000}
		udp.SetNetworkLayerForChecksum(network)
		all = append(all, udp)
	} else {
		tcp := &layers.TCP{SrcPort: 4000, DstPort: 5000, Seq: p.seq, Ack: 7, ACK: true, Window: 1000,
			FIN: p.fin, PSH: p.psh, CWR: p.cwr,
			Options: []layers.TCPOption{{OptionType: 1}, {OptionType: 1}, {OptionType: 8, OptionLength: 10, OptionData: make([]byte, 8)}}}
		tcp.SetNetworkLayerForChecksum(network)
		all = append(all, tcp)
	}
	all = append(all, gopacket.Payload(p.payload))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	// gopacket pads to 60 bytes; a driver that leaves work to others doesn't.
	return buf.Bytes()[:p.l4()+p.l4Header()+len(p.payload)]
}

// l4 is the offset of the TCP or UDP header.
func (p packet) l4() int {
	n := HeaderLen + TagLen*len(p.tags) + p.options
	if p.v6 {
		return n + 40
	}
	return n + 20
}

// l4Header is the length of the TCP or UDP header.
func (p packet) l4Header() int {
	if p.udp {
		return 8
	}
	return 32
}

// csumOffset is the checksum's offset from l4.
func (p packet) csumOffset() int {
	if p.udp {
		return 6
	}
	return 16
}

// unfinished is the packet as a guest hands it over: only the pseudo-header's
// sum in the checksum field, taken here word by word.
func (p packet) unfinished(t testing.TB) ([]byte, VnetHdr) {
	b := p.wire(t)
	l4 := p.l4()
	addrs := b[l4-p.options-32 : l4-p.options]
	if !p.v6 {
		addrs = b[l4-p.options-8 : l4-p.options]
	}
	proto := protoTCP
	if p.udp {
		proto = protoUDP
	}
	s := uint32(len(b)-l4) + uint32(proto)
	for i := 0; i < len(addrs); i += 2 {
		s += uint32(binary.BigEndian.Uint16(addrs[i:]))
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	binary.BigEndian.PutUint16(b[l4+p.csumOffset():], uint16(s))
	return b, VnetHdr{Flags: HdrNeedsCsum, CsumStart: uint16(l4), CsumOffset: uint16(p.csumOffset())}
}

// segments are the packets that gopacket makes of the parts of the payload.
func (p packet) segments(t testing.TB, size int) (all [][]byte) {
	rest := p.payload
	for i := 0; ; i++ {
		q := p
		n := min(size, len(rest))
		q.payload, rest = rest[:n], rest[n:]
		q.id += uint16(i)
		q.seq += uint32(i * size)
		q.cwr = p.cwr && i == 0
		q.fin = p.fin && len(rest) == 0
		q.psh = p.psh && len(rest) == 0
		all = append(all, q.wire(t))
		if len(rest) == 0 {
			return all
		}
	}
}

func (p packet) gsoType() uint8 {
	switch {
	case p.udp:
		return GSOUDPL4
	case p.v6:
		return GSOTCPv6
	}
	return GSOTCPv4
}

func (p packet) String() string {
	s := "TCPv4"
	switch {
	case p.udp && p.v6:
		s = "UDPv6"
	case p.udp:
		s = "UDPv4"
	case p.v6:
		s = "TCPv6"
	}
	return fmt.Sprintf("%s/tags=%d/options=%d/payload=%d", s, len(p.tags), p.options, len(p.payload))
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// packets are the cases that the tests below share.
func packets(r *rand.Rand, lengths ...int) (all []packet) {
	for _, n := range lengths {
		for _, tags := range [][]Tag{nil, {MakeTag(EtherTypeVLAN, 6, 10)}, {MakeTag(EtherTypeQinQ, 2, 100), MakeTag(EtherTypeVLAN, 15, 4095)}} {
			for i := range 8 {
				all = append(all, packet{tags: tags, v6: i&1 != 0, udp: i&2 != 0, options: i >> 2 * 16,
					id: 0xfffe, seq: 0xffffff00, fin: true, psh: true, cwr: true, payload: randomBytes(r, n)})
			}
		}
	}
	return all
}

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
	binary.BigEndian.PutUint16(field, binary.BigEndian.Uint16(field)^0x0100)
	var x Finisher
	got, err := finish(t, &x, Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range p.segments(t, 100) {
		g, w := binary.BigEndian.Uint16(got[i][p.l4()+tcpCsum:]), binary.BigEndian.Uint16(want[p.l4()+tcpCsum:])
		if d := int(w) - int(g); d != 0x0100 && d != -0x0100 && d != 0x00ff && d != -0x00ff && d != 0xfeff && d != -0xfeff {
			t.Errorf("segment %d: checksum %04x is not %04x with the sender's difference of 0100", i, g, w)
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
