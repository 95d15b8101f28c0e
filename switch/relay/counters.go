package relay

import "sync/atomic"

// counter has one writer (its relay) and any number of readers, so adding is a
// load and a store, without a locked instruction's wait for other cores.
type counter struct{ v atomic.Uint64 }

func (c *counter) add(n uint64) { c.v.Store(c.v.Load() + n) }
func (c *counter) get() uint64  { return c.v.Load() }

// Counters are what one relay counts of one port. Only that relay writes them;
// any goroutine may read. Padded, so that what two relays write never shares a
// cache line.
type Counters struct {
	rxFrames, rxBytes counter
	txFrames, txBytes counter
	drops             [NumReasons]counter
	_                 [64]byte
}

// Totals are counters of a port, added up.
type Totals struct {
	RxFrames, RxBytes uint64
	TxFrames, TxBytes uint64
	Drops             [NumReasons]uint64
}

// AddTo adds the counters to t.
func (c *Counters) AddTo(t *Totals) {
	t.RxFrames += c.rxFrames.get()
	t.RxBytes += c.rxBytes.get()
	t.TxFrames += c.txFrames.get()
	t.TxBytes += c.txBytes.get()
	for r := range t.Drops {
		t.Drops[r] += c.drops[r].get()
	}
}
