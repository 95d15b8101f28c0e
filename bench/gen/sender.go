// Package gen is the sending end of the bench. A Sender offers a load through
// AF_PACKET sockets with sendmmsg, from one thread that stays on one CPU; a
// LiveSender has the kernel send XDP frames. Both send probes with consecutive
// sequence numbers and say how many the kernel took, which is not yet how many
// arrived.
//
// The package measures nothing. A sender is used by one goroutine at a time.
package gen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// Load is what to offer.
type Load struct {
	Rate   float64       // frames/s over all streams; 0 = as fast as the sender can
	Length time.Duration // of the trial
	Frames uint64        // if not 0, the trial ends after so many frames instead
	// Warm is sent before, at the same rate, and doesn't count.
	Warm time.Duration
	// Stamp puts the time of sending into the frames. Frames of one batch have
	// the same time. (Not the time at which they were due: near its own limit the
	// sender is late by itself, by more than any contender.)
	Stamp bool
	// Sleep gives the CPU away between frames that are due, and sends them in
	// small bursts at fixed times, instead of waiting busily. For trials that
	// measure the machine's load: however long a contender holds the sender up, it
	// wakes up equally often.
	Sleep bool
	// Still is how long nothing must arrive after a trial for its stream to be
	// over, for senders that receive, too; 0 means a few milliseconds.
	Still time.Duration
	// Mark, if not nil, is called on the sender's thread when the trial begins
	// (after Warm) and when its time is over. It must be quick.
	Mark func()
}

// WarmUp is what goes before: the same, but that its frames have no stamps, for
// their latencies don't count either.
func (l Load) WarmUp() Load {
	l.Length, l.Frames, l.Stamp = l.Warm, 0, false
	return l
}

// Sent is what became of a Load.
type Sent struct {
	// Frames were handed to the kernel during the trial.
	Frames uint64
	// Elapsed is how long that took: Load.Length unless the sender was held up
	// for longer than the trial's slack, or the context ended.
	Elapsed time.Duration
	// Warm is how many frames were sent before the trial, for Load.Warm, and After
	// how many by a sender that can't stop at once when the trial was over.
	Warm, After uint64
	// Stopping is the processor time that the sender took after the trial to come
	// to an end.
	Stopping time.Duration
	// Held counts calls that found no room: the contender pushed back.
	Held uint64
}

const (
	// slack is how much longer than asked a trial may take to get its last
	// frames out, as a share of its length.
	slack = 0.005
	// nap is the distance of a sleeping sender's bursts. To wake up from idle takes
	// a virtual machine some 45 µs of processor time: more often than this, and the
	// sender's own waking would be most of what is measured.
	nap = 500 * time.Microsecond
)

// CPU is where generators run; the contenders' own threads belong elsewhere.
const CPU = 0

// Sender sends from the far ends of a topology.
type Sender struct {
	streams []*stream
	turn    int
	clock   Clock
}

// NewSender makes a sender of the given flows, each from its port From. Streams
// take turns.
func NewSender(t *topo.Topology, size probe.Size, flows ...probe.Flows) (*Sender, error) {
	c, err := NewClock()
	if err != nil {
		return nil, err
	}
	s := &Sender{clock: c}
	for _, f := range flows {
		st, err := newStream(t.Ports[f.From], size, f)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.streams = append(s.streams, st)
	}
	return s, nil
}

// Sequence is the next sequence number of the i-th flow. It begins at 0.
func (s *Sender) Sequence(i int) uint32 { return s.streams[i].seq }

// Renumber has all flows go on at a sequence number, so that a receiver can tell
// this sender's frames from those of another that are still on their way.
func (s *Sender) Renumber(seq uint32) {
	for _, st := range s.streams {
		st.seq = seq
	}
}

// Send offers one load and returns when it is over. The error is the context's,
// or that of a socket that can't send any more.
func (s *Sender) Send(ctx context.Context, l Load) (Sent, error) {
	var sent Sent
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is pinned and ends
		if err = sysio.SetAffinity(CPU); err != nil {
			return
		}
		if l.Sleep { // or the kernel rounds naps up by 50 µs
			if err = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
				err = fmt.Errorf("set timer slack: %w", err)
				return
			}
		}
		sent, err = s.run(ctx, l)
	}()
	<-done
	return sent, err
}

func (s *Sender) run(ctx context.Context, l Load) (Sent, error) {
	var warm uint64
	if l.Warm > 0 {
		w, err := s.phase(ctx, l.WarmUp())
		if err != nil {
			return Sent{}, err
		}
		warm = w.Frames
	}
	if l.Mark != nil {
		l.Mark()
	}
	sent, err := s.phase(ctx, l)
	sent.Warm = warm
	if l.Mark != nil {
		l.Mark()
	}
	return sent, err
}

func (s *Sender) phase(ctx context.Context, l Load) (Sent, error) {
	p := NewPace(l.Rate, l.Length, l.Frames)
	end := l.Length
	switch {
	case l.Frames > 0:
		end = math.MaxInt64
	case l.Rate > 0:
		end += time.Duration(float64(end) * slack)
		if l.Sleep {
			end = max(end, l.Length+nap) // its last frames go out when the time is over
		}
	}
	limit := batch
	if len(s.streams) > 1 {
		limit = max(1, batch/len(s.streams)) // short turns, so that all ports are busy at once
	}
	var sent Sent
	begin := s.clock.Now()
	for {
		if sent.Held%1024 == 1023 { // nothing else would end a trial that waits for frames to go
			if err := ctx.Err(); err != nil {
				return sent, err
			}
		}
		now := s.clock.Now()
		sent.Elapsed = time.Duration(now - begin)
		if sent.Frames >= p.Total || sent.Elapsed >= end {
			return sent, s.wait(ctx, l, sent.Elapsed)
		}
		passed := sent.Elapsed
		if l.Sleep && passed < l.Length { // a burst is what is due at its beginning, or one frame a call would be due without end
			passed -= passed % nap
		}
		n := p.Due(passed, sent.Frames, limit)
		if n == 0 {
			if err := ctx.Err(); err != nil {
				return sent, err
			}
			if l.Sleep {
				rest := nap - sent.Elapsed%nap
				if sent.Elapsed < l.Length {
					rest = min(rest, l.Length-sent.Elapsed)
				}
				sleep(rest)
			}
			continue
		}
		stamp := int64(0)
		if l.Stamp {
			stamp = now
		}
		st := s.streams[s.turn]
		k, errno := st.send(n, stamp)
		if errno != 0 {
			return sent, fmt.Errorf("send %d frames: %w", n, errno)
		}
		sent.Frames += uint64(k)
		if s.turn++; s.turn == len(s.streams) {
			s.turn = 0
			if err := ctx.Err(); err != nil {
				return sent, err
			}
		}
		if k == 0 {
			sent.Held++
		}
	}
}

// wait fills up the trial's time when the last frame went out before its end.
func (s *Sender) wait(ctx context.Context, l Load, elapsed time.Duration) error {
	if rest := l.Length - elapsed; rest > 0 {
		sleep(rest)
	}
	return ctx.Err()
}

// sleep blocks the thread, not only the goroutine: a goroutine would come back
// by way of Go's timers, which are coarser.
func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	for unix.Nanosleep(&ts, &ts) == syscall.EINTR {
	}
}

// Close closes the sockets.
func (s *Sender) Close() error {
	var errs []error
	for _, st := range s.streams {
		errs = append(errs, unix.Close(st.fd))
	}
	s.streams = nil
	return errors.Join(errs...)
}
