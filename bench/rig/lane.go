package rig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/guest"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/testbed/dpdk"
)

// Source is a generator: gen.Sender, gen.LiveSender, guest.Duplex or
// guest.Bounce.
type Source interface {
	Send(context.Context, gen.Load) (gen.Sent, error)
	Close() error
}

// counter counts what arrives: sink.Counter, guest.Duplex or guest.Bounce.
type counter interface {
	Read() (sink.Counts, error)
	Latencies() (*hdrhistogram.Histogram, error)
	Reset() error
}

// Lane is a generator and a counter on a rig: what one case needs.
type Lane struct {
	*Rig
	// Endless marks a source whose frames go round, or are not all counted, so
	// that they can't be balanced.
	Endless bool

	size    probe.Size
	flows   []probe.Flows
	source  Source
	counter counter
	teacher func(context.Context) error // has the destinations send once
	closes  []func() error
	taught  time.Time
	lessons uint64 // frames of the latest lesson that may still come
	// unordered marks lanes whose counter sees the frames of others among theirs,
	// so that numbers say nothing about order: two lanes with one counter, and a
	// source that can't be told to number apart from what may still come.
	unordered bool
}

// numberSpace is the distance of the first sequence numbers of two lanes of a rig:
// more than any of them sends, so that what is left of an earlier one's frames is
// seen to come before its own.
const numberSpace = 1 << 25

// apart numbers a new lane's frames apart from those of the lanes before.
func (l *Lane) apart() *Lane {
	s, ok := l.source.(interface{ Renumber(uint32) })
	if ok {
		s.Renumber(l.number)
		l.number += numberSpace
	}
	l.unordered = !ok && l.outstanding > 0
	return l
}

// Open sends the flows with the path's ordinary generator and counts at their
// destinations.
func Open(ctx context.Context, r *Rig, size probe.Size, flows ...probe.Flows) (*Lane, error) {
	if err := r.Alive(); err != nil {
		return nil, err
	}
	if r.Userland() {
		return openGuests(ctx, r, size, flows[0])
	}
	s, err := gen.NewSender(r.Top, size, flows...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Kind.Name, err)
	}
	return OpenWith(r, s, size, flows...)
}

// openGuests has package guest play both ends. The contender has a part in that,
// so it is woken for it.
func openGuests(ctx context.Context, r *Rig, size probe.Size, flows probe.Flows) (l *Lane, err error) {
	err = r.Awake(func() error {
		d, err := OpenGuests(ctx, r.Top, size, flows)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Kind.Name, err)
		}
		l = &Lane{
			Rig: r, size: size, flows: []probe.Flows{flows}, source: d, counter: d, teacher: d.Teach,
			closes: []func() error{d.Close},
		}
		l.apart()
		return nil
	})
	return l, err
}

// OpenLive sends one flow of XDP live frames.
func OpenLive(r *Rig, size probe.Size) (*Lane, error) {
	s, err := gen.NewLiveSender(r.Top, size, probe.OneWay(1))
	if err != nil {
		return nil, err
	}
	return OpenWith(r, s, size, probe.OneWay(1))
}

// OpenBounce has DPDK play both ends. The contender has a part in that, so it is
// woken for it.
func OpenBounce(r *Rig, size probe.Size) (l *Lane, err error) {
	err = r.Awake(func() error {
		b, err := guest.OpenBounce(r.Top, size.Lengths[0], dpdk.HugeMemory(dpdk.MemoryMB))
		if err != nil {
			return err
		}
		l = &Lane{
			Rig: r, size: size, source: b, counter: b, Endless: true, closes: []func() error{b.Close},
			teacher: func(context.Context) error { return nil }, // they launch frames from both ends
		}
		return nil
	})
	return l, err
}

// OpenWith sends with another generator, which is closed with the lane, and
// counts at the destinations of the flows.
func OpenWith(r *Rig, s Source, size probe.Size, flows ...probe.Flows) (*Lane, error) {
	var ports []int
	for _, f := range flows {
		for _, p := range f.To {
			if !slices.Contains(ports, p) {
				ports = append(ports, p)
			}
		}
	}
	c, err := sink.NewCounter(r.Top, ports, size.GSO)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", r.Kind.Name, err), s.Close())
	}
	l := &Lane{Rig: r, size: size, flows: flows, source: s, counter: c, closes: []func() error{s.Close, c.Close}}
	l.teacher = l.introduceAll
	return l.apart(), nil
}

// Beside is another lane on the same ports, with its own generator and l's
// counter. It must be closed before l is.
func (l *Lane) Beside(size probe.Size, flows probe.Flows) (*Lane, error) {
	s, err := gen.NewSender(l.Top, size, flows)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.Kind.Name, err)
	}
	b := &Lane{Rig: l.Rig, size: size, flows: []probe.Flows{flows}, source: s, counter: l.counter, closes: []func() error{s.Close}}
	b.teacher = b.introduceAll
	l.unordered, b.unordered = true, true
	return b, nil
}

// Close closes the generator and the counter; the rig stays.
func (l *Lane) Close() error {
	var errs []error
	for _, c := range l.closes {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

const (
	// relearn is how old a lesson may be: less than subject.Ageing.
	relearn = subject.Ageing / 2
	// lessonRate is how fast addresses are taught, in frames/s: slow enough for
	// those contenders that learn in another process.
	lessonRate = 100_000
)

// Teach makes sure that the contender knows all stations. The contender must be
// awake.
func (l *Lane) Teach(ctx context.Context) error {
	if time.Since(l.taught) < relearn {
		return nil
	}
	if err := l.teacher(ctx); err != nil {
		return fmt.Errorf("teach addresses: %w", err)
	}
	l.taught = time.Now()
	for _, f := range l.flows {
		l.lessons += 2 * uint64(f.Frames()) // there and back
	}
	return nil
}

// introduceAll has every station send once from its own port, destinations first, so
// that nothing is flooded and no contender meets an address for the first time in
// a trial.
func (l *Lane) introduceAll(ctx context.Context) error {
	var lessons []probe.Flows
	for _, f := range l.flows {
		for _, to := range f.To {
			lessons = append(lessons, f.Lesson(to))
		}
	}
	for _, f := range append(lessons, l.flows...) {
		if err := Speak(ctx, l.Rig, f, lessonRate); err != nil {
			return err
		}
	}
	return nil
}

// Speak has every station of the flows send one small frame, at a rate in
// frames/s.
func Speak(ctx context.Context, r *Rig, flows probe.Flows, rate float64) error {
	s, err := gen.NewSender(r.Top, probe.Smallest(), flows)
	if err != nil {
		return err
	}
	_, err = s.Send(ctx, gen.Load{Rate: rate, Frames: uint64(flows.Frames())})
	return errors.Join(err, s.Close())
}

// Lanes are those of a case; a rig may be without.
type Lanes map[*Rig]*Lane

// Close closes all lanes. With a contender that has ended its devices may have
// gone, and what was attached to them.
func (m Lanes) Close() error {
	var errs []error
	for r, l := range m {
		if err := l.Close(); !r.Gone && r.Alive() == nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
