package trial

import (
	"context"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
)

// glance is how long LookAround watches the machine.
const glance = time.Second

// LookAround watches the machine for a second before anything is measured, and
// notes who is at work on it: most of a run's trials would be made in vain then, and
// it is better to know that now than in half an hour.
func (s *Session) LookAround(ctx context.Context) error {
	if s.Referee.Tolerant {
		return nil
	}
	s.Line.Step("looking whether the machine is busy")
	u, err := s.Referee.Observe(func() error {
		gen.Wait(ctx, glance)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if why := u.Reject(); why != "" {
		most := ""
		if u.Foremost != "" && u.ForeignShare() > 0 {
			most = ", most of it " + u.Foremost
		}
		s.Results.Note("this machine is busy: before the run %s of its processor time%s. Trials that are disturbed are thrown out and made again", why, most)
	}
	return nil
}
