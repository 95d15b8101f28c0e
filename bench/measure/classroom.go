package measure

import (
	"context"
	"errors"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// Ports of RFC 2889's address tests.
const (
	learningPort = iota
	testPort
	monitorPort
	addressPorts
)

// classroom is a rig for address tests: stations appear on the learning port;
// frames sent to each of them from the test port must reach that port alone. What
// the monitor port sees was flooded, so not learned.
type classroom struct {
	*rig.Rig
	size          probe.Size
	here, monitor *sink.Auditor
}

// openClassroom attaches a contender that knows no addresses; nil without error
// means that it can't be attached.
func openClassroom(ctx context.Context, s *trial.Session, k subject.Kind) (*classroom, error) {
	g, err := s.Assemble(ctx, []subject.Kind{k}, topo.Spec{Ports: addressPorts})
	if err != nil || len(g) == 0 {
		return nil, err
	}
	c := &classroom{Rig: g[0], size: probe.Smallest()}
	c.here, err = sink.NewAuditor(c.Top, learningPort, c.size.MaxLength())
	if err == nil {
		c.monitor, err = sink.NewAuditor(c.Top, monitorPort, c.size.MaxLength())
	}
	if err == nil {
		err = c.Resume()
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *classroom) close() error {
	var errs []error
	for _, a := range []*sink.Auditor{c.here, c.monitor} {
		if a != nil {
			errs = append(errs, a.Close())
		}
	}
	return errors.Join(append(errs, c.Rig.Close())...)
}

// span are the stations from base on.
func span(base, n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = base + i
	}
	return s
}

// teach has stations speak once, at a rate in frames/s (0: as fast as can be). It
// returns the rate achieved.
func (c *classroom) teach(ctx context.Context, stations []int, rate float64) (float64, error) {
	// The tester's own address comes first, so that lessons are not flooded.
	if _, err := c.send(ctx, probe.Flows{From: testPort, To: []int{learningPort}}, 1, 0); err != nil {
		return 0, err
	}
	time.Sleep(rig.Still)
	return c.send(ctx, probe.Flows{From: learningPort, To: []int{testPort}, Stations: stations, OneTarget: true}, len(stations), rate)
}

// patience is how long the frames of one round of questions or lessons may take:
// what would take longer at a low rate is not tried.
const patience = 15 * time.Second

// askingRates, in frames/s, are for frames that are to be counted: a contender
// that lost one of them may know the station, so what got lost is asked for
// again, more slowly.
var askingRates = []float64{100_000, 20_000, 5_000, 1_000}

// ask sends one frame to each of the stations. Those whose frames were flooded
// are not known. Those in lost may be: however slowly they were asked for, nothing
// came at either port.
func (c *classroom) ask(ctx context.Context, stations []int) (flooded, lost []int, err error) {
	limit := 0
	for _, s := range stations {
		limit = max(limit, s+1)
	}
	for _, rate := range askingRates {
		if float64(len(stations)) > rate*patience.Seconds() {
			break
		}
		here, astray := sink.NewRoll(learningPort, limit), sink.NewRoll(learningPort, limit)
		err := c.here.Watch(ctx, here, func() error {
			return c.monitor.Watch(ctx, astray, func() error {
				_, err := c.send(ctx, probe.Flows{From: testPort, To: []int{learningPort}, Stations: stations, OneSource: true}, len(stations), rate)
				return err
			})
		})
		if err != nil {
			return nil, nil, err
		}
		lost = nil
		for _, s := range stations {
			switch {
			case astray.Heard(s):
				flooded = append(flooded, s)
			case !here.Heard(s):
				lost = append(lost, s)
			}
		}
		if stations = lost; len(lost) == 0 {
			break
		}
	}
	return flooded, stations, nil
}

// send sends exactly n frames.
func (c *classroom) send(ctx context.Context, f probe.Flows, n int, rate float64) (float64, error) {
	s, err := gen.NewSender(c.Top, c.size, f)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	sent, err := s.Send(ctx, gen.Load{Rate: rate, Frames: uint64(n)})
	return float64(sent.Frames) / sent.Elapsed.Seconds(), err
}
