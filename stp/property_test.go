package stp

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// shape says what a random network is made of, and what happens to it.
type shape struct {
	bridges, links int
	stp            bool // some bridges are of mode STP
	shared         bool // LANs with more than two ports, and two ports of one bridge
	lossy          bool
	events         int
}

// randomNet builds a network from the seed: a ring, a tree, a mesh or a
// mixture, with random costs, priorities, identifiers and delays.
func randomNet(seed uint64, sh shape) *sim {
	s := newSim(seed)
	r := s.rng
	s.lossy = sh.lossy
	s.jitter = time.Duration(1+r.IntN(20)) * time.Millisecond
	ids := r.Perm(sh.bridges)
	for i := range sh.bridges {
		id := BridgeID{uint16(r.IntN(4)) << 12, [6]byte{2, 0, 0, 0, byte(ids[i] >> 8), byte(ids[i])}}
		cfg := DefaultConfig(id)
		if sh.bridges > 12 {
			cfg.MaxAge, cfg.ForwardDelay = 40, 21
		}
		if sh.stp && r.IntN(2) == 0 {
			cfg.Mode = STP
		}
		s.addBridge(fmt.Sprintf("b%d", i), cfg, time.Duration(r.Int64N(int64(time.Second))))
	}
	costs := []uint32{0, 1, 10, 20000, 200000}
	attach := func(l *simLAN, b int) {
		cfg := DefaultPort()
		cfg.Cost = costs[r.IntN(len(costs))]
		cfg.Priority = uint8(r.IntN(3)) * 64
		s.bridges[b].addPort(l, cfg)
	}
	lan := func(ends ...int) {
		l := s.addLAN(fmt.Sprintf("l%d", len(s.lans)), time.Duration(50+r.IntN(20000))*time.Microsecond)
		for _, b := range ends {
			attach(l, b)
		}
	}
	kind := r.IntN(3)
	for i := 1; i < sh.bridges; i++ { // connected, to begin with
		switch kind {
		case 0:
			lan(i-1, i)
		default:
			lan(r.IntN(i), i)
		}
	}
	if kind == 0 && sh.bridges > 2 {
		lan(sh.bridges-1, 0)
	}
	for len(s.lans) < sh.links {
		switch {
		case sh.shared && r.IntN(4) == 0:
			ends := make([]int, 2+r.IntN(4))
			for i := range ends {
				ends[i] = r.IntN(sh.bridges)
			}
			lan(ends...)
		default:
			x, y := r.IntN(sh.bridges), r.IntN(sh.bridges)
			if x != y || sh.shared {
				lan(x, y)
			}
		}
	}
	for _, l := range s.lans {
		if len(l.ports) > 2 || len(l.ports) == 2 && l.ports[0].br == l.ports[1].br {
			for _, p := range l.ports {
				p.cfg.HalfDuplex = true
			}
		}
	}
	for _, br := range s.bridges {
		for _, p := range br.ports {
			p.apply()
		}
	}
	return s
}

// disturb does one random thing to the network.
func (s *sim) disturb() {
	r := s.rng
	switch r.IntN(10) {
	case 0, 1, 2, 3:
		l := s.lans[r.IntN(len(s.lans))]
		s.logf("link %s up=%v", l.name, !l.up)
		l.setUp(s, !l.up)
	case 4:
		br := s.bridges[r.IntN(len(s.bridges))]
		if br.dead {
			s.logf("start %v", br)
			br.start()
		} else {
			s.logf("kill %v", br)
			br.kill()
		}
	case 5: // the root
		for _, br := range s.bridges {
			if !br.dead && br.b.rootPort == nil {
				s.logf("kill root %v", br)
				br.kill()
				break
			}
		}
	case 6, 7:
		br := s.bridges[r.IntN(len(s.bridges))]
		if !br.dead {
			br.cfg.ID.Priority = uint16(r.IntN(4)) << 12
			s.logf("prio %v %v", br, br.cfg.ID)
			if err := br.b.SetConfig(br.cfg); err != nil {
				panic(err)
			}
			br.drain()
		}
	default:
		l := s.lans[r.IntN(len(s.lans))]
		p := l.ports[r.IntN(len(l.ports))]
		p.cfg.Cost = uint32(1 + r.IntN(100000))
		p.cfg.Priority = uint8(r.IntN(3)) * 64
		s.logf("port %v cost %d prio %d", p, p.cfg.Cost, p.cfg.Priority)
		p.apply()
	}
}

func randomShape(r *rand.Rand) shape {
	sh := shape{bridges: 2 + r.IntN(7), shared: r.IntN(3) == 0, lossy: r.IntN(2) == 0, events: 1 + r.IntN(6), stp: r.IntN(4) == 0}
	if r.IntN(20) == 0 {
		sh.bridges = 10 + r.IntN(31)
	}
	sh.links = min(sh.bridges-1+r.IntN(2*sh.bridges), 120)
	return sh
}
