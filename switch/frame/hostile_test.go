package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// Each case lies in one way; the frame under it is a good TCP or UDP packet.
func TestHeadersThatDoNotFitAreRefused(t *testing.T) {
	tcp4 := packet{payload: make([]byte, 300)}
	tcp6 := packet{v6: true, options: 8, payload: make([]byte, 300)}
	udp4 := packet{udp: true, payload: make([]byte, 300)}
	gso := func(p packet) func(*Frame) {
		return func(f *Frame) { f.Hdr.GSOType, f.Hdr.GSOSize = p.gsoType(), 100 }
	}
	for _, c := range []struct {
		name string
		p    packet
		lie  []func(*Frame)
		want error
	}{
		{"checksum begins in the MAC addresses", tcp4, []func(*Frame){func(f *Frame) { f.Hdr.CsumStart = 0 }}, errCsumPlace},
		{"checksum begins in the EtherType", tcp4, []func(*Frame){func(f *Frame) { f.Hdr.CsumStart = 13 }}, errCsumPlace},
		{"checksum begins in the tag", packet{tags: []Tag{MakeTag(EtherTypeVLAN, 0, 1)}}, []func(*Frame){func(f *Frame) { f.Strip, f.Hdr.CsumStart = TagLen, 17 }}, errCsumPlace},
		{"checksum begins behind the frame", tcp4, []func(*Frame){func(f *Frame) { f.Hdr.CsumStart = 0xffff }}, errCsumPlace},
		{"checksum is stored behind the frame", tcp4, []func(*Frame){func(f *Frame) { f.Hdr.CsumOffset = 0xffff }}, errCsumPlace},
		{"half of the checksum is behind the frame", tcp4, []func(*Frame){func(f *Frame) { f.Hdr.CsumOffset = uint16(len(f.Data)) - f.Hdr.CsumStart - 1 }}, errCsumPlace},
		{"no Ethernet header", tcp4, []func(*Frame){func(f *Frame) { f.Data = f.Data[:13] }}, errRunt},
		{"no tag where one is to be stripped", tcp4, []func(*Frame){func(f *Frame) { f.Data, f.Strip = f.Data[:17], TagLen }}, errRunt},
		{"unknown GSO type", tcp4, []func(*Frame){func(f *Frame) { f.Hdr.GSOType = 2 }}, errGSOType},
		{"ECN of no GSO type", tcp4, []func(*Frame){func(f *Frame) { f.Hdr.GSOType = GSOECN }}, errGSOType},
		{"GSO size 0", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Hdr.GSOSize = 0 }}, errGSOSize},
		{"GSO size 1 of 3000 bytes", packet{payload: make([]byte, 3000)}, []func(*Frame){gso(tcp4), func(f *Frame) { f.Hdr.GSOSize = 1 }}, errGSOSize},
		{"segments longer than an IP packet", packet{payload: make([]byte, 65400)}, []func(*Frame){gso(tcp4), func(f *Frame) {
			f.Hdr.GSOSize = 65535
			f.Rest = [][]byte{make([]byte, 200)}
			binary.BigEndian.PutUint16(f.Data[HeaderLen+ipv4TotalLen:], 0)
		}}, errGSOSize},
		{"TCPv4 is IPv6", tcp6, []func(*Frame){gso(tcp4)}, errGSOPacket},
		{"TCPv6 is IPv4", tcp4, []func(*Frame){gso(tcp6)}, errGSOPacket},
		{"TCPv4 is UDP", udp4, []func(*Frame){gso(tcp4)}, errGSOPacket},
		{"USO is TCP", tcp6, []func(*Frame){gso(udp4)}, errGSOPacket},
		{"ARP", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { binary.BigEndian.PutUint16(f.Data[12:], EtherTypeARP) }}, errGSOPacket},
		{"IPv4 of version 5", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Data[14] = 0x55 }}, errGSOPacket},
		{"IPv4 header of 16 bytes", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Data[14] = 0x44 }}, errGSOPacket},
		{"IPv4 first fragment", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Data[14+6] = 0x20 }}, errGSOPacket},
		{"IPv4 later fragment", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Data[14+7] = 1 }}, errGSOPacket},
		{"IPv6 of version 4", tcp6, []func(*Frame){gso(tcp6), func(f *Frame) { f.Data[14] = 0x40 }}, errGSOPacket},
		{"IPv6 fragment header", tcp6, []func(*Frame){gso(tcp6), func(f *Frame) { f.Data[14+6] = 44 }}, errGSOPacket},
		{"IPv6 extension header of 2 KiB", tcp6, []func(*Frame){gso(tcp6), func(f *Frame) { f.Data[14+40+1] = 255 }}, errGSOHeaders},
		{"IPv6 extension headers without end", packet{v6: true, payload: make([]byte, 900)}, []func(*Frame){gso(tcp6), func(f *Frame) {
			f.Data[14+6] = 60
			for i := 14 + 40; i < len(f.Data); i += 8 {
				copy(f.Data[i:], []byte{60, 0, 1, 4, 0, 0, 0, 0})
			}
		}}, errGSOHeaders},
		{"tags without end", packet{payload: make([]byte, 302)}, []func(*Frame){gso(tcp4), func(f *Frame) {
			for i := 12; i+4 <= len(f.Data); i += 4 {
				copy(f.Data[i:], []byte{0x81, 0, 0, 1})
			}
		}}, errGSOHeaders},
		{"TCP header of 16 bytes", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Data[tcp4.l4()+tcpDataOff] = 0x40 }}, errGSOPacket},
		{"cut in the IPv4 header", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Data = f.Data[:33] }}, errGSOHeaders},
		{"cut in the IPv6 header", tcp6, []func(*Frame){gso(tcp6), func(f *Frame) { f.Data = f.Data[:53] }}, errGSOHeaders},
		{"cut in the extension header", tcp6, []func(*Frame){gso(tcp6), func(f *Frame) { f.Data = f.Data[:61] }}, errGSOHeaders},
		{"cut in the TCP header", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Data = f.Data[:tcp4.l4()+19] }}, errGSOHeaders},
		{"cut in the TCP options", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Data = f.Data[:tcp4.l4()+31] }}, errGSOHeaders},
		{"cut in the UDP header", udp4, []func(*Frame){gso(udp4), func(f *Frame) { f.Data = f.Data[:udp4.l4()+7] }}, errGSOHeaders},
		{"IPv4 ends in the TCP header", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { binary.BigEndian.PutUint16(f.Data[14+ipv4TotalLen:], 39) }}, errGSOHeaders},
		{"checksum begins elsewhere", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Hdr.CsumStart += 2 }}, errGSOCsum},
		{"checksum is stored elsewhere", tcp4, []func(*Frame){gso(tcp4), func(f *Frame) { f.Hdr.CsumOffset = 14 }}, errGSOCsum},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &Frame{}
			f.Data, f.Hdr = c.p.unfinished(t)
			for _, lie := range c.lie {
				lie(f)
			}
			var x Finisher
			outs, err := x.Finish(Out{Frame: f}, Offloads{}, nil)
			if !errors.Is(err, c.want) || len(outs) != 0 {
				t.Errorf("%d frames, error %v; want error %v", len(outs), err, c.want)
			}
		})
	}
}

