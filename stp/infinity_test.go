package stp

import (
	"fmt"
	"testing"
	"time"
)

// TestCountToInfinity: a ring hangs on the root by one bridge, and the root is
// cut off. News of it goes round the ring, one hop dearer and older in each
// bridge, until it is as old as max age says; only then does the ring agree on a
// root of its own. How long that takes is bounded by max age (in bridges) and
// the hold count (a second for each BPDU beyond it), and it is over far sooner.
func TestCountToInfinity(t *testing.T) {
	for _, cut := range []struct {
		name string
		do   func(s *sim, root *simBridge, uplink *simLAN)
	}{
		{"link down", func(s *sim, _ *simBridge, uplink *simLAN) { uplink.setUp(s, false) }},
		{"root dies", func(_ *sim, root *simBridge, _ *simLAN) { root.kill() }},
		{"root's priority", func(_ *sim, root *simBridge, _ *simLAN) {
			cfg := root.cfg
			cfg.ID.Priority = 0xf000
			root.configure(cfg)
		}},
	} {
		for _, n := range []int{3, 4, 6, 10, 15} {
			t.Run(fmt.Sprintf("%s, ring of %d", cut.name, n), func(t *testing.T) {
				for _, letter := range []bool{true, false} {
					s := newSim(uint64(n))
					s.toTheLetter = letter
					root := s.addBridge("root", DefaultConfig(BridgeID{0, [6]byte{2, 0, 0, 0, 0, 0xff}}), 0)
					for i := range n {
						s.addBridge(fmt.Sprintf("b%d", i), DefaultConfig(BridgeID{0x8000, [6]byte{2, 0, 0, 0, 0, byte(n - i)}}),
							time.Duration(i)*61*time.Millisecond)
					}
					link := func(x, y *simBridge) *simLAN {
						l := s.addLAN("", 2*time.Millisecond)
						x.addPort(l, DefaultPort())
						y.addPort(l, DefaultPort())
						return l
					}
					ring := s.bridges[1:]
					uplink := link(root, ring[0])
					for i := range ring {
						link(ring[i], ring[(i+1)%n])
					}
					for _, br := range s.bridges {
						for _, p := range br.ports {
							p.apply()
						}
					}
					s.run(60 * time.Second)
					if err := s.verify(); err != nil {
						t.Fatal(err)
					}
					var sent, oldest int
					s.onEvent = func(_ *simBridge, o Output) {
						if o, ok := o.(SendBPDU); ok {
							m, err := ParseBPDU(o.PDU)
							if err != nil {
								t.Fatal(err)
							}
							sent++
							oldest = max(oldest, int(m.MessageAge)/second)
						}
					}
					from := s.now
					cut.do(s, root, uplink)
					for s.verify() != nil && s.now < from+3*time.Minute {
						s.run(time.Millisecond)
					}
					took, bpdus := s.now-from, sent
					s.run(30 * time.Second)
					if err := s.verify(); err != nil {
						t.Errorf("30 s after the network came to rest: %v", err)
					}
					var loop time.Duration
					for _, l := range s.loops {
						loop += l.to - l.from
					}
					rules := "as built"
					if letter {
						rules = "to the letter"
					}
					t.Logf("%-14s at rest after %6.3f s and %4d BPDUs, the oldest %2d s; loops %v",
						rules+":", took.Seconds(), bpdus, oldest, loop)
					// Three hello times until the death is noticed, MaxAge bridges,
					// a second in each.
					if limit := 6*time.Second + 20*time.Second; took > limit {
						t.Errorf("%v to come to rest, want at most %v", took, limit)
					}
					if loop > 0 && !letter {
						t.Errorf("frames could go round for %v", loop)
					}
				}
			})
		}
	}
}
