// Package measure is what the race measures: each measurement is a value that says
// what it expects to take and how it is done, and Plan lists those of a run.
//
// Measurements work with a trial.Session, which gives the turns, judges the trials
// and keeps the figures. They are used by one goroutine, in the order of the plan:
// some load contenders to a part of what an earlier one found.
package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// Measurement is one thing that a run finds out about its contenders.
type Measurement interface {
	// Expect is about how long it takes with n contenders on a quiet machine. It
	// is for the progress line only.
	Expect(s *trial.Settings, n int) time.Duration
	// Measure takes it of all contenders that stand ready and files the figures.
	// A contender's failure is no error; an error ends the run.
	Measure(ctx context.Context, s *trial.Session, g rig.Grid) error
}

// Test is a part of the run that can be asked for.
type Test struct {
	Name   string
	Stages []Stage
}

// Stage is a set-up and what is measured on it, in order. Without contenders
// nothing is set up: its measurements attach their own, or need none.
type Stage struct {
	Kinds []subject.Kind
	Spec  topo.Spec
	Parts []Measurement
}

// Tests are the names of all tests, in the order in which they run.
var Tests = []string{"throughput", "latency", "bulk", "address", "broadcast", "scale"}

// Plan is the check of all contenders, then the tests of the session in their
// order.
func Plan(s *trial.Session) []Test {
	stages := map[string]func(*trial.Session) []Stage{
		"throughput": throughput, "latency": latency, "bulk": bulk,
		"address": address, "broadcast": broadcast, "scale": scale,
	}
	plan := []Test{{"check frames", check(s)}}
	for _, name := range s.Tests {
		plan = append(plan, Test{name, stages[name](s)})
	}
	return plan
}

// Expect is about how long a plan takes on a quiet machine.
func Expect(s *trial.Settings, plan []Test) (sum time.Duration) {
	for _, t := range plan {
		for _, st := range t.Stages {
			sum += st.attaching(s)
			for _, m := range st.Parts {
				sum += m.Expect(s, len(st.Kinds))
			}
		}
	}
	return sum
}

// Run runs the test's stages.
func (t Test) Run(ctx context.Context, s *trial.Session) error {
	if err := s.Results.Exchange(); err != nil {
		return err
	}
	for _, st := range t.Stages {
		if err := st.run(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	return nil
}

func (st Stage) run(ctx context.Context, s *trial.Session) error {
	var g rig.Grid
	if len(st.Kinds) > 0 {
		s.Line.Begin(st.attaching(&s.Settings))
		var err error
		if g, err = s.Assemble(ctx, st.Kinds, st.Spec); err != nil {
			return err
		}
	}
	return errors.Join(st.measure(ctx, s, g), g.Close())
}

func (st Stage) measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	for _, m := range st.Parts {
		s.Line.Begin(m.Expect(&s.Settings, len(st.Kinds)))
		if err := m.Measure(ctx, s, g); err != nil {
			return err
		}
	}
	return nil
}

// attaching is about how long it takes to set the stage up.
func (st Stage) attaching(s *trial.Settings) time.Duration {
	one := 150*time.Millisecond + time.Duration(st.Spec.Ports)*20*time.Millisecond
	if s.Path == "vm" {
		one = 8 * time.Second // guests boot
	}
	return time.Duration(len(st.Kinds)) * one
}

// perTrial is what a trial takes besides its length: the look at the machine
// before and after, waking and stopping the contender, emptying its queues.
const perTrial = 60 * time.Millisecond

// trials are about how long so many trials of this length take.
func trials(n int, length time.Duration) time.Duration { return time.Duration(n) * (length + perTrial) }

// switches are the entrants that are no plain cable.
func switches(s *trial.Session) []subject.Kind {
	return slices.DeleteFunc(slices.Clone(s.Entrants), func(k subject.Kind) bool { return k.Direct })
}
