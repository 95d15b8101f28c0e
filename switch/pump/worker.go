// Package pump drives relays: each Worker is one thread that owns a set of receive
// queues and takes every frame they lend through its relay from end to end. It
// decides nothing but when to look at a queue, when to spin and when to sleep, and
// it guards against faults in memory that a peer took away.
//
// It knows nothing of the control side, which hands it views and queues (Load)
// and waits until they are in use (Await). A Worker's Run is one goroutine's; its
// other methods may be called from any.
package pump

import (
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// Always is a budget that never ends: the worker never sleeps.
const Always = -1

// Load is what a worker forwards by, and what it serves. It never changes once a
// worker has it.
type Load struct {
	View   *relay.View
	Queues []Queue
}

// Worker is one forwarding thread. Only Run touches its fields, except next, seen,
// adopted and stop.
type Worker struct {
	intake
	id     int
	budget time.Duration // how long it spins after work; Always = for ever
	log    *slog.Logger

	next    atomic.Pointer[Load]
	seen    atomic.Uint64 // Seq of the newest view it has adopted
	adopted chan struct{} // says that seen has risen
	stop    atomic.Bool

	load     *Load
	forecast forecast
	polled   []polledQueue  // looked at in every turn, unless long empty
	asked    []askedQueue   // looked at when epoll says so
	turn     uint           // counts calls of poll
	busy     bool           // the last one found frames
	wake     *sysio.EventFD // rung by the control side
	ready    *sysio.Epoll   // of the asked queues; asked about while spinning
	all      *sysio.Epoll   // ready, wake, and the polled queues: what sleep waits on
	events   [64]sysio.Event
}

// polledQueue is a queue whose Rx only looks at memory.
type polledQueue struct {
	Queue
	empty uint8 // looks in a row that found nothing, up to cold
}

// While others have frames, a queue that was empty for cold looks is looked at
// every coldEvery-th turn only: a switch with many idle guests spends its time on
// the busy ones, and a first frame waits for some batches of theirs.
const (
	cold      = 64
	coldEvery = 4
)

// askedQueue is a queue whose Rx costs a system call.
type askedQueue struct {
	Queue
	ready bool
}

// askEvery is how many turns of polling pass between two questions to epoll: a
// system call costs as much as looking at ten empty rings. Forwarding
// framesPerTurn frames counts as much as another turn, so that under load the
// asked queues, BPDUs among them, wait for 256 frames at most.
const (
	askEvery      = 16
	framesPerTurn = 16
)

// Values of an event in worker.all that are no queue's.
const (
	valueWake  = ^uint64(0)
	valueReady = ^uint64(0) - 1
	valueOther = ^uint64(0) - 2
)

// New makes worker number id, which drives r; budget is how long it spins after
// work before it sleeps. Close it when Run has returned or never ran.
func New(id int, r *relay.Relay, budget time.Duration, log *slog.Logger) (*Worker, error) {
	w := &Worker{intake: intake{relay: r}, id: id, budget: budget, log: log, adopted: make(chan struct{}, 1), load: new(Load)}
	err := w.open()
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("start worker %d: %w", id, err)
	}
	return w, nil
}

func (w *Worker) open() (err error) {
	if w.wake, err = sysio.NewEventFD(); err != nil {
		return err
	}
	if w.ready, err = sysio.NewEpoll(); err != nil {
		return err
	}
	if w.all, err = sysio.NewEpoll(); err != nil {
		return err
	}
	if err = w.all.Add(w.wake.FD(), valueWake); err != nil {
		return err
	}
	return w.all.Add(w.ready.FD(), valueReady)
}

// Close frees the worker's descriptors. It closes no queue.
func (w *Worker) Close() {
	if w.wake != nil {
		w.wake.Close()
	}
	if w.ready != nil {
		w.ready.Close()
	}
	if w.all != nil {
		w.all.Close()
	}
}

// Give makes l what the worker shall use from its next batch on.
func (w *Worker) Give(l *Load) {
	w.next.Store(l)
	w.wake.Signal()
}

// Await returns when the worker uses no view older than the one numbered seq, or
// has stopped.
func (w *Worker) Await(seq uint64) {
	for w.seen.Load() < seq {
		<-w.adopted
	}
}

// Stop makes Run return.
func (w *Worker) Stop() {
	w.stop.Store(true)
	w.wake.Signal()
}

// Run forwards until Stop. A worker that spins without end has its thread and
// core to itself, so it is pinned; the others leave placement to the kernel,
// which knows what else runs.
func (w *Worker) Run() {
	runtime.LockOSThread()
	sysio.PreciseTimers()
	debug.SetPanicOnFault(true) // see receiveGuarded
	if w.budget == Always {
		pin(w.id)
	}
	var pause pause
	unasked := askEvery // work done since epoll was last asked
	for !w.stop.Load() {
		if l := w.next.Load(); l != w.load {
			w.adopt(l)
		}
		look := unasked >= askEvery
		if look {
			unasked = 0
			w.ask(0)
		}
		n := w.poll()
		unasked += 1 + n/framesPerTurn
		if n > 0 {
			if pause.over() {
				w.forecast.arrived(now())
			}
			continue
		}
		if w.budget == Always || !look {
			continue // the clock is read, and sleep thought of, only now and then
		}
		if w.rest(&pause) {
			unasked = askEvery
		}
	}
	w.adoptedUpTo(math.MaxUint64) // whoever waits need not any more
}

// pause is a time in which no frames come.
type pause struct {
	since time.Time // when it was first noticed; zero = frames have come since
	long  bool      // it is longer than the budget
}

