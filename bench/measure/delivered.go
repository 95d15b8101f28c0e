package measure

import (
	"context"
	"time"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// delivered measures what all ports that the flows lead to receive together of the
// smallest frames at full load.
type delivered struct {
	metric report.Metric
	// special is what distinguishes the case; size, source and load are added.
	special report.Case
	flows   []probe.Flows
}

// deliveredRounds is enough for a curve, and the least for a ratio.
const deliveredRounds = stats.MinPairs

func (m delivered) Expect(s *trial.Settings, n int) time.Duration {
	return trials(n*min(s.Runs, deliveredRounds), s.Length*5/4)
}

func (m delivered) Measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	size := probe.Smallest()
	c := m.special
	c.Size, c.Source, c.Load = size.Name, s.Source(), "full"
	return s.OnLanes(ctx, g, size, m.flows, func(lanes rig.Lanes) error {
		return s.Turns.Rounds(ctx, g, s.Rounds(deliveredRounds), m.metric.Name+", "+c.String(), func(round int, r *rig.Rig) error {
			var o *rig.Outcome
			_, counts, err := s.Referee.OnLane(ctx, lanes[r], func() (err error) {
				o, err = s.Offer(ctx, lanes[r], atFull(&s.Settings))
				return err
			})
			if err == nil {
				s.Results.File(m.metric, c, r.Kind.Name, round, o.Frames, counts)
			}
			return err
		})
	})
}
