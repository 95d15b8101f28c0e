package measure

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/trial"
)

var metricLearning = report.Metric{
	Test: "address", Name: "learning_rate", Unit: "frame/s",
	Title: "address learning rate (RFC 2889, 5.8), as far as the generator goes: see the notes",
}

const (
	// learningBlock is how many new addresses one attempt at a rate teaches: more
	// than waits in any contender's queues.
	learningBlock = 8192
	// learningRounds is the least for a ratio: a learning rate takes a second.
	learningRounds = stats.MinPairs
	// learningWidth is how far apart, as a share of the upper one, the bounds of a
	// learning rate may be.
	learningWidth = 0.1
	// slowestLesson is the lowest rate tried, in frames/s.
	slowestLesson = 1000
)

// learning measures how fast the pupils learn, contenders in turn.
type learning struct {
	pupils *pupils
	most   int // how many there may be
}

func (m learning) Expect(s *trial.Settings, _ int) time.Duration {
	return time.Duration(m.most*min(s.Runs, learningRounds)) * 1500 * time.Millisecond
}

func (m learning) Measure(ctx context.Context, s *trial.Session, _ rig.Grid) error {
	c := report.Case{Ports: addressPorts}
	kinds, rounds := m.pupils.kinds, s.Rounds(learningRounds)
	open := map[string]int{} // rounds in which the generator was the limit
	for round := range rounds {
		for n, i := range stats.Order(len(kinds), round) {
			k := kinds[i]
			s.Line.Part(round*len(kinds)+n, rounds*len(kinds))
			s.Line.Step("address learning rate: round %d of %d, %s", round+1, rounds, k.Name)
			found, err := learningRate(ctx, s, k, min(learningBlock, m.pupils.capacity[k.Name]/2))
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				s.Results.Note("%s: no learning rate in round %d: %v", k.Name, round+1, err)
			case found.low == 0:
				s.Results.Reject(metricLearning, c, k.Name)
			default:
				s.Results.Add(metricLearning, c, k.Name, round, found.low)
				if found.high == 0 {
					open[k.Name]++
				}
			}
		}
	}
	for _, k := range kinds {
		if n := open[k.Name]; n > 0 {
			s.Results.Note("address learning rate: %s learned at least as fast as the generator could teach in %d of %d rounds", k.Name, n, rounds)
		}
	}
	return nil
}

// pace are the bounds of a learning rate in frames/s: low was learned, high was
// too fast. 0: no rate was seen to be so.
type pace struct{ low, high float64 }

// next is the rate to try next, 0 for full speed, or that the bounds are close
// enough or too low to go on.
func (p pace) next() (rate float64, done bool) {
	switch {
	case p.high == 0:
		return 0, p.low > 0
	case p.low >= p.high*(1-learningWidth):
		return 0, true
	case p.low > 0:
		rate = math.Sqrt(p.low * p.high)
	default:
		rate = p.high / 2
	}
	return rate, rate < slowestLesson
}

// learningRate finds the highest rate at which new addresses are learned without
// one missing: full speed first, then halves of it until one is good, then
// between the bounds. Every attempt teaches addresses that were never seen; the
// table is a fresh one for each search. Its low is 0 when an attempt was not
// clear, or none good.
func learningRate(ctx context.Context, s *trial.Session, k subject.Kind, block int) (p pace, err error) {
	c, err := openClassroom(ctx, s, k)
	if err != nil || c == nil {
		return pace{}, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	again := 0
	for base, done, ask := 0, false, 0.0; !done; base += block {
		got, v, counts, err := attempt(ctx, s, c, span(base, block), ask)
		if err != nil {
			return pace{}, err
		}
		switch clear := counts && v != unclear; {
		case v == learned: // a disturbance makes nobody learn
			p.low = max(p.low, got)
		case !clear && again < s.Referee.Retries:
			again++
			continue
		case !clear:
			return pace{}, nil
		default:
			p.high = got
		}
		again = 0
		ask, done = p.next()
	}
	if p.high > 0 {
		if p.low < p.high*(1-learningWidth) {
			return pace{high: p.high}, nil // too slow to go on
		}
		p.low = min(p.low, p.high)
	}
	return p, nil
}

// attempt teaches stations at a rate and asks for them: what rate it was, what the
// contender knows, and whether the machine was undisturbed.
func attempt(ctx context.Context, s *trial.Session, c *classroom, stations []int, rate float64) (got float64, v verdict, counts bool, err error) {
	var flooded, lost []int
	u, err := s.Referee.Observe(func() (err error) {
		if got, err = c.teach(ctx, stations, rate); err == nil {
			flooded, lost, err = c.ask(ctx, stations)
		}
		return err
	})
	if err != nil {
		return 0, unclear, false, err
	}
	switch counts = s.Referee.Accept(u); {
	case len(flooded) > 0:
		return got, flooding, counts, nil
	case len(lost) > 0:
		return got, unclear, counts, nil
	}
	return got, learned, counts, nil
}
