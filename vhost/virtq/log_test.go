package virtq

import (
	"slices"
	"testing"
)

// dirty lists the pages that are marked, by the byte-wise rule of vhost-user,
// "Migration": log[page/8] |= 1 << page%8.
func dirty(mem []byte) (pages []int) {
	for page := range len(mem) * 8 {
		if mem[page/8]&(1<<(page%8)) != 0 {
			pages = append(pages, page)
		}
	}
	return pages
}

func TestLogMarksThePagesOfARange(t *testing.T) {
	mem := mapped(t, 4096)[:16] // 128 pages
	log, err := NewLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		addr, n uint64
		want    []int
	}{
		{0, 1, []int{0}},
		{0xfff, 1, []int{0}},
		{0xfff, 2, []int{0, 1}},
		{0x1f000, 0x1000, []int{31}},
		{0x1f001, 0x1000, []int{31, 32}},
		{0x40000, 0x3000, []int{64, 65, 66}},
		{127 * 0x1000, 0x1000, []int{127}},
		// CVE-2019-14835, CVE-2020-10722: outside the log, in every way.
		{127 * 0x1000, 0x1001, nil},
		{128 * 0x1000, 1, nil},
		{^uint64(0), 1, nil},
		{^uint64(0) - 10, 100, nil},
		{0, ^uint64(0), nil},
	} {
		clear(mem)
		log.mark(tc.addr, tc.n)
		if got := dirty(mem); !slices.Equal(got, tc.want) || log.Covers(tc.addr, tc.n) != (tc.want != nil) {
			t.Errorf("%#x bytes at %#x: pages %v, want %v", tc.n, tc.addr, got, tc.want)
		}
	}
}

func TestNewLogRefuses(t *testing.T) {
	mem := mapped(t, 4096)
	for name, b := range map[string][]byte{"nothing": nil, "odd length": mem[:7], "odd start": mem[2:10]} {
		if _, err := NewLog(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What the device writes is marked, and nothing else: the written part of each
// buffer, and of the used ring what was stored.
func TestReturnMarksWhatWasWritten(t *testing.T) {
	for _, logUsed := range []bool{false, true} {
		bits := mapped(t, 65536)
		log, err := NewLog(bits)
		if err != nil {
			t.Fatal(err)
		}
		const usedAt = 0x10000 // pages 16 on, outside of guest memory
		q := newQueue(t, 1024, 1020, Config{Write: true, Log: log, LogUsed: logUsed, UsedAddr: usedAt})
		page := func(off int) int { return (testGuest + off) / 4096 }
		q.add(q.buf(bufStart, 8192, true))                                          // 100 bytes of it
		q.add(q.buf(bufStart+0x10000, 16, true), q.buf(bufStart+0x20000, 16, true)) // both
		q.add(q.buf(bufStart+0x30000, 16, true), q.buf(bufStart+0x40000, 16, true)) // the first
		q.add(q.buf(bufStart+0x50000, 16, true))                                    // nothing
		for range 4 {
			q.add(q.buf(bufStart+0xff0, 32, true)) // across pages
		}
		q.drv.Publish()
		c := q.take(8)
		c[0].Written, c[1].Written, c[2].Written = 100, 32, 16
		c[4].Written = 32
		if len(dirty(bits)) != 0 {
			t.Fatal("marked before anything was returned")
		}
		q.dev.Return(q.batch)
		want := []int{page(bufStart), page(bufStart + 0x1000), page(bufStart + 0x10000), page(bufStart + 0x20000), page(bufStart + 0x30000)}
		if logUsed {
			// The index and elements 0–3 are in its first page, elements
			// 1020–1023, at 8164 to 8196, in the second and third.
			want = append([]int{16, 17, 18}, want...)
		}
		if got := dirty(bits); !slices.Equal(got, want) {
			t.Errorf("logUsed %v: pages %v, want %v", logUsed, got, want)
		}
		// The notification flag is in the used ring, too.
		clear(bits)
		q.dev.DisableKicks()
		if got := len(dirty(bits)) == 1; got != logUsed {
			t.Errorf("logUsed %v: flag change marked: %v", logUsed, got)
		}
	}
}
