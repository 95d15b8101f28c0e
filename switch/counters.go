package vswitch

import "sync/atomic"

// counter has one writer (its worker) and any number of readers, so adding is a
// load and a store, without a locked instruction's wait for other cores.
type counter struct{ v atomic.Uint64 }

func (c *counter) add(n uint64) { c.v.Store(c.v.Load() + n) }
func (c *counter) get() uint64  { return c.v.Load() }

// portCounters are what one worker counts of one port. Padded so that two
// workers' counters never share a cache line.
type portCounters struct {
	rxFrames, rxBytes counter
	txFrames, txBytes counter
	drops             [numReasons]counter
	_                 [64]byte
}

func (c *portCounters) drop(r Reason, frames int) { c.drops[r].add(uint64(frames)) }

// sums adds up the workers' counters of a port.
func (p *port) sums() (rx, tx Traffic, drops [numReasons]uint64) {
	for i := range p.counters {
		c := &p.counters[i]
		rx.Frames += c.rxFrames.get()
		rx.Bytes += c.rxBytes.get()
		tx.Frames += c.txFrames.get()
		tx.Bytes += c.txBytes.get()
		for r := range drops {
			drops[r] += c.drops[r].get()
		}
	}
	for r, n := range drops {
		if Reason(r) >= firstEgressReason {
			tx.Dropped += n
		} else {
			rx.Dropped += n
		}
	}
	return rx, tx, drops
}
