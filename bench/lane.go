package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/guest"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/testbed/dpdk"
)

// source is a generator: gen.Sender, gen.LiveSender or guest.Duplex.
type source interface {
	Send(context.Context, gen.Load) (gen.Sent, error)
	Close() error
}

// counter counts what arrives: sink.Counter or guest.Duplex.
type counter interface {
	Read() (sink.Counts, error)
	Latencies() (*hdrhistogram.Histogram, error)
	Reset() error
}

// lane is a generator and a counter on a rig: what one case needs.
type lane struct {
	*rig
	size    probe.Size
	flows   []probe.Flows
	source  source
	counter counter
	teacher func(context.Context) error // has the destinations send once
	closes  []func() error
	taught  time.Time
	// lessons and lost are frames of the latest lesson and load that may still
	// come during the next load.
	lessons, lost uint64
	// shared marks lanes with one counter: what is left of another's load may come
	// during this one's, and numbers say nothing about order.
	shared bool
	// endless marks a source whose frames go round and can't be balanced.
	endless bool
}

// relearn is how old a lesson may be: less than subject.Ageing.
const relearn = subject.Ageing / 2

// lessonRate is how fast addresses are taught, in frames/s: slow enough for
// those contenders that learn in another process.
const lessonRate = 100_000

// newLane sends the flows with the path's ordinary generator and counts at their
// destinations.
func newLane(ctx context.Context, r *rig, size probe.Size, flows ...probe.Flows) (*lane, error) {
	if err := r.alive(); err != nil {
		return nil, err
	}
	if r.userland() {
		return guestLane(ctx, r, size, flows[0])
	}
	s, err := gen.NewSender(r.top, size, flows...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.kind.Name, err)
	}
	return laneWith(r, s, size, flows...)
}

// guestLane has package guest play both ends. The contender has a part in that,
// so it is woken for it.
func guestLane(ctx context.Context, r *rig, size probe.Size, flows probe.Flows) (l *lane, err error) {
	if err := r.resume(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.pause()) }()
	d, err := guest.Open(r.top, size, flows)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.kind.Name, err)
	}
	if err := passes(ctx, d); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", r.kind.Name, err), d.Close())
	}
	return &lane{
		rig: r, size: size, flows: []probe.Flows{flows}, source: d, counter: d, teacher: d.Teach, closes: []func() error{d.Close},
	}, nil
}

// liveLane sends XDP live frames.
func liveLane(r *rig, size probe.Size) (*lane, error) {
	s, err := gen.NewLiveSender(r.top, size, oneWay(1))
	if err != nil {
		return nil, err
	}
	return laneWith(r, s, size, oneWay(1))
}

// bounceLane has DPDK play both ends. The contender has a part in that, so it is
// woken for it.
func bounceLane(r *rig, size probe.Size) (l *lane, err error) {
	if err := r.resume(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.pause()) }()
	b, err := guest.OpenBounce(r.top, size.Lengths[0], dpdk.HugeMemory(dpdk.MemoryMB))
	if err != nil {
		return nil, err
	}
	return &lane{
		rig: r, size: size, source: b, counter: b, endless: true, closes: []func() error{b.Close},
		teacher: func(context.Context) error { return nil }, // they launch frames from both ends
	}, nil
}

// laneWith sends with another generator, which is closed with the lane.
func laneWith(r *rig, s source, size probe.Size, flows ...probe.Flows) (*lane, error) {
	var ports []int
	seen := map[int]bool{}
	for _, f := range flows {
		for _, p := range f.To {
			if !seen[p] {
				seen[p] = true
				ports = append(ports, p)
			}
		}
	}
	c, err := sink.NewCounter(r.top, ports, size.GSO)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", r.kind.Name, err), s.Close())
	}
	l := &lane{rig: r, size: size, flows: flows, source: s, counter: c, closes: []func() error{s.Close, c.Close}}
	l.teacher = l.introduceAll
	return l, nil
}

// beside is another lane on the same ports, with its own generator and l's
// counter. It must be closed before l is.
func (l *lane) beside(size probe.Size, flows probe.Flows) (*lane, error) {
	s, err := gen.NewSender(l.top, size, flows)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.kind.Name, err)
	}
	b := &lane{rig: l.rig, size: size, flows: []probe.Flows{flows}, source: s, counter: l.counter, closes: []func() error{s.Close}}
	b.teacher = b.introduceAll
	l.shared, b.shared = true, true
	return b, nil
}

