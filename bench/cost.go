package bench

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
)

const (
	// costShare of the reference's receive rate is the load at which costs are
	// compared: every contender worth comparing carries it, and it is high
	// enough for batches to form.
	costShare = 0.4
	// costCap is the share of its own rate that a slow contender is loaded to
	// instead.
	costCap = 0.7
)

// cost measures what forwarding a frame costs in processor time at a load that
// leaves time to sleep, wherever it is spent: in the contender's processes, in
// softirq, in kernel threads, or in the sender's own context, where the kernel
// bridge does its work. What is counted is all time of all processors that was
// not idle. The sender sleeps between bursts, so that its waiting does not count;
// what it and the sink do is the same for everybody and is measured on the plain
// cable at the same rate in the same round, and subtracted.
func (b *run) cost(ctx context.Context, g grid) (err error) {
	if len(b.ends()) == 0 {
		return nil
	}
	name := b.ends()[0]
	ref, ok := b.rates[rateKey{b.rep.Refer, name}]
	if !ok || !slices.ContainsFunc(g, func(r *rig) bool { return r.kind.Direct }) {
		return nil // nothing to load them to, or no cable to subtract
	}
	size, err := probe.ParseSize(name)
	if err != nil {
		return err
	}
	lanes, done, err := b.devices(ctx, g, size, oneWay(1))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	c := report.Case{Size: name, Flows: 1, Source: b.source(), Load: "40 % of the reference's rate"}
	costs := costs{}
	length := max(4*b.trialLength, 100*time.Millisecond)
	err = b.laps(ctx, g, b.Runs, "processor time", func(round int, r *rig) error {
		load := min(costShare*ref.received, costCap*b.rates[rateKey{r.kind.Name, name}].received)
		if load == 0 {
			return nil
		}
		var o *outcome
		u, counts, err := b.loaded(ctx, lanes[r], func() (err error) {
			o, err = b.offer(ctx, lanes[r], gen.Load{Rate: load, Length: length, Sleep: true})
			return err
		})
		if err == nil {
			costs.add(r, round, u, o, counts)
		}
		return err
	})
	b.fileCosts(g, c, costs)
	return err
}

// costs are what trials took, those without a value included.
type costs map[costKey]*cost

type costKey struct {
	contender string
	round     int
}

// cost is what one trial took.
type cost struct {
	busy     float64 // ns of the whole machine
	sent     float64 // frames
	received float64 // frames; of super-frames, their segments
	counts   bool
}

func (m costs) add(r *rig, round int, u machine.Usage, o *outcome, counts bool) {
	m[costKey{r.kind.Name, round}] = &cost{
		float64(u.Busy), float64(o.sent.Warm + o.sent.Frames + o.sent.After), float64(o.received.Segments), counts,
	}
}

// fileCosts puts into the report what is left for each frame received when the
// generator's and the sink's part is subtracted: what a frame costs on the cable
// in the same round, for each frame sent. A contender does not pay for the
// sending of what it lost.
func (b *run) fileCosts(g grid, c report.Case, m costs) {
	cable := slices.IndexFunc(g, func(r *rig) bool { return r.kind.Direct })
	if cable < 0 {
		return
	}
	for round := range b.Runs {
		base, ok := m[costKey{g[cable].kind.Name, round}]
		for _, r := range g {
			v, tried := m[costKey{r.kind.Name, round}]
			if r.kind.Direct || !tried || v.received == 0 {
				continue
			}
			if !ok || !base.counts || !v.counts {
				b.rep.Reject(metricCost, c, r.kind.Name)
				continue
			}
			left := v.busy - v.sent*base.busy/base.sent
			// Less than nothing, now and then, is what noise makes of little: a
			// median that leaves it out would be too high.
			b.rep.Add(metricCost, c, r.kind.Name, round, left/v.received)
		}
	}
}
