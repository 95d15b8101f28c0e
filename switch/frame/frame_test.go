package frame

import (
	"bytes"
	"encoding/json"
	"net"
	"reflect"
	"strings"
	"testing"
)

func TestParseMACTakesSixOctetsAndNothingElse(t *testing.T) {
	want := MAC{0x52, 0x54, 0, 0xab, 0xcd, 0xef}
	for _, s := range []string{"52:54:00:ab:cd:ef", "52:54:00:AB:CD:EF", "52-54-00-ab-cd-ef", "52:54:0:ab:cd:ef", "52-54-0-AB-cd-ef", "5254.00ab.cdef"} {
		if m, err := ParseMAC(s); err != nil || m != want {
			t.Errorf("ParseMAC(%q) = %v, %v", s, m, err)
		}
	}
	for _, s := range []string{
		"", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "52:54:00:ab:cd:", "52:54:000:ab:cd:ef", "525400abcdef", "5254.00ab.cde", "5254.0ab.0cdef", "5254:00ab:cdef",
		"52:54:00-ab:cd:ef", "52:54:00:ab:cd-ef", "52.54.00.ab.cd.ef", "52:54:00:ab:cd:eg", "+2:54:00:ab:cd:ef",
		" 2:54:00:ab:cd:ef", "52:54:00:ab:cd:0x", "52:54:00:ab:cd:_1", "5254:00:ab:cd:ef:", "52:54:00:ab:cd:ef\n",
	} {
		m, err := ParseMAC(s)
		if err == nil || m != (MAC{}) {
			t.Errorf("ParseMAC(%q) = %v, %v; want an error", s, m, err)
		} else if strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("ParseMAC(%q): the error is more than a line: %q", s, err)
		}
	}
}

// net.ParseMAC is the oracle; it also knows other lengths, and wants octets of two
// digits.
func FuzzParseMAC(f *testing.F) {
	for _, s := range []string{"52:54:00:ab:cd:ef", "52-54-00-AB-CD-EF", "5254.00ab.cdef", "52:54:00-ab:cd:ef", "000000000000", "::", "é2:54:00:ab:cd:e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		octets := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' })
		padded := s
		for i, o := range octets {
			if len(o) == 1 {
				octets[i] = "0" + o
			}
			if strings.Contains(s, "-") {
				padded = strings.Join(octets, "-")
			} else {
				padded = strings.Join(octets, ":")
			}
		}
		if strings.Contains(s, ".") || strings.Count(s, ":")+strings.Count(s, "-") != 5 || strings.Contains(s, ":") && strings.Contains(s, "-") {
			padded = s
		}
		want, wantErr := net.ParseMAC(padded)
		if wantErr != nil || len(want) != 6 || len(padded) != 17 && len(padded) != 14 {
			if err == nil {
				t.Fatalf("ParseMAC(%q) = %v, want an error", s, m)
			}
			return
		}
		if err != nil || !bytes.Equal(m[:], want) || m.String() != want.String() {
			t.Fatalf("ParseMAC(%q) = %v, %v; want %v", s, m, err, want)
		}
	})
}

func TestMACIsAStringInJSON(t *testing.T) {
	type doc struct{ M MAC }
	in := doc{MAC{0x02, 0, 0, 0, 0, 0x0a}}
	b, err := json.Marshal(in)
	if err != nil || string(b) != `{"M":"02:00:00:00:00:0a"}` {
		t.Fatalf("Marshal = %s, %v", b, err)
	}
	var out doc
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("Unmarshal = %v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"M":"02:00"}`), &out); err == nil {
		t.Error("Unmarshal took a short address")
	}
}

func TestKindsOfAddress(t *testing.T) {
	for _, c := range []struct {
		mac                             string
		group, zero, unicast, linkLocal bool
	}{
		{"52:54:00:12:34:56", false, false, true, false},
		{"00:00:00:00:00:00", false, true, false, false},
		{"00:00:00:00:00:01", false, false, true, false},
		{"ff:ff:ff:ff:ff:ff", true, false, false, false},
		{"01:00:5e:00:00:01", true, false, false, false},
		{"33:33:00:00:00:01", true, false, false, false},
		{"01:80:c2:00:00:00", true, false, false, true}, // 802.1Q table 8-1: first
		{"01:80:c2:00:00:0e", true, false, false, true},
		{"01:80:c2:00:00:0f", true, false, false, true},  // last
		{"01:80:c2:00:00:10", true, false, false, false}, // bridge management: forwarded
		{"01:80:c2:00:00:20", true, false, false, false},
		{"01:80:c2:00:01:00", true, false, false, false},
		{"01:80:c3:00:00:00", true, false, false, false},
		{"00:80:c2:00:00:00", false, false, true, false},
	} {
		m, err := ParseMAC(c.mac)
		if err != nil {
			t.Fatal(err)
		}
		if m.IsGroup() != c.group || m.IsZero() != c.zero || m.IsUnicast() != c.unicast || m.IsLinkLocal() != c.linkLocal {
			t.Errorf("%v: group %v zero %v unicast %v link-local %v", m, m.IsGroup(), m.IsZero(), m.IsUnicast(), m.IsLinkLocal())
		}
	}
	if !Broadcast.IsGroup() || Broadcast.String() != "ff:ff:ff:ff:ff:ff" {
		t.Errorf("Broadcast is %v", Broadcast)
	}
}

