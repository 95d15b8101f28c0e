package bench

import (
	"context"
	"errors"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
)

var (
	metricBroadcast = report.Metric{
		Test: "broadcast", Name: "delivered", Unit: "frame/s",
		Title: "copies of broadcast frames delivered to all other ports at full load (RFC 2889, 5.10)",
	}
	metricMeshed = report.Metric{
		Test: "broadcast", Name: "meshed", Unit: "frame/s",
		Title: "receive rate of all ports, each sending to every other at full load (RFC 2889, 5.1)",
	}
)

const (
	broadcastPorts = 8
	meshedPorts    = 4
	// broadcastRounds is the least for a ratio.
	broadcastRounds = stats.MinPairs
)

// broadcast runs the tests that need more than two ports.
func (b *run) broadcast(ctx context.Context) error {
	var kinds []subject.Kind
	for _, k := range b.entrants {
		if !k.Direct {
			kinds = append(kinds, k)
		}
	}
	if err := b.flood(ctx, kinds); err != nil {
		return err
	}
	if err := b.meshed(ctx, kinds); err != nil {
		return err
	}
	if err := b.blocking(ctx, kinds); err != nil {
		return err
	}
	return b.hung(ctx, kinds)
}

// flood sends broadcast frames from one port.
func (b *run) flood(ctx context.Context, kinds []subject.Kind) error {
	flow := probe.Flows{From: 0, Count: 1, Broadcast: true}
	for p := 1; p < broadcastPorts; p++ {
		flow.To = append(flow.To, p)
	}
	return b.many(ctx, kinds, broadcastPorts, metricBroadcast, broadcastRounds, flow)
}

// meshed has every port send to every other.
func (b *run) meshed(ctx context.Context, kinds []subject.Kind) error {
	return b.many(ctx, kinds, meshedPorts, metricMeshed, broadcastRounds, mesh(meshedPorts)...)
}

func mesh(ports int) []probe.Flows {
	flows := make([]probe.Flows, ports)
	for i := range flows {
		flows[i] = probe.Flows{From: i, Count: 1}
		for p := range ports {
			if p != i {
				flows[i].To = append(flows[i].To, p)
			}
		}
	}
	return flows
}

// many measures what all ports of a topology together receive at full load.
func (b *run) many(ctx context.Context, kinds []subject.Kind, ports int, m report.Metric, rounds int, flows ...probe.Flows) (err error) {
	g, err := b.assemble(ctx, kinds, topo.Spec{Ports: ports})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	return b.race(ctx, g, m, report.Case{Ports: ports}, min(b.Runs, rounds), flows...)
}
