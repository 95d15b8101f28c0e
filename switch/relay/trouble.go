package relay

import "sync/atomic"

// Trouble is something that an operator ought to know of although frames pass,
// or although dropping them is all that there is to do.
type Trouble uint8

// The kinds of trouble.
const (
	TableFull   Trouble = iota // the table's limit is reached: a station was not learned, or gave way
	PortFull                   // a station was not learned: the port's limit is reached
	OwnAddress                 // a frame came in that has the switch's own address as its source
	NumTroubles                // how many kinds there are
)

// Troubles counts the frames, or runs of them, that each kind came with. Relays
// count; the control side looks once a second.
type Troubles [NumTroubles]atomic.Uint64

// trouble counts one for port p, and lets the control side know that there is
// something to look at.
func (r *Relay) trouble(p *Port, what Trouble) {
	if r.trace != nil || p.Troubles == nil {
		return
	}
	p.Troubles[what].Add(1)
	r.control.Troubled()
}
