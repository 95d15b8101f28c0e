package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
)

var (
	metricBlocking = report.Metric{
		Test: "broadcast", Name: "blocking", Unit: "1", Lower: true,
		Title: "head-of-line blocking: loss on a free port while another is offered half as much again as it takes (RFC 2889, 5.5)",
	}
	metricHung = report.Metric{
		Test: "broadcast", Name: "hung", Unit: "1", Lower: true,
		Title: "loss on a free port while every other frame goes to a port that hangs",
	}
)

const (
	// blockingShare is the load of the blocking tests, as a share of what the
	// contender receives at full load: what the free port gets is well within its
	// reach, so anything lost there was lost to the port that takes no more.
	blockingShare = 0.3
	// blockingRounds is the least for a ratio.
	blockingRounds = stats.MinPairs
)

// blockage is a test in which one port takes no more.
type blockage struct {
	metric report.Metric
	what   string
	ports  int // of which frames go in or out
	spec   topo.Spec
	flows  []probe.Flows // the first of them sends to the free port and to another in turn
	heard  []probe.Flows // those of which some are counted
	free   int
	// prepare makes a port take no more, and spoilt says why it did not.
	prepare func(r *rig, load float64) error
	spoilt  func(l *lane, load float64) (string, error)
}

// blocking is RFC 2889's test: the first port sends half of its frames to a free
// port and half to a busy one, the second port sends all to the busy one. Each of
// the two offers as much as the busy port takes, which therefore is offered half
// as much again.
func (b *run) blocking(ctx context.Context, kinds []subject.Kind) error {
	const first, second, free, busy = 0, 1, 2, 3
	flows := []probe.Flows{
		{From: first, To: []int{free, busy}, Count: 1},
		{From: second, To: []int{busy}, Count: 1},
	}
	return b.blocked(ctx, kinds, blockage{
		metric: metricBlocking, what: "head-of-line blocking", ports: 4, free: free,
		spec: topo.Spec{Ports: 4}, flows: flows, heard: flows,
		prepare: func(r *rig, load float64) error { return r.top.Limit(busy, load/2, smallest) },
		spoilt: func(l *lane, load float64) (string, error) {
			n, err := l.counter.(*sink.Counter).ReadPort(busy)
			if most := load / 2 * b.trialLength.Seconds(); float64(n.Frames) > 1.25*most {
				return "goes past the limit of the busy port", err
			}
			return "", err
		},
	})
}

// smallest is the length of the smallest frames without frame check sequence.
const smallest = probe.MinLen

// hung sends half of the frames to a port whose owner does not read at all: a
// virtual machine that hangs.
func (b *run) hung(ctx context.Context, kinds []subject.Kind) error {
	const sender, free, hung = 0, 1, 2
	return b.blocked(ctx, kinds, blockage{
		metric: metricHung, what: "a port that hangs", ports: 3, free: free,
		spec:    topo.Spec{Ports: 2, Hung: true},
		flows:   []probe.Flows{{From: sender, To: []int{free, hung}, Count: 1}},
		heard:   []probe.Flows{oneWay(1)},
		prepare: func(r *rig, _ float64) error { return introduce(r, hung) },
	})
}

// introduce has the station behind the hung port say a word, so that the switch
// knows where it is.
func introduce(r *rig, hung int) error {
	t := probe.Build(make([]byte, smallest), false, 0)
	t.Stamp(probe.Station(0, 0), probe.Station(hung, 0), 0, 0)
	return r.top.Inject(t.Bytes())
}

// blocked measures what the free port loses of the frames intended for it.
func (b *run) blocked(ctx context.Context, kinds []subject.Kind, t blockage) (err error) {
	var able []subject.Kind
	for _, k := range kinds {
		if !k.Bare { // its ports can't be limited, or hang
			able = append(able, k)
		}
	}
	g, err := b.assemble(ctx, able, t.spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	size, err := probe.ParseSize("64")
	if err != nil {
		return err
	}
	c := report.Case{Size: size.Name, Ports: t.ports, Source: b.source(), Load: fmt.Sprintf("%.0f %% of the receive rate", 100*blockingShare)}
	for _, r := range g {
		if err := b.once(ctx, r, func() error { return b.measureRate(ctx, r, size) }); err != nil {
			return err
		}
	}
	held := map[*rig]uint64{}
	err = b.laps(ctx, g, min(b.Runs, blockingRounds), t.what, func(round int, r *rig) error {
		load := gen.Load{
			Rate:   blockingShare * b.rates[rateKey{r.kind.Name, size.Name}].received,
			Length: b.trialLength, Still: lossStill,
		}
		if load.Rate == 0 {
			b.rep.Reject(t.metric, c, r.kind.Name)
			return nil
		}
		loss, counts, err := b.freeLoss(ctx, r, size, load, t, held)
		if err == nil {
			b.file(t.metric, c, r.kind.Name, round, loss, counts)
		}
		return err
	})
	for _, r := range g {
		if held[r] > 0 {
			b.note("%s, %s: back pressure, the sender was held up %d times", t.what, r.kind.Name, held[r])
		}
	}
	return err
}

// freeLoss makes one trial.
func (b *run) freeLoss(ctx context.Context, r *rig, size probe.Size, load gen.Load, t blockage, held map[*rig]uint64) (loss float64, counts bool, err error) {
	s, err := gen.NewSender(r.top, size, t.flows...)
	if err != nil {
		return 0, false, err
	}
	l, err := laneWith(r, s, size, t.heard...)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	l.endless = true // not all that is sent is counted
	var o *outcome
	var turns uint32 // frames of the first flow
	_, counts, err = b.loaded(ctx, l, func() error {
		if err := t.prepare(r, load.Rate); err != nil {
			return err
		}
		before := s.Sequence(0)
		o, err = b.offer(ctx, l, load)
		turns = s.Sequence(0) - before
		return err
	})
	if err != nil {
		return 0, false, err
	}
	if t.spoilt != nil {
		if why, err := t.spoilt(l, load.Rate); err != nil {
			return 0, false, err
		} else if why != "" {
			return 0, false, errors.New(why)
		}
	}
	held[r] += o.sent.Held
	got, err := l.counter.(*sink.Counter).ReadPort(t.free)
	// What the sender was kept from sending was intended, too.
	unsent := load.Rate*load.Length.Seconds() - float64(o.sent.Frames)
	intended := float64(turns)/2 + max(0, unsent)/float64(2*len(t.flows))
	return max(0, 1-float64(got.Frames)/intended), counts, err
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
