package vhostuser

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// ring is one virtqueue of the port, the same one for the port's lifetime.
//
// mu is what keeps workers and the control side apart. A worker holds it for a
// batch: from Rx to Release on a ring that the guest sends with, during Tx on
// one that it receives with. The control side takes it to exchange live, and
// unmaps memory only after every ring has let go of it; so frames that are lent,
// which other ports read in the meantime, keep their mapping.
type ring struct {
	port  *Port
	index int
	mu    sync.Mutex
	live  atomic.Pointer[live] // nil: stopped; stored only with mu held
	batch *virtq.Batch         // chains taken from live and not returned; with mu
	call  sysio.Signal         // with mu

	broken atomic.Pointer[brokenRing] // why live went away by itself
	fault  atomic.Uint32              // virtq.Fault of the last chain refused, or 0

	kicks  atomic.Uint64 // batches found after the guest had to notify
	polls  atomic.Uint64 // batches found by looking
	calls  atomic.Uint64 // notifications of the guest
	frames atomic.Uint64
	errors atomic.Uint64 // chains and frames refused
}

// brokenRing is what is left of live when a worker had to stop it.
type brokenRing struct {
	reason error
	memory bool          // guest memory could not be accessed
	last   *virtq.Device // where it was, if it ran
	told   bool          // the front end was told; Port.mu guards it
}

// live is a started ring. Its configuration never changes: the control side
// makes another one, which resumes where this one was.
type live struct {
	*virtq.Device
	enabled   bool // else what the guest sends is discarded, and it is sent nothing
	mergeable bool
	hdrLen    int
	offloads  frame.Offloads // what may be unfinished, in this ring's direction
	ecn       bool           // and marked with ECN
	kick      bool           // the guest notifies; else it must be polled
	call      int            // eventfd to notify the guest with, or -1
	logFD     int            // eventfd to signal that the dirty log changed, or -1
}

// exchange makes next what runs; it goes on where the last one was, in this
// process or an earlier one. A nil next stops the ring: afterwards no worker uses
// it, nor anything that it refers to. So does an error, which says why next can't
// run.
func (r *ring) exchange(next *live, v *vring) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.live.Load(); l != nil {
		v.last = l.Device
	} else if b := r.broken.Load(); b != nil && b.last != nil {
		v.last = b.last
	}
	switch {
	case next == nil:
	case v.last != nil:
		next.Resume(v.last)
		v.last = nil
	default:
		if fault := guarded(func() { err = next.Recover() }); fault != nil {
			err = fault
		}
		if err != nil {
			next = nil
		}
	}
	r.batch.Reset() // whatever ran before, a ring begins with no chains taken
	old := r.live.Swap(next)
	if r.index%2 == 1 {
		r.port.queues[r.index/2].bell.ring()
	}
	// A fault here will meet the worker, too, which reports it.
	guarded(func() {
		switch {
		case next != nil && r.index%2 == 0:
			next.DisableKicks() // new buffers are found when there is something to put in
		case next == nil && old != nil:
			old.EnableKicks() // whoever serves the ring next may wait for one
		}
	})
	return err
}

// fail stops the ring for what its driver did and tells the control side, which
// reports it. The caller holds mu.
func (r *ring) fail(reason error, memory bool) {
	l := r.live.Load()
	if l == nil {
		return
	}
	r.live.Store(nil)
	r.batch.Reset()
	r.broken.Store(&brokenRing{reason: reason, memory: memory, last: l.Device})
	r.port.attend()
}

// notify wakes the guest if it wants to be. Whatever the front end does to the
// descriptor, that does not block.
func (r *ring) notify(l *live) {
	if l.call >= 0 && l.WantCall() {
		r.calls.Add(1)
		r.call.Send(l.call)
	}
	if l.logFD >= 0 {
		r.call.Send(l.logFD)
	}
}

// guard lets a fault in guest memory panic instead of ending the process, until
// unguard, and reports whether the caller was ready for faults before. Every
// function that accesses guest memory calls the first and defers one that calls
// the second, and frame.FaultOf.
func guard() (before bool) { return debug.SetPanicOnFault(true) }

func unguard(before bool) {
	if !before {
		debug.SetPanicOnFault(false)
	}
}

// guarded runs f, which accesses guest memory, and makes an error of a fault.
// The entries from workers do the same without a closure.
func guarded(f func()) (err error) {
	before := guard()
	defer func() {
		unguard(before)
		if fault := frame.FaultOf(recover()); fault != nil {
			err = fmt.Errorf("guest memory can't be accessed: %w", fault)
		}
	}()
	f()
	return nil
}
