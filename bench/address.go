package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/subject"
)

var (
	metricCapacity = report.Metric{
		Test: "address", Name: "capacity", Unit: "addresses",
		Title: "address caching capacity (RFC 2889, 5.7), as far as it was tried: see the notes",
	}
	metricLearning = report.Metric{
		Test: "address", Name: "learning_rate", Unit: "frame/s",
		Title: "address learning rate (RFC 2889, 5.8), as far as the generator goes: see the notes",
	}
)

const (
	maxAddresses      = 1 << 18 // more takes minutes; scale goes on to a million
	maxAddressesQuick = 1 << 14
	// learningBlock is how many new addresses one attempt at a rate teaches: more
	// than waits in any contender's queues.
	learningBlock = 8192
	// addressRounds is the least for a ratio: a learning rate takes a second.
	addressRounds = stats.MinPairs
	// capacityTime is how long the search for one contender's capacity may last.
	capacityTime = 30 * time.Second
)

// verdict is what a contender was found to know.
type verdict int

const (
	unclear  verdict = iota // test frames got lost however slowly they were sent
	learned                 // all went to the learning port alone
	flooding                // some went everywhere
)

// address runs the address tests of RFC 2889. Settings of one switch share a
// table, so the first of each family stands for the others.
func (b *run) address(ctx context.Context) error {
	seen := map[string]bool{}
	var pupils []subject.Kind
	capacity := map[string]int{}
	for _, k := range b.entrants {
		if k.Direct || seen[k.Family] {
			continue
		}
		seen[k.Family] = true
		n, err := b.capacity(ctx, k)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.note("%s left out of the address tests: %v", k.Name, err)
			continue
		}
		if n > 0 {
			b.rep.Add(metricCapacity, report.Case{Ports: addressPorts}, k.Name, 0, float64(n))
			pupils = append(pupils, k)
			capacity[k.Name] = n
		}
	}
	return b.learning(ctx, pupils, capacity)
}

// learning measures learning rates, contenders in turn.
func (b *run) learning(ctx context.Context, kinds []subject.Kind, capacity map[string]int) error {
	c := report.Case{Ports: addressPorts}
	rounds := min(b.Runs, addressRounds)
	open := map[string]int{} // rounds in which the generator was the limit
	for round := range rounds {
		for _, i := range stats.Order(len(kinds), round) {
			k := kinds[i]
			b.line.step("address learning rate: round %d of %d, %s", round+1, rounds, k.Name)
			rate, bounded, err := b.learningRate(ctx, k, min(learningBlock, capacity[k.Name]/2))
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				b.note("%s: no learning rate in round %d: %v", k.Name, round+1, err)
			case rate == 0:
				b.rep.Reject(metricLearning, c, k.Name)
			default:
				b.rep.Add(metricLearning, c, k.Name, round, rate)
				if !bounded {
					open[k.Name]++
				}
			}
		}
	}
	for _, k := range kinds {
		if n := open[k.Name]; n > 0 {
			b.note("address learning rate: %s learned at least as fast as the generator could teach in %d of %d rounds", k.Name, n, rounds)
		}
	}
	return nil
}

// lessonRates of the capacity test, in frames/s: what a contender misses at one
// it may learn at the next, since how fast it learns is another test.
var lessonRates = []float64{150_000, 20_000, 5_000, 1_000}

// capacity finds how many addresses the contender holds: times four up to the
// limit on one table, then halving the gap with a fresh table each time, to a
// sixteenth. It says in the notes when that is only a lower bound.
func (b *run) capacity(ctx context.Context, k subject.Kind) (int, error) {
	limit := maxAddresses
	if b.Quick {
		limit = maxAddressesQuick
	}
	end := time.Now().Add(capacityTime)
	c, err := b.classroom(ctx, k)
	if err != nil || c == nil {
		return 0, err
	}
	const untried = "more were not tried"
	good, bad, why := 0, 0, untried
	for n := 1 << 10; n <= limit && bad == 0 && time.Now().Before(end); n *= 4 {
		v, err := b.learns(ctx, c, good, n)
		if err != nil {
			return 0, errors.Join(err, c.close())
		}
		if v == unclear {
			why = fmt.Sprintf("of %d some test frames got lost at any rate that was tried", n)
			break
		}
		if v == learned {
			good = n
		} else {
			bad = n
		}
	}
	if err := c.close(); err != nil {
		return 0, err
	}
	if why == untried && good < limit {
		why = "its time was up then"
	}
	for bad > 0 && bad-good > max(64, bad/16) && time.Now().Before(end) {
		n := (good + bad) / 2
		v, err := b.holds(ctx, k, n)
		switch {
		case err != nil:
			return 0, err
		case v == learned:
			good = n
		case v == flooding:
			bad = n
		default:
			end = time.Now()
		}
	}
	switch {
	case bad > 0 && bad-good > max(64, bad/16):
		b.note("address capacity: %s holds at least %d and less than %d addresses", k.Name, good, bad)
	case bad == 0 && good > 0:
		b.note("address capacity: %s holds at least %d addresses; %s", k.Name, good, why)
	case bad == 0:
		b.note("address capacity: %s: unknown; %s", k.Name, why)
	}
	return good, nil
}

