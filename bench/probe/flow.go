package probe

import "github.com/kvswitch/kvswitch/switch/frame"

// Flows chooses the addresses of consecutive frames from one port: the
// destination ports take turns, and within each pair of ports Count stations
// talk to as many others, each to its own.
type Flows struct {
	From  int   // port number
	To    []int // port numbers, at least one unless Broadcast
	Count int   // stations in each pair of ports, at least 1
	Base  int   // the first station's number
	// Stations, if there are any, are the numbers of the Count stations, in place
	// of those from Base on.
	Stations []int
	// OneSource has the station Base send all frames, OneTarget has it receive
	// all, so that only the other end has Count addresses.
	OneSource, OneTarget bool
	// Broadcast sends every frame to ff:ff:ff:ff:ff:ff instead.
	Broadcast bool
}

// OneWay are the flows from port 0 to port 1, of so many stations each.
func OneWay(count int) Flows { return Flows{From: 0, To: []int{1}, Count: count} }

// Ring has every port send to the next, the last to the first.
func Ring(ports int) []Flows {
	flows := make([]Flows, ports)
	for i := range flows {
		flows[i] = Flows{From: i, To: []int{(i + 1) % ports}, Count: 1}
	}
	return flows
}

// Mesh has every port send to every other in turn.
func Mesh(ports int) []Flows {
	flows := make([]Flows, ports)
	for i := range flows {
		flows[i] = Flows{From: i, Count: 1}
		for p := range ports {
			if p != i {
				flows[i].To = append(flows[i].To, p)
			}
		}
	}
	return flows
}

// Address is the address pair of the n-th frame.
func (f Flows) Address(n uint32) (dst, src frame.MAC) {
	if f.Broadcast {
		return frame.Broadcast, Station(f.From, f.station(n))
	}
	to := f.To[0]
	if k := uint32(len(f.To)); k > 1 {
		to, n = f.To[n%k], n/k
	}
	here, there := f.station(n), f.station(n)
	if f.OneSource {
		here = f.Base
	}
	if f.OneTarget {
		there = f.Base
	}
	return Station(to, there), Station(f.From, here)
}

func (f Flows) station(n uint32) int {
	if len(f.Stations) > 0 {
		return f.Stations[int(n)%len(f.Stations)]
	}
	if f.Count > 1 {
		return f.Base + int(n%uint32(f.Count))
	}
	return f.Base
}

// Frames is the number of frames after which the address pairs repeat.
func (f Flows) Frames() int { return max(1, f.Count, len(f.Stations)) * max(1, len(f.To)) }

// Lesson is what the given port sends once so that a switch learns the
// destinations there: each of its stations to the first of port From.
func (f Flows) Lesson(to int) Flows {
	return Flows{
		From: to, To: []int{f.From}, Count: f.Count, Base: f.Base, Stations: f.Stations,
		OneSource: f.OneTarget, OneTarget: f.OneSource,
	}
}
