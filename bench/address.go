package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
)

var (
	metricCapacity = report.Metric{Test: "address", Name: "capacity", Title: "address caching capacity (RFC 2889, 5.7)", Unit: "addresses"}
	metricLearning = report.Metric{Test: "address", Name: "learning_rate", Title: "address learning rate (RFC 2889, 5.8)", Unit: "frame/s"}
)

// Ports of RFC 2889's address tests.
const (
	learningPort = iota
	testPort
	monitorPort
	addressPorts
)

const (
	maxAddresses      = 1 << 18 // more takes minutes; scale goes on to a million
	maxAddressesQuick = 1 << 14
	// learningBlock is how many new addresses one attempt at a rate teaches.
	learningBlock = 4096
)

// address runs the address tests of RFC 2889: stations appear on the learning
// port; frames sent to each of them from the test port must reach that port
// alone. What the monitor port sees was flooded, so not learned. Settings of one
// switch share a table, so the first of each family stands for the others.
func (b *run) address(ctx context.Context) error {
	seen := map[string]bool{}
	for _, k := range b.entrants {
		if k.Direct || seen[k.Family] {
			continue
		}
		seen[k.Family] = true
		if err := b.addresses(ctx, k); err != nil {
			return fmt.Errorf("%s: %w", k.Name, err)
		}
	}
	return nil
}

func (b *run) addresses(ctx context.Context, k subject.Kind) error {
	capacity, err := b.capacity(ctx, k)
	if err != nil || capacity == 0 {
		return err
	}
	b.rep.Add(metricCapacity, report.Case{Ports: addressPorts}, k.Name, 0, float64(capacity))
	for round := range min(b.Runs, 3) {
		rate, err := b.learningRate(ctx, k, min(learningBlock, capacity/2))
		if err != nil {
			return err
		}
		b.rep.Add(metricLearning, report.Case{Ports: addressPorts}, k.Name, round, rate)
	}
	return nil
}

// classroom is a rig for address tests.
type classroom struct {
	*rig
	counter *sink.Counter
	size    probe.Size
}