// over ends the pause, and reports whether it was a long one.
func (p *pause) over() (long bool) {
	long = p.long
	*p = pause{}
	return long
}

// rest sleeps, if the pause is long enough for that, and reports whether it did.
func (w *Worker) rest(p *pause) bool {
	if w.budget == 0 {
		w.sleep(forever)
		return true
	}
	t := now()
	if p.since.IsZero() {
		p.since = t
	}
	if t.Sub(p.since) < w.budget {
		return false
	}
	p.long = true
	if from, to, ok := w.forecast.due(); ok && t.Before(to) {
		limit := from.Sub(t)
		if limit <= 0 {
			return false // any moment now
		}
		w.sleep(limit)
		w.forecast.woke(now().Sub(from))
	} else {
		w.sleep(forever)
	}
	p.since = time.Time{}
	return true
}

// now is the clock by which workers spin and foresee; nothing else here reads one.
func now() time.Time { return time.Now() }

// poll gives every queue that may have frames one batch, so that a busy one
// delays the others by no more than that. It returns the number of frames, those
// cut from others included.
func (w *Worker) poll() (frames int) {
	for i := range w.asked {
		q := &w.asked[i]
		if !q.ready {
			continue
		}
		n := w.receive(&q.Queue)
		q.ready = n == frame.BatchSize
		frames += n
	}
	w.turn++
	for i := range w.polled {
		q := &w.polled[i]
		if q.empty == cold && w.busy && (w.turn+uint(i))%coldEvery != 0 {
			continue
		}
		n := w.receive(&q.Queue)
		if n > 0 {
			q.empty = 0
		} else if q.empty < cold {
			q.empty++
		}
		frames += n
	}
	w.busy = frames > 0
	return frames + w.relay.Segments()
}

// ask marks the asked queues that have frames, waiting at most timeout
// milliseconds for one.
func (w *Worker) ask(timeout int) {
	if len(w.asked) == 0 {
		return
	}
	n, err := w.ready.Wait(timeout, w.events[:])
	if err != nil {
		return // only EINTR can be: the next turn asks again
	}
	for i := range w.events[:n] {
		if v := w.events[i].Value(); v < uint64(len(w.asked)) {
			w.asked[v].ready = true
		}
	}
}

// forever is no limit to a sleep.
const forever = time.Duration(math.MaxInt64)

// sleep waits until a queue has frames, the control side rings, or limit is
// over. Every polled queue is armed first, and one that has frames by then
// cancels the sleep: no wake-up is lost.
func (w *Worker) sleep(limit time.Duration) {
	for i := range w.polled {
		if w.polled[i].Arm() {
			return
		}
	}
	for i := range w.asked {
		if w.asked[i].Arm() {
			w.asked[i].ready = true
			return
		}
	}
	var n int
	var err error
	if limit == forever {
		n, err = w.all.Wait(-1, w.events[:])
	} else {
		n, err = w.all.WaitFor(limit, w.events[:])
	}
	if err != nil {
		return
	}
	for i := range w.events[:n] {
		if w.events[i].Value() == valueWake {
			w.wake.Drain()
		}
	}
}

// adopt makes l the worker's load: its queues are polled from now on, and no
// frame is forwarded by an older view any more.
func (w *Worker) adopt(l *Load) {
	keep := make(map[frame.Queue]bool)
	for _, q := range l.Queues {
		keep[q.Queue] = true
	}
	have := make(map[frame.Queue]bool)
	for i := range w.polled {
		q := w.polled[i].Queue.Queue
		if have[q] = keep[q]; !keep[q] && w.budget != Always {
			w.all.Del(q.FD())
		}
	}
	for i := range w.asked {
		q := w.asked[i].Queue.Queue
		if have[q] = keep[q]; !keep[q] {
			w.ready.Del(q.FD())
		}
	}
	w.polled, w.asked = nil, nil
	for _, q := range l.Queues {
		if q.Polled() {
			w.polled = append(w.polled, polledQueue{Queue: q})
			// A worker that never sleeps spares the senders the wake-up call
			// that a descriptor in an epoll set costs them for every frame.
			if !have[q.Queue] && w.budget != Always {
				w.watch(w.all.Add, q, valueOther)
			}
			continue
		}
		set := w.ready.Add
		if have[q.Queue] {
			set = w.ready.Mod
		}
		w.watch(set, q, uint64(len(w.asked)))
		w.asked = append(w.asked, askedQueue{q, true})
	}
	w.load = l
	w.relay.Adopt(l.View)
	w.adoptedUpTo(l.View.Seq)
}

// adoptedUpTo says that no frame is forwarded by a view older than seq.
func (w *Worker) adoptedUpTo(seq uint64) {
	w.seen.Store(seq)
	select {
	case w.adopted <- struct{}{}:
	default: // whoever waits has yet to look
	}
}

// watch puts a queue's descriptor into an epoll set. A queue for which that
// fails is still served while the worker is awake, but can't wake it.
func (w *Worker) watch(set func(fd int, value uint64) error, q Queue, value uint64) {
	if err := set(q.FD(), value); err != nil {
		w.log.Error("watch a port's queue", "port", w.next.Load().View.PortName(q.Port), "err", err)
	}
}

// pin puts worker n's thread on a core of its own, from the last one the process
// may use downwards: the first cores are where most machines handle interrupts.
func pin(n int) {
	cpus, err := sysio.Affinity()
	if err != nil || len(cpus) < 2 {
		return
	}
	sysio.SetAffinity(cpus[len(cpus)-1-n%len(cpus)])
}
