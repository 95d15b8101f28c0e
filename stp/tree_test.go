package stp

import (
	"cmp"
	"fmt"
	"slices"
)

// wantPort is what the standard's priority vectors (17.5, 17.6) make of a port.
type wantPort struct {
	role Role
	root BridgeID
	cost uint32 // root path cost of the bridge
}

// claim is what a bridge believes of the root.
type claim struct {
	root BridgeID
	cost uint32
}

// attached reports a port through which frames could pass.
func (p *simPort) attached() bool {
	return p.lan != nil && p.lan.up && !p.lan.muted && p.cfg.Enabled && !p.br.dead
}

func (p *simPort) cost() uint32 {
	if p.cfg.Cost != 0 {
		return p.cfg.Cost
	}
	return PathCost(p.cfg.Speed)
}

// claims computes what every bridge should believe, from the topology alone:
// root path costs are relaxed until nothing changes.
func (s *sim) claims() map[*simBridge]claim {
	best := map[*simBridge]claim{}
	for _, br := range s.bridges {
		best[br] = claim{br.cfg.ID, 0}
	}
	for changed := true; changed; {
		changed = false
		for _, l := range s.lans {
			for _, p := range l.ports {
				for _, q := range l.ports {
					if p.br == q.br || !p.attached() || !q.attached() {
						continue
					}
					c := claim{best[q.br].root, best[q.br].cost + p.cost()}
					if c.better(best[p.br]) {
						best[p.br] = c
						changed = true
					}
				}
			}
		}
	}
	return best
}

func (c claim) better(than claim) bool {
	return cmp.Or(c.root.Compare(than.root), cmp.Compare(c.cost, than.cost)) < 0
}

// stale reports whether some bridge believes in something better than there
// is: news of a root, or of a way to it, that are gone. It is what the bridges
// count to infinity with.
func (s *sim) stale() bool {
	truth := s.claims()
	for _, br := range s.bridges {
		if !br.dead && (claim{br.b.rootPriority.root, br.b.rootPriority.cost}).better(truth[br]) {
			return true
		}
	}
	return false
}

// expected computes every port's role from the topology alone: no machine, no
// message. The best offer on each LAN is its designated port, and the best way
// out of each bridge its root port.
func (s *sim) expected() map[*simPort]wantPort {
	best := s.claims()
	// byID orders ports by their bridge's identifier and then their own: what
	// decides between equal costs.
	byID := func(p, q *simPort) int {
		return cmp.Or(p.br.cfg.ID.Compare(q.br.cfg.ID),
			cmp.Compare(MakePortID(p.cfg.Priority, p.num), MakePortID(q.cfg.Priority, q.num)))
	}
	// better orders what ports offer to their LAN.
	better := func(p, q *simPort) int {
		a, b := best[p.br], best[q.br]
		return cmp.Or(a.root.Compare(b.root), cmp.Compare(a.cost, b.cost), byID(p, q))
	}
	designated := map[*simLAN]*simPort{}
	for _, l := range s.lans {
		for _, p := range l.ports {
			if p.attached() && (designated[l] == nil || better(p, designated[l]) < 0) {
				designated[l] = p
			}
		}
	}
	want := map[*simPort]wantPort{}
	for _, br := range s.bridges {
		if br.dead {
			continue
		}
		var root *simPort
		if best[br].root != br.cfg.ID {
			candidates := slices.DeleteFunc(slices.Clone(br.ports), func(p *simPort) bool {
				return !p.attached() || designated[p.lan].br == br ||
					best[designated[p.lan].br].root != best[br].root ||
					best[designated[p.lan].br].cost+p.cost() != best[br].cost
			})
			root = slices.MinFunc(candidates, func(p, q *simPort) int {
				return cmp.Or(byID(designated[p.lan], designated[q.lan]), byID(p, q))
			})
		}
		for _, p := range br.ports {
			w := wantPort{RoleDisabled, best[br].root, best[br].cost}
			switch {
			case !p.attached():
			case p == root:
				w.role = RoleRoot
			case designated[p.lan] == p:
				w.role = RoleDesignated
			case designated[p.lan].br == br:
				w.role = RoleBackup
			default:
				w.role = RoleAlternate
			}
			want[p] = w
		}
	}
	return want
}

// verify compares the network with expected, and its datapath with the roles.
func (s *sim) verify() error {
	want := s.expected()
	for _, br := range s.bridges {
		if br.dead {
			continue
		}
		st := br.b.Status()
		for i, p := range br.ports {
			w, got := want[p], st.Ports[i]
			if st.RootID != w.root || st.RootPathCost != w.cost {
				return fmt.Errorf("bridge %v: root %v cost %d, want root %v cost %d", br, st.RootID, st.RootPathCost, w.root, w.cost)
			}
			forwards := w.role == RoleRoot || w.role == RoleDesignated
			if got.Role != w.role || p.forwarding != forwards || p.learning != forwards {
				return fmt.Errorf("port %v: %v %v (datapath forwarding %v), want role %v", p, got.Role, got.State, p.forwarding, w.role)
			}
		}
		if br.b.unsettled != 0 {
			return fmt.Errorf("bridge %v: machines did not come to rest %d times", br, br.b.unsettled)
		}
	}
	if s.loop() {
		return fmt.Errorf("the active topology has a loop")
	}
	return s.spans()
}

// spans checks that the active topology connects all that is connected, and
// that frames get onto each LAN through one designated port.
func (s *sim) spans() error {
	for _, l := range s.lans {
		ports, designated := 0, 0
		for _, p := range l.ports {
			if p.attached() {
				ports++
				if p.br.b.find(p.num).role == RoleDesignated && p.forwarding {
					designated++
				}
			}
		}
		if ports > 0 && designated != 1 {
			return fmt.Errorf("LAN %s: %d designated ports", l.name, designated)
		}
	}
	wires := s.parts((*simPort).attached)
	tree := s.parts(func(p *simPort) bool { return p.attached() && p.forwarding })
	if wires != tree {
		return fmt.Errorf("the active topology is in %d parts, the network in %d", tree, wires)
	}
	return nil
}

// parts counts the parts of the network that are connected by the ports that
// count.
func (s *sim) parts(counts func(*simPort) bool) int {
	n := len(s.bridges) + len(s.lans)
	s.forest()
	for _, br := range s.bridges {
		for _, p := range br.ports {
			if p.lan != nil && counts(p) && s.join(br.index, len(s.bridges)+p.lan.index) {
				n--
			}
		}
	}
	return n
}
