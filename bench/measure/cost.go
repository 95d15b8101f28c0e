package measure

import (
	"context"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/trial"
)

const (
	// costShare of the reference's receive rate is the load at which costs are
	// compared: every contender worth comparing carries it, and it is high
	// enough for batches to form.
	costShare = 0.4
	// costCap is the share of its own rate that a slow contender is loaded to
	// instead.
	costCap = 0.7
)

// equalLoad measures what forwarding a frame of a size costs in processor time at
// a load that leaves time to sleep, wherever it is spent: in the contender's
// processes, in softirq, in kernel threads, or in the sender's own context, where
// the kernel bridge does its work. What is counted is all time of all processors
// that was not idle. The sender sleeps between bursts, so that its waiting does
// not count; what it and the sink do is the same for everybody and is measured on
// the plain cable at the same rate in the same round, and subtracted.
type equalLoad struct{ size string }

func (m equalLoad) length(s *trial.Settings) time.Duration {
	return max(4*s.Length, 100*time.Millisecond)
}

func (m equalLoad) Expect(s *trial.Settings, n int) time.Duration {
	return trials(n*s.Runs, m.length(s))
}

func (m equalLoad) Measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	reference, ok := s.Rates.Full(s.Results.Refer, m.size)
	if !ok || cable(g) == nil {
		return nil // nothing to load them to, or no cable to subtract
	}
	size, err := probe.ParseSize(m.size)
	if err != nil {
		return err
	}
	costs := costs{}
	err = s.OnLanes(ctx, g, size, []probe.Flows{probe.OneWay(1)}, func(lanes rig.Lanes) error {
		return s.Turns.Rounds(ctx, g, s.Runs, "processor time", func(round int, r *rig.Rig) error {
			own, _ := s.Rates.Full(r.Kind.Name, m.size)
			load := gen.Load{Rate: min(costShare*reference.Received, costCap*own.Received), Length: m.length(&s.Settings), Sleep: true}
			if load.Rate == 0 {
				return nil
			}
			var o *rig.Outcome
			u, counts, err := s.Referee.OnLane(ctx, lanes[r], func() (err error) {
				o, err = s.Offer(ctx, lanes[r], load)
				return err
			})
			if err == nil {
				costs.add(r, round, u, o, counts)
			}
			return err
		})
	})
	costs.file(s, g, report.Case{Size: m.size, Flows: 1, Source: s.Source(), Load: "40 % of the reference's rate"})
	return err
}

// cable is the rig without a switch, nil if there is none.
func cable(g rig.Grid) *rig.Rig {
	if i := slices.IndexFunc(g, func(r *rig.Rig) bool { return r.Kind.Direct }); i >= 0 {
		return g[i]
	}
	return nil
}

// costs are what trials took, those without a value included.
type costs map[costKey]*cost

type costKey struct {
	contender string
	round     int
}

// cost is what one trial took.
type cost struct {
	busy     float64 // ns of the whole machine
	sent     float64 // frames
	received float64 // frames; of super-frames, their segments
	counts   bool
}

func (m costs) add(r *rig.Rig, round int, u machine.Usage, o *rig.Outcome, counts bool) {
	m[costKey{r.Kind.Name, round}] = &cost{
		float64(u.Busy), float64(o.Sent.Warm + o.Sent.Frames + o.Sent.After), float64(o.Received.Segments), counts,
	}
}

// file puts into the report what is left for each frame received when the
// generator's and the sink's part is subtracted: what a frame costs on the cable
// in the same round, for each frame sent. A contender does not pay for the
// sending of what it lost.
func (m costs) file(s *trial.Session, g rig.Grid, c report.Case) {
	plain := cable(g)
	if plain == nil {
		return
	}
	for round := range s.Runs {
		base, ok := m[costKey{plain.Kind.Name, round}]
		for _, r := range g {
			v, tried := m[costKey{r.Kind.Name, round}]
			if r.Kind.Direct || !tried || v.received == 0 {
				continue
			}
			left, counts := 0.0, ok && base.counts && v.counts
			if counts {
				left = v.busy - v.sent*base.busy/base.sent
			}
			// Less than nothing, now and then, is what noise makes of little: a
			// median that leaves it out would be too high.
			s.Results.File(metricCost, c, r.Kind.Name, round, left/v.received, counts)
		}
	}
}
