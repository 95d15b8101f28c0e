package vswitch

import (
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// loop is a switch with endless ports that a test drives by hand, as its worker
// would: the hot path without threads.
type loop struct {
	*Switch
	h     *Hand
	ports []*mem.Endless
}

// newLoop makes ports each of which sends to flows stations of the next one,
// all of them known.
func newLoop(tb testing.TB, cfg Config, ports, flows, size int) *loop {
	tb.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.MaxEntries = max(ports*flows, fdb.DefaultMax)
	s, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	l := &loop{Switch: s}
	mac := func(port, flow int) frame.MAC { return mem.MAC(port%ports<<24 | flow) }
	for p := range ports {
		var frames []frame.Frame
		for f := range max(flows, frame.BatchSize) {
			wire := mem.Build(mac(p+1, f%flows), mac(p, f%flows), 0, 0x88b5, make([]byte, size-frame.HeaderLen))
			frames = append(frames, frame.Frame{Data: wire})
		}
		e := mem.NewEndless(frames)
		if _, err := s.AddPort(fmt.Sprintf("p%d", p), e, NewPortConfig("memory")); err != nil {
			tb.Fatal(err)
		}
		l.ports = append(l.ports, e)
	}
	if l.h, err = s.Hand(); err != nil {
		tb.Fatal(err)
	}
	for _, p := range l.ports { // learn them all
		p.Lend(int64(flows))
	}
	for l.h.Turn() > 0 {
	}
	tb.Cleanup(func() {
		for _, p := range l.ports {
			p.Close()
		}
	})
	return l
}

// BenchmarkForward is the whole way of a frame but for I/O: lend, classify,
// learn, look up, plan, hand over. Reported per frame.
func BenchmarkForward(b *testing.B) {
	for _, c := range []struct {
		name  string
		cfg   Config
		ports int
		flows int
	}{
		{"1flow", Config{}, 2, 1},
		{"1kflows", Config{}, 2, 1000},
		{"100kflows", Config{}, 2, 100_000},
		{"64ports", Config{}, 64, 64},
		{"vlan", Config{VLANFiltering: true}, 2, 1000},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := newLoop(b, c.cfg, c.ports, c.flows, 60)
			b.ReportAllocs()
			for _, p := range l.ports {
				p.Lend(int64(b.N/c.ports + 1))
			}
			b.ResetTimer()
			for l.h.Turn() > 0 {
			}
		})
	}
}

func TestForwardingAllocatesNothing(t *testing.T) {
	for _, cfg := range []Config{{}, {VLANFiltering: true}} {
		l := newLoop(t, cfg, 3, 200, 60)
		allocs := testing.AllocsPerRun(100, func() {
			for _, p := range l.ports {
				p.Lend(frame.BatchSize)
			}
			for l.h.Turn() > 0 {
			}
		})
		if allocs != 0 {
			t.Errorf("filtering %v: %v allocations a batch, want 0", cfg.VLANFiltering, allocs)
		}
	}
}
