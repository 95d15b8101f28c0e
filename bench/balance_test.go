package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/subject"
)

func TestTrialsAreBalanced(t *testing.T) {
	one := []probe.Flows{oneWay(1)}
	for _, tc := range []struct {
		name   string
		lane   lane
		size   string
		sent   gen.Sent
		counts sink.Counts
		fault  string // its first word
		lost   uint64
	}{
		{"all arrive", lane{flows: one}, "64", gen.Sent{Warm: 10, Frames: 90}, sink.Counts{Segments: 100}, "", 0},
		{"some are lost", lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 90}, "", 10},
		{"one too many", lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 101}, "duplicated", 0},
		{"sent after the trial", lane{flows: one}, "64", gen.Sent{Frames: 100, After: 1}, sink.Counts{Segments: 101}, "", 0},
		{"one of the last trial", lane{flows: one, lost: 1}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 101}, "", 0},
		{"lessons", lane{flows: one, lessons: 2}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 102, Late: 2}, "", 0},
		{"order", lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Late: 1}, "reordered", 0},
		{"its own words", lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Foreign: 10}, "", 0},
		{"strangers", lane{flows: one}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 89, Foreign: 11}, "changed", 11},
		{
			"order between stations", lane{flows: []probe.Flows{oneWay(2)}}, "64",
			gen.Sent{Frames: 100}, sink.Counts{Segments: 100, Late: 1}, "", 0,
		},
		{
			"broadcast", lane{flows: []probe.Flows{{To: []int{1, 2}, Broadcast: true}}}, "64",
			gen.Sent{Frames: 100}, sink.Counts{Segments: 180}, "", 10,
		},
		{"super-frames", lane{flows: one}, "gso", gen.Sent{Frames: 2}, sink.Counts{Segments: 90, Late: 3}, "", 0},
		{"frames that go round", lane{flows: one, endless: true}, "64", gen.Sent{Frames: 100}, sink.Counts{Segments: 400}, "", 0},
	} {
		l := &tc.lane
		var err error
		if l.size, err = probe.ParseSize(tc.size); err != nil {
			t.Fatal(err)
		}
		o := &outcome{sent: tc.sent, received: tc.counts}
		l.balance(o)
		if word, _, _ := strings.Cut(o.fault, " "); word != tc.fault || l.lost != tc.lost || l.lessons != 0 {
			t.Errorf("%s: fault %q, %d lost; want %q, %d", tc.name, o.fault, l.lost, tc.fault, tc.lost)
		}
	}
}

func TestOneContendersFailureIsItsOwn(t *testing.T) {
	kind := func(name string, direct bool) subject.Kind {
		return subject.Kind{
			Name: name, Family: "test", Direct: direct,
			Absent: func() error { return nil }, Version: func() string { return "1" },
		}
	}
	kinds := []subject.Kind{kind("cable", true), kind("good", false), kind("bad", false)}
	for _, tc := range []struct {
		fails string
		err   error
		ends  bool
		turns int
	}{
		{"bad", errors.New("no such device"), false, 3},
		{"bad", fmt.Errorf("wait: %w", context.DeadlineExceeded), false, 3}, // its own
		{"bad", fmt.Errorf("wait: %w", context.Canceled), true, 0},
		{"cable", errors.New("no such program"), true, 0},
	} {
		o := Options{kinds: kinds}
		if err := o.complete(); err != nil {
			t.Fatal(err)
		}
		b := newRun(o)
		b.start()
		var g grid
		for _, k := range kinds {
			g = append(g, &rig{kind: k})
		}
		turns := map[string]int{}
		err := b.laps(t.Context(), g, 3, "test", func(_ int, r *rig) error {
			turns[r.kind.Name]++
			if r.kind.Name == tc.fails {
				return tc.err
			}
			return nil
		})
		if (err != nil) != tc.ends || !tc.ends && (turns["good"] != tc.turns || turns["bad"] != 1 || len(b.rep.Notes) == 0) {
			t.Errorf("%s fails with %q: error %v, turns %v, notes %q", tc.fails, tc.err, err, turns, b.rep.Notes)
		}
	}
}
