package bench

import (
	"context"
	"errors"
)

// laps is rounds, but that a contender which fails is left out of the rest.
func (b *run) laps(ctx context.Context, g grid, n int, what string, turn func(round int, r *rig) error) error {
	return b.rounds(ctx, g, n, what, func(round int, r *rig) error { return b.excuse(r, turn(round, r)) })
}

// once is turn, but that a contender which fails is left out of the rest.
func (b *run) once(ctx context.Context, r *rig, do func() error) error {
	err := b.turn(r, func() error { return b.excuse(r, do()) })
	return errors.Join(err, ctx.Err())
}

// excuse makes a remark of a contender's failure, so that the others go on. The
// end of the run is nobody's failure, and in what fails on the plain cable no
// contender has a part: they end the run.
func (b *run) excuse(r *rig, err error) error {
	if err == nil || errors.Is(err, errGone) || errors.Is(err, context.Canceled) || r.kind.Direct {
		return err
	}
	r.gone = true
	b.note("%s left out of the rest of this test: %v", r.kind.Name, err)
	return nil
}
