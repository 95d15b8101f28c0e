package sink

import (
	"bytes"
	"math"
	"testing"

	"github.com/kvswitch/kvswitch/bench/probe"
)

// stream is what a sender would send.
func sequence(first uint32, n int, stations int) [][]byte {
	f := probe.Flows{From: 0, To: []int{1}, Count: stations}
	out := make([][]byte, n)
	for i := range out {
		t := probe.Build(make([]byte, 100), false, 3)
		seq := first + uint32(i)
		dst, src := f.Address(seq)
		t.Stamp(dst, src, seq, 1)
		out[i] = t.Bytes()
	}
	return out
}

func TestLedgerNamesEachFault(t *testing.T) {
	for _, tc := range []struct {
		name   string
		tamper func(frames [][]byte) [][]byte
		want   Outcome
		fault  string
	}{
		{"honest", func(f [][]byte) [][]byte { return f }, Outcome{Sent: 200, Intact: 200}, ""},
		{
			"drops", func(f [][]byte) [][]byte { return append(f[:10:10], f[12:]...) },
			Outcome{Sent: 200, Intact: 198}, "dropped 2 of 200 frames (1 %)",
		},
		{
			"duplicates", func(f [][]byte) [][]byte { return append(f, f[7], f[7]) },
			Outcome{Sent: 200, Intact: 200, Duplicates: 2}, "duplicated 2 of 200 frames (1 %)",
		},
		{
			"corrupts", func(f [][]byte) [][]byte {
				f[5] = bytes.Clone(f[5])
				f[5][80] ^= 1
				return f
			},
			Outcome{Sent: 200, Intact: 199, Corrupt: 1}, "corrupted 1 of 200 frames (0.5 %)",
		},
		{
			"cuts short", func(f [][]byte) [][]byte { f[5] = f[5][:50]; return f },
			Outcome{Sent: 200, Intact: 199, Corrupt: 1}, "corrupted 1 of 200 frames (0.5 %)",
		},
		{
			"reorders within a station", func(f [][]byte) [][]byte { f[20], f[23] = f[23], f[20]; return f },
			Outcome{Sent: 200, Intact: 200, Reordered: 1}, "reordered 1 of 200 frames (0.5 %)",
		},
		{
			"reorders between stations", func(f [][]byte) [][]byte { f[20], f[22] = f[22], f[20]; return f },
			Outcome{Sent: 200, Intact: 200}, "",
		},
		{
			"replays old frames", func(f [][]byte) [][]byte { return append(f, sequence(500, 1, 3)...) },
			Outcome{Sent: 200, Intact: 200, Unsent: 1}, "made up 1 of 200 frames (0.5 %)",
		},
		{
			"invents a far number", func(f [][]byte) [][]byte { return append(f, sequence(1<<30, 1, 3)...) },
			Outcome{Sent: 200, Intact: 200, Unsent: 1}, "made up 1 of 200 frames (0.5 %)",
		},
		{
			"is late with an older stream", func(f [][]byte) [][]byte { return append(sequence(math.MaxUint32-110, 3, 1), f...) },
			Outcome{Sent: 200, Intact: 200, Earlier: 3}, "",
		},
		{
			"adds its own frames", func(f [][]byte) [][]byte { return append(f, make([]byte, 60)) },
			Outcome{Sent: 200, Intact: 200, Foreign: 1}, "",
		},
	} {
		// The numbers wrap around in the middle of the stream.
		const first = math.MaxUint32 - 99
		l := NewLedger(0, 1, first)
		for _, b := range tc.tamper(sequence(first, 200, 3)) {
			l.Enter(b)
		}
		got := l.Close(200, 0)
		if got != tc.want || got.Fault(true) != tc.fault {
			t.Errorf("%s: %+v, fault %q; want %+v, %q", tc.name, got, got.Fault(true), tc.want, tc.fault)
		}
	}
}

func TestLedgerForgivesWhatTheReceiverMissed(t *testing.T) {
	l := NewLedger(0, 1, 0)
	for _, b := range sequence(0, 90, 1) {
		l.Enter(b)
	}
	if o := l.Close(100, 10); o.Lost() != 0 || o.Fault(true) != "" {
		t.Errorf("%+v: a frame that the receiver dropped is no fault of the switch", o)
	}
	if o := l.Close(100, 4); o.Lost() != 6 || o.Fault(false) != "" {
		t.Errorf("%+v: want 6 lost, and no fault in an overload", o)
	}
}

func TestLedgerKnowsWhereFramesBelong(t *testing.T) {
	l := NewLedger(0, 2, 0)
	for _, b := range sequence(0, 10, 1) { // all for port 1
		l.Enter(b)
	}
	for flooded, fault := range map[uint64]string{1: "", 9: "flooded 9 of 10 frames (90 %)"} {
		o := Outcome{Sent: 10, Intact: 10, Flooded: flooded}
		if got := o.Fault(true); got != fault {
			t.Errorf("%d of 10 frames flooded: fault %q, want %q", flooded, got, fault)
		}
	}
	if o := l.Close(10, 0); o.Astray != 10 || o.Intact != 0 {
		t.Errorf("%+v: want 10 astray at port 2", o)
	}
}
