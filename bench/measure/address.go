package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/trial"
)

var metricCapacity = report.Metric{
	Test: "address", Name: "capacity", Unit: "addresses",
	Title: "address caching capacity (RFC 2889, 5.7), as far as it was tried: see the notes",
}

const (
	maxAddresses      = 1 << 18 // more takes minutes; scale goes on to a million
	maxAddressesQuick = 1 << 14
	// capacityTime is how long the search for one contender's capacity may last.
	capacityTime = 30 * time.Second
)

// address are the address tests of RFC 2889. Settings of one switch share a table,
// so the first of each family stands for the others.
func address(s *trial.Session) []Stage {
	seen := map[string]bool{}
	known := &pupils{capacity: map[string]int{}}
	var parts []Measurement
	for _, k := range switches(s) {
		if !seen[k.Family] {
			seen[k.Family] = true
			parts = append(parts, capacity{k, known})
		}
	}
	return []Stage{{Parts: append(parts, learning{known, len(parts)})}}
}

// pupils are the contenders that were found to learn, and how many addresses each
// holds at least.
type pupils struct {
	kinds    []subject.Kind
	capacity map[string]int
}

// capacity finds how many addresses a contender holds.
type capacity struct {
	kind  subject.Kind
	known *pupils
}

func (m capacity) Expect(s *trial.Settings, _ int) time.Duration {
	if s.Quick {
		return 2 * time.Second
	}
	return capacityTime / 3
}

func (m capacity) Measure(ctx context.Context, s *trial.Session, _ rig.Grid) error {
	k := m.kind
	n, err := m.find(ctx, s)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.Results.Note("%s left out of the address tests: %v", k.Name, err)
		return nil
	}
	if n > 0 {
		s.Results.Add(metricCapacity, report.Case{Ports: addressPorts}, k.Name, 0, float64(n))
		m.known.kinds = append(m.known.kinds, k)
		m.known.capacity[k.Name] = n
	}
	return nil
}

// verdict is what a contender was found to know.
type verdict int

const (
	unclear  verdict = iota // test frames got lost however slowly they were sent
	learned                 // all went to the learning port alone
	flooding                // some went everywhere
)

// bounds of a capacity: a contender holds good addresses, and of bad it has missed
// some. bad is 0 as long as none was missed, and then why says why more were not
// tried.
type bounds struct {
	good, bad int
	why       string
}

// found reports that the bounds are a sixteenth apart, or less.
func (b bounds) found() bool { return b.bad > 0 && b.bad-b.good <= max(64, b.bad/16) }

// find tries times four up to the limit on one table, then halves the gap with a
// fresh table each time, to a sixteenth. It says in the notes when that is only a
// lower bound.
func (m capacity) find(ctx context.Context, s *trial.Session) (int, error) {
	end := time.Now().Add(capacityTime)
	c, err := openClassroom(ctx, s, m.kind)
	if err != nil || c == nil {
		return 0, err
	}
	b, err := m.climb(ctx, s, c, end)
	if err := errors.Join(err, c.close()); err != nil {
		return 0, err
	}
	for b.bad > 0 && !b.found() && time.Now().Before(end) {
		n := (b.good + b.bad) / 2
		v, err := m.afresh(ctx, s, n)
		switch {
		case err != nil:
			return 0, err
		case v == learned:
			b.good = n
		case v == flooding:
			b.bad = n
		default:
			end = time.Now()
		}
	}
	switch {
	case b.bad > 0 && !b.found():
		s.Results.Note("address capacity: %s holds at least %d and less than %d addresses", m.kind.Name, b.good, b.bad)
	case b.bad == 0 && b.good > 0:
		s.Results.Note("address capacity: %s holds at least %d addresses; %s", m.kind.Name, b.good, b.why)
	case b.bad == 0:
		s.Results.Note("address capacity: %s: unknown; %s", m.kind.Name, b.why)
	}
	return b.good, nil
}

// climb teaches one table more and more addresses.
func (m capacity) climb(ctx context.Context, s *trial.Session, c *classroom, end time.Time) (bounds, error) {
	limit := maxAddresses
	if s.Quick {
		limit = maxAddressesQuick
	}
	var b bounds
	for n := 1 << 10; n <= limit; n *= 4 {
		if !time.Now().Before(end) {
			b.why = "its time was up then"
			return b, nil
		}
		v, err := m.learns(ctx, s, c, b.good, n)
		if err != nil {
			return b, err
		}
		switch v {
		case learned:
			b.good = n
		case flooding:
			b.bad = n
			return b, nil
		default:
			b.why = fmt.Sprintf("of %d some test frames got lost at any rate that was tried", n)
			return b, nil
		}
	}
	b.why = "more were not tried"
	return b, nil
}

// afresh is what a fresh table makes of n addresses.
func (m capacity) afresh(ctx context.Context, s *trial.Session, n int) (v verdict, err error) {
	c, err := openClassroom(ctx, s, m.kind)
	if err != nil {
		return unclear, err
	}
	if c == nil {
		return unclear, errors.New("can't be attached again")
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return m.learns(ctx, s, c, 0, n)
}

// learns teaches stations known to n and asks for all from 0 to n. What is not
// known then is taught once more, more slowly. A disturbed machine is no
// contender's fault: then all is done again, twice at most.
func (m capacity) learns(ctx context.Context, s *trial.Session, c *classroom, known, n int) (v verdict, err error) {
	s.Line.Step("address capacity: %s, %d addresses", m.kind.Name, n)
	for try := 0; ; try++ {
		u, err := s.Referee.Observe(func() (err error) {
			v, err = c.learns(ctx, known, n)
			return err
		})
		if err != nil || s.Referee.Accept(u) || v == learned || try == s.Referee.Retries {
			return v, err
		}
	}
}

// lessonRates of the capacity test, in frames/s: what a contender misses at one
// it may learn at the next, since how fast it learns is another test.
var lessonRates = []float64{150_000, 20_000, 5_000, 1_000}

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
