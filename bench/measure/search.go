package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/mlr"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// lossSearch finds each contender's highest loads without loss and with 0.5 %,
// one contender after another: each load depends on the one before.
type lossSearch struct {
	size string
	// missing leaves out contenders whose load with 0.5 % loss is known.
	missing bool
}

// goals of the search. RFC 2544's throughput is the first; telecom practice
// quotes the second.
func goals(s *trial.Settings) []mlr.Goal {
	sum, width := 5*s.Length, 0.02
	if s.Quick {
		sum, width = 3*s.Length, 0.05
	}
	return []mlr.Goal{
		{Name: "NDR", LossRatio: 0, Sum: sum, Exceed: 0.5, Width: width},
		{Name: "PDR", LossRatio: 0.005, Sum: sum, Exceed: 0.5, Width: width},
	}
}

// usualTrials are those of most searches, and mostTrials bounds every one: some
// ten loads with five trials each are usual.
func usualTrials(s *trial.Settings) int {
	if s.Quick {
		return 12
	}
	return 50
}

func mostTrials(s *trial.Settings) int {
	if s.Quick {
		return 16
	}
	return 120
}

func (m lossSearch) Expect(s *trial.Settings, n int) time.Duration {
	if m.missing && slices.Contains(s.Tests, "throughput") {
		return 0 // which finds them
	}
	return trials(n*usualTrials(s), s.Length+rig.LossStill)
}

func (m lossSearch) Measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	for i, r := range g {
		s.Line.Part(i, len(g))
		if _, known := s.Rates.PDR(r.Kind.Name); m.missing && known {
			continue
		}
		if err := s.Turns.Once(ctx, r, func() error { return m.search(ctx, s, r) }); err != nil {
			return err
		}
	}
	return nil
}

// search makes one contender's search.
func (m lossSearch) search(ctx context.Context, s *trial.Session, r *rig.Rig) (err error) {
	c := report.Case{Size: m.size, Flows: 1, Source: s.Source()}
	size, err := probe.ParseSize(m.size)
	if err != nil {
		return err
	}
	l, err := rig.Open(ctx, r, size, probe.OneWay(1))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	top, err := topLoad(ctx, s, l, m.size)
	if err != nil {
		return err
	}
	made := 0
	measure := func(ctx context.Context, load float64, _ time.Duration) (mlr.Trial, error) {
		made++
		s.Line.Step("loss search, %s: %s, trial %d at %s", c, r.Kind.Name, made, report.Format(load, "frame/s"))
		return lossTrial(ctx, s, l, load)
	}
	limits := mlr.Limits{Min: 1000, Max: max(2000, top), Trial: s.Length, Trials: mostTrials(&s.Settings)}
	results, err := mlr.Search(ctx, limits, goals(&s.Settings), measure)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Kind.Name, err)
	}
	for _, res := range results {
		s.Results.Searches = append(s.Results.Searches, report.Search{
			Goal: res.Goal, Case: c, Contender: r.Kind.Name,
			Lower: res.Lower, Upper: res.Upper, Rate: res.Rate,
			Complete: res.Complete, Irregular: res.Irregular, Trials: made,
		})
	}
	if m.size == s.Ends()[0] {
		s.Rates.SawPDR(r.Kind.Name, results[len(results)-1].Lower)
	}
	return nil
}

// lossTrial is one trial, in which every frame counts; mlr.ErrRepeat if it was
// disturbed.
func lossTrial(ctx context.Context, s *trial.Session, l *rig.Lane, load float64) (mlr.Trial, error) {
	rehearse := func() error {
		if err := l.Teach(ctx); err != nil {
			return err
		}
		return l.Rehearse(ctx, load)
	}
	var o *rig.Outcome
	u, err := s.Referee.Attempt(l.Rig, rehearse, func() (err error) {
		o, err = s.Offer(ctx, l, gen.Load{Rate: load, Length: s.Length, Still: rig.LossStill})
		return err
	})
	if err != nil {
		return mlr.Trial{}, err
	}
	if !s.Referee.Accept(u) { // the search has its own budget for making it again
		return mlr.Trial{}, mlr.ErrRepeat
	}
	return mlr.Trial{Load: load, Sent: o.Sent.Frames, Received: o.Received.Frames}, nil
}

// topLoad is the highest load worth trying: what the generator managed to offer
// the contender at full speed.
func topLoad(ctx context.Context, s *trial.Session, l *rig.Lane, size string) (float64, error) {
	if seen, ok := s.Rates.Full(l.Kind.Name, size); ok {
		return seen.Offered, nil
	}
	_, _, err := s.Referee.OnLane(ctx, l, func() error {
		o, err := s.Offer(ctx, l, gen.Load{Length: s.Length})
		if err == nil {
			saw(s, l.Kind.Name, size, o)
		}
		return err
	})
	seen, _ := s.Rates.Full(l.Kind.Name, size)
	return seen.Offered, err
}
