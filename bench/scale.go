package bench

import (
	"context"
	"errors"
	"runtime"
	"slices"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
)

var (
	metricPorts = report.Metric{
		Test: "scale", Name: "ports", Unit: "frame/s",
		Title: "receive rate of all ports, each sending to the next at full load, by number of ports",
	}
	metricAddresses = report.Metric{
		Test: "scale", Name: "addresses", Unit: "frame/s",
		Title: "receive rate at full load, by number of addresses in use",
	}
	metricWorkers = report.Metric{
		Test: "scale", Name: "workers", Unit: "frame/s",
		Title: "receive rate of four fully meshed ports at full load, by number of kvswitch's workers",
	}
)

// scaleRounds is enough for a curve, and the least for a ratio.
const scaleRounds = stats.MinPairs

// scale measures how the receive rate changes with the number of ports, of
// addresses and of workers.
func (b *run) scale(ctx context.Context) error {
	ports, stations := []int{2, 8, 32, 256}, []int{1, 1000, 100_000, 500_000}
	if b.Quick {
		ports, stations = []int{2, 8}, []int{1, 1000}
	}
	rounds := min(b.Runs, scaleRounds)
	kinds := slices.DeleteFunc(slices.Clone(b.entrants), func(k subject.Kind) bool { return k.Direct })
	for _, n := range ports {
		if err := b.many(ctx, kinds, n, metricPorts, rounds, ring(n)...); err != nil {
			return err
		}
	}
	if err := b.crowd(ctx, kinds, stations, rounds); err != nil {
		return err
	}
	return b.workers(ctx, rounds)
}

// ring has every port send to the next.
func ring(ports int) []probe.Flows {
	flows := make([]probe.Flows, ports)
	for i := range flows {
		flows[i] = probe.Flows{From: i, To: []int{(i + 1) % ports}, Count: 1}
	}
	return flows
}

// crowd has more and more stations at two ports.
func (b *run) crowd(ctx context.Context, kinds []subject.Kind, stations []int, rounds int) (err error) {
	g, err := b.assemble(ctx, kinds, topo.Spec{Ports: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	for _, n := range stations {
		if err := b.race(ctx, g, metricAddresses, report.Case{Addresses: 2 * n}, rounds, oneWay(n)); err != nil {
			return err
		}
	}
	return nil
}

// workers measures kvswitch with one worker, two, and so on.
func (b *run) workers(ctx context.Context, rounds int) error {
	for n := 1; n <= runtime.NumCPU(); n++ {
		k := subject.WithWorkers(n)
		if !slices.ContainsFunc(b.entrants, func(e subject.Kind) bool { return e.Name == k.Name }) {
			return nil // kvswitch is absent, which the report says elsewhere
		}
		if err := b.worker(ctx, k, n, rounds); err != nil {
			return err
		}
	}
	return nil
}

func (b *run) worker(ctx context.Context, k subject.Kind, n, rounds int) (err error) {
	g, err := b.assemble(ctx, []subject.Kind{k}, topo.Spec{Ports: meshedPorts})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	return b.race(ctx, g, metricWorkers, report.Case{Ports: meshedPorts, Workers: n}, rounds, mesh(meshedPorts)...)
}

// race measures the receive rate of the smallest frames at full load. c says
// what is special about the case.
func (b *run) race(ctx context.Context, g grid, m report.Metric, c report.Case, rounds int, flows ...probe.Flows) error {
	c.Size, c.Source, c.Load = "64", b.source(), "full"
	size, err := probe.ParseSize(c.Size)
	if err != nil {
		return err
	}
	lanes, done, err := b.devices(ctx, g, size, flows...)
	if err != nil {
		return err
	}
	err = b.laps(ctx, g, rounds, m.Name+", "+c.String(), func(round int, r *rig) error {
		var o *outcome
		_, counts, err := b.loaded(ctx, lanes[r], func() (err error) {
			o, err = b.offer(ctx, lanes[r], gen.Load{Length: b.trialLength, Warm: b.trialLength / 4})
			return err
		})
		if err == nil {
			b.file(m, c, r.kind.Name, round, o.frames, counts)
		}
		return err
	})
	return errors.Join(err, done())
}
