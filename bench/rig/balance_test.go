package rig

import (
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
)

func TestTrialsAreBalanced(t *testing.T) {
	one := []probe.Flows{probe.OneWay(1)}
	for _, tc := range []struct {
		name   string
		before uint64 // may still come
		lane   Lane
		size   string
		sent   gen.Sent
		counts sink.Counts
		fault  string // its first word
		after  uint64 // may still come
	}{
		{"all arrive", 0, Lane{flows: one}, "64", gen.Sent{Warm: 10, Frames: 90}, sink.Counts{Segments: 100}, "", 0},
		{"some are lost", 0, Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 90}, "", 10},
		{"one too many", 0, Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 101}, "duplicated", 0},
		{"sent after the trial", 0, Lane{flows: one}, "64", gen.Sent{Frames: 100, After: 1}, sink.Counts{Segments: 101}, "", 0},
		{"one of the last trial", 1, Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 101}, "", 0},
		{"late again and again", 10, Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 100}, "", 10},
		{"a standstill", 90, Lane{flows: one}, "64", gen.Sent{}, sink.Counts{}, "", 90},
		{"more than queues hold", 0, Lane{flows: one}, "64", gen.Sent{Frames: 1 << 20}, sink.Counts{Segments: 1}, "", queued},
		{"order is not for numbers to tell", 0, Lane{flows: one, unordered: true}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Late: 1}, "", 0},
		{"lessons", 0, Lane{flows: one, lessons: 2}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 102, Late: 2}, "", 0},
		{"order", 0, Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Late: 1}, "reordered", 0},
		{"its own words", 0, Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Foreign: 10}, "", 0},
		{"strangers", 0, Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 89, Foreign: 11}, "changed", 11},
		{
			"order between stations", 0, Lane{flows: []probe.Flows{probe.OneWay(2)}}, "64",
			gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Late: 1}, "", 0,
		},
		{
			"broadcast", 0, Lane{flows: []probe.Flows{{To: []int{1, 2}, Broadcast: true}}}, "64",
			gen.Sent{Frames: 100}, sink.Counts{Segments: 180}, "", 20,
		},
		{"super-frames", 0, Lane{flows: one}, "gso", gen.Sent{Frames: 2}, sink.Counts{Segments: 90, Late: 3}, "", 0},
		{"frames that go round", 0, Lane{flows: one, Endless: true}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 400}, "", 0},
	} {
		l := &tc.lane
		l.Rig = &Rig{outstanding: tc.before}
		var err error
		if l.size, err = probe.ParseSize(tc.size); err != nil {
			t.Fatal(err)
		}
		o := &Outcome{Sent: tc.sent, Received: tc.counts}
		l.balance(o)
		if word, _, _ := strings.Cut(o.Fault, " "); word != tc.fault || l.outstanding != tc.after || l.lessons != 0 {
			t.Errorf("%s: fault %q, %d may still come; want %q, %d", tc.name, o.Fault, l.outstanding, tc.fault, tc.after)
		}
	}
}
