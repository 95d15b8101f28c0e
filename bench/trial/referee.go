package trial

import (
	"context"
	"fmt"

	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/stats"
)

// Referee has trials made and says which of them count: not those in which the
// machine did something else beside.
type Referee struct {
	// Retries is how often a disturbed trial is made again before its round goes
	// without it.
	Retries int
	// Tolerant counts disturbed trials, too: where it is only to be seen that
	// everything works, and the machine may do something else beside.
	Tolerant bool

	tally  *report.Trials
	sample func() (machine.Sample, error) // machine.Take, but in tests
}

// Trial wakes the contender, measures, and stops it again. It reports whether the
// trial counts.
func (f *Referee) Trial(r *rig.Rig, measure func() error) (machine.Usage, bool, error) {
	return f.Judge(r.Kind.Name, func() (machine.Usage, error) { return f.Attempt(r, nil, measure) })
}

// OnLane is Trial on a lane, whose addresses are taught before.
func (f *Referee) OnLane(ctx context.Context, l *rig.Lane, measure func() error) (machine.Usage, bool, error) {
	teach := func() error { return l.Teach(ctx) }
	return f.Judge(l.Kind.Name, func() (machine.Usage, error) { return f.Attempt(l.Rig, teach, measure) })
}

// Judge makes attempts until one was not disturbed, or enough were.
func (f *Referee) Judge(contender string, attempt func() (machine.Usage, error)) (machine.Usage, bool, error) {
	for try := 0; ; try++ {
		u, err := attempt()
		if err != nil {
			return u, false, fmt.Errorf("%s: %w", contender, err)
		}
		if f.Accept(u) {
			return u, true, nil
		}
		if try == f.Retries {
			return u, false, nil
		}
	}
}

// Attempt wakes the contender, prepares it unless that is nil, observes what
// measure does, and stops it again.
func (f *Referee) Attempt(r *rig.Rig, prepare, measure func() error) (u machine.Usage, err error) {
	err = r.Awake(func() error {
		if prepare != nil {
			if err := prepare(); err != nil {
				return err
			}
		}
		u, err = f.Observe(measure)
		return err
	})
	return u, err
}

// Observe says what the machine did while measure ran.
func (f *Referee) Observe(measure func() error) (machine.Usage, error) {
	before, err := f.sample()
	if err != nil {
		return machine.Usage{}, err
	}
	if err := measure(); err != nil {
		return machine.Usage{}, err
	}
	after, err := f.sample()
	return after.Since(before), err
}

// Accept counts a trial and says whether it was undisturbed.
func (f *Referee) Accept(u machine.Usage) bool {
	f.tally.Made++
	if u.Reject() == "" || f.Tolerant {
		return true
	}
	f.tally.Rejected++
	f.tally.Reasons[reason(u)]++
	return false
}

// reason is the class of a rejection, for the tally.
func reason(u machine.Usage) string {
	if u.StealShare() > stats.MaxSteal {
		return "stolen by the hypervisor"
	}
	return "other programs at work"
}
