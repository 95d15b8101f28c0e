package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

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
	full   int // the port that takes no more, a tap
	// takes is how much the tap's owner reads, as a share of the load.
	takes float64
}

// blocking is RFC 2889's test: the first port sends half of its frames to a free
// port and half to a busy one, the second port sends all to the busy one. Each of
// the two offers as much as the busy port takes, which therefore is offered half
// as much again. A cable takes whatever it is given, so the busy port is the tap
// of a virtual machine that doesn't read faster.
func (b *run) blocking(ctx context.Context, kinds []subject.Kind) error {
	const first, second, free, busy = 0, 1, 2, 3
	flows := []probe.Flows{
		{From: first, To: []int{free, busy}, Count: 1},
		{From: second, To: []int{busy}, Count: 1},
	}
	return b.blocked(ctx, kinds, blockage{
		metric: metricBlocking, what: "head-of-line blocking", ports: 4, free: free, full: busy, takes: 0.5,
		spec: topo.Spec{Ports: 3, Hung: true}, flows: flows,
		heard: []probe.Flows{{From: first, To: []int{free}, Count: 1}},
	})
}

// hung sends half of the frames to a port whose owner does not read at all: a
// virtual machine that hangs.
func (b *run) hung(ctx context.Context, kinds []subject.Kind) error {
	const sender, free, hung = 0, 1, 2
	return b.blocked(ctx, kinds, blockage{
		metric: metricHung, what: "a port that hangs", ports: 3, free: free, full: hung,
		spec:  topo.Spec{Ports: 2, Hung: true},
		flows: []probe.Flows{{From: sender, To: []int{free, hung}, Count: 1}},
		heard: []probe.Flows{oneWay(1)},
	})
}

// introduce has the station behind the tap say a word, so that the switch knows
// where it is.
func introduce(r *rig, port int) error {
	t := probe.Build(make([]byte, probe.MinLen), false, 0)
	t.Stamp(probe.Station(0, 0), probe.Station(port, 0), 0, 0)
	return r.top.Inject(t.Bytes())
}

// sip reads so many frames/s from the tap until stop is called.
func sip(r *rig, rate float64) (stop func() error) {
	end := make(chan struct{})
	done := make(chan error)
	go func() {
		pace := gen.NewPace(rate, time.Hour, 0)
		taken := uint64(0)
		for begin := time.Now(); ; time.Sleep(time.Millisecond) {
			select {
			case <-end:
				done <- nil
				return
			default:
			}
			// What it had no frames for it does not make up for.
			due := pace.Due(time.Since(begin), taken, math.MaxInt32)
			taken += uint64(due)
			if err := r.top.Take(due); err != nil {
				<-end
				done <- err
				return
			}
		}
	}()
	return func() error {
		close(end)
		return <-done
	}
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
	_, counts, err = b.loaded(ctx, l, func() (err error) {
		if err := introduce(r, t.full); err != nil {
			return err
		}
		if t.takes > 0 {
			stop := sip(r, t.takes*load.Rate)
			defer func() { err = errors.Join(err, stop()) }()
		}
		before := s.Sequence(0)
		o, err = b.offer(ctx, l, load)
		turns = s.Sequence(0) - before
		return err
	})
	if err != nil {
		return 0, false, err
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
