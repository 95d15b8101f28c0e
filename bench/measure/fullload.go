package measure

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// fullLoad offers all that the generator has, in all of its cases within each
// round.
type fullLoad []report.Case

// heat is a case at full load, while it is measured.
type heat struct {
	report.Case
	lanes rig.Lanes
	costs costs
}

// atFull is the load of a trial whose warm-up is a quarter of it.
func atFull(s *trial.Settings) gen.Load { return gen.Load{Length: s.Length, Warm: s.Length / 4} }

// rounds are the least for a ratio where the case is only a point between others,
// or a second opinion.
func (f fullLoad) rounds(s *trial.Settings) int {
	c := f[0]
	if c.Source != s.Source() || probe.Plain(c.Size) && !slices.Contains(s.Ends(), c.Size) {
		return min(s.Runs, stats.MinPairs)
	}
	return s.Runs
}

func (f fullLoad) Expect(s *trial.Settings, n int) time.Duration {
	return trials(n*f.rounds(s)*len(f), s.Length*5/4)
}

func (f fullLoad) Measure(ctx context.Context, s *trial.Session, g rig.Grid) (err error) {
	var heats []heat
	for _, c := range f {
		size, failed := probe.ParseSize(c.Size)
		if failed != nil {
			return failed
		}
		var lanes rig.Lanes
		if len(heats) == 0 {
			lanes, failed = openLanes(ctx, s, g, size, c)
		} else {
			lanes, failed = heats[0].beside(size, c)
		}
		if failed != nil {
			return failed
		}
		// The last opened is closed first: it borrows the counters of the first.
		defer func() { err = errors.Join(err, lanes.Close()) }()
		heats = append(heats, heat{c, lanes, costs{}})
	}
	if err := s.Results.Exchange(); err != nil {
		return err
	}
	what := "full load, " + f[len(f)-1].String()
	err = s.Turns.Rounds(ctx, g, f.rounds(&s.Settings), what, func(round int, r *rig.Rig) error {
		for _, i := range stats.Order(len(heats), round) {
			if l := heats[i].lanes[r]; l != nil {
				if err := heats[i].trial(ctx, s, round, l); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, h := range heats {
		if h.Source == s.Source() { // XDP frames cost another path something else than the cable
			h.costs.file(s, g, h.Case)
		}
	}
	return err
}

// trial is one trial at full load.
func (h *heat) trial(ctx context.Context, s *trial.Session, round int, l *rig.Lane) error {
	var o *rig.Outcome
	u, counts, err := s.Referee.OnLane(ctx, l, func() (err error) {
		o, err = s.Offer(ctx, l, atFull(&s.Settings))
		return err
	})
	if err != nil {
		return err
	}
	contender := l.Kind.Name
	s.Results.File(metricReceived, h.Case, contender, round, o.Frames, counts)
	u.Busy -= o.Sent.Stopping
	if o.Received.Segments > 0 {
		s.Results.File(metricMachine, h.Case, contender, round, float64(u.Busy)/float64(o.Received.Segments), counts)
	}
	h.costs.add(l.Rig, round, u, o, counts)
	if h.Source == s.Source() && h.Flows == 1 { // disturbed or not: it only decides what to load it to later
		saw(s, contender, h.Size, o)
	}
	return nil
}

// saw remembers the rates of a load that was all the generator has.
func saw(s *trial.Session, contender, size string, o *rig.Outcome) {
	s.Rates.Saw(contender, size, float64(o.Sent.Frames)/o.Sent.Elapsed.Seconds(), o.Frames)
}

// openLanes opens the lanes of a case. Contenders that a second kind of generator
// can't reach are left out.
func openLanes(ctx context.Context, s *trial.Session, g rig.Grid, size probe.Size, c report.Case) (rig.Lanes, error) {
	second, ok := map[string]func(*rig.Rig, probe.Size) (*rig.Lane, error){"xdp": rig.OpenLive, "dpdk": rig.OpenBounce}[c.Source]
	return s.Lanes(ctx, g, func(r *rig.Rig) (*rig.Lane, error) {
		if !ok {
			return rig.Open(ctx, r, size, probe.OneWay(c.Flows))
		}
		l, err := second(r, size)
		if err != nil && !errors.Is(err, rig.ErrGone) {
			s.Results.Note("%s without generator %s: %v", r.Kind.Name, c.Source, err)
			return nil, nil
		}
		return l, err
	})
}

// beside opens lanes with other flows to the counters of h's.
func (h *heat) beside(size probe.Size, c report.Case) (rig.Lanes, error) {
	lanes := rig.Lanes{}
	for r, l := range h.lanes {
		if err := r.Alive(); err != nil {
			continue // which its turn will find out
		}
		other, err := l.Beside(size, probe.OneWay(c.Flows))
		if err != nil {
			return nil, errors.Join(err, lanes.Close())
		}
		lanes[r] = other
	}
	return lanes, nil
}