func TestTagKeepsItsParts(t *testing.T) {
	for _, tpid := range []uint16{EtherTypeVLAN, EtherTypeQinQ} {
		for pcp := range uint8(16) {
			for _, vid := range []uint16{0, 1, 4094, 4095} {
				tag := MakeTag(tpid, pcp, vid)
				if tag.TPID() != tpid || tag.VID() != vid || tag.TCI() != uint16(pcp)<<12|vid {
					t.Fatalf("MakeTag(%x, %d, %d) = %08x", tpid, pcp, vid, tag)
				}
				if got := tag.WithVID(77); got != MakeTag(tpid, pcp, 77) {
					t.Fatalf("%08x.WithVID(77) = %08x", tag, got)
				}
			}
		}
	}
	if got := MakeTag(EtherTypeVLAN, 0x1f, 0xffff); got != 0x8100ffff {
		t.Errorf("parts that are too large spill: %08x", got)
	}
}

func TestFrameIsACacheLine(t *testing.T) {
	if n := reflect.TypeFor[Frame]().Size(); n != 64 {
		t.Errorf("a Frame is %d bytes", n)
	}
}

// What a port puts on the wire for each place of the tag: bytes, Len, and a
// header whose checksum still begins at the same byte.
func TestWireBytesLengthAndHeaderAgree(t *testing.T) {
	tag, other := MakeTag(EtherTypeVLAN, 3, 5), MakeTag(EtherTypeQinQ, 0, 6)
	addrs := append(append([]byte{}, testDst[:]...), testSrc[:]...)
	tagBytes := map[Tag][]byte{0: nil, tag: {0x81, 0, 0x30, 5}, other: {0x88, 0xa8, 0, 6}}
	body := []byte{0x12, 0x34, 'a', 'b', 'C', 'S', 'U', 'M'} // EtherType, two bytes, what is summed
	for _, inBand := range []bool{false, true} {
		for _, ftag := range []Tag{0, tag} {
			for _, egress := range []Tag{0, tag, other} {
				for _, cut := range []int{2, 4, len(body)} {
					f := &Frame{Tag: ftag, Hdr: VnetHdr{Flags: HdrNeedsCsum, HdrLen: 18, CsumStart: 16, CsumOffset: 2, GSOSize: 9}}
					f.Data = bytes.Clone(addrs)
					if inBand {
						f.Data = append(f.Data, tagBytes[tag]...)
						f.Strip, f.Tag = TagLen, tag
						f.Hdr.CsumStart += TagLen
						f.Hdr.HdrLen += TagLen
					}
					f.Data = append(f.Data, body[:cut]...)
					f.Rest = [][]byte{body[cut:], nil}
					o := Out{Frame: f, EgressTag: egress}
					want := append(append(bytes.Clone(addrs), tagBytes[egress]...), body...)
					got := o.AppendWire([]byte("x"))
					if string(got) != "x"+string(want) {
						t.Fatalf("inBand %v tag %x egress %x: wire %x, want %x", inBand, ftag, egress, got[1:], want)
					}
					if o.Len() != len(want) {
						t.Errorf("inBand %v tag %x egress %x: Len %d, want %d", inBand, ftag, egress, o.Len(), len(want))
					}
					own := len(want) - len(tagBytes[egress]) + len(tagBytes[f.Tag])
					if f.Len() != own {
						t.Errorf("inBand %v tag %x: Frame.Len %d, want %d", inBand, ftag, f.Len(), own)
					}
					h := o.WireHdr()
					if s := string(want[h.CsumStart:]); s != "CSUM" {
						t.Errorf("inBand %v egress %x: the checksum begins at %q", inBand, egress, s)
					}
					if int(h.HdrLen) != int(h.CsumStart)+2 || h.CsumOffset != 2 || h.GSOSize != 9 {
						t.Errorf("inBand %v egress %x: header %+v", inBand, egress, h)
					}
				}
			}
		}
	}
}

