package virtq

import (
	"encoding/binary"
	"testing"
)

// FuzzTake lets the fuzzer write the rings, the descriptors and the indirect
// tables. Whatever comes out lies in memory, is bounded, and can be returned.
func FuzzTake(f *testing.F) {
	desc := func(addr uint64, n uint32, flags, next uint16) []byte {
		b := binary.LittleEndian.AppendUint64(nil, addr)
		b = binary.LittleEndian.AppendUint32(b, n)
		b = binary.LittleEndian.AppendUint16(b, flags)
		return binary.LittleEndian.AppendUint16(b, next)
	}
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	const table = testGuest + 0x1000
	f.Add(uint8(3), uint32(1<<16), false, join(desc(testGuest+0x800, 64, 0, 0)), []byte{})
	f.Add(uint8(3), uint32(1<<16), true, join(desc(testGuest+0x800, 64, descNext|descWrite, 1), desc(testGuest, 9, descWrite, 0)), []byte{})
	f.Add(uint8(1), uint32(1<<16), false, join(desc(testGuest, 64, descNext, 1), desc(testGuest, 64, descNext, 0)), []byte{})
	f.Add(uint8(2), uint32(1<<16), false, join(desc(table, 32, descIndirect, 0)), join(desc(testGuest, 1, descNext, 1), desc(testGuest, 1, 0, 0)))
	f.Add(uint8(2), uint32(2<<16), false, join(desc(table, 24, descIndirect, 0)), join(desc(table, 16, descIndirect, 0)))
	f.Add(uint8(0), uint32(9<<16), false, []byte{}, []byte{})
	mem := mapped(f, 0x2000)
	f.Fuzz(func(t *testing.T, log2 uint8, avail uint32, write bool, descs, indirect []byte) {
		size := 1 << (log2 % 5)
		clear(mem)
		copy(mem[:DescBytes(size)], descs)
		copy(mem[0x1000:], indirect)
		// What is left of descs becomes the available ring's entries.
		if len(descs) > DescBytes(size) {
			copy(mem[0x404:0x404+2*size], descs[DescBytes(size):])
		}
		binary.LittleEndian.PutUint32(mem[0x400:], avail)
		// Two regions that continue each other for the guest, out of order here.
		m, err := NewMemory(Region{testGuest, testUser, mem[:0x1800]}, Region{testGuest + 0x1800, testUser + 1<<32, mem[0x1800:]})
		if err != nil {
			t.Fatal(err)
		}
		d, err := NewDevice(m, Config{Size: size, Rings: Rings{testUser, testUser + 0x400, testUser + 0x600}, Write: write, Indirect: true})
		if err != nil {
			t.Fatal(err)
		}
		b := NewBatch(8, 20)
		total := 0
		for {
			n, err := d.Take(b, 8)
			if total += n; total > size {
				t.Fatalf("%d chains from a ring of %d", total, size)
			}
			if err != nil || n == 0 {
				break
			}
			for i := range b.Chains {
				c := &b.Chains[i]
				pieces := b.Rest(c)
				if c.Fault != 0 {
					if c.First != nil || len(pieces) != 0 {
						t.Fatal("a faulty chain has buffers")
					}
					continue
				}
				if len(pieces)+1 > size {
					t.Fatalf("%d pieces from a ring of %d", len(pieces)+1, size)
				}
				sum := 0
				for _, p := range append(pieces[:len(pieces):len(pieces)], c.First) {
					off, ok := offsetIn(mem, p)
					if !ok || len(p) == 0 || off < 0x1800 && off+uint64(len(p)) > 0x1800 || off+uint64(len(p)) > 0x2000 {
						t.Fatalf("buffer of %d bytes at %#x", len(p), off)
					}
					sum += len(p)
				}
				if b.Size(c) != sum {
					t.Fatalf("Size %d, want %d", b.Size(c), sum)
				}
				c.Written = uint32(sum)
			}
			d.Return(b)
		}
		if int(d.UsedIndex()) > size {
			t.Fatalf("%d chains returned of a ring of %d", d.UsedIndex(), size)
		}
	})
}

// FuzzInflight lets the front end write the note of what is in flight.
func FuzzInflight(f *testing.F) {
	f.Add(uint16(0), make([]byte, InflightBytes(8)))
	f.Add(uint16(5), []byte{8: 1, 10: 8, 12: 3, 14: 2, 16: 1, 24: 9, 32: 1})
	f.Fuzz(func(t *testing.T, used uint16, region []byte) {
		mem := make([]byte, InflightBytes(8))
		copy(mem, region)
		heads, err := NewInflight(mem).restore(8, used)
		if err != nil {
			return
		}
		seen := [8]bool{}
		for _, h := range heads {
			if h >= 8 || seen[h] {
				t.Fatalf("heads %v", heads)
			}
			seen[h] = true
		}
		again, err := NewInflight(mem).restore(8, used)
		if err != nil || len(again) != len(heads) {
			t.Fatalf("restored once: %v, twice: %v, %v", heads, again, err)
		}
	})
}
