package vswitch

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// FuzzForward sends any bytes, tag and offload header into switches with and
// without VLAN filtering and offloads. Nothing may panic; nothing comes back to
// its port; a plain frame that passes a switch that doesn't filter comes out as
// it went in, and one that passes a filter differs in its tag at most; and every
// frame is either sent or counted as dropped.
func FuzzForward(f *testing.F) {
	plain := mem.Ethernet(mem.MAC(2), mem.MAC(1), "seed")
	f.Add(plain, uint32(0), []byte{})
	f.Add(mem.Tagged(frame.Broadcast, mem.MAC(1), 10, 3, "seed"), uint32(0), []byte{1, 0, 0, 0, 0, 0, 34, 0, 16, 0})
	f.Add(plain, uint32(0x88a80005), []byte{1, 1, 0, 0, 100, 0, 34, 0, 16, 0})
	f.Add(plain[:13], uint32(0x81000fff), []byte{})
	f.Add(append([]byte{1, 0x80, 0xc2, 0, 0, 0}, plain[6:]...), uint32(0), []byte{})
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))

	f.Fuzz(func(t *testing.T, data []byte, tag uint32, hdr []byte) {
		if len(data) > frame.MaxLen {
			return
		}
		in := frame.Frame{Data: data, Tag: frame.Tag(tag)}
		if len(hdr) >= frame.VnetHdrLen {
			in.Hdr = frame.ReadVnetHdr(hdr)
		}
		for _, filtering := range []bool{false, true} {
			s, err := New(Config{VLANFiltering: filtering, STP: STPConfig{Mode: ModeOff}, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			ports := []*mem.Port{mem.NewPort(), mem.NewPort(), mem.NewPort()}
			vlans := []VLANConfig{trunkVLAN(1), trunkVLAN(5, 10), AccessVLAN(1)}
			vlans[0].Member.AddRange(10, 20)
			ports[2].SetState(func(s *frame.State) { s.Offloads = frame.Offloads{} })
			for i, p := range ports {
				cfg := NewPortConfig("memory")
				cfg.VLAN = vlans[i]
				if _, err := s.AddPort([]string{"a", "b", "c"}[i], p, cfg); err != nil {
					t.Fatal(err)
				}
			}
			h, err := s.Hand()
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(data)
			h.Forward(1, []frame.Frame{in})
			if !bytes.Equal(before, data) {
				t.Error("the frame's bytes were written to")
			}
			if len(ports[0].Sent()) > 0 {
				t.Error("the frame came back to its port")
			}
			sent := append(ports[1].Sent(), ports[2].Sent()...)
			var dropped uint64
			for _, name := range []string{"a", "b", "c"} {
				st, _ := s.PortStatus(name)
				dropped += st.RX.Dropped + st.TX.Dropped
			}
			if len(sent) == 0 && dropped == 0 {
				t.Error("the frame is neither sent nor counted as dropped")
			}
			for _, r := range sent {
				if in.Hdr.Plain() {
					checkBytes(t, in, r.Wire, filtering)
				}
			}
			for _, p := range ports {
				p.Close()
			}
		}
	})
}

// checkBytes compares what left with what came: the same but for one tag.
func checkBytes(t *testing.T, in frame.Frame, out []byte, filtering bool) {
	wire := (&frame.Out{Frame: &frame.Frame{Data: in.Data}, EgressTag: in.Tag}).AppendWire(nil)
	if bytes.Equal(wire, out) {
		return
	}
	if !filtering {
		t.Errorf("sent %x, want %x", out, wire)
		return
	}
	strip := func(b []byte) []byte {
		if len(b) >= 18 && binary.BigEndian.Uint16(b[12:]) == frame.EtherTypeVLAN {
			return append(bytes.Clone(b[:12]), b[16:]...)
		}
		return b
	}
	if !bytes.Equal(strip(wire), strip(out)) && !bytes.Equal(wire, strip(out)) && !bytes.Equal(strip(wire), out) {
		t.Errorf("sent %x for %x: they differ in more than a tag", out, wire)
	}
}
