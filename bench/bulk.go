package bench

import (
	"context"
	"errors"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/topo"
)

var metricBulk = report.Metric{Test: "bulk", Name: "received", Title: "payload of one stream of the kernel's own stack", Unit: "bit/s"}

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
		c := report.Case{Source: network}
		dumb := map[*rig]bool{} // contenders that the stream doesn't get through
		err := b.rounds(ctx, g, b.Runs, "bulk "+network, func(round int, r *rig) error {
			if dumb[r] {
				return nil
			}
			var bits float64
			var failure error
			_, counts, err := b.trial(r, func() error {
				if r.vms != nil {
					bits, failure = r.vms.bulk(ctx, b.trialLength)
					return ctx.Err()
				}
				from, to := r.top.Ports[0], r.top.Ports[1]
				bits, failure = gen.Bulk(ctx, network, from.Host, to.Host, to.Addr, b.trialLength/4, b.trialLength)
				return ctx.Err()
			})
			switch {
			case err != nil:
				return err
			case failure != nil || bits == 0:
				dumb[r] = true
				b.note("%s: no %s stream gets through (%v)", r.kind.Name, network, failure)
			default:
				b.file(metricBulk, c, r.kind.Name, round, bits, counts)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
