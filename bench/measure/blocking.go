package measure

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
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

// blockage measures what a free port loses of the frames intended for it while
// another port takes no more.
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

// busyPort is RFC 2889's test: the first port sends half of its frames to a free
// port and half to a busy one, the second port sends all to the busy one. Each of
// the two offers as much as the busy port takes, which therefore is offered half
// as much again. A cable takes whatever it is given, so the busy port is the tap
// of a virtual machine that doesn't read faster.
func busyPort() blockage {
	const first, second, free, busy = 0, 1, 2, 3
	return blockage{
		metric: metricBlocking, what: "head-of-line blocking", ports: 4, free: free, full: busy, takes: 0.5,
		spec: topo.Spec{Ports: 3, Hung: true},
		flows: []probe.Flows{
			{From: first, To: []int{free, busy}, Count: 1},
			{From: second, To: []int{busy}, Count: 1},
		},
		heard: []probe.Flows{{From: first, To: []int{free}, Count: 1}},
	}
}

// hungPort sends half of the frames to a port whose owner does not read at all: a
// virtual machine that hangs.
func hungPort() blockage {
	const sender, free, hung = 0, 1, 2
	return blockage{
		metric: metricHung, what: "a port that hangs", ports: 3, free: free, full: hung,
		spec:  topo.Spec{Ports: 2, Hung: true},
		flows: []probe.Flows{{From: sender, To: []int{free, hung}, Count: 1}},
		heard: []probe.Flows{probe.OneWay(1)},
	}
}

// limitable are the contenders whose ports can be limited, or hang.
func limitable(kinds []subject.Kind) (able []subject.Kind) {
	for _, k := range kinds {
		if !k.Bare {
			able = append(able, k)
		}
	}
	return able
}

func (m blockage) Expect(s *trial.Settings, n int) time.Duration {
	return trials(n*min(s.Runs, blockingRounds), s.Length+rig.LossStill)
}

func (m blockage) Measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	size := probe.Smallest()
	for _, r := range g {
		if err := s.Turns.Once(ctx, r, func() error { return learnRate(ctx, s, r, size) }); err != nil {
			return err
		}
	}
	c := report.Case{Size: size.Name, Ports: m.ports, Source: s.Source(), Load: fmt.Sprintf("%.0f %% of the receive rate", 100*blockingShare)}
	held := map[*rig.Rig]uint64{}
	err := s.Turns.Rounds(ctx, g, s.Rounds(blockingRounds), m.what, func(round int, r *rig.Rig) error {
		most, _ := s.Rates.Full(r.Kind.Name, size.Name)
		load := gen.Load{Rate: blockingShare * most.Received, Length: s.Length, Still: rig.LossStill}
		if load.Rate == 0 {
			s.Results.Reject(m.metric, c, r.Kind.Name)
			return nil
		}
		loss, waits, counts, err := m.trial(ctx, s, r, size, load)
		held[r] += waits
		if err == nil {
			s.Results.File(m.metric, c, r.Kind.Name, round, loss, counts)
		}
		return err
	})
	for _, r := range g {
		if held[r] > 0 {
			s.Results.Note("%s, %s: back pressure, the sender was held up %d times", m.what, r.Kind.Name, held[r])
		}
	}
	return err
}

// trial makes one trial and returns the loss at the free port and how often the
// sender was held up.
func (m blockage) trial(ctx context.Context, s *trial.Session, r *rig.Rig, size probe.Size, load gen.Load) (loss float64, held uint64, counts bool, err error) {
	sender, err := gen.NewSender(r.Top, size, m.flows...)
	if err != nil {
		return 0, 0, false, err
	}
	l, err := rig.OpenWith(r, sender, size, m.heard...)
	if err != nil {
		return 0, 0, false, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	l.Endless = true // not all that is sent is counted
	var o *rig.Outcome
	var turns uint32 // frames of the first flow
	_, counts, err = s.Referee.OnLane(ctx, l, func() (err error) {
		if err := introduce(r, m.full); err != nil {
			return err
		}
		if m.takes > 0 {
			stop := sip(r, m.takes*load.Rate)
			defer func() { err = errors.Join(err, stop()) }()
		}
		before := sender.Sequence(0)
		o, err = s.Offer(ctx, l, load)
		turns = sender.Sequence(0) - before
		return err
	})
	if err != nil {
		return 0, 0, false, err
	}
	got, err := l.ReadPort(m.free)
	// What the sender was kept from sending was intended, too.
	unsent := load.Rate*load.Length.Seconds() - float64(o.Sent.Frames)
	intended := float64(turns)/2 + max(0, unsent)/float64(2*len(m.flows))
	return max(0, 1-float64(got.Frames)/intended), o.Sent.Held, counts, err
}

// introduce has the station behind the tap say a word, so that the switch knows
// where it is.
func introduce(r *rig.Rig, port int) error {
	t := probe.Build(make([]byte, probe.MinLen), false, 0)
	t.Stamp(probe.Station(0, 0), probe.Station(port, 0), 0, 0)
	return r.Top.Inject(t.Bytes())
}

// sip reads so many frames/s from the tap until stop is called.
func sip(r *rig.Rig, rate float64) (stop func() error) {
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
			if err := r.Top.Take(due); err != nil {
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

// learnRate finds a contender's receive rate if no test before has.
func learnRate(ctx context.Context, s *trial.Session, r *rig.Rig, size probe.Size) (err error) {
	if _, known := s.Rates.Full(r.Kind.Name, size.Name); known {
		return nil
	}
	l, err := rig.Open(ctx, r, size, probe.OneWay(1))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	_, err = topLoad(ctx, s, l, size.Name)
	return err
}
