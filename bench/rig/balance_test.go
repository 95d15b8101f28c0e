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
		lane   Lane
		size   string
		sent   gen.Sent
		counts sink.Counts
		fault  string // its first word
		lost   uint64
	}{
		{"all arrive", Lane{flows: one}, "64", gen.Sent{Warm: 10, Frames: 90}, sink.Counts{Segments: 100}, "", 0},
		{"some are lost", Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 90}, "", 10},
		{"one too many", Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 101}, "duplicated", 0},
		{"sent after the trial", Lane{flows: one}, "64", gen.Sent{Frames: 100, After: 1}, sink.Counts{Segments: 101}, "", 0},
		{"one of the last trial", Lane{flows: one, Lost: 1}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 101}, "", 0},
		{"lessons", Lane{flows: one, lessons: 2}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 102, Late: 2}, "", 0},
		{"order", Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Late: 1}, "reordered", 0},
		{"its own words", Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Foreign: 10}, "", 0},
		{"strangers", Lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 89, Foreign: 11}, "changed", 11},
		{
			"order between stations", Lane{flows: []probe.Flows{probe.OneWay(2)}}, "64",
			gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Late: 1}, "", 0,
		},
		{
			"broadcast", Lane{flows: []probe.Flows{{To: []int{1, 2}, Broadcast: true}}}, "64",
			gen.Sent{Frames: 100}, sink.Counts{Segments: 180}, "", 10,
		},
		{"super-frames", Lane{flows: one}, "gso", gen.Sent{Frames: 2}, sink.Counts{Segments: 90, Late: 3}, "", 0},
		{"frames that go round", Lane{flows: one, Endless: true}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 400}, "", 0},
	} {
		l := &tc.lane
		var err error
		if l.size, err = probe.ParseSize(tc.size); err != nil {
			t.Fatal(err)
		}
		o := &Outcome{Sent: tc.sent, Received: tc.counts}
		l.balance(o)
		if word, _, _ := strings.Cut(o.Fault, " "); word != tc.fault || l.Lost != tc.lost || l.lessons != 0 {
			t.Errorf("%s: fault %q, %d lost; want %q, %d", tc.name, o.Fault, l.Lost, tc.fault, tc.lost)
		}
	}
}