func TestAsManySegmentsAsASmallMTUMakesArePossible(t *testing.T) {
	p := packet{payload: make([]byte, 65535-20-32)}
	b, hdr := p.unfinished(t)
	hdr.GSOType, hdr.GSOSize = GSOTCPv4, 296-40
	var x Finisher
	got, err := finish(t, &x, Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{})
	if err != nil {
		t.Fatal(err)
	}
	wantFrames(t, got, p.segments(t, 296-40))
}

// Whatever a guest claims: no panic, no byte read or written outside the frame,
// nothing stored over the addresses, a bounded number of frames that carry no
// more than the frame did.
func FuzzFinish(f *testing.F) {
	for _, p := range []packet{
		{payload: make([]byte, 300)},
		{v6: true, options: 16, payload: make([]byte, 300)},
		{udp: true, tags: []Tag{MakeTag(EtherTypeVLAN, 1, 2), MakeTag(EtherTypeVLAN, 0, 3)}, payload: make([]byte, 200)},
		{udp: true, v6: true, payload: make([]byte, 10)},
	} {
		b, hdr := p.unfinished(f)
		var raw [VnetHdrLen]byte
		hdr.Put(raw[:])
		f.Add(raw[:], b, uint16(20), uint16(40), false)
		hdr.GSOType, hdr.GSOSize = p.gsoType(), 100
		hdr.Put(raw[:])
		f.Add(raw[:], b, uint16(14), uint16(60), len(p.tags) > 0)
	}
	f.Fuzz(func(t *testing.T, raw, b []byte, cut1, cut2 uint16, strip bool) {
		if len(raw) < VnetHdrLen {
			return
		}
		i := min(int(cut1), len(b))
		j := max(i, min(int(cut2), len(b)))
		fr := &Frame{Data: b[:i:i], Rest: [][]byte{b[i:j:j], b[j:len(b):len(b)]}, Hdr: ReadVnetHdr(raw)}
		if strip {
			fr.Strip, fr.Tag = TagLen, MakeTag(EtherTypeVLAN, 0, 1)
		}
		before := bytes.Clone(b)
		var x Finisher
		outs, err := x.Finish(Out{Frame: fr}, Offloads{}, nil)
		if !bytes.Equal(b, before) {
			t.Fatal("Finish wrote to its input")
		}
		if (err == nil) != (len(outs) > 0) || len(outs) > maxSegments {
			t.Fatalf("%d frames, error %v", len(outs), err)
		}
		if fr.Hdr.Plain() {
			return
		}
		carried := 0
		for i := range outs {
			out := &outs[i]
			if !out.Hdr.Plain() || out.Strip != 0 || out.Rest != nil {
				t.Fatalf("frame %d is not plain: %+v", i, out.Frame)
			}
			if out.Dst() != fr.Dst() || out.Src() != fr.Src() {
				t.Fatalf("frame %d has addresses %v %v", i, out.Dst(), out.Src())
			}
			carried += len(out.Data) - HeaderLen
			if i > 0 {
				carried -= 20 + 8 // IP and UDP headers, at the least, are repeated
			}
		}
		if carried > len(b)*(1+maxHeaders) {
			t.Fatalf("%d bytes became %d", len(b), carried)
		}
	})
}
