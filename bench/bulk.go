package bench

import (
	"context"
	"errors"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/topo"
)

var metricBulk = report.Metric{Test: "bulk", Name: "received", Title: "payload of one stream of the kernel's own stack", Unit: "bit/s"}

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

// bulk measures one TCP and one UDP stream between two network stacks, with all
// offloads as a new veth has them, or between two guests.
func (b *run) bulk(ctx context.Context) (err error) {
	g, err := b.assemble(ctx, b.entrants, topo.Spec{Ports: 2, Stacks: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	networks := []string{"tcp", "udp"}
	if b.Path == "vm" {
		networks = networks[:1]
	}
	for _, network := range networks {
		if err := b.streams(ctx, g, network); err != nil {
			return err
		}
	}
	return nil
}

func (b *run) streams(ctx context.Context, g grid, network string) error {
	c := report.Case{Source: network}
	rounds := min(b.Runs, bulkRounds)
	failed := map[*rig]int{} // rounds in a row that the stream didn't get through
	return b.laps(ctx, g, rounds, "bulk "+network, func(round int, r *rig) error {
		if failed[r] == bulkTries {
			return nil
		}
		var bits float64
		var failure error
		_, counts, err := b.trial(r, func() error {
			bits, failure = b.oneStream(ctx, r, network)
			return ctx.Err()
		})
		switch {
		case err != nil:
			return err
		case failure == nil && bits > 0:
			failed[r] = 0
			b.file(metricBulk, c, r.kind.Name, round, bits, counts)
			return nil
		case failure == nil:
			failure = errors.New("nothing arrived")
		}
		if failed[r]++; failed[r] == bulkTries || round == rounds-1 {
			b.note("%s: no %s stream gets through: %v", r.kind.Name, network, failure)
		}
		return nil
	})
}

// oneStream sends a stream and returns what was received, in bit/s.
func (b *run) oneStream(ctx context.Context, r *rig, network string) (float64, error) {
	if r.vms != nil {
		return r.vms.bulk(ctx, bulkLength*b.trialLength)
	}
	from, to := r.top.Ports[0], r.top.Ports[1]
	warm := time.Duration(bulkWarm * float64(b.trialLength))
	return gen.Bulk(ctx, network, from.Host, to.Host, to.Addr, warm, bulkLength*b.trialLength)
}
