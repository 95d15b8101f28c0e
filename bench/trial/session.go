// Package trial is how the race is run: who takes part, whose turn it is, whether
// a trial counts, where its figure goes, and what is said on the terminal
// meanwhile. What is measured is package measure's affair.
//
// A Session is one run. Each of its parts has one job: Turns whose turn it is,
// Referee whether a trial counts, Results what was found out, Rates what is known
// of the contenders' speed, Progress what is being done. All of them are used by
// one goroutine.
package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// Settings are what a run measures with.
type Settings struct {
	// Path is one of subject.Paths.
	Path string
	// Sizes are names of frame sizes, the smallest first, and Flows numbers of
	// address pairs, the lowest first.
	Sizes []string
	Flows []int
	// Runs is the number of rounds, in each of which every contender has a turn.
	Runs int
	// Length is that of one trial.
	Length time.Duration
	// Quick shortens everything to a smoke run.
	Quick bool
	// Tests are the names of those that run.
	Tests []string
}

// Source is the name of the path's ordinary generator.
func (s *Settings) Source() string {
	switch s.Path {
	case "tap":
		return "tap"
	case "vhost-user":
		return "virtio"
	}
	return "af_packet"
}

// Ends are the smallest and the largest plain size: what is measured at more
// expense. None if no size is plain.
func (s *Settings) Ends() []string {
	var plain []string
	for _, size := range s.Sizes {
		if probe.Plain(size) {
			plain = append(plain, size)
		}
	}
	if len(plain) == 0 {
		return nil
	}
	return slices.Compact([]string{plain[0], plain[len(plain)-1]})
}

// Session is a run in progress.
type Session struct {
	Settings
	// Entrants are the contenders that take part.
	Entrants []subject.Kind
	Line     *Progress
	Results  *Results
	Referee  *Referee
	Turns    *Turns
	Rates    *Rates
}

// New opens the report of a run and sees which of the contenders are there.
// program is the version that the report names; progress gets what goes on.
func New(set Settings, program string, kinds []subject.Kind, progress io.Writer) *Session {
	line := NewProgress(progress)
	results := &Results{line: line, Report: &report.Report{
		Schema: report.Schema, Program: program, Started: time.Now(),
		Quick: set.Quick, Path: set.Path, Rounds: set.Runs, TrialMs: int(set.Length.Milliseconds()),
		Refer: subject.Reference(set.Path), Machine: machine.Read(),
		Exchanges: []report.Exchange{},
		Series:    []report.Series{}, Searches: []report.Search{}, Latencies: []report.Latency{}, Aims: []report.Aim{},
		Trials: report.Trials{Reasons: map[string]int{}}, Notes: []string{},
	}}
	s := &Session{
		Settings: set, Line: line, Results: results,
		Referee: &Referee{Retries: 2, tally: &results.Trials, sample: machine.Take},
		Turns:   &Turns{results: results, line: line},
		Rates:   &Rates{full: map[contenderAndSize]Rate{}, pdr: map[string]float64{}},
	}
	if set.Quick {
		s.Referee.Retries = 1
	}
	for _, k := range kinds {
		s.enter(k)
	}
	return s
}

// enter puts a contender on the list, and into the race if it is there.
func (s *Session) enter(k subject.Kind) {
	c := report.Contender{Name: k.Name, Family: k.Family, About: k.About, Faults: []string{}}
	if err := k.Absent(); err != nil {
		c.Absent = err.Error()
		s.Line.Note("%s is absent: %v", k.Name, err)
	} else {
		c.Version = k.Version()
		s.Entrants = append(s.Entrants, k)
	}
	s.Results.Contenders = append(s.Results.Contenders, c)
}

// Rounds are those of a measurement that takes no more than most.
func (s *Session) Rounds(most int) int { return min(s.Runs, most) }

// Assemble attaches contenders to topologies of their own. One that can't be
// attached is left out, and the report says why.
func (s *Session) Assemble(ctx context.Context, kinds []subject.Kind, spec topo.Spec) (rig.Grid, error) {
	var g rig.Grid
	for i, k := range kinds {
		s.Line.Part(i, len(kinds))
		s.Line.Step("attaching %s", k.Name)
		r, err := rig.New(ctx, k, s.Path, spec)
		if ctx.Err() != nil {
			if err == nil {
				g = append(g, r)
			}
			return nil, errors.Join(ctx.Err(), g.Close())
		}
		if err != nil {
			s.Results.Note("%s left out with %d ports: %v", k.Name, spec.Ports, err)
			continue
		}
		g = append(g, r)
		s.Results.Record(r)
	}
	return g, nil
}

// Lanes opens a lane on each rig. A contender that fails, or for which open has
// none, gets none. They are the caller's to close.
func (s *Session) Lanes(ctx context.Context, g rig.Grid, open func(*rig.Rig) (*rig.Lane, error)) (rig.Lanes, error) {
	lanes := rig.Lanes{}
	for _, r := range g {
		err := s.Turns.Once(ctx, r, func() error {
			l, err := open(r)
			if l != nil {
				lanes[r] = l
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(err, lanes.Close())
		}
	}
	return lanes, nil
}

// OnLanes opens a lane on each rig, with the path's ordinary generator, does
// something with them and closes them.
func (s *Session) OnLanes(ctx context.Context, g rig.Grid, size probe.Size, flows []probe.Flows, do func(rig.Lanes) error) error {
	lanes, err := s.Lanes(ctx, g, func(r *rig.Rig) (*rig.Lane, error) { return rig.Open(ctx, r, size, flows...) })
	if err != nil {
		return err
	}
	return errors.Join(do(lanes), lanes.Close())
}

// Offer offers a load, and blames the contender for what no switch may do.
func (s *Session) Offer(ctx context.Context, l *rig.Lane, load gen.Load) (*rig.Outcome, error) {
	o, err := l.Offer(ctx, load)
	if err == nil && o.Fault != "" {
		s.Results.Blame(l.Kind.Name, o.Fault)
	}
	return o, err
}

// Finish notes how the run ended, and whether this hypervisor ever says that it
// took time.
func (s *Session) Finish(complete bool) error {
	s.Line.End()
	s.Results.Seconds = time.Since(s.Results.Started).Seconds()
	s.Results.Complete = complete
	now, err := s.Referee.sample()
	s.Results.Steal = now.Steal.Seconds()
	if err != nil {
		return fmt.Errorf("read stolen time: %w", err)
	}
	return nil
}
