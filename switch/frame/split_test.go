package frame

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// long is a packet as BIG TCP makes it: longer than its IP header can say, and
// with a jumbo payload option, if that is asked for.
func long(t *testing.T, p packet, jumbo bool, gso int) *Frame {
	payload := p.payload
	p.payload = nil // or gopacket would make a jumbogram of its own
	b, hdr := p.unfinished(t)
	b = append(b, payload...)
	csum := b[p.l4()+p.csumOffset():]
	sum := uint32(binary.BigEndian.Uint16(csum)) + uint32(len(payload))
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(csum, uint16(sum))
	l3 := HeaderLen + TagLen*len(p.tags)
	if !p.v6 {
		binary.BigEndian.PutUint16(b[l3+ipv4TotalLen:], 0)
	} else {
		binary.BigEndian.PutUint16(b[l3+ipv6PayloadLen:], 0)
	}
	if jumbo {
		at := l3 + ipv6Len
		option := []byte{b[l3+ipv6Next], 0, 0xc2, 4, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(option[4:], uint32(len(b)-at+8))
		b[l3+ipv6Next] = 0
		b = append(append(append([]byte{}, b[:at]...), option...), b[at:]...)
		hdr.CsumStart += 8
	}
	hdr.GSOType, hdr.GSOSize = p.gsoType(), uint16(gso)
	return &Frame{Data: b, Hdr: hdr}
}

func TestPartsOfALongFrameMakeTheSameSegments(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	var s Split
	var x Finisher
	for _, length := range []int{65536, 150001, 500000} {
		for i := range 6 {
			p := packet{v6: i%3 != 0, id: 0xfff0, seq: 0xffffff00, fin: true, psh: true, cwr: true, payload: randomBytes(r, length)}
			if i > 2 {
				p.tags = []Tag{MakeTag(EtherTypeVLAN, 6, 10)}
			}
			t.Run(fmt.Sprintf("%v/jumbo=%v", p, i%3 == 2), func(t *testing.T) {
				f := long(t, p, i%3 == 2, 4000)
				// In pieces, as it may lie in a ring.
				f.Tag, f.Data, f.Rest = 7, f.Data[:40000], [][]byte{f.Data[40000:40001], nil, f.Data[40001:]}
				if err := s.Begin(f); err != nil {
					t.Fatal(err)
				}
				var got [][]byte
				for s.More() {
					var part Frame
					var head [MaxSplitHead]byte
					s.Next(&part, head[:], nil)
					if part.Len() > MaxLen || part.Len() < 60000 && s.More() || part.Tag != 7 {
						t.Errorf("a part of %d bytes, tag %x", part.Len(), part.Tag)
					}
					segments, err := finish(t, &x, Out{Frame: &part}, Offloads{})
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, segments...)
					x.Reset()
				}
				wantFrames(t, got, p.segments(t, 4000))
			})
		}
	}
}

func TestWhatIsNoTCPToBeSegmentedIsNotSplit(t *testing.T) {
	p := packet{payload: make([]byte, 100000)}
	for what, change := range map[string]func(f *Frame){
		"UDP":                 func(f *Frame) { f.Hdr.GSOType = GSOUDPL4 },
		"not to be segmented": func(f *Frame) { f.Hdr.GSOType = GSONone },
		"in a tunnel":         func(f *Frame) { f.Hdr.GSOType |= GSOTunnel; f.Hdr.CsumStart += 50 },
		"finished":            func(f *Frame) { f.Hdr.Flags = 0 },
		"segments of nothing": func(f *Frame) { f.Hdr.GSOSize = 0 },
		"segments of more":    func(f *Frame) { f.Hdr.GSOSize = 65500 },
	} {
		f := long(t, p, false, 1000)
		change(f)
		var s Split
		if err := s.Begin(f); err == nil || s.More() {
			t.Errorf("%s: %v, %v", what, err, s.More())
		}
	}
}
