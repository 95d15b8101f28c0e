package measure

import (
	"context"
	"errors"
	"time"

	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

var metricBulk = report.Metric{Test: "bulk", Name: "received", Title: "payload of one stream of the kernel's own stack", Unit: "bit/s"}

// bulk is one TCP and one UDP stream between two network stacks, with all offloads
// as a new veth has them, or one of TCP between two guests.
func bulk(s *trial.Session) []Stage {
	parts := []Measurement{stream{"tcp"}}
	if s.Path != "vm" {
		parts = append(parts, stream{"udp"})
	}
	return []Stage{{s.Entrants, topo.Spec{Ports: 2, Stacks: true}, parts}}
}

// stream measures what one stream of a network brings.
type stream struct{ network string }

const (
	// A stream's trial is some trial lengths long, and before it TCP gets about
	// half a second to find its window.
	bulkLength = 4
	bulkWarm   = 1.6
	// bulkRounds is the least for a ratio: these trials are the longest.
	bulkRounds = stats.MinPairs
	// bulkTries is how many rounds in a row a stream must fail to get through for
	// it not to be tried again.
	bulkTries = 2
)

func (m stream) warm(s *trial.Settings) time.Duration {
	return time.Duration(bulkWarm * float64(s.Length))
}

func (m stream) Expect(s *trial.Settings, n int) time.Duration {
	return trials(n*min(s.Runs, bulkRounds), m.warm(s)+bulkLength*s.Length)
}

func (m stream) Measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	c := report.Case{Source: m.network}
	rounds := s.Rounds(bulkRounds)
	failed := map[*rig.Rig]int{} // rounds in a row that the stream didn't get through
	return s.Turns.Rounds(ctx, g, rounds, "bulk "+m.network, func(round int, r *rig.Rig) error {
		if failed[r] == bulkTries {
			return nil
		}
		var bits float64
		var failure error
		_, counts, err := s.Referee.Trial(r, func() error {
			bits, failure = r.Bulk(ctx, m.network, m.warm(&s.Settings), bulkLength*s.Length)
			return ctx.Err()
		})
		switch {
		case err != nil:
			return err
		case failure == nil && bits > 0:
			failed[r] = 0
			s.Results.File(metricBulk, c, r.Kind.Name, round, bits, counts)
			return nil
		case failure == nil:
			failure = errors.New("nothing arrived")
		}
		if failed[r]++; failed[r] == bulkTries || round == rounds-1 {
			s.Results.Note("%s: no %s stream gets through: %v", r.Kind.Name, m.network, failure)
		}
		return nil
	})
}
