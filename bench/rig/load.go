package rig

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/sink"
)

// Outcome is what one load did.
type Outcome struct {
	Sent     gen.Sent
	Received sink.Counts // until nothing came any more, warm-up included
	// Frames are the frames/s received within the trial's time only; of
	// super-frames, their segments.
	Frames float64
	// Fault is what no switch may do to frames, or "".
	Fault string
}

// stopwatch reads a counter at the beginning and the end of the trial's time.
type stopwatch struct {
	counter counter
	marks   int
	at      [2]time.Time
	counts  [2]sink.Counts
	err     error
}

// mark is called at the beginning and the end of the trial's time.
func (w *stopwatch) mark() {
	if w.marks == len(w.at) {
		return
	}
	n, err := w.counter.Read()
	w.err = errors.Join(w.err, err)
	w.at[w.marks], w.counts[w.marks] = time.Now(), n
	w.marks++
}

// rate is the frames/s between the two marks; of super-frames, their segments.
func (w *stopwatch) rate() float64 {
	return float64(w.counts[1].Segments-w.counts[0].Segments) / w.at[1].Sub(w.at[0]).Seconds()
}

// Offer sends a load and counts what arrives. The contender must be awake and
// taught.
func (l *Lane) Offer(ctx context.Context, load gen.Load) (*Outcome, error) {
	if err := l.counter.Reset(); err != nil {
		return nil, err
	}
	w := &stopwatch{counter: l.counter}
	load.Mark = w.mark
	o := &Outcome{}
	var err error
	if o.Sent, err = l.source.Send(ctx, load); err != nil {
		return nil, err
	}
	if o.Received, err = l.drain(ctx, max(Still, load.Still)); err != nil {
		return nil, err
	}
	if w.err != nil {
		return nil, w.err
	}
	l.balance(o)
	o.Frames = w.rate()
	return o, nil
}

const (
	// Still is how long a counter must stand still for the queues to be empty,
	// where only rates count, and LossStill where every frame does.
	Still     = 5 * time.Millisecond
	LossStill = 50 * time.Millisecond
	// drainLimit is how long a contender may take to empty them.
	drainLimit = time.Second
)

// drain waits until no more frames arrive.
func (l *Lane) drain(ctx context.Context, still time.Duration) (sink.Counts, error) {
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

// Rehearse offers a moment of a load in which no frame counts yet: the contender,
// which stood stopped, has seen it when the trial begins.
func (l *Lane) Rehearse(ctx context.Context, rate float64) error {
	const length = 20 * time.Millisecond
	_, err := l.Offer(ctx, gen.Load{Rate: rate, Length: length})
	return err
}

// Latencies are those of the last Offer, in nanoseconds.
func (l *Lane) Latencies() (*hdrhistogram.Histogram, error) { return l.counter.Latencies() }

// ReadPort is what was counted at one port since the last Offer began. Only lanes
// of devices count by port.
func (l *Lane) ReadPort(port int) (sink.Counts, error) {
	c, ok := l.counter.(*sink.Counter)
	if !ok {
		return sink.Counts{}, fmt.Errorf("read port %d: this generator does not count by port", port)
	}
	return c.ReadPort(port)
}

// Ping records round trips of ICMP echoes from port 0 to port 1, a thousand a
// second, or between guests a hundred. The topology must have stacks.
func (r *Rig) Ping(ctx context.Context, length time.Duration, h *hdrhistogram.Histogram) (gen.Pings, error) {
	if r.VMs != nil {
		return r.VMs.Ping(ctx, length, h)
	}
	return gen.Ping(ctx, r.Top.Ports[0].Host, r.Top.Ports[1].Addr, length, h)
}

// Bulk sends one stream of the kernel's stack, "tcp" or "udp", from port 0 to port
// 1 and returns what arrived of it, in bit/s, after it had so much time to get up to
// speed. Guests send TCP. The topology must have stacks.
func (r *Rig) Bulk(ctx context.Context, network string, warm, length time.Duration) (bits float64, err error) {
	if r.VMs != nil {
		return r.VMs.Bulk(ctx, length)
	}
	from, to := r.Top.Ports[0], r.Top.Ports[1]
	return gen.Bulk(ctx, network, from.Host, to.Host, to.Addr, warm, length)
}
