package stp

import "cmp"

// vector is a spanning tree priority vector (17.5): a claim that from port
// `port` of bridge `bridge` the root is `root`, at path cost `cost`. Lower is
// better, component by component in the order of the fields.
//
// The fifth component of the standard's vectors, the identifier of the port
// that received the claim, is not kept: it is the port that holds the vector,
// and updtRolesTree compares it where it decides.
type vector struct {
	root   BridgeID // RootBridgeID
	cost   uint32   // RootPathCost
	bridge BridgeID // DesignatedBridgeID
	port   PortID   // DesignatedPortID
}

// compare is negative if v is better than w, 0 if they are the same.
func (v *vector) compare(w *vector) int {
	if c := v.root.Compare(w.root); c != 0 {
		return c
	}
	if c := cmp.Compare(v.cost, w.cost); c != 0 {
		return c
	}
	if c := v.bridge.Compare(w.bridge); c != 0 {
		return c
	}
	return cmp.Compare(v.port, w.port)
}

// supersedes reports whether a message priority vector v replaces the port
// priority vector w (17.6): it is better, or it comes from the same designated
// port and so is news of what w said, be it better or worse.
func (v *vector) supersedes(w *vector) bool {
	return v.compare(w) < 0 || v.bridge.Addr == w.bridge.Addr && v.port.Port() == w.port.Port()
}

// through is the root path priority vector (17.6): v as it looks from behind a
// port of this path cost. The sum saturates, so that no hostile cost wraps
// round into a good one.
func (v vector) through(pathCost uint32) vector {
	v.cost += min(pathCost, ^uint32(0)-v.cost)
	return v
}

// times is a set of timer parameters, in 1/256 s as in BPDUs: portTimes
// (17.19.22), msgTimes (17.19.15), designatedTimes (17.19.5), rootTimes
// (17.18.7) and BridgeTimes (17.18.4).
type times struct {
	messageAge, maxAge, forwardDelay, helloTime uint16
}

// aged is the message age one bridge further: incremented by one second and
// rounded to the nearest whole second (17.21.23, 17.21.25 c).
func (t times) aged() uint32 {
	return (uint32(t.messageAge) + second + second/2) / second * second
}

// seconds is a duration in 1/256 s as whole seconds, rounded up, within bounds.
// Received times are passed on as they came, but no neighbour's odd value may
// make a timer of this bridge expire at once or never.
func seconds(t uint16, low, high uint32) uint32 {
	return min(max((uint32(t)+second-1)/second, low), high)
}
