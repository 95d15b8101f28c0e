package vswitch

import (
	"math"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// worker is one forwarding thread. It owns a set of receive queues and takes
// every frame they lend from end to end; nothing is handed to another goroutine
// but BPDUs and news for the control side. Only the worker touches its fields,
// except seen, which the control side reads.
type worker struct {
	id   int
	sw   *Switch
	view *view
	seen atomic.Uint64 // seq of the newest view it has adopted

	// Scratch, allocated once: nothing is allocated per frame.
	frames   [frame.BatchSize]frame.Frame
	metas    [frame.BatchSize]meta
	heads    [frame.BatchSize][18]byte
	rests    [frame.BatchSize][][]byte
	plans    []*plan // by port number
	dirty    []uint16
	batch    uint64 // counts batches
	finisher frame.Finisher
	finished []frame.Out
	segments int // that finisher made since poll began

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
	attachedQueue
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
	attachedQueue
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

func newWorker(id int, s *Switch) (*worker, error) {
	w := &worker{id: id, sw: s, dirty: make([]uint16, 0, maxPorts), finished: make([]frame.Out, 0, 64)}
	for i := range w.rests {
		w.rests[i] = make([][]byte, 0, 32)
	}
	var err error
	if w.wake, err = sysio.NewEventFD(); err != nil {
		return nil, err
	}
	if w.ready, err = sysio.NewEpoll(); err == nil {
		if w.all, err = sysio.NewEpoll(); err == nil {
			if err = w.all.Add(w.wake.FD(), valueWake); err == nil {
				err = w.all.Add(w.ready.FD(), valueReady)
			}
		}
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *worker) close() {
	w.wake.Close()
	if w.ready != nil {
		w.ready.Close()
	}
	if w.all != nil {
		w.all.Close()
	}
}

// run forwards until stop is set. A worker that spins without end has its
// thread and core to itself, so it is pinned; the others leave placement to the
// kernel, which knows what else runs.
func (w *worker) run(stop *atomic.Bool) {
	runtime.LockOSThread()
	sysio.PreciseTimers()
	debug.SetPanicOnFault(true) // see receiveGuarded
	budget := w.sw.cfg.BusyPoll
	if budget == BusyPollAlways {
		pin(w.id)
	}
	var idleSince time.Time
	paused := false     // nothing has come for longer than the budget
	unasked := askEvery // work done since epoll was last asked
	for !stop.Load() {
		if v := w.sw.view.Load(); v != w.view {
			w.adopt(v)
		}
		look := unasked >= askEvery
		if look {
			unasked = 0
			w.ask(0)
		}
		n := w.poll()
		unasked += 1 + n/framesPerTurn
		if n > 0 {
			idleSince = time.Time{}
			if paused {
				paused = false
				w.forecast.arrived(time.Now())
			}
			continue
		}
		if budget == BusyPollAlways || !look {
			continue // the clock is read, and sleep thought of, only now and then
		}
		limit := forever
		var until time.Time
		if budget > 0 {
			now := time.Now()
			if idleSince.IsZero() {
				idleSince = now
			}
			if now.Sub(idleSince) < budget {
				continue
			}
			paused = true
			if from, to, ok := w.forecast.due(); ok && now.Before(to) {
				if limit = from.Sub(now); limit <= 0 {
					continue // any moment now
				}
				until = from
			}
		}
		w.sleep(limit)
		if limit != forever {
			w.forecast.woke(time.Since(until))
		}
		idleSince = time.Time{}
		unasked = askEvery
	}
	// A final look for the view lets whoever waits for its adoption go on.
	w.seen.Store(^uint64(0))
}

// poll gives every queue that may have frames one batch, so that a busy one
// delays the others by no more than that. It returns the number of frames, those
// cut from others included.
func (w *worker) poll() (frames int) {
	w.segments = 0
	for i := range w.asked {
		q := &w.asked[i]
		if !q.ready {
			continue
		}
		n := w.receive(&q.attachedQueue)
		q.ready = n == frame.BatchSize
		frames += n
	}
	w.turn++
	for i := range w.polled {
		q := &w.polled[i]
		if q.empty == cold && w.busy && (w.turn+uint(i))%coldEvery != 0 {
			continue
		}
		n := w.receive(&q.attachedQueue)
		if n > 0 {
			q.empty = 0
		} else if q.empty < cold {
			q.empty++
		}
		frames += n
	}
	w.busy = frames > 0
	return frames + w.segments
}

// receive takes one batch of a queue through the switch.
func (w *worker) receive(q *attachedQueue) int {
	if q.faulter != nil {
		return w.receiveGuarded(q)
	}
	return w.receiveTrusted(q)
}

func (w *worker) receiveTrusted(q *attachedQueue) int {
	n := q.Rx(w.frames[:])
	if n > 0 {
		w.forward(w.view, q.port, w.frames[:n])
		q.Release()
	}
	return n
}

// receiveGuarded is receive for frames in memory that the peer can take away
// while they are read. That costs the peer its port, and nobody else anything.
func (w *worker) receiveGuarded(q *attachedQueue) (n int) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		err, ok := cause.(interface {
			runtime.Error
			Addr() uintptr
		})
		if !ok {
			panic(cause) // a fault of ours
		}
		for _, p := range w.plans {
			p.n, p.bytes = 0, 0
		}
		w.dirty = w.dirty[:0]
		w.finisher.Reset()
		q.faulter.Fault(err)
		q.Release()
		n = 0
	}()
	return w.receiveTrusted(q)
}

// ask marks the asked queues that have frames, waiting at most timeout
// milliseconds for one.
func (w *worker) ask(timeout int) {
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
func (w *worker) sleep(limit time.Duration) {
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

// adopt makes v the worker's view: its queues are polled from now on, and no
// frame is forwarded by an older view any more.
func (w *worker) adopt(v *view) {
	keep := make(map[frame.Queue]bool)
	for _, q := range v.queues[w.id] {
		keep[q.Queue] = true
	}
	have := make(map[frame.Queue]bool)
	for _, q := range w.polled {
		if have[q.Queue] = keep[q.Queue]; !keep[q.Queue] && w.sw.cfg.BusyPoll != BusyPollAlways {
			w.all.Del(q.FD())
		}
	}
	for _, q := range w.asked {
		if have[q.Queue] = keep[q.Queue]; !keep[q.Queue] {
			w.ready.Del(q.FD())
		}
	}
	w.polled, w.asked = nil, nil
	for _, q := range v.queues[w.id] {
		if q.Polled() {
			w.polled = append(w.polled, polledQueue{attachedQueue: q})
			// A worker that never sleeps spares the senders the wake-up call
			// that a descriptor in an epoll set costs them for every frame.
			if !have[q.Queue] && w.sw.cfg.BusyPoll != BusyPollAlways {
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
	for len(w.plans) < len(v.ports) {
		w.plans = append(w.plans, new(plan))
	}
	w.view = v
	w.seen.Store(v.seq)
}

// watch puts a queue's descriptor into an epoll set. A queue for which that
// fails is still served while the worker is awake, but can't wake it.
func (w *worker) watch(set func(fd int, value uint64) error, q attachedQueue, value uint64) {
	if err := set(q.FD(), value); err != nil {
		w.sw.log.Error("watch a port's queue", "port", w.sw.view.Load().portName(q.port), "err", err)
	}
}

// learned tells the control side what learning a source changed. It never
// blocks: an event that nobody reads is only counted.
func (w *worker) learned(r fdb.Result, key fdb.Key, in, from uint16) {
	switch r {
	case fdb.Added:
		w.sw.feed.fdb(EventFDBLearn, key, w.view.portName(in), "")
	case fdb.Moved:
		w.sw.feed.fdb(EventFDBMove, key, w.view.portName(in), w.view.portName(from))
	}
}

// portName is the name of port n, or "" when it is gone.
func (v *view) portName(n uint16) string {
	if int(n) < len(v.ports) && v.ports[n].port != nil {
		return v.ports[n].port.name
	}
	return ""
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