// classroom attaches a contender that knows no addresses; nil without error
// means that it can't be attached.
func (b *run) classroom(ctx context.Context, k subject.Kind) (*classroom, error) {
	g, err := b.assemble(ctx, []subject.Kind{k}, topo.Spec{Ports: addressPorts})
	if err != nil || len(g) == 0 {
		return nil, err
	}
	c := &classroom{rig: g[0]}
	if c.size, err = probe.ParseSize("64"); err == nil {
		c.counter, err = sink.NewCounter(c.top, []int{learningPort, monitorPort}, false)
	}
	if err == nil {
		err = c.resume()
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *classroom) close() error {
	var err error
	if c.counter != nil {
		err = c.counter.Close()
	}
	return errors.Join(err, c.rig.close())
}

// teach has stations base to base+n speak once, at a rate in frames/s (0: as
// fast as can be). It returns the rate achieved.
func (c *classroom) teach(ctx context.Context, base, n int, rate float64) (float64, error) {
	// The tester's own address comes first, so that lessons are not flooded.
	if _, err := c.send(ctx, probe.Flows{From: testPort, To: []int{learningPort}, OneSource: true, Base: base}, 1, 0); err != nil {
		return 0, err
	}
	return c.send(ctx, probe.Flows{From: learningPort, To: []int{testPort}, Count: n, Base: base, OneTarget: true}, n, rate)
}

// knows sends one frame to each of the stations and reports whether all were
// delivered to their port alone. What got lost is asked for again, more slowly: a
// contender that has lost a frame may know the station, and one that delivers
// nothing floods nothing.
func (c *classroom) knows(ctx context.Context, base, n int) (bool, error) {
	for _, rate := range testingRates {
		if err := c.counter.Reset(); err != nil {
			return false, err
		}
		if _, err := c.send(ctx, probe.Flows{From: testPort, To: []int{learningPort}, Count: n, Base: base, OneSource: true}, n, rate); err != nil {
			return false, err
		}
		l := lane{rig: c.rig, counter: c.counter}
		if _, err := l.drain(ctx, lossStill); err != nil {
			return false, err
		}
		monitor, err := c.counter.ReadPort(monitorPort)
		if err != nil || monitor.Astray > 0 {
			return false, err
		}
		here, err := c.counter.ReadPort(learningPort)
		if err != nil || here.Frames >= uint64(n) {
			return err == nil, err
		}
	}
	return false, nil
}

// Rates of the capacity test, frames/s: what a contender misses at the first it
// may still learn at the second, since how fast it learns is another test.
var lessonRates = []float64{150_000, 20_000}

// testingRates are for frames that are to be counted: the second where some got
// lost at the first.
var testingRates = []float64{100_000, 20_000}

// send sends exactly n frames.
func (c *classroom) send(ctx context.Context, f probe.Flows, n int, rate float64) (float64, error) {
	s, err := gen.NewSender(c.top, c.size, f)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	sent, err := s.Send(ctx, gen.Load{Rate: rate, Frames: uint64(n)})
	return float64(sent.Frames) / sent.Elapsed.Seconds(), err
}

// capacity finds how many addresses the contender holds: doubling up to the
// limit on one table, then halving the gap with a fresh table each time.
func (b *run) capacity(ctx context.Context, k subject.Kind) (int, error) {
	limit := maxAddresses
	if b.Quick {
		limit = maxAddressesQuick
	}
	c, err := b.classroom(ctx, k)
	if err != nil || c == nil {
		return 0, err
	}
	good, bad := 0, 0
	for n := 1 << 10; n <= limit && bad == 0; n *= 4 {
		b.line.step("address capacity: %s, %d addresses", k.Name, n)
		ok, err := c.learns(ctx, good, n)
		switch {
		case err != nil:
			return 0, errors.Join(err, c.close())
		case ok:
			good = n
		default:
			bad = n
		}
	}
	if err := c.close(); err != nil {
		return 0, err
	}
	for bad > 0 && bad-good > max(64, bad/16) {
		n := (good + bad) / 2
		ok, err := b.holds(ctx, k, n)
		switch {
		case err != nil:
			return 0, err
		case ok:
			good = n
		default:
			bad = n
		}
	}
	return good, nil
}

// holds reports whether a fresh table takes n addresses.
func (b *run) holds(ctx context.Context, k subject.Kind, n int) (ok bool, err error) {
	c, err := b.classroom(ctx, k)
	if err != nil || c == nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	b.line.step("address capacity: %s, %d addresses", k.Name, n)
	return c.learns(ctx, 0, n)
}

// learns teaches stations known to n and reports whether all of 0 to n are known
// then.
func (c *classroom) learns(ctx context.Context, known, n int) (bool, error) {
	for _, rate := range lessonRates {
		if _, err := c.teach(ctx, known, n-known, rate); err != nil {
			return false, err
		}
		if ok, err := c.knows(ctx, 0, n); err != nil || ok {
			return ok, err
		}
		if n-known > slowLesson {
			return false, nil // at the lower rate it would take minutes
		}
	}
	return false, nil
}

// slowLesson is the most addresses that are taught once more at the lower rate.
const slowLesson = 200_000

// learningRate finds the highest rate at which new addresses are learned without
// one missing: full speed first, then down by a third at a time. Every attempt
// teaches addresses that were never seen; the table is a fresh one for each
// search.
func (b *run) learningRate(ctx context.Context, k subject.Kind, block int) (rate float64, err error) {
	c, err := b.classroom(ctx, k)
	if err != nil || c == nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	base := 0
	for ask := 0.0; ; {
		b.line.step("address learning rate: %s at %s", k.Name, report.Format(ask, "frame/s"))
		got, err := c.teach(ctx, base, block, ask)
		if err != nil {
			return 0, err
		}
		ok, err := c.knows(ctx, base, block)
		if err != nil {
			return 0, err
		}
		if ok {
			return got, nil
		}
		base += block
		if ask = got * 2 / 3; ask < 1000 {
			return 0, nil
		}
	}
}
