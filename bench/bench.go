// Package bench is kvswitch's race against other switches: the same generator
// and the same sink for every contender, contenders taking turns within one run,
// and a report that withholds a ratio it can't stand behind.
//
// The parts are packages of their own: topo builds the networks, subject
// attaches the contenders, gen sends, sink counts, mlr searches, stats judges,
// machine says what else went on, and report keeps the result. This package
// puts them together into tests.
//
// Nothing outside the namespaces it makes is touched, and they are gone when Run
// returns, or when the process ends in any other way. Run needs root. One run at
// a time: two would measure each other.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// Report is the outcome of a run.
type Report = report.Report

// run is a bench in progress.
type run struct {
	Options
	rep  *Report
	line *progress
	// entrants are the contenders that take part.
	entrants []subject.Kind
	// stream is the first sequence number of the latest audited stream.
	stream uint32
	// sample is machine.Take, but in tests.
	sample func() (machine.Sample, error)
	// rates are the highest seen, for tests that load a contender to a part of
	// what it can take.
	rates map[rateKey]rates
	// pdr is the load at which a contender loses 0.5 % of 64-byte frames.
	pdr map[string]float64
}

// rateKey is a contender and a frame size.
type rateKey struct{ contender, size string }

// rates in frames/s at full load.
type rates struct{ offered, received float64 }

// Run runs the tests and returns the report, also when it was interrupted or
// failed midway, with what there is by then.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if err := topo.Allowed(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if o.ReportDir != "" {
		if err := report.Prepare(o.ReportDir); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
	}
	b := newRun(o)
	b.start()
	err := b.all(ctx)
	b.line.end()
	b.rep.Seconds = time.Since(b.rep.Started).Seconds()
	b.rep.Complete = err == nil
	err = errors.Join(err, b.stolen())
	b.rep.Summarise()
	err = errors.Join(err, b.publish())
	if err != nil {
		return b.rep, fmt.Errorf("bench: %w", err)
	}
	return b.rep, nil
}

// newRun makes a run of complete options.
func newRun(o Options) *run {
	return &run{
		Options: o, line: newProgress(o.Progress), sample: machine.Take,
		rates: map[rateKey]rates{}, pdr: map[string]float64{},
	}
}

// start opens the report and sees who is there.
func (b *run) start() {
	b.rep = &Report{
		Schema: report.Schema, Program: b.Program, Started: time.Now(),
		Quick: b.Quick, Path: b.Path, Rounds: b.Runs, TrialMs: int(b.trialLength.Milliseconds()),
		Refer: subject.Reference(b.Path), Machine: machine.Read(),
		Exchanges: []report.Exchange{},
		Series:    []report.Series{}, Searches: []report.Search{}, Latencies: []report.Latency{}, Aims: []report.Aim{},
		Trials: report.Trials{Reasons: map[string]int{}}, Notes: []string{},
	}
	for _, gap := range b.gaps() {
		b.note("%s", gap)
	}
	for _, k := range b.kinds {
		if !b.enters(k.Family) {
			continue
		}
		c := report.Contender{Name: k.Name, Family: k.Family, About: k.About, Faults: []string{}}
		if err := k.Absent(); err != nil {
			c.Absent = err.Error()
			b.line.note("%s is absent: %v", k.Name, err)
		} else {
			c.Version = k.Version()
			b.entrants = append(b.entrants, k)
		}
		b.rep.Contenders = append(b.rep.Contenders, c)
	}
}

// all runs the tests in their order.
func (b *run) all(ctx context.Context) error {
	tests := map[string]func(context.Context) error{
		"throughput": b.throughput,
		"latency":    b.latency,
		"bulk":       b.bulk,
		"address":    b.address,
		"broadcast":  b.broadcast,
		"scale":      b.scale,
	}
	if err := b.check(ctx); err != nil {
		return fmt.Errorf("check frames: %w", err)
	}
	for _, name := range b.Tests {
		if err := b.exchange(); err != nil {
			return err
		}
		if err := tests[name](ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// exchange notes how far apart the processors are now.
func (b *run) exchange() error {
	d, err := machine.Exchange()
	if err == nil && d > 0 {
		b.rep.Exchanges = append(b.rep.Exchanges, report.Exchange{Seconds: time.Since(b.rep.Started).Seconds(), NS: float64(d.Nanoseconds())})
	}
	return err
}

// stolen notes whether this hypervisor ever says that it took time.
func (b *run) stolen() error {
	s, err := b.sample()
	b.rep.Steal = s.Steal.Seconds()
	return err
}

// assemble attaches contenders to topologies of their own. One that can't be
// attached is left out, and the report says why.
func (b *run) assemble(ctx context.Context, kinds []subject.Kind, spec topo.Spec) (grid, error) {
	var g grid
	for _, k := range kinds {
		b.line.step("attaching %s", k.Name)
		r, err := newRig(ctx, k, b.Path, spec)
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), g.close())
		}
		if err != nil {
			b.note("%s left out with %d ports: %v", k.Name, spec.Ports, err)
			continue
		}
		g = append(g, r)
		b.record(r)
	}
	return g, nil
}

