// Package guest plays two virtual machines on one switch: it holds both far ends
// itself, as a hypervisor or a polling driver does, sends probes from the first
// and counts them at the second. The ends are taps (one system call a frame) or
// virtio network cards behind vhost-user (none).
//
// One thread on one CPU does both ends, so that a switch has the other CPUs to
// itself. A Duplex is used by one goroutine.
package guest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// batch is the most frames that are sent or received in a row.
const batch = 64

// end is one far end. None of its methods blocks.
type end interface {
	// transmit stamps and sends up to n frames of its flows and says how many
	// there was room for. stamp is CLOCK_MONOTONIC in nanoseconds, or 0.
	transmit(n int, stamp int64) (int, error)
	// receive takes up to batch frames that have arrived.
	receive(t *tally) (int, error)
	// send makes it send these flows from now on, numbered from seq.
	send(f probe.Flows, seq uint32)
	// sequence is the number of the next frame.
	sequence() uint32
	close() error
}

// Duplex is a pair of far ends: generator and counter in one.
type Duplex struct {
	ends  [2]end
	flows probe.Flows
	clock gen.Clock
	tally tally
}

// Open takes the far ends of a topology that has no devices for them. flows go
// from port 0 to port 1.
func Open(t *topo.Topology, size probe.Size, flows probe.Flows) (d *Duplex, err error) {
	if flows.From != 0 || len(flows.To) != 1 || flows.To[0] != 1 {
		return nil, fmt.Errorf("open guests: flows %+v, want port 0 to port 1", flows)
	}
	d = &Duplex{flows: flows, tally: tally{port: 1, latencies: sink.NewHistogram()}}
	if d.clock, err = gen.NewClock(); err != nil {
		return nil, err
	}
	d.tally.clock = d.clock
	for i, p := range t.Ports[:2] {
		var e end
		switch {
		case p.Socket != "":
			e, err = dialVirtio(p.Socket, size, flows)
		case p.File != nil:
			e, err = newTapEnd(p.File, size, flows)
		default:
			err = fmt.Errorf("open guests: port %d has a device", i)
		}
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.ends[i] = e
	}
	return d, nil
}

// onThread runs f on a thread of its own on the generators' CPU.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := sysio.SetAffinity(gen.CPU)
		if err == nil {
			err = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Send implements the bench's generator: see gen.Load. It returns when what was
// sent has arrived or is lost.
func (d *Duplex) Send(ctx context.Context, l gen.Load) (sent gen.Sent, err error) {
	var warm gen.Sent
	err = onThread(func() (err error) {
		if l.Warm > 0 {
			if warm, err = d.phase(ctx, l.WarmUp()); err != nil {
				return err
			}
		}
		if l.Mark != nil {
			l.Mark()
		}
		if sent, err = d.phase(ctx, l); err != nil {
			return err
		}
		if l.Mark != nil {
			l.Mark()
		}
		return d.drain(ctx, max(still, l.Still))
	})
	sent.Warm = warm.Frames
	return sent, err
}

const (
	// slack is how much longer than asked a trial may take, as with gen.Sender.
	slack = 0.005
	nap   = 50 * time.Microsecond
	// still is how long nothing must arrive for a stream to be over, unless the
	// load says more; lost is how long frames may keep coming.
	still = 5 * time.Millisecond
	lost  = time.Second
)

func (d *Duplex) phase(ctx context.Context, l gen.Load) (sent gen.Sent, err error) {
	p := gen.NewPace(l.Rate, l.Length, l.Frames)
	end := l.Length
	switch {
	case l.Frames > 0:
		end = time.Hour
	case l.Rate > 0:
		end += time.Duration(float64(end) * slack)
	}
	for begin := d.clock.Now(); ; {
		now := d.clock.Now()
		sent.Elapsed = time.Duration(now - begin)
		if sent.Elapsed >= end || sent.Frames >= p.Total && (l.Frames > 0 || sent.Elapsed >= l.Length) {
			return sent, ctx.Err()
		}
		n := p.Due(sent.Elapsed, sent.Frames, batch)
		if n > 0 {
			stamp := int64(0)
			if l.Stamp {
				stamp = now
			}
			k, err := d.ends[0].transmit(n, stamp)
			if err != nil {
				return sent, err
			}
			sent.Frames += uint64(k)
			if k == 0 {
				sent.Held++
			}
		}
		got, err := d.receive()
		if err != nil {
			return sent, err
		}
		if n == 0 && got == 0 {
			if err := ctx.Err(); err != nil {
				return sent, err
			}
			if l.Sleep {
				sleep(nap)
			}
		}
	}
}

// receive takes what has arrived at either end. Only the second counts.
func (d *Duplex) receive() (int, error) {
	var ignored tally
	a, err := d.ends[0].receive(&ignored)
	if err != nil {
		return 0, err
	}
	b, err := d.ends[1].receive(&d.tally)
	return a + b, err
}

// drain receives until nothing comes any more.
func (d *Duplex) drain(ctx context.Context, still time.Duration) error {
	begin := time.Now()
	for last := begin; time.Since(last) < still && time.Since(begin) < lost; {
		n, err := d.receive()
		if err != nil {
			return err
		}
		if n > 0 {
			last = time.Now()
		}
	}
	return ctx.Err()
}

func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // a signal only makes it shorter
}

// Teach has every station speak once, those at the second end first.
func (d *Duplex) Teach(ctx context.Context) error {
	defer d.Renumber(d.Sequence())
	d.ends[1].send(d.flows.Lesson(1), 0)
	d.ends[0].send(d.flows, 0)
	return onThread(func() error {
		for _, e := range []end{d.ends[1], d.ends[0]} {
			for {
				left := d.flows.Frames() - int(e.sequence())
				if left <= 0 {
					break
				}
				if _, err := e.transmit(min(batch, left), 0); err != nil {
					return err
				}
				if _, err := d.receive(); err != nil {
					return err
				}
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			if err := d.drain(ctx, still); err != nil {
				return err
			}
		}
		return nil
	})
}

// Audit enters everything that arrives at the second end during send into l.
func (d *Duplex) Audit(l *sink.Ledger, send func() (uint64, error)) (sink.Outcome, error) {
	d.tally.ledger = l
	sent, err := send()
	d.tally.ledger = nil
	return l.Close(sent, 0), err
}

// Sequence is the number of the next frame. It begins at 0.
func (d *Duplex) Sequence() uint32 { return d.ends[0].sequence() }

// Renumber goes on at a sequence number: see gen.Sender.
func (d *Duplex) Renumber(seq uint32) { d.ends[0].send(d.flows, seq) }

// Read is what has arrived since the last Reset.
func (d *Duplex) Read() (sink.Counts, error) { return d.tally.counts, nil }

// Latencies are those since the last Reset.
func (d *Duplex) Latencies() (*hdrhistogram.Histogram, error) {
	h := sink.NewHistogram()
	h.Merge(d.tally.latencies)
	return h, nil
}

// Reset sets all counts to zero.
func (d *Duplex) Reset() error {
	d.tally.counts, d.tally.next = sink.Counts{}, 0
	d.tally.latencies.Reset()
	return nil
}

// Close gives the ends back.
func (d *Duplex) Close() error {
	var errs []error
	for i, e := range d.ends {
		if e != nil {
			errs = append(errs, e.close())
		}
		d.ends[i] = nil
	}
	return errors.Join(errs...)
}
