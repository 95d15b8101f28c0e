package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// percentiles that get a series of their own, with their names.
var percentiles = []struct {
	name    string
	percent float64
}{{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}}

// latency measures how long frames take: one way under three loads, and there
// and back on an idle switch.
func (b *run) latency(ctx context.Context) error {
	switch b.Path {
	case "vm":
		return b.idle(ctx)
	case "veth":
		return errors.Join(b.oneWay(ctx), b.idle(ctx))
	}
	return b.oneWay(ctx)
}

// oneWay measures one-way latency at 10, 50 and 90 % of what each contender
// carries with a loss of 0.5 %.
func (b *run) oneWay(ctx context.Context) (err error) {
	ends := b.ends()
	if len(ends) == 0 {
		return nil
	}
	g, err := b.assemble(ctx, b.entrants, topo.Spec{Ports: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	for _, r := range g {
		if _, ok := b.pdr[r.kind.Name]; ok {
			continue
		}
		if err := b.once(ctx, r, func() error { return b.search(ctx, r, ends[0]) }); err != nil {
			return err
		}
	}
	size, err := probe.ParseSize(ends[0])
	if err != nil {
		return err
	}
	lanes, done, err := b.devices(ctx, g, size, oneWay(1))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	for _, percent := range []float64{10, 50, 90} {
		c := report.Case{Size: size.Name, Flows: 1, Source: b.source(), Load: fmt.Sprintf("%.0f %% of PDR", percent)}
		d := newDistributions(b, c, "one-way latency")
		err := b.laps(ctx, g, b.Runs, "latency, "+c.String(), func(round int, r *rig) error {
			load := gen.Load{Rate: b.pdr[r.kind.Name] * percent / 100, Length: b.trialLength, Warm: b.trialLength / 8, Stamp: true}
			if load.Rate == 0 {
				return nil // carries no load at all
			}
			var h *hdrhistogram.Histogram
			_, counts, err := b.loaded(ctx, lanes[r], func() (err error) {
				if _, err = b.offer(ctx, lanes[r], load); err == nil {
					h, err = lanes[r].latencies()
				}
				return err
			})
			if err == nil {
				d.add(r.kind.Name, round, h, counts)
			}
			return err
		})
		d.file()
		if err != nil {
			return err
		}
	}
	return nil
}

// pingLength is how many trial lengths one trial of pings lasts: it takes that
// many for enough of them.
const pingLength = 2

// idle measures the round trip of an ICMP echo a thousand times a second: idle
// enough for a contender to fall asleep between two.
func (b *run) idle(ctx context.Context) (err error) {
	g, err := b.assemble(ctx, b.entrants, topo.Spec{Ports: 2, Stacks: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	c := report.Case{Source: "icmp", Load: "1 kHz"}
	title := "round trip of an ICMP echo, 1000 a second"
	if b.Path == "vm" {
		c.Load, title = "100 Hz", "round trip of an ICMP echo between guests, 100 a second"
	}
	d := newDistributions(b, c, title)
	pings := map[*rig]gen.Pings{}
	err = b.laps(ctx, g, b.Runs, "round trip", func(round int, r *rig) error {
		var h *hdrhistogram.Histogram
		var n gen.Pings
		_, counts, err := b.trial(r, func() (err error) {
			h = sink.NewHistogram()
			if r.vms != nil {
				n, err = r.vms.ping(ctx, pingLength*b.trialLength, h)
				return err
			}
			n, err = gen.Ping(ctx, r.top.Ports[0].Host, r.top.Ports[1].Addr, pingLength*b.trialLength, h)
			return err
		})
		if err != nil {
			return err
		}
		if h.TotalCount() == 0 || n.Sent > 0 && n.Lost == n.Sent {
			b.note("%s: no echo came back in round %d", r.kind.Name, round+1)
			return nil
		}
		if counts {
			pings[r] = gen.Pings{Sent: pings[r].Sent + n.Sent, Lost: pings[r].Lost + n.Lost}
		}
		d.add(r.kind.Name, round, h, counts)
		return nil
	})
	for _, r := range g {
		if n := pings[r]; n.Lost > 0 {
			b.note("%s: %d of %d echoes did not come back in time", r.kind.Name, n.Lost, n.Sent)
		}
	}
	d.file()
	return err
}

// distributions gather the latencies of one case, by contender.
type distributions struct {
	b     *run
	c     report.Case
	title string
	sum   map[string]*hdrhistogram.Histogram
}

func newDistributions(b *run, c report.Case, title string) *distributions {
	return &distributions{b: b, c: c, title: title, sum: map[string]*hdrhistogram.Histogram{}}
}

// add files one trial's percentiles and keeps the whole.
func (d *distributions) add(contender string, round int, h *hdrhistogram.Histogram, counts bool) {
	counts = counts && h.TotalCount() > 0
	for _, p := range percentiles {
		m := report.Metric{
			Test: "latency", Name: p.name, Unit: "ns", Lower: true,
			Title: d.title + ", " + p.name,
		}
		d.b.file(m, d.c, contender, round, float64(h.ValueAtQuantile(p.percent)), counts)
	}
	if !counts {
		return
	}
	if d.sum[contender] == nil {
		d.sum[contender] = sink.NewHistogram()
	}
	d.sum[contender].Merge(h)
}

// file puts the distributions over all rounds into the report.
func (d *distributions) file() {
	for _, k := range d.b.entrants {
		h := d.sum[k.Name]
		if h == nil {
			continue
		}
		l := report.Latency{Case: d.c, Contender: k.Name, Frames: h.TotalCount()}
		for _, percent := range report.Percents {
			l.Quantiles = append(l.Quantiles, report.Quantile{Percent: percent, NS: h.ValueAtQuantile(percent)})
		}
		d.b.rep.Latencies = append(d.b.rep.Latencies, l)
	}
}
