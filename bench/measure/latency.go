package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// latency is how long frames take: one way under three loads, and there and back
// on an idle switch.
func latency(s *trial.Session) (stages []Stage) {
	if ends := s.Ends(); len(ends) > 0 && s.Path != "vm" {
		stages = append(stages, Stage{s.Entrants, topo.Spec{Ports: 2}, []Measurement{
			lossSearch{size: ends[0], missing: true}, oneWayLatency{ends[0]},
		}})
	}
	if s.Path == "veth" || s.Path == "vm" {
		stages = append(stages, Stage{s.Entrants, topo.Spec{Ports: 2, Stacks: true}, []Measurement{roundTrip{}}})
	}
	return stages
}

// oneWayLatency measures how long frames of a size take at three loads.
type oneWayLatency struct{ size string }

// loads are shares of what a contender carries with a loss of 0.5 %, in percent.
var loads = []float64{10, 50, 90}

func (m oneWayLatency) Expect(s *trial.Settings, n int) time.Duration {
	return trials(n*s.Runs*len(loads), s.Length*9/8)
}

func (m oneWayLatency) Measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	size, err := probe.ParseSize(m.size)
	if err != nil {
		return err
	}
	return s.OnLanes(ctx, g, size, []probe.Flows{probe.OneWay(1)}, func(lanes rig.Lanes) error {
		for _, percent := range loads {
			if err := m.at(ctx, s, g, lanes, percent); err != nil {
				return err
			}
		}
		return nil
	})
}

// at measures at one load.
func (m oneWayLatency) at(ctx context.Context, s *trial.Session, g rig.Grid, lanes rig.Lanes, percent float64) error {
	c := report.Case{Size: m.size, Flows: 1, Source: s.Source(), Load: fmt.Sprintf("%.0f %% of PDR", percent)}
	d := newDistributions(s, c, "one-way latency")
	defer d.file()
	return s.Turns.Rounds(ctx, g, s.Runs, "latency, "+c.String(), func(round int, r *rig.Rig) error {
		most, _ := s.Rates.PDR(r.Kind.Name)
		load := gen.Load{Rate: most * percent / 100, Length: s.Length, Warm: s.Length / 8, Stamp: true}
		if load.Rate == 0 {
			return nil // carries no load at all
		}
		var h *hdrhistogram.Histogram
		_, counts, err := s.Referee.OnLane(ctx, lanes[r], func() (err error) {
			if _, err = s.Offer(ctx, lanes[r], load); err == nil {
				h, err = lanes[r].Latencies()
			}
			return err
		})
		if err == nil {
			d.add(r.Kind.Name, round, h, counts)
		}
		return err
	})
}

// roundTrip measures the round trip of an ICMP echo a thousand times a second:
// idle enough for a contender to fall asleep between two.
type roundTrip struct{}

// pingLength is how many trial lengths one trial of pings lasts: it takes that
// many for enough of them.
const pingLength = 2

func (roundTrip) Expect(s *trial.Settings, n int) time.Duration {
	return trials(n*s.Runs, pingLength*s.Length)
}

func (roundTrip) Measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	c := report.Case{Source: "icmp", Load: "1 kHz"}
	title := "round trip of an ICMP echo, 1000 a second"
	if s.Path == "vm" {
		c.Load, title = "100 Hz", "round trip of an ICMP echo between guests, 100 a second"
	}
	d := newDistributions(s, c, title)
	pings := map[*rig.Rig]gen.Pings{}
	err := s.Turns.Rounds(ctx, g, s.Runs, "round trip", func(round int, r *rig.Rig) error {
		var h *hdrhistogram.Histogram
		var n gen.Pings
		_, counts, err := s.Referee.Trial(r, func() (err error) {
			h = sink.NewHistogram()
			n, err = r.Ping(ctx, pingLength*s.Length, h)
			return err
		})
		if err != nil {
			return err
		}
		if h.TotalCount() == 0 || n.Sent > 0 && n.Lost == n.Sent {
			s.Results.Note("%s: no echo came back in round %d", r.Kind.Name, round+1)
			return nil
		}
		if counts {
			pings[r] = gen.Pings{Sent: pings[r].Sent + n.Sent, Lost: pings[r].Lost + n.Lost}
		}
		d.add(r.Kind.Name, round, h, counts)
		return nil
	})
	for _, r := range g {
		if n := pings[r]; n.Lost > 0 {
			s.Results.Note("%s: %d of %d echoes did not come back in time", r.Kind.Name, n.Lost, n.Sent)
		}
	}
	d.file()
	return err
}

// percentiles that get a series of their own, with their names.
var percentiles = []struct {
	name    string
	percent float64
}{{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}}

// distributions gather the latencies of one case, by contender.
type distributions struct {
	s     *trial.Session
	c     report.Case
	title string
	sum   map[string]*hdrhistogram.Histogram
}

func newDistributions(s *trial.Session, c report.Case, title string) *distributions {
	return &distributions{s: s, c: c, title: title, sum: map[string]*hdrhistogram.Histogram{}}
}

// add files one trial's percentiles and keeps the whole.
func (d *distributions) add(contender string, round int, h *hdrhistogram.Histogram, counts bool) {
	counts = counts && h.TotalCount() > 0
	for _, p := range percentiles {
		m := report.Metric{
			Test: "latency", Name: p.name, Unit: "ns", Lower: true,
			Title: d.title + ", " + p.name,
		}
		d.s.Results.File(m, d.c, contender, round, float64(h.ValueAtQuantile(p.percent)), counts)
	}
	if !counts {
		return
	}
	if d.sum[contender] == nil {
		d.sum[contender] = sink.NewHistogram()
	}
	d.sum[contender].Merge(h)
}

// file puts the distributions over all rounds into the report, in the order of the
// contenders.
func (d *distributions) file() {
	for _, k := range d.s.Entrants {
		h := d.sum[k.Name]
		if h == nil {
			continue
		}
		l := report.Latency{Case: d.c, Contender: k.Name, Frames: h.TotalCount()}
		for _, percent := range report.Percents {
			l.Quantiles = append(l.Quantiles, report.Quantile{Percent: percent, NS: h.ValueAtQuantile(percent)})
		}
		d.s.Results.Latencies = append(d.s.Results.Latencies, l)
	}
}
