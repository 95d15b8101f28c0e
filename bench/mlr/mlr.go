// Package mlr searches for the highest load a switch carries at a bounded loss,
// after the IETF BMWG draft "Multiple Loss Ratio Search"
// (draft-ietf-bmwg-mlrsearch). A single trial never decides a load: trials at
// one load are added up until their total duration could no longer change the
// verdict, and a goal tolerates that a share of them (Exceed) was bad. On a
// shared machine that repeats far better than the one long trial of RFC 2544.
//
// The package decides which load to try next and when to stop. It has no clock
// and sends nothing: the caller's function measures. A Search is used by one
// goroutine.
package mlr

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/stats"
)

// Goal is one question about a switch: the highest load at which the loss stays
// within LossRatio.
type Goal struct {
	Name      string        // "NDR", "PDR"
	LossRatio float64       // tolerated loss of one trial, 0–1
	Sum       time.Duration // total length of trials that decides a load
	Exceed    float64       // share of that length which may be bad, 0–1
	Width     float64       // stop when (upper-lower)/upper is no larger
}

// Limits bound the search.
type Limits struct {
	Min, Max float64       // loads in frames/s, 0 < Min < Max
	Trial    time.Duration // length of one trial
	Trials   int           // give up after so many trials in all
}

// Trial is the outcome of one measurement.
type Trial struct {
	Load     float64 // intended, frames/s
	Sent     uint64
	Received uint64 // at the receiver
}

// Loss is the share of the intended (whole) frames that did not arrive. Frames that the
// sender could not get rid of count as lost: a switch that works in the
// sender's own context pushes back instead of dropping, and the load was not
// carried either way.
func (t Trial) Loss(length time.Duration) float64 {
	intended := math.Floor(t.Load * length.Seconds())
	if intended <= 0 {
		return 0
	}
	return max(0, 1-float64(t.Received)/intended)
}

// Result answers one goal.
type Result struct {
	Goal  string
	Lower float64 // highest load found good; 0 if none was
	Upper float64 // lowest load found bad; 0 if even Limits.Max was good
	// Rate is the conditional throughput: the forwarding rate that the trials
	// at Lower had at the goal's quantile, frames/s.
	Rate float64
	// Complete is false when Limits.Trials ran out before Lower and Upper were
	// Width apart.
	Complete bool
	// Irregular reports that some load above Upper was good: the switch does
	// not lose more the more it is offered, or the machine was disturbed.
	Irregular bool
}

// Measure makes one trial. It may return ErrRepeat for a trial that does not
// count, which is then made again.
type Measure func(ctx context.Context, load float64, length time.Duration) (Trial, error)

// ErrRepeat is returned by a Measure whose trial was disturbed.
var ErrRepeat = errors.New("trial disturbed")

type verdict int

const (
	undecided verdict = iota
	lower
	upper
)

// point is one load with all its trials.
type point struct {
	load  float64
	loss  []float64
	rates []float64 // received frames/s
}

type search struct {
	limits  Limits
	points  []*point // ascending load
	trials  int
	measure Measure
}

