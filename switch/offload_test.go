package vswitch_test

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// superFrame is a TCP frame of n payload bytes as a stack with offloads leaves
// it: unsegmented, checksum unfinished.
func superFrame(t *testing.T, n int) frame.Frame {
	t.Helper()
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
	tcp := &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 7, ACK: true, Window: 1000}
	tcp.SetNetworkLayerForChecksum(ip)
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{DstMAC: macB[:], SrcMAC: macA[:], EthernetType: layers.EthernetTypeIPv4}, ip, tcp, gopacket.Payload(make([]byte, n))); err != nil {
		t.Fatal(err)
	}
	// An unfinished checksum is the pseudo-header's sum: addresses, protocol, length.
	data := buf.Bytes()
	sum := uint32(layers.IPProtocolTCP) + uint32(20+n)
	for i := 26; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	binary.BigEndian.PutUint16(data[50:], uint16(sum+sum>>16))
	return frame.Frame{Data: data, Hdr: frame.VnetHdr{
		Flags: frame.HdrNeedsCsum, GSOType: frame.GSOTCPv4, HdrLen: 54, GSOSize: 1460, CsumStart: 34, CsumOffset: 16}}
}

func TestSuperFrameCrossesWholeToAPortThatTakesIt(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	f := superFrame(t, 60000)
	l.sendFrames(1, f)
	got := l.ports[1].Sent()
	if len(got) != 1 || len(got[0].Wire) != len(f.Data) || got[0].Hdr != f.Hdr {
		t.Errorf("port was sent %d frames, want the one as it was", len(got))
	}
}

func TestSuperFrameIsSegmentedForAPortThatDoesNotTakeIt(t *testing.T) {
	l := newLab(t, vswitch.Config{VLANFiltering: true}, 3)
	l.ports[1].SetState(func(s *frame.State) { s.Offloads = frame.Offloads{} })
	eventually(t, "the port's offloads are known", func() bool { st, _ := l.PortStatus("p2"); return !st.Offloads.Csum })
	first := mem.Ethernet(bcast, macA, "keeps its place")
	l.ports[0].InjectFrames(frame.Frame{Data: first}, superFrame(t, 1460*40+1), frame.Frame{Data: first})
	l.settle()
	got := l.ports[1].Sent()
	if len(got) != 43 {
		t.Fatalf("port was sent %d frames, want 41 segments between two frames", len(got))
	}
	if string(got[0].Wire) != string(first) || string(got[42].Wire) != string(first) {
		t.Error("the segments changed places with the frames around them")
	}
	for _, g := range got[1:42] {
		if len(g.Wire) > 1514 || !g.Hdr.Plain() {
			t.Fatalf("segment of %d bytes, header %+v", len(g.Wire), g.Hdr)
		}
		p := gopacket.NewPacket(g.Wire, layers.LayerTypeEthernet, gopacket.Default)
		ip, tcp := p.NetworkLayer().(*layers.IPv4), p.TransportLayer().(*layers.TCP)
		want := tcp.Checksum
		tcp.SetNetworkLayerForChecksum(ip)
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, tcp, gopacket.Payload(tcp.Payload)); err != nil {
			t.Fatal(err)
		}
		if tcp.Checksum != want {
			t.Fatalf("checksum %04x, want %04x", want, tcp.Checksum)
		}
	}
	st, _ := l.PortStatus("p2")
	if st.TX.Frames != 43 || st.Drops["egress-full"] != 0 {
		t.Errorf("counters: %+v, %v", st.TX, st.Drops)
	}
}

func TestHeaderThatLiesIsDroppedByName(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	l.ports[1].SetState(func(s *frame.State) { s.Offloads = frame.Offloads{} })
	eventually(t, "the port's offloads are known", func() bool { st, _ := l.PortStatus("p2"); return !st.Offloads.Csum })
	for _, change := range []func(*frame.VnetHdr){
		func(h *frame.VnetHdr) { h.CsumStart = 65000 },
		func(h *frame.VnetHdr) { h.GSOSize = 0 },
		func(h *frame.VnetHdr) { h.GSOType = 77 },
		func(h *frame.VnetHdr) { *h = frame.VnetHdr{Flags: frame.HdrNeedsCsum, CsumStart: 0, CsumOffset: 0} },
	} {
		f := superFrame(t, 1000)
		change(&f.Hdr)
		l.sendFrames(1, f)
	}
	l.expect("lies", nil)
	if n := l.drops(2, "egress-offload"); n != 4 {
		t.Errorf("egress-offload = %d, want 4", n)
	}
}

// Two tags and a full payload are no more than the kernel's bridge passes.
func TestTagsMakeAFrameNoLongerThanTheMTU(t *testing.T) {
	tag := []byte{0x81, 0, 0, 5}
	for _, beside := range []bool{false, true} {
		for _, c := range []struct{ tags, payload, passes int }{
			{0, 1500, 1}, {0, 1501, 0},
			{1, 1500, 1}, {1, 1504, 1}, {1, 1505, 0},
			{2, 1500, 1}, {2, 1501, 0}, {3, 1500, 0},
		} {
			wire := append(append([]byte{}, macB[:]...), macA[:]...)
			for range c.tags {
				wire = append(wire, tag...)
			}
			wire = append(append(wire, 0x88, 0xb5), make([]byte, c.payload)...)
			f := frame.Frame{Data: wire}
			if beside && c.tags > 0 {
				f.Data, f.Tag = append(append([]byte{}, wire[:12]...), wire[16:]...), 0x8100_0005
			}
			l := newLab(t, vswitch.Config{}, 2)
			l.sendFrames(1, f)
			want := map[int][][]byte{2: one(wire)}
			if c.passes == 0 {
				want = nil
			}
			l.expect("tags", want)
			if n := l.drops(2, "egress-mtu"); n != uint64(1-c.passes) {
				t.Errorf("%+v, beside %v: egress-mtu = %d", c, beside, n)
			}
		}
	}
}

func TestSegmentsLongerThanTheMTUAreDropped(t *testing.T) {
	l := newLab(t, vswitch.Config{}, 2)
	f := superFrame(t, 60000)
	f.Hdr.GSOSize = 8960
	l.sendFrames(1, f)
	l.expect("jumbo segments", nil)
	if n := l.drops(2, "egress-mtu"); n != 1 {
		t.Errorf("egress-mtu = %d, want 1", n)
	}
}
