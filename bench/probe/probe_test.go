package probe

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/kvswitch/kvswitch/switch/frame"
)

func stamped(t testing.TB, n int, gso bool) []byte {
	t.Helper()
	tmpl := Build(make([]byte, n), gso, 9)
	tmpl.Stamp(Station(1, 7), Station(0, 7), 12345, 67890)
	return tmpl.Bytes()
}

func TestEveryFrameSentIsTheFrameAskedFor(t *testing.T) {
	for _, name := range StandardSizes {
		size, err := ParseSize(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range size.Lengths {
			b := stamped(t, n, size.GSO)
			if len(b) != n {
				t.Errorf("%s: %d bytes, want %d", name, len(b), n)
			}
			s, v := Parse(b)
			want := Stamp{Dst: Station(1, 7), Src: Station(0, 7), Seq: 12345, At: 67890}
			if v != Intact || s != want {
				t.Errorf("%s: parsed %+v (%v), want %+v", name, s, v, want)
			}
			checkPacket(t, name, b, size.GSO)
		}
	}
}

// checkPacket has an independent decoder confirm that the packet is one a host
// would accept.
func checkPacket(t *testing.T, name string, b []byte, gso bool) {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil {
		t.Fatalf("%s: %v", name, p.ErrorLayer().Error())
	}
	ip, ok := p.NetworkLayer().(*layers.IPv4)
	if !ok || int(ip.Length) != len(b)-14 || sum(0, ip.Contents) != 0xffff {
		t.Errorf("%s: IPv4 length or checksum is wrong: %+v", name, ip)
	}
	switch l4 := p.TransportLayer().(type) {
	case *layers.UDP:
		if gso || int(l4.Length) != len(b)-34 || l4.DstPort != 7 {
			t.Errorf("%s: UDP %+v", name, l4)
		}
	case *layers.TCP:
		if !gso || len(l4.Payload)%gsoSegment != 0 {
			t.Errorf("%s: TCP with %d bytes of payload, want whole segments", name, len(l4.Payload))
		}
	default:
		t.Errorf("%s: no transport layer", name)
	}
}

func TestAnyChangedByteIsNoticed(t *testing.T) {
	for _, n := range []int{MinLen, 124, 1514} {
		for i := range n {
			b := bytes.Clone(stamped(t, n, false))
			b[i] ^= 0x10
			if _, v := Parse(b); v == Intact {
				t.Errorf("%d bytes: a change of byte %d went unnoticed", n, i)
			}
		}
	}
	for _, cut := range []int{1, 20, 1514 - MinLen} {
		if _, v := Parse(stamped(t, 1514, false)[:1514-cut]); v != Corrupt {
			t.Errorf("a frame %d bytes short is %v, want Corrupt", cut, v)
		}
	}
}

func TestOtherTrafficIsForeign(t *testing.T) {
	b := bytes.Clone(stamped(t, 60, false))
	copy(b[6:], []byte{0x52, 0x54, 0, 1, 2, 3})
	if _, v := Parse(b); v != Foreign {
		t.Errorf("verdict %v for a stranger's frame", v)
	}
	if _, v := Parse(nil); v != Foreign {
		t.Errorf("verdict %v for no frame", v)
	}
}

func TestStationRoundTrip(t *testing.T) {
	for _, tc := range [][2]int{{0, 0}, {1, 1}, {255, MaxStations - 1}, {3, 1_000_000}} {
		m := Station(tc[0], tc[1])
		p, s, ok := IsStation(m)
		if !ok || p != tc[0] || s != tc[1] || !m.IsUnicast() {
			t.Errorf("Station(%d, %d) = %v, read back as %d, %d, %v", tc[0], tc[1], m, p, s, ok)
		}
	}
	if _, _, ok := IsStation(frame.Broadcast); ok {
		t.Error("broadcast taken for a station")
	}
}

func TestFlowsTakeTurns(t *testing.T) {
	f := Flows{From: 0, To: []int{1}, Count: 3, Base: 100}
	for n := range uint32(7) {
		dst, src := f.Address(n)
		s := 100 + int(n)%3
		if dst != Station(1, s) || src != Station(0, s) {
			t.Errorf("frame %d: %v to %v, want station %d", n, src, dst, s)
		}
	}
	f = Flows{From: 0, To: []int{1}, Stations: []int{4, 2}, Base: 9, OneSource: true}
	for n, want := range []int{4, 2, 4} {
		if dst, src := f.Address(uint32(n)); dst != Station(1, want) || src != Station(0, 9) {
			t.Errorf("frame %d: %v to %v, want stations 9 and %d", n, src, dst, want)
		}
	}
	if dst, _ := (Flows{Broadcast: true}).Address(0); dst != frame.Broadcast {
		t.Errorf("broadcast goes to %v", dst)
	}
}

func TestFlowsReachEveryStationOfEveryPortOnce(t *testing.T) {
	f := Flows{From: 2, To: []int{0, 1, 3}, Count: 4}
	seen := map[frame.MAC]int{}
	for n := range uint32(f.Frames()) {
		dst, _ := f.Address(n)
		seen[dst]++
	}
	if len(seen) != 12 {
		t.Errorf("%d destinations, want 3 ports × 4 stations", len(seen))
	}
	for m, n := range seen {
		if n != 1 {
			t.Errorf("%v was addressed %d times in one period", m, n)
		}
	}
}

func TestOneEndMayHaveASingleStation(t *testing.T) {
	for _, f := range []Flows{
		{From: 0, To: []int{1}, Count: 5, Base: 3, OneSource: true},
		{From: 0, To: []int{1}, Count: 5, Base: 3, OneTarget: true},
	} {
		dsts, srcs := map[frame.MAC]bool{}, map[frame.MAC]bool{}
		for n := range uint32(10) {
			dst, src := f.Address(n)
			dsts[dst], srcs[src] = true, true
		}
		one, many := srcs, dsts
		if f.OneTarget {
			one, many = dsts, srcs
		}
		if len(one) != 1 || len(many) != 5 {
			t.Errorf("%+v: %d and %d stations, want 1 and 5", f, len(one), len(many))
		}
	}
}

func TestLessonTeachesEveryDestination(t *testing.T) {
	for _, f := range []Flows{
		{From: 0, To: []int{1, 2}, Count: 5, Base: 7},
		{From: 0, To: []int{1}, Count: 5, OneSource: true},
		{From: 0, To: []int{1}, Count: 5, OneTarget: true},
		{From: 0, To: []int{1}, Stations: []int{3, 9, 4}},
	} {
		checkLesson(t, f)
	}
}

func checkLesson(t *testing.T, f Flows) {
	t.Helper()
	taught := map[frame.MAC]bool{}
	for _, to := range f.To {
		l := f.Lesson(to)
		for n := range uint32(l.Frames()) {
			dst, src := l.Address(n)
			taught[src] = true
			if p, _, _ := IsStation(dst); p != f.From {
				t.Errorf("lesson goes to %v, want port %d", dst, f.From)
			}
		}
	}
	for n := range uint32(f.Frames()) {
		if dst, _ := f.Address(n); !taught[dst] {
			t.Errorf("frame %d goes to %v, which no lesson taught", n, dst)
		}
	}
}

func TestParseSizesRefusesNonsense(t *testing.T) {
	for _, s := range []string{"", "63", "1519", "64,", "jumbo", "-64", "64;128"} {
		if got, err := ParseSizes(s); err == nil {
			t.Errorf("ParseSizes(%q) = %v, want an error", s, got)
		}
	}
	sizes, err := ParseSizes("64, imix,gso")
	if err != nil || len(sizes) != 3 || sizes[0].Lengths[0] != 60 {
		t.Errorf("sizes %+v, error %v", sizes, err)
	}
	if m := sizes[1].MeanLength(); m < 353-4 || m > 362-4 {
		t.Errorf("mean of imix is %.1f, want about 357", m)
	}
	if sizes[1].MaxLength() != 1514 || sizes[2].MaxLength() > 65535+14 {
		t.Errorf("longest frames: %d, %d", sizes[1].MaxLength(), sizes[2].MaxLength())
	}
}

func TestStampingAllocatesNothing(t *testing.T) {
	tmpl := Build(make([]byte, 1514), false, 1)
	f := Flows{From: 0, To: []int{1}, Count: 1000}
	var seq uint32
	if n := testing.AllocsPerRun(100, func() {
		dst, src := f.Address(seq)
		tmpl.Stamp(dst, src, seq, 1)
		seq++
		if _, v := Parse(tmpl.Bytes()); v != Intact {
			t.Fatal("own frame not intact")
		}
	}); n != 0 {
		t.Errorf("%v allocations per frame", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(stamped(f, 60, false))
	f.Add(stamped(f, 1514, false))
	f.Add(stamped(f, 200, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, v := Parse(b)
		if v != Intact {
			return
		}
		// Whatever Parse calls intact, a template of the same bytes stamps alike.
		tmpl := Template{b: bytes.Clone(b), at: StampOffset(b[offIP+9] == protoTCP)}
		tmpl.fixed = fixedSum(b, tmpl.at)
		tmpl.Stamp(s.Dst, s.Src, s.Seq, s.At)
		if !bytes.Equal(tmpl.Bytes(), b) {
			t.Errorf("restamped frame differs")
		}
	})
}

func BenchmarkStamp(b *testing.B) {
	tmpl := Build(make([]byte, 60), false, 1)
	dst, src := Station(1, 0), Station(0, 0)
	for i := range b.N {
		tmpl.Stamp(dst, src, uint32(i), int64(i))
	}
	_ = binary.BigEndian.Uint32(tmpl.Bytes()[44:])
}