// holds is what a fresh table makes of n addresses.
func (b *run) holds(ctx context.Context, k subject.Kind, n int) (v verdict, err error) {
	c, err := b.classroom(ctx, k)
	if err != nil {
		return unclear, err
	}
	if c == nil {
		return unclear, errors.New("can't be attached again")
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return b.learns(ctx, c, 0, n)
}

// learns teaches stations known to n and asks for all from 0 to n. What is not
// known then is taught once more, more slowly. A disturbed machine is no
// contender's fault: then all is done again, twice at most.
func (b *run) learns(ctx context.Context, c *classroom, known, n int) (v verdict, err error) {
	b.line.step("address capacity: %s, %d addresses", c.kind.Name, n)
	for try := 0; ; try++ {
		u, err := b.observed(func() (err error) {
			v, err = c.learns(ctx, known, n)
			return err
		})
		if err != nil || b.accept(u) || v == learned || try == b.retries() {
			return v, err
		}
	}
}

func (c *classroom) learns(ctx context.Context, known, n int) (verdict, error) {
	pupils, all := span(known, n-known), span(0, n)
	for _, rate := range lessonRates {
		if float64(len(pupils)) > rate*patience.Seconds() {
			return unclear, nil
		}
		if _, err := c.teach(ctx, pupils, rate); err != nil {
			return unclear, err
		}
		flooded, lost, err := c.ask(ctx, all)
		switch {
		case err != nil:
			return unclear, err
		case len(flooded) == 0 && len(lost) == 0:
			return learned, nil
		case len(flooded) == 0:
			return unclear, nil
		}
		pupils = flooded
	}
	return flooding, nil
}

const (
	// learningWidth is how far apart, as a share of the upper one, the bounds of a
	// learning rate may be.
	learningWidth = 0.1
	// slowestLesson is the lowest rate tried, in frames/s.
	slowestLesson = 1000
)

// learningRate finds the highest rate at which new addresses are learned without
// one missing: full speed first, then halves of it until one is good, then
// between the bounds. bounded reports that some rate was too high. Every attempt
// teaches addresses that were never seen; the table is a fresh one for each
// search. 0 means that no attempt was clear, or none good.
func (b *run) learningRate(ctx context.Context, k subject.Kind, block int) (rate float64, bounded bool, err error) {
	c, err := b.classroom(ctx, k)
	if err != nil || c == nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	low, high := 0.0, 0.0
	again := 0
	for base, ask := 0, 0.0; ; base += block {
		var got float64
		var flooded, lost []int
		u, err := b.observed(func() (err error) {
			stations := span(base, block)
			if got, err = c.teach(ctx, stations, ask); err == nil {
				flooded, lost, err = c.ask(ctx, stations)
			}
			return err
		})
		if err != nil {
			return 0, false, err
		}
		counts := b.accept(u)
		switch {
		case len(flooded) == 0 && len(lost) == 0: // a disturbance makes nobody learn
			low = max(low, got)
		case again < b.retries() && (!counts || len(flooded) == 0):
			again++
			continue
		case !counts || len(flooded) == 0:
			return 0, false, nil
		default:
			high = got
		}
		again = 0
		switch {
		case high == 0:
			return low, false, nil
		case low >= high*(1-learningWidth):
			return min(low, high), true, nil
		case low > 0:
			ask = math.Sqrt(low * high)
		default:
			ask = high / 2
		}
		if ask < slowestLesson {
			return 0, true, nil
		}
	}
}
