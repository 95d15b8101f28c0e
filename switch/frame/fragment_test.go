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

// reassemble is the datagram that fragments make, as gopacket decodes them.
func reassemble(t *testing.T, fragments [][]byte, most int) (udp []byte) {
	t.Helper()
	id := uint32(0)
	for i, b := range fragments {
		p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
		var off, length int
		var more bool
		var thisID uint32
		var part []byte
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			off, more, thisID = int(ip.FragOffset)*8, ip.Flags == layers.IPv4MoreFragments, uint32(ip.Id)
			part, length = ip.Payload, int(ip.Length)
			ip.Checksum = 0
			if sum := slowChecksum(ip.Contents); sum != 0 {
				t.Errorf("fragment %d: checksum of the IP header is off by %04x", i, sum)
			}
		case *layers.IPv6:
			f := p.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
			off, more, thisID = int(f.FragmentOffset)*8, f.MoreFragments, f.Identification
			part, length = f.Payload, int(ip.Length)+40
			if f.NextHeader != layers.IPProtocolUDP {
				t.Errorf("fragment %d: of protocol %v", i, f.NextHeader)
			}
		default:
			t.Fatalf("fragment %d: %v", i, p)
		}
		if i > 0 && thisID != id {
			t.Errorf("fragment %d: identification %x, the first one's is %x", i, thisID, id)
		}
		id = thisID
		if off != len(udp) || more != (i < len(fragments)-1) || length > most {
			t.Errorf("fragment %d of %d: at %d of %d, more %v, IP length %d", i, len(fragments), off, len(udp), more, length)
		}
		udp = append(udp, part...)
	}
	return udp
}

func TestFragmentsMakeTheDatagramThatGopacketWouldSerialize(t *testing.T) {
	var x Finisher
	for _, p := range packets(rand.New(rand.NewPCG(11, 12)), 1, 999, 1480, 4567, 65000) {
		if !p.udp {
			continue
		}
		for _, finished := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/finished=%v", p, finished), func(t *testing.T) {
				b, hdr := p.unfinished(t)
				if finished {
					b, hdr = p.wire(t), VnetHdr{Flags: HdrDataValid}
				}
				hdr.GSOType, hdr.GSOSize = GSOUDP, 1400
				got, err := finish(t, &x, Out{Frame: &Frame{Data: b[:40], Rest: [][]byte{b[40:]}, Hdr: hdr}}, Offloads{Csum: true, USO: true})
				if err != nil {
					t.Fatal(err)
				}
				if want := p.wire(t)[p.l4():]; !bytes.Equal(reassemble(t, got, 1500), want) {
					t.Error("another datagram than was sent")
				}
				x.Reset()
			})
		}
	}
}

func TestWhatCannotBeFragmentedIsRefused(t *testing.T) {
	udp := packet{udp: true, payload: make([]byte, 3000)}
	for what, change := range map[string]func(b []byte, h *VnetHdr){
		"TCP":                 func(b []byte, _ *VnetHdr) { b[HeaderLen+ipv4Proto] = protoTCP },
		"a fragment already":  func(b []byte, _ *VnetHdr) { binary.BigEndian.PutUint16(b[HeaderLen+ipv4Frag:], ipv4More) },
		"fragments of 7":      func(_ []byte, h *VnetHdr) { h.GSOSize = 7 },
		"too many fragments":  func(_ []byte, h *VnetHdr) { h.GSOSize = 8 },
		"checksum elsewhere":  func(_ []byte, h *VnetHdr) { h.CsumStart++ },
		"cut off":             func(_ []byte, h *VnetHdr) { h.GSOType = GSOUDP | GSOTunnel },
		"congestion notified": func(_ []byte, h *VnetHdr) { h.GSOType = GSOUDP | GSOECN },
	} {
		b, hdr := udp.unfinished(t)
		hdr.GSOType, hdr.GSOSize = GSOUDP, 1480
		change(b, &hdr)
		var x Finisher
		if outs, err := x.Finish(Out{Frame: &Frame{Data: b, Hdr: hdr}}, Offloads{Csum: true, USO: true}, nil); err == nil || len(outs) != 0 {
			t.Errorf("%s: %d frames, %v", what, len(outs), err)
		}
	}
}