// Search answers the goals, in their order; each profits from the trials of
// those before it. It makes at most limits.Trials trials, disturbed ones
// included.
func Search(ctx context.Context, limits Limits, goals []Goal, measure Measure) ([]Result, error) {
	if !(0 < limits.Min && limits.Min < limits.Max) || limits.Trial <= 0 || limits.Trials <= 0 {
		return nil, fmt.Errorf("search load: limits %+v make no sense", limits)
	}
	s := &search{limits: limits, measure: measure}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	results := make([]Result, 0, len(goals))
	for _, g := range goals {
		r, err := s.answer(ctx, g)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

// start tries the highest load, then what came through at it: for a switch that
// drops gracefully that is close to the answer.
func (s *search) start(ctx context.Context) error {
	if err := s.try(ctx, s.limits.Max); err != nil {
		return err
	}
	if len(s.points) == 0 { // every trial was disturbed
		return nil
	}
	if r := s.points[0].rates[0]; r > s.limits.Min && r < s.limits.Max {
		return s.try(ctx, r)
	}
	return nil
}

// answer tries loads until the goal's bounds are narrow enough.
func (s *search) answer(ctx context.Context, g Goal) (Result, error) {
	for {
		lo, hi, irregular := s.bounds(g)
		load := s.next(g, lo, hi)
		r := Result{Goal: g.Name, Irregular: irregular, Complete: load == 0}
		if lo != nil {
			r.Lower = lo.load
			r.Rate = stats.Quantile(lo.rates, g.Exceed)
		}
		if hi != nil {
			r.Upper = hi.load
		}
		if load == 0 || s.trials >= s.limits.Trials {
			return r, nil
		}
		if err := s.try(ctx, load); err != nil {
			return Result{}, err
		}
	}
}

// bounds are the draft's relevant bounds: the lowest load that is an upper
// bound, and the highest lower bound beneath it.
func (s *search) bounds(g Goal) (lo, hi *point, irregular bool) {
	for _, p := range s.points {
		switch v := s.classify(g, p); {
		case v == upper && hi == nil:
			hi = p
		case v == lower && hi == nil:
			lo = p
		case v == lower:
			irregular = true
		}
	}
	return lo, hi, irregular
}

// classify is the load classification of the draft's appendix: what would the
// verdict be if all the trials still to come were good, or bad?
func (s *search) classify(g Goal, p *point) verdict {
	good, bad := 0.0, 0.0
	for _, l := range p.loss {
		if l <= g.LossRatio {
			good += s.limits.Trial.Seconds()
		} else {
			bad += s.limits.Trial.Seconds()
		}
	}
	rest := max(0, g.Sum.Seconds()-good-bad)
	total := good + bad + rest
	switch {
	case bad/total > g.Exceed: // even if the rest were good
		return upper
	case (bad+rest)/total <= g.Exceed: // even if the rest were bad
		return lower
	}
	return undecided
}

// next is the load to try, or 0 when the bounds answer the goal.
func (s *search) next(g Goal, lo, hi *point) float64 {
	floor, ceiling := s.limits.Min, s.limits.Max
	if lo != nil {
		floor = lo.load
	}
	if hi != nil {
		ceiling = hi.load
	}
	narrow := func(a, b float64) bool { return (b-a)/b <= g.Width }
	switch {
	case hi == nil && lo != nil && lo.load == s.limits.Max:
		return 0 // carried everything that was offered
	case hi != nil && hi.load == s.limits.Min:
		return 0 // carried nothing
	case lo != nil && hi != nil && narrow(lo.load, hi.load):
		return 0
	}
	// A load already begun is brought to a verdict first, the highest one first:
	// its verdict cuts off most.
	for _, p := range slices.Backward(s.points) {
		inside := p.load >= floor && p.load <= ceiling && p != lo && p != hi
		if inside && s.classify(g, p) == undecided {
			return p.load
		}
	}
	switch {
	case hi == nil:
		return s.limits.Max
	case lo == nil:
		return s.below(g, hi.load)
	}
	return math.Sqrt(lo.load * hi.load)
}

// below steps down from an upper bound in search of a lower one, by a stride
// that doubles with every bad load, so that a poor first guess costs few trials.
func (s *search) below(g Goal, from float64) float64 {
	stride := g.Width / 2
	for _, p := range s.points {
		if s.classify(g, p) == upper {
			stride *= 2
		}
	}
	if stride >= 0.5 {
		stride = 0.5
	}
	return max(s.limits.Min, from*(1-stride))
}

// try makes one counted trial at load and files it.
func (s *search) try(ctx context.Context, load float64) error {
	for s.trials < s.limits.Trials {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.trials++
		t, err := s.measure(ctx, load, s.limits.Trial)
		if errors.Is(err, ErrRepeat) {
			continue
		}
		if err != nil {
			return fmt.Errorf("measure load %.0f frames/s: %w", load, err)
		}
		p := s.point(load)
		p.loss = append(p.loss, t.Loss(s.limits.Trial))
		p.rates = append(p.rates, float64(t.Received)/s.limits.Trial.Seconds())
		return nil
	}
	return nil
}

// point is the record of a load, made if it is new.
func (s *search) point(load float64) *point {
	i, found := slices.BinarySearchFunc(s.points, load, func(p *point, l float64) int {
		switch {
		case p.load < l:
			return -1
		case p.load > l:
			return 1
		}
		return 0
	})
	if !found {
		s.points = slices.Insert(s.points, i, &point{load: load})
	}
	return s.points[i]
}
