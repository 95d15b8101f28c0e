package trial

import (
	"context"
	"errors"

	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/stats"
)

// Turns give the contenders their turns. One that fails or ends in its turn is
// left out of the rest of the test, and the others go on.
type Turns struct {
	results *Results
	line    *Progress
}

// Rounds gives every rig its turn, n times, forward and backward. what says on the
// terminal what is done.
func (t *Turns) Rounds(ctx context.Context, g rig.Grid, n int, what string, turn func(round int, r *rig.Rig) error) error {
	for round := range n {
		for k, i := range stats.Order(len(g), round) {
			t.line.Part(round*len(g)+k, n*len(g))
			t.line.Step("%s: round %d of %d, %s", what, round+1, n, g[i].Kind.Name)
			if err := t.Once(ctx, g[i], func() error { return turn(round, g[i]) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// Once gives one rig a turn.
func (t *Turns) Once(ctx context.Context, r *rig.Rig, do func() error) error {
	if !r.Gone {
		if err := t.excuse(r, do()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// excuse makes a remark of a contender's failure, and a fault of its end, so that
// the others go on. The end of the run is nobody's failure, and in what fails on
// the plain cable no contender has a part: they end the run.
func (t *Turns) excuse(r *rig.Rig, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rig.ErrGone):
		t.results.Fault(r.Kind.Name, "ended in the middle of a test")
	case errors.Is(err, context.Canceled) || r.Kind.Direct:
		return err
	default:
		t.results.Note("%s left out of the rest of this test: %v", r.Kind.Name, err)
	}
	r.Gone = true
	return nil
}
