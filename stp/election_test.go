package stp

import (
	"testing"
	"time"
)

// TestRootDies: the root of a triangle falls silent while its links stay up, at
// any moment of anybody's second. The other two carry each other's traffic
// again within three hello times and a second, and never in a loop.
func TestRootDies(t *testing.T) {
	var worst time.Duration
	for seed := range uint64(300) {
		s := newSim(seed)
		for i := range 3 {
			s.addBridge("b", DefaultConfig(BridgeID{0x8000, [6]byte{2, 0, 0, 0, 0, byte(i)}}), time.Duration(s.rng.Int64N(int64(time.Second))))
		}
		for _, e := range [][2]int{{0, 1}, {1, 2}, {2, 0}} {
			l := s.addLAN("", time.Duration(s.rng.Int64N(int64(2*time.Millisecond))))
			s.bridges[e[0]].addPort(l, DefaultPort())
			s.bridges[e[1]].addPort(l, DefaultPort())
		}
		for _, br := range s.bridges {
			for _, p := range br.ports {
				p.apply()
			}
		}
		s.run(20*time.Second + time.Duration(s.rng.Int64N(int64(2*time.Second))))
		s.bridges[0].kill()
		from := s.now
		between := s.lans[1]
		for !between.ports[0].forwarding || !between.ports[1].forwarding {
			s.run(time.Millisecond)
			if s.now-from > time.Minute {
				t.Fatalf("seed %d: no traffic after %v", seed, s.now-from)
			}
		}
		worst = max(worst, s.now-from)
		s.run(30 * time.Second)
		if err := s.verify(); err != nil || len(s.loops) > 0 {
			t.Errorf("seed %d: %v, loops %v", seed, err, s.loops)
		}
	}
	t.Logf("traffic again after %v at worst", worst)
	if worst > 7*time.Second {
		t.Errorf("traffic again after %v", worst)
	}
}
