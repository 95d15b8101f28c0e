package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/mlr"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/topo"
)

var (
	metricReceived = report.Metric{Test: "throughput", Name: "received", Title: "receive rate at full load", Unit: "frame/s"}
	metricMachine  = report.Metric{
		Test: "throughput", Name: "machine_ns", Unit: "ns/frame", Lower: true,
		Title: "processor time of the whole machine for each frame received at full load, generator and sink included",
	}
	metricCost = report.Metric{
		Test: "throughput", Name: "cpu_ns", Unit: "ns/frame", Lower: true,
		Title: "processor time for each frame forwarded: the machine's, less that of the plain cable",
	}
)

// source is the ordinary generator of the path.
func (b *run) source() string {
	switch b.Path {
	case "tap":
		return "tap"
	case "vhost-user":
		return "virtio"
	}
	return "af_packet"
}

// oneWay are the flows from port 0 to port 1.
func oneWay(count int) probe.Flows { return probe.Flows{From: 0, To: []int{1}, Count: count} }

// throughput measures how much gets through: at full load by size and by number
// of flows, from two kinds of generator; without loss and with little; and what
// it costs.
func (b *run) throughput(ctx context.Context) (err error) {
	g, err := b.assemble(ctx, b.entrants, topo.Spec{Ports: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if err := b.memory(ctx); err != nil {
		return err
	}
	for _, s := range b.Sizes {
		if err := b.fullLoad(ctx, g, report.Case{Size: s, Flows: b.Flows[0], Source: b.source(), Load: "full"}); err != nil {
			return err
		}
	}
	for _, cases := range b.byFlows() {
		if err := b.fullLoad(ctx, g, cases...); err != nil {
			return err
		}
	}
	for _, s := range b.ends() {
		second, ok := map[string]string{"veth": "xdp", "vhost-user": "dpdk"}[b.Path]
		if !ok {
			break
		}
		if err := b.fullLoad(ctx, g, report.Case{Size: s, Flows: 1, Source: second, Load: "full"}); err != nil {
			return err
		}
	}
	if err := b.cost(ctx, g); err != nil {
		return err
	}
	searched := b.ends()
	if b.Quick && len(searched) > 0 {
		searched = searched[:1]
	}
	for _, s := range searched {
		for _, r := range g {
			if err := b.once(ctx, r, func() error { return b.search(ctx, r, s) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// byFlows are the cases that show how flows count, with the smallest frames. Those
// of one element are measured in the same rounds, and the lowest number once more
// with them, so that nothing else differs; where package guest plays the ends it
// can play one case at a time.
func (b *run) byFlows() (together [][]report.Case) {
	var cases []report.Case
	for _, flows := range b.Flows[1:] {
		cases = append(cases, report.Case{Size: b.Sizes[0], Flows: flows, Source: b.source(), Load: "full"})
	}
	if len(cases) > 0 && b.Path == "veth" {
		first := cases[0]
		first.Flows, first.Load = b.Flows[0], report.LoadBesideFlows
		return [][]report.Case{append([]report.Case{first}, cases...)}
	}
	for _, c := range cases {
		together = append(together, []report.Case{c})
	}
	return together
}

// ends are the smallest and the largest plain size asked for: what is measured
// at more expense.
func (b *run) ends() []string {
	var plain []string
	for _, s := range b.Sizes {
		if s != "imix" && s != "gso" {
			plain = append(plain, s)
		}
	}
	if len(plain) == 0 {
		return nil
	}
	return slices.Compact([]string{plain[0], plain[len(plain)-1]})
}

// heat is a case at full load, while it is measured.
type heat struct {
	report.Case
	lanes map[*rig]*lane
	costs costs
}

// beside makes lanes with other flows to the counters of h's.
func (h *heat) beside(_ context.Context, _ grid, size probe.Size, c report.Case) (map[*rig]*lane, func() error, error) {
	m := lanes{}
	for r, l := range h.lanes {
		if err := r.alive(); err != nil {
			continue // which its turn will find out
		}
		other, err := l.beside(size, oneWay(c.Flows))
		if err != nil {
			return nil, nil, errors.Join(err, m.close())
		}
		m[r] = other
	}
	return m, m.close, nil
}

// fullLoad offers all that the generator has, in all cases within each round.
func (b *run) fullLoad(ctx context.Context, g grid, cases ...report.Case) (err error) {
	var heats []heat
	for _, c := range cases {
		size, failed := probe.ParseSize(c.Size)
		if failed != nil {
			return failed
		}
		open := b.lanes
		if len(heats) > 0 {
			open = heats[0].beside
		}
		lanes, done, failed := open(ctx, g, size, c)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, done()) }()
		heats = append(heats, heat{c, lanes, costs{}})
	}
	if err := b.exchange(); err != nil {
		return err
	}
	what := "full load, " + cases[len(cases)-1].String()
	err = b.laps(ctx, g, b.fullRounds(cases[0]), what, func(round int, r *rig) error {
		var lost uint64 // of the load before, in whichever case
		for _, i := range stats.Order(len(heats), round) {
			if l := heats[i].lanes[r]; l != nil {
				l.lost += lost
			}
			if err := b.full(ctx, &heats[i], round, r); err != nil {
				return err
			}
			if l := heats[i].lanes[r]; l != nil {
				lost = l.lost
			}
		}
		return nil
	})
	for _, h := range heats {
		if h.Source == b.source() { // XDP frames cost another path something else than the cable
			b.fileCosts(g, h.Case, h.costs)
		}
	}
	return err
}

// full is one trial at full load.
func (b *run) full(ctx context.Context, h *heat, round int, r *rig) error {
	l, ok := h.lanes[r]
	if !ok {
		return nil
	}
	var o *outcome
	u, counts, err := b.loaded(ctx, l, func() (err error) {
		o, err = b.offer(ctx, l, gen.Load{Length: b.trialLength, Warm: b.trialLength / 4})
		return err
	})
	if err != nil {
		return err
	}
	b.file(metricReceived, h.Case, r.kind.Name, round, o.frames, counts)
	u.Busy -= o.sent.Stopping
	if o.received.Segments > 0 {
		b.file(metricMachine, h.Case, r.kind.Name, round, float64(u.Busy)/float64(o.received.Segments), counts)
	}
	h.costs.add(r, round, u, o, counts)
	if h.Source == b.source() && h.Flows == 1 { // disturbed or not: it only decides what to load it to later
		b.sawRate(r, h.Size, float64(o.sent.Frames)/o.sent.Elapsed.Seconds(), o.frames)
	}
	return nil
}

// fullRounds are those of a case at full load: the least for a ratio where it is
// only a point between others, or a second opinion.
func (b *run) fullRounds(c report.Case) int {
	plain := !slices.Contains([]string{"imix", "gso"}, c.Size)
	if c.Source != b.source() || plain && !slices.Contains(b.ends(), c.Size) {
		return min(b.Runs, stats.MinPairs)
	}
	return b.Runs
}

// lanes makes the lanes of a case. Contenders that a second kind of generator
// can't reach are left out.
func (b *run) lanes(ctx context.Context, g grid, size probe.Size, c report.Case) (map[*rig]*lane, func() error, error) {
	open, ok := map[string]func(*rig, probe.Size) (*lane, error){"xdp": liveLane, "dpdk": bounceLane}[c.Source]
	if !ok {
		return b.devices(ctx, g, size, oneWay(c.Flows))
	}
	return b.eachLane(ctx, g, func(r *rig) (*lane, error) {
		l, err := open(r, size)
		if err != nil && !errors.Is(err, errGone) {
			b.note("%s without generator %s: %v", r.kind.Name, c.Source, err)
			return nil, nil
		}
		return l, err
	})
}

// sawRate remembers the highest rates that a contender was offered and passed
// on.
func (b *run) sawRate(r *rig, size string, offered, received float64) {
	k := rateKey{r.kind.Name, size}
	best := b.rates[k]
	b.rates[k] = rates{max(best.offered, offered), max(best.received, received)}
}

// goals of the search. RFC 2544's throughput is the first; telecom practice
// quotes the second.
func (b *run) goals() []mlr.Goal {
	sum := 5 * b.trialLength
	width := 0.02
	if b.Quick {
		sum, width = 3*b.trialLength, 0.05
	}
	return []mlr.Goal{
		{Name: "NDR", LossRatio: 0, Sum: sum, Exceed: 0.5, Width: width},
		{Name: "PDR", LossRatio: 0.005, Sum: sum, Exceed: 0.5, Width: width},
	}
}

// searchTrials bounds a search: some ten loads with five trials each are usual.
func (b *run) searchTrials() int {
	if b.Quick {
		return 16
	}
	return 120
}

// search finds the highest loads without loss and with 0.5 %.
func (b *run) search(ctx context.Context, r *rig, sizeName string) (err error) {
	c := report.Case{Size: sizeName, Flows: 1, Source: b.source()}
	size, err := probe.ParseSize(sizeName)
	if err != nil {
		return err
	}
	l, err := newLane(ctx, r, size, oneWay(1))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	top, err := b.topLoad(ctx, l, sizeName)
	if err != nil {
		return err
	}
	trials := 0
	measure := func(ctx context.Context, load float64, _ time.Duration) (mlr.Trial, error) {
		trials++
		b.line.step("loss search, %s: %s, trial %d at %s", c, r.kind.Name, trials, report.Format(load, "frame/s"))
		var o *outcome
		u, err := b.attempt(r, l.rehearsal(ctx, load), func() (err error) {
			o, err = b.offer(ctx, l, gen.Load{Rate: load, Length: b.trialLength, Still: lossStill})
			return err
		})
		if err != nil {
			return mlr.Trial{}, err
		}
		if !b.accept(u) { // the search has its own budget for making it again
			return mlr.Trial{}, mlr.ErrRepeat
		}
		return mlr.Trial{Load: load, Sent: o.sent.Frames, Received: o.received.Frames}, nil
	}
	limits := mlr.Limits{Min: 1000, Max: max(2000, top), Trial: b.trialLength, Trials: b.searchTrials()}
	results, err := mlr.Search(ctx, limits, b.goals(), measure)
	if err != nil {
		return fmt.Errorf("%s: %w", r.kind.Name, err)
	}
	for _, res := range results {
		b.rep.Searches = append(b.rep.Searches, report.Search{
			Goal: res.Goal, Case: c, Contender: r.kind.Name,
			Lower: res.Lower, Upper: res.Upper, Rate: res.Rate,
			Complete: res.Complete, Irregular: res.Irregular, Trials: trials,
		})
	}
	if sizeName == b.ends()[0] {
		b.pdr[r.kind.Name] = results[len(results)-1].Lower
	}
	return nil
}

// topLoad is the highest load worth trying: what the generator managed to offer
// the contender at full speed.
func (b *run) topLoad(ctx context.Context, l *lane, size string) (float64, error) {
	k := rateKey{l.kind.Name, size}
	if seen, ok := b.rates[k]; ok {
		return seen.offered, nil
	}
	_, _, err := b.loaded(ctx, l, func() error {
		o, err := b.offer(ctx, l, gen.Load{Length: b.trialLength})
		if err == nil {
			b.sawRate(l.rig, size, float64(o.sent.Frames)/o.sent.Elapsed.Seconds(), o.frames)
		}
		return err
	})
	return b.rates[k].offered, err
}
