package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
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
