package probe

import "github.com/kvswitch/kvswitch/switch/frame"

// Flows chooses the addresses of consecutive frames: count stations behind From
// talk to as many behind To, each to its own, in turn.
type Flows struct {
	From, To int // port numbers
	Count    int // at least 1
	// Base is the first station's number.
	Base int
	// Broadcast sends every frame to ff:ff:ff:ff:ff:ff instead.
	Broadcast bool
}

// Address is the address pair of the n-th frame.
func (f Flows) Address(n uint32) (dst, src frame.MAC) {
	s := f.Base
	if f.Count > 1 {
		s += int(n % uint32(f.Count))
	}
	src = Station(f.From, s)
	if f.Broadcast {
		return frame.Broadcast, src
	}
	return Station(f.To, s), src
}

// Reverse are the same conversations seen from the other end: sent once, they
// teach a switch where the destinations are.
func (f Flows) Reverse() Flows {
	f.From, f.To = f.To, f.From
	return f
}
