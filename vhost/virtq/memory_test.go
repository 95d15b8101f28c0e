package virtq

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestNewMemoryRefuses(t *testing.T) {
	b := make([]byte, 4096)
	for name, regions := range map[string][]Region{
		"an empty region":         {{0, 0, nil}},
		"guest addresses overlap": {{0, 0, b}, {4095, 1 << 20, b}},
		"the same region twice":   {{0, 0, b}, {0, 0, b}},
		"user addresses overlap":  {{0, 0, b}, {1 << 20, 100, b}},
		"guest addresses wrap":    {{^uint64(0) - 10, 0, b}},
		"user addresses wrap":     {{0, ^uint64(0) - 10, b}},
	} {
		if _, err := NewMemory(regions...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	var many []Region
	for i := range 40 {
		many = append(many, Region{uint64(i) << 20, uint64(i) << 20, b})
	}
	for i := range many {
		if _, err := NewMemory(append(many, many[i])...); err == nil {
			t.Errorf("region %d of 40 twice: no error", i)
		}
	}
	if _, err := NewMemory(); err != nil {
		t.Errorf("no regions: %v", err)
	}
}

// Every lookup agrees with a search of every region, byte by byte.
func TestLookupsAgreeWithASearchOfEveryByte(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		var regions []Region
		guest, user := rng.Uint64N(100), rng.Uint64N(100)+1000
		for range rng.IntN(9) {
			n := rng.IntN(30) + 1
			regions = append(regions, Region{guest, user, mappedOnce(t)[rng.IntN(1000):][:n]})
			guest += uint64(n) + rng.Uint64N(2)*rng.Uint64N(20)
			user += uint64(n) + rng.Uint64N(2)*rng.Uint64N(20)
		}
		rng.Shuffle(len(regions), func(i, j int) { regions[i], regions[j] = regions[j], regions[i] })
		m, err := NewMemory(regions...)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			n := rng.Uint64N(12)
			check := func(space string, got []byte, ok bool, addr uint64, start func(Region) uint64) {
				for _, r := range regions {
					if off := addr - start(r); off < uint64(len(r.Mem)) {
						want := off+n <= uint64(len(r.Mem))
						if ok != want || ok && (uint64(len(got)) != n || uint64(cap(got)) != n || n > 0 && &got[0] != &r.Mem[off]) {
							t.Fatalf("%s(%d, %d) = %d bytes, %v, want %v", space, addr, n, len(got), ok, want)
						}
						return
					}
				}
				if ok && n > 0 {
					t.Fatalf("%s(%d, %d): found where nothing is", space, addr, n)
				}
			}
			addr := rng.Uint64N(400)
			got, ok := m.Guest(addr, n)
			check("Guest", got, ok, addr, func(r Region) uint64 { return r.Guest })
			addr += 900
			got, ok = m.User(addr, n)
			check("User", got, ok, addr, func(r Region) uint64 { return r.User })
		}
	}
}

var shared []byte

// mappedOnce is one mapping for all regions of a test that only compares
// addresses.
func mappedOnce(t *testing.T) []byte {
	if shared == nil {
		shared = mapped(t, 4096)
		t.Cleanup(func() { shared = nil })
	}
	return shared
}

func TestHoldsAndGuestAddressInvertTheMapping(t *testing.T) {
	a, b := mapped(t, 8192), mapped(t, 4096)
	m, err := NewMemory(Region{1 << 20, 0, a}, Region{1 << 30, 1 << 40, b})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		b    []byte
		want uint64
	}{{a, 1 << 20}, {a[100:], 1<<20 + 100}, {a[8191:], 1<<20 + 8191}, {b[5:], 1<<30 + 5}} {
		if got, ok := m.guestAddr(tc.b); !ok || got != tc.want || !m.Holds(address(tc.b)) {
			t.Errorf("guest address %#x, %v, want %#x", got, ok, tc.want)
		}
	}
	other := mapped(t, 4096)
	if _, ok := m.guestAddr(other); ok || m.Holds(address(other)) {
		t.Error("holds memory that is not its own")
	}
	if len(m.Regions()) != 2 {
		t.Error("regions are lost")
	}
}

func TestCopyCopiesEveryLengthAndNoMore(t *testing.T) {
	src := make([]byte, 2048)
	for i := range src {
		src[i] = byte(i*7 + 1)
	}
	for n := range 2000 {
		dst := bytes.Repeat([]byte{0xee}, n+64)
		Copy(dst[32:32+n], src[:n])
		if !bytes.Equal(dst[32:32+n], src[:n]) || !untouched(dst[:32]) || !untouched(dst[32+n:]) {
			t.Fatalf("copying %d bytes went wrong", n)
		}
	}
	// A destination that is too short gets what fits, as with copy.
	dst := bytes.Repeat([]byte{0xee}, 100)
	Copy(dst[:40], src[:60])
	if !bytes.Equal(dst[:40], src[:40]) || !untouched(dst[40:]) {
		t.Fatal("wrote past a short destination")
	}
}

func untouched(b []byte) bool { return bytes.Count(b, []byte{0xee}) == len(b) }
