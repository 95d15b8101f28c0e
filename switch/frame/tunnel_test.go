package frame

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// tunnel is what stands around a packet; gopacket makes it.
type tunnel struct {
	kind string // of those in tunnels
	v6   bool   // the outer IP
	csum bool   // the outer UDP, or GRE, has a checksum
	tags []Tag
}

func tunnels() (all []tunnel) {
	for _, kind := range []string{"vxlan", "geneve", "gre", "gretap", "ipip", "vxlan in gre"} {
		for i := range 4 {
			t := tunnel{kind: kind, v6: i&1 != 0, csum: i&2 != 0}
			if i == 3 {
				t.tags = []Tag{MakeTag(EtherTypeVLAN, 6, 10)}
			}
			all = append(all, t)
		}
	}
	return all
}

// around is the frame inner, of which the i-th segment is that, in the tunnel, and
// where inner's bytes are in it from some offset on: inner offset 0 is at the
// second result.
func (u tunnel) around(t testing.TB, inner packet, wire []byte, i int) ([]byte, int) {
	t.Helper()
	cut := 0 // of inner: its Ethernet header, where the tunnel carries IP
	etherType := layers.EthernetTypeIPv4
	if inner.v6 {
		etherType = layers.EthernetTypeIPv6
	}
	proto := layers.IPProtocolUDP
	switch u.kind {
	case "gre", "gretap", "vxlan in gre":
		proto = layers.IPProtocolGRE
	case "ipip":
		proto = layers.IPProtocolIPv4
		if inner.v6 {
			proto = layers.IPProtocolIPv6
		}
	}
	var all []gopacket.SerializableLayer
	eth := &layers.Ethernet{SrcMAC: testSrc[:], DstMAC: testDst[:], EthernetType: layers.EthernetTypeIPv4}
	next := &eth.EthernetType
	all = append(all, eth)
	for _, tag := range u.tags {
		*next = layers.EthernetType(tag.TPID())
		q := &layers.Dot1Q{Priority: uint8(tag.TCI() >> 13), VLANIdentifier: tag.VID()}
		all, next = append(all, q), &q.Type
	}
	outer := func(proto layers.IPProtocol) gopacket.NetworkLayer {
		if u.v6 {
			ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: make([]byte, 16), DstIP: []byte("0123456789abcdef")}
			all = append(all, ip)
			return ip
		}
		ip := &layers.IPv4{Version: 4, TTL: 64, Id: uint16(0xffff + i), Protocol: proto, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
		all = append(all, ip)
		return ip
	}
	udp := func(over gopacket.NetworkLayer, port layers.UDPPort) {
		l := &layers.UDP{SrcPort: 50000, DstPort: port}
		l.SetNetworkLayerForChecksum(over)
		all = append(all, l)
	}
	*next = layers.EthernetTypeIPv4
	if u.v6 {
		*next = layers.EthernetTypeIPv6
	}
	ip := outer(proto)
	switch u.kind {
	case "vxlan":
		udp(ip, 4789)
		all = append(all, &layers.VXLAN{ValidIDFlag: true, VNI: 5})
	case "geneve":
		udp(ip, 6081)
		all = append(all, gopacket.Payload{2, 0, 0x65, 0x58, 0, 0, 9, 0, 1, 2, 3, 1, 0x45, 0, 0, 40}) // with an option
	case "gre":
		all = append(all, &layers.GRE{Protocol: etherType, ChecksumPresent: u.csum, KeyPresent: true, Key: 7})
		cut = HeaderLen + TagLen*len(inner.tags)
	case "gretap":
		all = append(all, &layers.GRE{Protocol: etherTypeTEB, ChecksumPresent: u.csum})
	case "ipip":
		cut = HeaderLen + TagLen*len(inner.tags)
	case "vxlan in gre":
		all = append(all, &layers.GRE{Protocol: layers.EthernetTypeIPv4})
		v6 := u.v6
		u.v6 = false
		ip := outer(layers.IPProtocolUDP)
		u.v6 = v6
		udp(ip, 4789)
		all = append(all, &layers.VXLAN{ValidIDFlag: true, VNI: 5})
	}
	all = append(all, gopacket.Payload(wire[cut:]))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	b := buf.Bytes()
	at := len(b) - (len(wire) - cut)
	if !u.csum {
		switch u.kind {
		case "vxlan", "vxlan in gre":
			b[at-8-2], b[at-8-1] = 0, 0
		case "geneve":
			b[at-16-2], b[at-16-1] = 0, 0
		}
	}
	return b, at - cut
}

func TestSegmentsInTunnelsAreThoseThatGopacketWouldSerialize(t *testing.T) {
	var x Finisher
	for _, u := range tunnels() {
		for _, p := range packets(rand.New(rand.NewPCG(9, 10)), 999, 4567) {
			t.Run(fmt.Sprintf("%+v/%v", u, p), func(t *testing.T) {
				inner, hdr := p.unfinished(t)
				b, moved := u.around(t, p, inner, 0)
				hdr.CsumStart += uint16(moved)
				hdr.GSOType, hdr.GSOSize = p.gsoType()|GSOTunnel, 1000
				got, err := finish(t, &x, Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{Csum: true, TSO4: true, TSO6: true, USO: true})
				if err != nil {
					t.Fatal(err)
				}
				var want [][]byte
				for i, s := range p.segments(t, 1000) {
					w, _ := u.around(t, p, s, i)
					want = append(want, w)
				}
				wantFrames(t, got, want)
				x.Reset()
			})
		}
	}
}

// What is in a tunnel may be anything that looks like one.
func FuzzTunnel(f *testing.F) {
	for _, u := range tunnels() {
		for _, p := range []packet{{payload: make([]byte, 300)}, {v6: true, options: 16, payload: make([]byte, 300)}, {udp: true, payload: make([]byte, 300)}} {
			b, moved := u.around(f, p, p.wire(f), 0)
			f.Add(b, uint16(p.l4()+moved), uint16(p.csumOffset()), p.gsoType(), uint16(100))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, start, offset uint16, gso uint8, size uint16) {
		if len(b) < HeaderLen {
			return
		}
		var x Finisher
		outs, err := x.Finish(Out{Frame: &Frame{Data: b, Hdr: VnetHdr{
			Flags: HdrNeedsCsum, GSOType: gso&^GSOECN | GSOTunnel, GSOSize: size, CsumStart: start, CsumOffset: offset,
		}}}, Offloads{Csum: true, TSO4: true, TSO6: true, USO: true}, nil)
		if err != nil && len(outs) != 0 {
			t.Fatalf("%v, and %d frames", err, len(outs))
		}
	})
}
