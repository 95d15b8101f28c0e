package vswitch_test

import (
	"log/slog"
	"testing"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/port/mem"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// follower notes what a switch tells it.
type follower struct {
	trust time.Duration // of the last beat
	late  bool          // what Beat is to say
	views uint64        // Follow's last
	heard uint64        // views when the last beat came
}

func (f *follower) Follow(v *relay.View)           { f.views = v.Seq }
func (f *follower) Carried(int) (c relay.Carried)  { return c }
func (f *follower) Beat(d time.Duration) (ok bool) { f.trust, f.heard = d, f.views; return !f.late }

// movedClock is a clock that a test moves.
type movedClock struct{ now time.Time }

func (c *movedClock) Now() time.Time { return c.now }

// What a switch is believed for is counted from its last BPDU at the port that has
// been silent for longest: neighbours don't hear what others are told.
func TestABeatIsGoodUntilTheFirstNeighbourLosesPatience(t *testing.T) {
	const hello = 4
	clock := &movedClock{now: time.Unix(1000, 0)}
	f := &follower{}
	s, err := vswitch.New(vswitch.Config{Clock: clock, Follower: f,
		Logger: slog.New(slog.DiscardHandler), STP: vswitch.STPConfig{Mode: vswitch.ModeRSTP, Hello: hello * time.Second, MaxAge: 20 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Hand()
	if err != nil {
		t.Fatal(err)
	}
	spoke := map[*mem.Port]time.Time{}
	add := func(name string) {
		t.Helper()
		p := mem.NewPort()
		cfg := vswitch.NewPortConfig("memory")
		cfg.Uplink = true
		if _, err := s.AddPort(name, p, cfg); err != nil {
			t.Fatal(err)
		}
		p.Sent() // its first
		spoke[p] = clock.now
	}
	add("first")
	seen := map[time.Duration]bool{}
	for second := range 60 {
		if second == 31 {
			add("second") // which says hello in other seconds
		}
		clock.now = clock.now.Add(time.Second)
		h.Tick()
		var silent time.Duration
		for p, at := range spoke {
			if len(p.Sent()) > 0 {
				at = clock.now
			}
			spoke[p] = at
			silent = max(silent, clock.now.Sub(at))
		}
		if want := 3*hello*time.Second - silent; f.trust != want {
			t.Fatalf("second %d: good for %v, a neighbour has heard nothing for %v: want %v", second, f.trust, silent, want)
		}
		if second > 40 {
			seen[silent] = true
		}
	}
	if len(seen) < 2 || seen[0] {
		t.Errorf("ports say hello at the same time: %v", seen)
	}
}

// With no tree there is nobody to lose patience, but no beat may run out before
// the next.
func TestABeatWithoutATreeIsGoodForTheAgeingTime(t *testing.T) {
	clock := &movedClock{now: time.Unix(1000, 0)}
	f := &follower{}
	s, err := vswitch.New(vswitch.Config{Clock: clock, Follower: f, Logger: slog.New(slog.DiscardHandler), STP: vswitch.STPConfig{Mode: vswitch.ModeOff}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Hand()
	if err != nil {
		t.Fatal(err)
	}
	for ageing, want := range map[time.Duration]time.Duration{300 * time.Second: 300 * time.Second, time.Second: 3 * time.Second} {
		if err := s.SetAgeing(ageing); err != nil {
			t.Fatal(err)
		}
		h.Tick()
		if f.trust != want {
			t.Errorf("ageing %v: a beat is good for %v, want %v", ageing, f.trust, want)
		}
	}
	// After one that came too late the follower gets a view before the next.
	f.late = true
	h.Tick()
	before := f.views
	f.late = false
	h.Tick()
	if f.heard <= before {
		t.Errorf("the beat after a late one came with view %d, the late one with %d", f.heard, before)
	}
}
