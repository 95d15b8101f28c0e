// Package bench is kvswitch's race against other switches: the same generator
// and the same sink for every contender, contenders taking turns within one run,
// and a report that withholds a ratio it can't stand behind. Command
// kvswitch-bench is its only caller; nothing that cmd/kvswitch links may be.
//
// The parts are packages of their own: topo builds the networks, subject
// attaches the contenders, gen sends, sink counts, rig puts these together, trial
// gives the turns and judges, measure is what is measured, mlr searches, stats
// computes, machine says what else went on, and report keeps the result. This
// package checks what was asked for, runs the plan and publishes.
//
// Nothing outside the namespaces it makes is touched, and they are gone when Run
// returns, or when the process ends in any other way. Run needs root. One run at
// a time: two would measure each other.
package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/kvswitch/kvswitch/bench/measure"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// Report is the outcome of a run.
type Report = report.Report

// Run runs the tests and returns the report, also when it was interrupted or
// failed midway, with what there is by then.
func Run(ctx context.Context, o Options) (*Report, error) {
	r, err := o.run(ctx)
	if err != nil {
		err = fmt.Errorf("bench: %w", err)
	}
	return r, err
}

func (o Options) run(ctx context.Context) (*Report, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := topo.Allowed(); err != nil {
		return nil, err
	}
	if o.ReportDir != "" {
		if err := report.Prepare(o.ReportDir); err != nil {
			return nil, err
		}
	}
	s := trial.New(o.settings(), o.Program, o.entrants(), o.Progress)
	s.Referee.Tolerant = o.tolerant || o.Quick
	for _, gap := range o.gaps() {
		s.Results.Note("%s", gap)
	}
	err := o.race(ctx, s)
	err = errors.Join(err, s.Finish(err == nil))
	s.Results.Summarise()
	return s.Results.Report, errors.Join(err, o.publish(s))
}

// race runs the tests in their order.
func (o *Options) race(ctx context.Context, s *trial.Session) error {
	if !o.tolerant {
		if err := s.LookAround(ctx); err != nil {
			return err
		}
	}
	plan := measure.Plan(s)
	s.Line.Expect(measure.Expect(&s.Settings, plan))
	for _, test := range plan {
		if err := test.Run(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// publish writes the tables and the files.
func (o *Options) publish(s *trial.Session) error {
	if err := report.Text(o.Out, s.Results.Report); err != nil {
		return fmt.Errorf("write tables: %w", err)
	}
	if o.ReportDir == "" {
		return nil
	}
	path, err := report.Write(o.ReportDir, s.Results.Report)
	if err == nil {
		s.Line.Note("report: %s", path)
	}
	return err
}
