package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/subject"
)

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
		s := New(Settings{Path: "veth"}, "test", kinds, io.Discard)
		var g rig.Grid
		for _, k := range kinds {
			g = append(g, &rig.Rig{Kind: k})
		}
		turns := map[string]int{}
		err := s.Turns.Rounds(t.Context(), g, 3, "test", func(_ int, r *rig.Rig) error {
			turns[r.Kind.Name]++
			if r.Kind.Name == tc.fails {
				return tc.err
			}
			return nil
		})
		if (err != nil) != tc.ends || !tc.ends && (turns["good"] != tc.turns || turns["bad"] != 1 || len(s.Results.Notes) == 0) {
			t.Errorf("%s fails with %q: error %v, turns %v, notes %q", tc.fails, tc.err, err, turns, s.Results.Notes)
		}
	}
}