// note puts a remark into the report and on the terminal.
func (b *run) note(format string, args ...any) {
	b.line.note(format, args...)
	b.rep.Notes = append(b.rep.Notes, fmt.Sprintf(format, args...))
}

// rounds gives every rig its turn, n times, forward and backward.
func (b *run) rounds(ctx context.Context, g grid, n int, what string, turn func(round int, r *rig) error) error {
	for round := range n {
		for _, i := range stats.Order(len(g), round) {
			b.line.step("%s: round %d of %d, %s", what, round+1, n, g[i].kind.Name)
			if err := b.turn(g[i], func() error { return turn(round, g[i]) }); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// retries is how often a disturbed trial is made again before its round goes
// without it.
func (b *run) retries() int {
	if b.Quick {
		return 1
	}
	return 2
}

// turn does something with a contender that may end meanwhile: that is its own
// fault and costs it the rest of the test.
func (b *run) turn(r *rig, do func() error) error {
	if r.gone {
		return nil
	}
	err := do()
	if !errors.Is(err, errGone) {
		return err
	}
	r.gone = true
	if c := b.rep.Contender(r.kind.Name); c != nil {
		c.Faults = append(c.Faults, "ended in the middle of a test")
	}
	b.line.note("%s is FAULTY: it has ended in the middle of a test", r.kind.Name)
	return nil
}

// trial wakes the contender, measures, and stops it again. It reports whether
// the trial counts.
func (b *run) trial(r *rig, measure func() error) (machine.Usage, bool, error) {
	return b.judge(r.kind.Name, func() (machine.Usage, error) { return b.attempt(r, nil, measure) })
}

// loaded is trial on a lane, whose addresses are taught before.
func (b *run) loaded(ctx context.Context, l *lane, measure func() error) (machine.Usage, bool, error) {
	return b.judge(l.kind.Name, func() (machine.Usage, error) { return b.attempt(l.rig, l.lesson(ctx), measure) })
}

// judge makes attempts until one was not disturbed, or enough were.
func (b *run) judge(contender string, attempt func() (machine.Usage, error)) (machine.Usage, bool, error) {
	for try := 0; ; try++ {
		u, err := attempt()
		if err != nil {
			return u, false, fmt.Errorf("%s: %w", contender, err)
		}
		if b.accept(u) {
			return u, true, nil
		}
		if try == b.retries() {
			return u, false, nil
		}
	}
}

// accept counts a trial and says whether it was undisturbed.
func (b *run) accept(u machine.Usage) bool {
	b.rep.Trials.Made++
	if u.Reject() == "" || b.tolerant {
		return true
	}
	b.rep.Trials.Rejected++
	b.rep.Trials.Reasons[reason(u)]++
	return false
}

// file puts a trial's value into the report, or that there is none.
func (b *run) file(m report.Metric, c report.Case, contender string, round int, value float64, counts bool) {
	if !counts || math.IsNaN(value) {
		b.rep.Reject(m, c, contender)
		return
	}
	b.rep.Add(m, c, contender, round, value)
}

// reason is the class of a rejection, for the tally.
func reason(u machine.Usage) string {
	if u.StealShare() > stats.MaxSteal {
		return "stolen by the hypervisor"
	}
	return "other programs at work"
}

// rouse is what a contender gets to come to itself after SIGCONT: programs that
// notice that time has jumped have something to say or to catch up with.
const rouse = 10 * time.Millisecond

// attempt wakes the contender, prepares it, observes what measure does, and stops
// it again.
func (b *run) attempt(r *rig, prepare, measure func() error) (u machine.Usage, err error) {
	if err := r.resume(); err != nil {
		return u, err
	}
	if len(r.sub.Processes()) > 0 {
		time.Sleep(rouse)
	}
	if prepare != nil {
		err = prepare()
	}
	if err == nil {
		u, err = b.observed(measure)
	}
	return u, errors.Join(err, r.pause())
}

// observed says what the machine did meanwhile.
func (b *run) observed(measure func() error) (u machine.Usage, err error) {
	before, err := b.sample()
	if err == nil {
		err = measure()
	}
	after, err2 := b.sample()
	return after.Since(before), errors.Join(err, err2)
}

// publish writes the tables and the files.
func (b *run) publish() error {
	if err := report.Text(b.Out, b.rep); err != nil {
		return fmt.Errorf("write tables: %w", err)
	}
	if b.ReportDir == "" {
		return nil
	}
	path, err := report.Write(b.ReportDir, b.rep)
	if err == nil {
		b.line.note("report: %s", path)
	}
	return err
}