func TestWireHdrOfAPlainFrameStaysZero(t *testing.T) {
	f := &Frame{Data: make([]byte, 60), Strip: TagLen, Tag: MakeTag(EtherTypeVLAN, 0, 1)}
	if h := (&Out{Frame: f}).WireHdr(); h != (VnetHdr{}) {
		t.Errorf("%+v", h)
	}
}

func TestVnetHdrIsVirtioLayout(t *testing.T) {
	// A 64 KiB TSO frame as a veth peer delivers it.
	raw := []byte{0x01, 0x01, 0x42, 0x00, 0xa8, 0x05, 0x22, 0x00, 0x10, 0x00}
	want := VnetHdr{Flags: HdrNeedsCsum, GSOType: GSOTCPv4, HdrLen: 66, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	if got := ReadVnetHdr(raw); got != want {
		t.Errorf("ReadVnetHdr = %+v, want %+v", got, want)
	}
	b := fill(VnetHdrMrgRxbufLen, 0xee)
	want.Put(b)
	if !bytes.Equal(b, append(raw, 0xee, 0xee)) {
		t.Errorf("Put = %x", b)
	}
}

func FuzzVnetHdr(f *testing.F) {
	f.Add([]byte{1, 1, 66, 0, 168, 5, 34, 0, 16, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < VnetHdrLen {
			return
		}
		out := make([]byte, VnetHdrLen)
		ReadVnetHdr(b).Put(out)
		if !bytes.Equal(out, b[:VnetHdrLen]) {
			t.Fatalf("%x became %x", b[:VnetHdrLen], out)
		}
	})
}

func TestOffloadsTakeOnlyWhatTheySay(t *testing.T) {
	csum := VnetHdr{Flags: HdrNeedsCsum}
	gso := func(typ uint8) VnetHdr { return VnetHdr{Flags: HdrNeedsCsum, GSOType: typ, GSOSize: 1} }
	all := Offloads{Csum: true, TSO4: true, TSO6: true, USO: true}
	for _, c := range []struct {
		name  string
		hdr   VnetHdr
		needs Offloads
		never bool
	}{
		{"plain", VnetHdr{}, Offloads{}, false},
		{"verified", VnetHdr{Flags: HdrDataValid}, Offloads{}, false},
		{"unfinished checksum", csum, Offloads{Csum: true}, false},
		{"TSO4", gso(GSOTCPv4), Offloads{Csum: true, TSO4: true}, false},
		{"TSO4 with ECN", gso(GSOTCPv4 | GSOECN), Offloads{Csum: true, TSO4: true}, false},
		{"TSO4, checksum verified", VnetHdr{Flags: HdrDataValid, GSOType: GSOTCPv4}, Offloads{TSO4: true}, false},
		{"TSO6", gso(GSOTCPv6), Offloads{Csum: true, TSO6: true}, false},
		{"USO", gso(GSOUDPL4), Offloads{Csum: true, USO: true}, false},
		{"UFO", gso(GSOUDP), Offloads{}, true},
		{"unknown", gso(2), Offloads{}, true},
		{"ECN of nothing", gso(GSOECN), Offloads{}, true},
		{"unknown, high", gso(0x7f), Offloads{}, true},
	} {
		if got := all.Takes(c.hdr); got == c.never {
			t.Errorf("%s: a port with every offload takes it: %v", c.name, got)
		}
		if c.never {
			continue
		}
		// Exactly the ports that have what is needed take it.
		for i := range 16 {
			o := Offloads{Csum: i&1 != 0, TSO4: i&2 != 0, TSO6: i&4 != 0, USO: i&8 != 0}
			want := (o.Csum || !c.needs.Csum) && (o.TSO4 || !c.needs.TSO4) && (o.TSO6 || !c.needs.TSO6) && (o.USO || !c.needs.USO)
			if o.Takes(c.hdr) != want {
				t.Errorf("%s: %+v takes it: %v", c.name, o, !want)
			}
		}
	}
}

func TestPlainIsWhatAPortWithoutOffloadsTakes(t *testing.T) {
	for flags := range 4 {
		for gso := range 256 {
			h := VnetHdr{Flags: uint8(flags), GSOType: uint8(gso)}
			if (Offloads{}).Takes(h) != h.Plain() {
				t.Errorf("%+v: plain %v", h, h.Plain())
			}
		}
	}
}

func TestHotAccessorsDoNotAllocate(t *testing.T) {
	f := &Frame{Data: make([]byte, 60), Tag: MakeTag(EtherTypeVLAN, 0, 1)}
	o := Out{Frame: f}
	buf := make([]byte, 0, 100)
	n := testing.AllocsPerRun(100, func() {
		if f.Dst().IsLinkLocal() || f.Src().IsGroup() || f.Len() != 64 || o.Len() != 60 || !o.WireHdr().Plain() {
			t.Error("wrong")
		}
		buf = o.AppendWire(buf[:0])
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
