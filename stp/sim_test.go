package stp

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// sim is a network of bridges and LANs on a virtual clock. It carries BPDUs
// between bridges with delay and loss, applies their outputs to a model of the
// datapath, and looks for forwarding loops whenever a port opens. Everything is
// in one goroutine and in an order that its seed fixes.
type sim struct {
	now     time.Duration
	queue   eventQueue
	seq     uint64
	rng     *rand.Rand
	bridges []*simBridge
	lans    []*simLAN

	toTheLetter bool // of the standard, strict.go

	jitter time.Duration // added to a LAN's delay at random, order kept
	lossy  bool          // drop BPDUs, never more than maxLost in a row
	union  []int         // scratch of loop

	looping   bool
	loopSince time.Duration
	loops     []simLoop // completed ones

	trace   func(f string, a ...any) // what is done to the network, nil for none
	onEvent func(*simBridge, Output)
	watch   func() // after every step of any bridge, nil for none
}

// simLoop is a time during which frames could have gone round.
type simLoop struct{ from, to time.Duration }

// maxLost is how many BPDUs in a row a lossy LAN may drop in one direction:
// fewer than the three after which a neighbour is given up.
const maxLost = 2

type simBridge struct {
	sim    *sim
	index  int
	name   string
	cfg    Config
	b      *Bridge
	dead   bool // crashed: silent, forwards nothing, links stay up
	epoch  int  // of b; events for an earlier one are void
	phase  time.Duration
	ports  []*simPort // port i has number i+1
	shortA uint32     // SetAgeing in force
}

type simPort struct {
	br         *simBridge
	num        uint16
	cfg        PortConfig
	lan        *simLAN
	learning   bool
	forwarding bool
	flushes    int
	begun      bool // scripts: handed to the bridge
}

type simLAN struct {
	index  int
	name   string
	ports  []*simPort
	up     bool
	muted  bool // drops every BPDU and every frame, without a loss of link
	epoch  int
	delay  time.Duration
	lost   map[[2]*simPort]int        // in a row, by sender and receiver
	arrive map[*simPort]time.Duration // when the last BPDU to it arrives: order is kept
}

type simEvent struct {
	at  time.Duration
	seq uint64
	do  func()
}

type eventQueue []simEvent

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = simEvent{}
	*q = old[:len(old)-1]
	return e
}

func newSim(seed uint64) *sim { return &sim{rng: rand.New(rand.NewPCG(seed, 0x802d1))} }

func (s *sim) after(d time.Duration, do func()) {
	s.seq++
	heap.Push(&s.queue, simEvent{s.now + d, s.seq, do})
}

