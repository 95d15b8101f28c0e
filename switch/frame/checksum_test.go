package frame

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// slowChecksum is RFC 1071 word by word.
func slowChecksum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
		s = s>>16 + s&0xffff
	}
	if len(b)%2 != 0 {
		s += uint32(b[len(b)-1]) << 8
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func TestChecksumIsThatOfRFC1071(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for n := range 300 {
		for _, b := range [][]byte{make([]byte, n), fill(n, 0xff), randomBytes(r, n)} {
			want := slowChecksum(b)
			if got := uint16(be16(^uint16(fold(sum(0, b))))); got != want {
				t.Fatalf("%x: %04x, want %04x", b, got, want)
			}
			// In two parts, of which the first is even, with a sum before them.
			if n >= 2 {
				i := r.IntN(n/2) * 2
				acc := sum(sum(1<<64-1, b[:i]), b[i:])
				if got := uint16(be16(^uint16(fold(acc)))); got%0xffff != want%0xffff {
					t.Fatalf("%x cut at %d: %04x, want %04x", b, i, got, want)
				}
			}
		}
	}
}

func fill(n int, v byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = v
	}
	return b
}

func FuzzChecksum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint64(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, acc uint64) {
		var first [8]byte
		binary.LittleEndian.PutUint64(first[:], acc)
		want := slowChecksum(append(first[:], b...))
		if got := uint16(be16(^uint16(fold(sum(acc, b))))); got%0xffff != want%0xffff {
			t.Fatalf("%x after %x: %04x, want %04x", b, acc, got, want)
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	for _, n := range []int{20, 64, 1460, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := make([]byte, n)
			b.SetBytes(int64(n))
			for range b.N {
				sum(0, buf)
			}
		})
	}
}

func BenchmarkFinish(b *testing.B) {
	for _, n := range []int{1460, 65000} {
		for _, gso := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/gso=%v", n, gso), func(b *testing.B) {
				p := packet{payload: make([]byte, n)}
				data, hdr := p.unfinished(b)
				if gso {
					hdr.GSOType, hdr.GSOSize = GSOTCPv4, 1448
				}
				f := &Frame{Data: data, Hdr: hdr}
				var x Finisher
				var dst []Out
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for range b.N {
					dst, _ = x.Finish(Out{Frame: f}, Offloads{}, dst[:0])
					x.Reset()
				}
			})
		}
	}
}
