package guest

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/testbed/dpdk"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// Bounce is two guests whose driver is DPDK's: whatever one receives it sends
// back through the other's card, so that bounceFrames go round in both
// directions as fast as the slower of switch and guests lets them. It costs the
// guests less for a frame than a Duplex, and is what others quote.
type Bounce struct {
	peer  *dpdk.Peer
	start sink.Counts
}

// bounceBursts of 32 frames go round in each direction: a ring is never full.
const bounceBursts = 4

// OpenBounce puts the guests on both ports of a topology. size is a plain one.
func OpenBounce(t *topo.Topology, size int, huge bool) (b *Bounce, err error) {
	err = t.Do(func() {
		b = &Bounce{peer: dpdk.Start(t.TB(), dpdk.Options{
			Host: t.Switch, Sockets: []string{t.Ports[0].Socket, t.Ports[1].Socket}, Size: size, CPU: gen.CPU, Huge: huge,
		})}
	})
	if err != nil {
		return nil, fmt.Errorf("start DPDK guests: %w", err)
	}
	return b, nil
}

// Send implements the bench's generator. There is but one rate, the highest.
func (b *Bounce) Send(ctx context.Context, l gen.Load) (sent gen.Sent, err error) {
	if err := b.peer.Go(bounceBursts); err != nil {
		return sent, err
	}
	gen.Wait(ctx, l.Warm)
	before, begin := b.sent(&err), time.Now()
	l.Mark()
	gen.Wait(ctx, l.Length)
	l.Mark()
	sent = gen.Sent{Frames: b.sent(&err) - before, Elapsed: time.Since(begin)}
	if err == nil {
		err = b.peer.Halt()
	}
	if err == nil {
		err = ctx.Err()
	}
	return sent, err
}

func (b *Bounce) sent(err *error) (sum uint64) {
	for card := range 2 {
		c, e := b.peer.Card(card)
		if e != nil {
			*err = e
		}
		sum += c.Sent
	}
	return sum
}

func (b *Bounce) total() (c sink.Counts, err error) {
	for card := range 2 {
		n, err := b.peer.Card(card)
		if err != nil {
			return c, err
		}
		c.Frames += n.Received
		c.Segments += n.Received
		c.Bytes += n.Bytes
	}
	return c, nil
}

// Read is what both cards have received since the last Reset.
func (b *Bounce) Read() (sink.Counts, error) {
	c, err := b.total()
	c.Frames -= b.start.Frames
	c.Segments -= b.start.Segments
	c.Bytes -= b.start.Bytes
	return c, err
}

// Reset sets the counts to zero.
func (b *Bounce) Reset() (err error) {
	b.start, err = b.total()
	return err
}

// Latencies are none: the frames carry no stamps.
func (b *Bounce) Latencies() (*hdrhistogram.Histogram, error) { return sink.NewHistogram(), nil }

// Close ends the guests.
func (b *Bounce) Close() error {
	b.peer.Close()
	return nil
}