func (l *lane) close() error {
	var errs []error
	for _, c := range l.closes {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// lesson is teach, to be done by and by.
func (l *lane) lesson(ctx context.Context) func() error {
	return func() error { return l.teach(ctx) }
}

// teach makes sure that the contender knows all stations. The contender must be
// awake.
func (l *lane) teach(ctx context.Context) error {
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
func (l *lane) introduceAll(ctx context.Context) error {
	small, err := probe.ParseSize("64")
	if err != nil {
		return err
	}
	var lessons []probe.Flows
	for _, f := range l.flows {
		for _, to := range f.To {
			lessons = append(lessons, f.Lesson(to))
		}
	}
	for _, f := range append(lessons, l.flows...) {
		s, err := gen.NewSender(l.top, small, f)
		if err != nil {
			return err
		}
		_, err = s.Send(ctx, gen.Load{Rate: lessonRate, Frames: uint64(f.Frames())})
		if err := errors.Join(err, s.Close()); err != nil {
			return err
		}
	}
	return nil
}

// outcome is what one load did.
type outcome struct {
	sent     gen.Sent
	received sink.Counts // until nothing came any more, warm-up included
	// Within the trial's time only:
	frames   float64 // received frames/s; of super-frames, their segments
	bits     float64 // received bit/s
	marks    int
	at       [2]time.Time
	counts   [2]sink.Counts
	firstErr error
	// fault is what no switch may do to frames, or "".
	fault string
}

// mark is called at the beginning and the end of the trial's time.
func (o *outcome) mark(c counter) {
	if o.marks == len(o.at) {
		return
	}
	n, err := c.Read()
	o.firstErr = errors.Join(o.firstErr, err)
	o.at[o.marks], o.counts[o.marks] = time.Now(), n
	o.marks++
}

// offer sends a load and counts what arrives. The contender must be awake and
// taught.
func (l *lane) offer(ctx context.Context, load gen.Load) (*outcome, error) {
	if err := l.counter.Reset(); err != nil {
		return nil, err
	}
	o := &outcome{}
	load.Mark = func() { o.mark(l.counter) }
	var err error
	if o.sent, err = l.source.Send(ctx, load); err != nil {
		return nil, err
	}
	if o.received, err = l.drain(ctx, max(still, load.Still)); err != nil {
		return nil, err
	}
	if o.firstErr != nil {
		return nil, o.firstErr
	}
	l.balance(o)
	seconds := o.at[1].Sub(o.at[0]).Seconds()
	o.frames = float64(o.counts[1].Segments-o.counts[0].Segments) / seconds
	o.bits = 8 * float64(o.counts[1].Bytes-o.counts[0].Bytes) / seconds
	return o, nil
}

const (
	// still is how long a counter must stand still for the queues to be empty,
	// where only rates count, and lossStill where every frame does.
	still     = 5 * time.Millisecond
	lossStill = 50 * time.Millisecond
	// drainLimit is how long a contender may take to empty them.
	drainLimit = time.Second
)

// drain waits until no more frames arrive.
func (l *lane) drain(ctx context.Context, still time.Duration) (sink.Counts, error) {
	before, err := l.counter.Read()
	for end := time.Now().Add(drainLimit); err == nil && ctx.Err() == nil; {
		time.Sleep(still)
		var now sink.Counts
		if now, err = l.counter.Read(); now == before || time.Now().After(end) {
			return now, err
		}
		before = now
	}
	return before, errors.Join(err, ctx.Err())
}

// latencies are those of the last offer.
func (l *lane) latencies() (*hdrhistogram.Histogram, error) { return l.counter.Latencies() }

// lanes are those of a case; a rig may be without.
type lanes map[*rig]*lane

// devices makes a lane on each rig, with the path's ordinary generator. They are
// closed by the function returned.
func (b *run) devices(ctx context.Context, g grid, size probe.Size, flows ...probe.Flows) (lanes, func() error, error) {
	return b.eachLane(ctx, g, func(r *rig) (*lane, error) { return newLane(ctx, r, size, flows...) })
}

// eachLane makes lanes one by one. A contender that fails gets none.
func (b *run) eachLane(ctx context.Context, g grid, open func(*rig) (*lane, error)) (lanes, func() error, error) {
	m := lanes{}
	for _, r := range g {
		err := b.once(ctx, r, func() error {
			l, err := open(r)
			if l != nil {
				m[r] = l
			}
			return err
		})
		if err != nil {
			return nil, nil, errors.Join(err, m.close())
		}
	}
	return m, m.close, nil
}

// close closes all lanes. With a contender that has ended its devices may have
// gone, and what was attached to them.
func (m lanes) close() error {
	var errs []error
	for r, l := range m {
		if err := l.close(); !r.gone && r.alive() == nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
