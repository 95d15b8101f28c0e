package trial

import (
	"context"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
)

// glance is how long LookAround watches the machine.
const glance = time.Second

// LookAround watches the machine for a second before anything is measured, and
// notes what keeps it busy: most of a run's trials would be made in vain then, and it
// is better to know that now than in half an hour.
func (s *Session) LookAround(ctx context.Context) error {
	s.Line.Step("looking whether the machine is busy")
	u, err := s.Referee.Observe(func() error {
		gen.Wait(ctx, glance)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	why := u.Reject()
	if why == "" {
		return nil
	}
	if u.Foremost != "" && u.ForeignShare() > 0 {
		why += ", most of it " + u.Foremost
	}
	then := "disturbed trials are thrown out and made again"
	if s.Referee.Tolerant {
		then = "so short a run counts disturbed trials, too"
	}
	s.Results.Note("this machine is busy, in the second before the run %s: %s", why, then)
	return nil
}
