package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
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
	metricBlocking = report.Metric{
		Test: "broadcast", Name: "blocking", Unit: "1", Lower: true,
		Title: "loss on a free port while every other frame goes to a port that hangs (RFC 2889, 5.5)",
	}
)

const (
	broadcastPorts = 8
	meshedPorts    = 4
	// hungShare is the load of the blocking test, as a share of what the
	// contender receives at full load: what the free port gets is well within
	// its reach, so anything lost there was lost to the port that hangs.
	hungShare = 0.3
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
	return b.blocking(ctx, kinds)
}

// flood sends broadcast frames from one port.
func (b *run) flood(ctx context.Context, kinds []subject.Kind) error {
	flow := probe.Flows{From: 0, Count: 1, Broadcast: true}
	for p := 1; p < broadcastPorts; p++ {
		flow.To = append(flow.To, p)
	}
	return b.many(ctx, kinds, broadcastPorts, metricBroadcast, b.Runs, flow)
}

// meshed has every port send to every other.
func (b *run) meshed(ctx context.Context, kinds []subject.Kind) error {
	return b.many(ctx, kinds, meshedPorts, metricMeshed, b.Runs, mesh(meshedPorts)...)
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
	return b.race(ctx, g, m, report.Case{Ports: ports}, rounds, flows...)
}

// blocking sends half of the frames to a port whose owner does not read, and
// counts what the others lose.
func (b *run) blocking(ctx context.Context, kinds []subject.Kind) (err error) {
	var able []subject.Kind
	for _, k := range kinds {
		if !k.Bare {
			able = append(able, k)
		}
	}
	const sender, free, hung = 0, 1, 2
	g, err := b.assemble(ctx, able, topo.Spec{Ports: 2, Hung: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	size, err := probe.ParseSize("64")
	if err != nil {
		return err
	}
	c := report.Case{Size: size.Name, Ports: 3, Source: b.source(), Load: fmt.Sprintf("%.0f %% of the receive rate", 100*hungShare)}
	for _, r := range g {
		if err := b.turn(r, func() error { return b.measureRate(ctx, r, size) }); err != nil {
			return err
		}
	}
	return b.rounds(ctx, g, b.Runs, "head-of-line blocking", func(round int, r *rig) error {
		load := gen.Load{Rate: hungShare * b.rates[rateKey{r.kind.Name, size.Name}].received, Length: b.trialLength}
		if load.Rate == 0 {
			b.rep.Reject(metricBlocking, c, r.kind.Name)
			return nil
		}
		// The lane counts at the free port only, but sends to both in turn.
		s, err := gen.NewSender(r.top, size, probe.Flows{From: sender, To: []int{free, hung}, Count: 1})
		if err != nil {
			return err
		}
		l, err := laneWith(r, s, size, oneWay(1))
		if err != nil {
			return err
		}
		var o *outcome
		_, counts, err := b.loaded(ctx, l, func() (err error) {
			if err = introduce(r, hung, size); err != nil {
				return err
			}
			o, err = l.offer(ctx, load)
			return err
		})
		if err == nil {
			lost := 1 - float64(o.received.Frames)/(float64(o.sent.Frames)/2)
			b.file(metricBlocking, c, r.kind.Name, round, max(0, lost), counts)
		}
		return errors.Join(err, l.close())
	})
}

// introduce has the station behind the hung port say a word, so that the switch
// knows where it is.
func introduce(r *rig, hung int, size probe.Size) error {
	t := probe.Build(make([]byte, size.Lengths[0]), false, 0)
	t.Stamp(probe.Station(0, 0), probe.Station(hung, 0), 0, 0)
	return r.top.Inject(t.Bytes())
}

// measureRate finds a contender's receive rate if no test before has.
func (b *run) measureRate(ctx context.Context, r *rig, size probe.Size) (err error) {
	if _, ok := b.rates[rateKey{r.kind.Name, size.Name}]; ok {
		return nil
	}
	l, err := newLane(ctx, r, size, oneWay(1))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	_, err = b.topLoad(ctx, l, size.Name)
	return err
}