// run lets d of virtual time pass.
func (s *sim) run(d time.Duration) {
	end := s.now + d
	for len(s.queue) > 0 && s.queue[0].at <= end {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// addBridge makes a bridge whose seconds pass at phase.
func (s *sim) addBridge(name string, cfg Config, phase time.Duration) *simBridge {
	br := &simBridge{sim: s, index: len(s.bridges), name: name, cfg: cfg, phase: phase}
	s.bridges = append(s.bridges, br)
	br.start()
	return br
}

// start boots the bridge, with the ports it has.
func (br *simBridge) start() {
	b, err := New(br.cfg)
	if err != nil {
		panic(err)
	}
	b.toTheLetter = br.sim.toTheLetter
	br.b, br.dead = b, false
	br.epoch++
	epoch := br.epoch
	var tick func()
	tick = func() {
		if br.epoch != epoch || br.dead {
			return
		}
		br.b.Tick()
		br.drain()
		br.sim.after(time.Second, tick)
	}
	wait := (br.phase - br.sim.now%time.Second + time.Second) % time.Second
	br.sim.after(wait, tick)
	for _, p := range br.ports {
		p.learning, p.forwarding = false, false
		p.apply()
	}
}

// configure changes the bridge's parameters, now or for its next start.
func (br *simBridge) configure(cfg Config) {
	br.cfg = cfg
	if br.dead {
		return
	}
	if err := br.b.SetConfig(cfg); err != nil {
		panic(err)
	}
	br.drain()
}

// kill makes the bridge fall silent; its neighbours' links stay up.
func (br *simBridge) kill() {
	br.dead = true
	for _, p := range br.ports {
		p.learning, p.forwarding = false, false
	}
	br.sim.checkLoop()
}

// addLAN makes a LAN. Two ports of different bridges see a point-to-point link.
func (s *sim) addLAN(name string, delay time.Duration) *simLAN {
	l := &simLAN{index: len(s.lans), name: name, up: true, delay: delay,
		lost: map[[2]*simPort]int{}, arrive: map[*simPort]time.Duration{}}
	s.lans = append(s.lans, l)
	return l
}

// addPort adds a port to the bridge, attached to the LAN if that is not nil.
func (br *simBridge) addPort(l *simLAN, cfg PortConfig) *simPort {
	p := &simPort{br: br, num: uint16(len(br.ports) + 1), cfg: cfg, lan: l}
	br.ports = append(br.ports, p)
	if l != nil {
		l.ports = append(l.ports, p)
	}
	return p
}

// apply hands the port's configuration and link to the bridge.
func (p *simPort) apply() {
	if p.br.dead {
		return
	}
	cfg := p.cfg
	cfg.Enabled = cfg.Enabled && p.lan != nil && p.lan.up
	if err := p.br.b.SetPort(p.num, cfg); err != nil {
		panic(err)
	}
	p.br.drain()
}

// plug moves the port to another LAN, or to none.
func (p *simPort) plug(l *simLAN) {
	if p.lan != nil {
		p.lan.ports = slices.DeleteFunc(p.lan.ports, func(q *simPort) bool { return q == p })
	}
	p.lan = nil
	p.apply()
	p.lan = l
	if l != nil {
		l.ports = append(l.ports, p)
		p.apply()
	}
}

// setUp takes the LAN's link down or up at all its ports.
func (l *simLAN) setUp(s *sim, up bool) {
	l.up = up
	l.epoch++
	for _, p := range l.ports {
		p.apply()
	}
	s.checkLoop()
}

// drain acts on the bridge's outputs as a switch would.
func (br *simBridge) drain() {
	s := br.sim
	opened := false
	for _, o := range br.b.Outputs() {
		switch o := o.(type) {
		case SetState:
			if int(o.Port) <= len(br.ports) {
				p := br.ports[o.Port-1]
				opened = opened || o.Forwarding && !p.forwarding
				p.learning, p.forwarding = o.Learning, o.Forwarding
			}
		case Flush:
			br.ports[o.Port-1].flushes++
		case SetAgeing:
			br.shortA = o.Seconds
		case SendBPDU:
			s.send(br.ports[o.Port-1], o.PDU)
		}
		if s.onEvent != nil {
			s.onEvent(br, o)
		}
	}
	if s.watch != nil {
		s.watch()
	}
	if opened || s.looping {
		s.checkLoop()
	}
}

// send carries a BPDU to the other ports of the LAN.
func (s *sim) send(from *simPort, pdu []byte) {
	l := from.lan
	if l == nil || !l.up || l.muted {
		return
	}
	pdu = slices.Clone(pdu)
	for _, to := range l.ports {
		if to == from {
			continue
		}
		way := [2]*simPort{from, to}
		if s.lossy && l.lost[way] < maxLost && s.rng.IntN(4) == 0 {
			l.lost[way]++
			continue
		}
		l.lost[way] = 0
		at := s.now + l.delay
		if s.jitter > 0 {
			at += time.Duration(s.rng.Int64N(int64(s.jitter)))
		}
		at = max(at, l.arrive[to])
		l.arrive[to] = at
		epoch := l.epoch
		s.after(at-s.now, func() {
			if l.epoch != epoch || l.muted || to.lan != l || to.br.dead {
				return
			}
			_ = to.br.b.Receive(to.num, pdu)
			to.br.drain()
		})
	}
}

// checkLoop notes when a forwarding loop begins and ends.
func (s *sim) checkLoop() {
	switch l := s.loop(); {
	case l && !s.looping:
		s.looping, s.loopSince = true, s.now
	case !l && s.looping:
		s.looping = false
		s.loops = append(s.loops, simLoop{s.loopSince, s.now})
	}
}

// loop reports whether a frame could go round now: bridges and LANs as
// vertices, forwarding ports as edges, and an edge within one component.
func (s *sim) loop() bool {
	s.forest()
	for _, br := range s.bridges {
		for _, p := range br.ports {
			if p.forwarding && p.attached() && !s.join(br.index, len(s.bridges)+p.lan.index) {
				return true
			}
		}
	}
	return false
}

// forest and join are union-find over bridges and LANs.
func (s *sim) forest() {
	s.union = s.union[:0]
	for i := range len(s.bridges) + len(s.lans) {
		s.union = append(s.union, i)
	}
}

// join reports that x and y were apart until now.
func (s *sim) join(x, y int) bool {
	for s.union[x] != x {
		s.union[x] = s.union[s.union[x]]
		x = s.union[x]
	}
	for s.union[y] != y {
		s.union[y] = s.union[s.union[y]]
		y = s.union[y]
	}
	s.union[x] = y
	return x != y
}

func (s *sim) logf(format string, a ...any) {
	if s.trace != nil {
		s.trace("%8.3f "+format, append([]any{s.now.Seconds()}, a...)...)
	}
}

func (br *simBridge) String() string { return br.name }

func (p *simPort) String() string { return fmt.Sprintf("%s.%d", p.br.name, p.num) }
