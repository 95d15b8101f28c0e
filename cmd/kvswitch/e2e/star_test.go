package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// star is a host with ports p0, p1 … on which a switch is to run, and a station
// at the far end of each port's cable.
type star struct {
	t        *testing.T
	host     *netns.Host
	far      *netns.Host
	ports    []string
	stations []*netns.Station
}

// newStar lays n cables.
func newStar(t *testing.T, lab *netns.Lab, name string, n int) *star {
	t.Helper()
	s := &star{t: t, host: lab.Host(name), far: lab.Host(name + "-far")}
	for i := range n {
		port := fmt.Sprintf("p%d", i)
		lab.Cable(s.host, port, s.far, port)
		s.ports = append(s.ports, port)
		s.stations = append(s.stations, s.far.Station(port))
	}
	return s
}

// send puts frames on the cable of a port.
func (s *star) send(port int, frames ...[]byte) {
	s.t.Helper()
	s.stations[port].Send(frames...)
}

// A sweep follows a round of frames through the switch: each port sends a
// broadcast of its own, and since a switch keeps the order between two ports,
// whoever has them all has everything that went before.
type sweep struct {
	number uint64
	// to is where it is sent: everybody.
	to frame.MAC
	// tags are the tags under which port i broadcasts; one zero tag if nil.
	// Whoever hears a broadcast hears all that the VLAN has.
	tags func(port int) []frame.Tag
	// heard is how many broadcasts port i is to hear in all.
	heard func(port int) int
}

// plainSweep is for switches without VLANs: everybody hears everybody.
func plainSweep(ports int) *sweep {
	return &sweep{
		to:    frame.Broadcast,
		tags:  func(int) []frame.Tag { return []frame.Tag{0} },
		heard: func(int) int { return ports - 1 },
	}
}

// sweepAmong is for a switch without VLANs of which only some ports forward.
func sweepAmong(ports ...int) *sweep {
	w := plainSweep(len(ports))
	w.tags = func(port int) []frame.Tag {
		if slices.Contains(ports, port) {
			return []frame.Tag{0}
		}
		return nil
	}
	w.heard = func(port int) int {
		if slices.Contains(ports, port) {
			return len(ports) - 1
		}
		return 0
	}
	return w
}

// sweepPatience is how long the last broadcast of a sweep may take.
const sweepPatience = 20 * time.Second

// sweepSource is the address that a port's broadcasts come from; it never moves.
func sweepSource(port int) frame.MAC { return frame.MAC{0x02, 0, 0, 0xff, 0, byte(port)} }

// settle sends one sweep through the star and returns what each port heard
// before it, in order.
func (s *star) settle(w *sweep) (heard [][][]byte, err error) {
	s.t.Helper()
	w.number++
	lost := backlogDrops()
	body := fmt.Sprintf("sweep number %d", w.number)
	for i := range s.ports {
		for _, tag := range w.tags(i) {
			if tag == 0 {
				s.send(i, ether(w.to, sweepSource(i), body))
			} else {
				s.send(i, ether(w.to, sweepSource(i), body, tag))
			}
		}
	}
	heard = make([][][]byte, len(s.ports))
	deadline := time.Now().Add(sweepPatience)
	for i, station := range s.stations {
		for marks := 0; marks < w.heard(i); {
			f, ok := station.Recv(time.Until(deadline))
			switch {
			case !ok:
				return heard, fmt.Errorf("port %s of %s heard %d of %d broadcasts of the sweep (the kernel lost %d frames meanwhile, of everybody on this machine)",
					s.ports[i], s.host, marks, w.heard(i), backlogDrops()-lost)
			case isSweep(f, body):
				marks++
			case isBPDU(f): // the switch's own
			default:
				heard[i] = append(heard[i], f)
			}
		}
	}
	return heard, nil
}

// backlogDrops is how many frames the kernel has lost between veth ends because
// a processor's backlog was full: a flood elsewhere on the machine does that,
// and then a test that counts on every frame can't pass.
func backlogDrops() (n uint64) {
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 {
			dropped, err := strconv.ParseUint(f[1], 16, 32)
			if err != nil {
				return 0
			}
			n += dropped
		}
	}
	return n
}

// isSweep reports a broadcast of the sweep that says body, tagged or not.
func isSweep(f []byte, body string) bool { return strings.HasSuffix(string(f), body) }

// isBPDU reports a frame of the spanning tree, which carries LLC with the
// address 0x42. The tests' own frames to its group address don't.
func isBPDU(f []byte) bool {
	return len(f) > 17 && frame.MAC(f[:6]) == linkLocal(0) && string(f[14:17]) == "\x42\x42\x03"
}
