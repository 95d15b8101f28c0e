package stp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
)

// program reads calls out of a fuzzer's bytes; at their end it reads zeros.
type program struct{ b []byte }

func (p *program) byte() byte {
	if len(p.b) == 0 {
		return 0
	}
	v := p.b[0]
	p.b = p.b[1:]
	return v
}

func (p *program) uint16() uint16 { return binary.BigEndian.Uint16([]byte{p.byte(), p.byte()}) }

// bridgeID is one of few, so that BPDUs meet: the bridge's own address, three
// others, and a priority in the upper bits.
func (p *program) bridgeID() BridgeID {
	v := p.byte()
	id := self
	if v&3 != 0 {
		id.Addr = [6]byte{2, 0, 0, 0, 0, 0x20 * (v & 3)}
	}
	id.Priority = uint16(v&0xf0) << 8
	return id
}

func (p *program) bpdu() BPDU {
	m := BPDU{
		Flags: Flags(p.byte()), Root: p.bridgeID(), RootPathCost: uint32(p.uint16()), Bridge: p.bridgeID(),
		Port: PortID(0x8000 | uint16(p.byte()&7)), MessageAge: uint16(p.byte()) << 5,
		MaxAge: 20 * second, HelloTime: uint16(p.byte()) << 4, ForwardDelay: uint16(p.byte()) << 5,
	}
	switch p.byte() & 7 {
	case 0:
		m.Type = TypeTCN
	case 1, 2:
		m.Type = TypeConfig
	default:
		m.Type, m.Version = TypeRST, 2
	}
	return m
}

func (p *program) portConfig() PortConfig {
	bits, more := p.byte(), p.byte()
	return PortConfig{
		Enabled: bits&1 == 0, AdminEdge: bits&2 != 0, AutoEdge: bits&4 == 0, HalfDuplex: bits&8 != 0,
		BPDUGuard: bits&0x30 == 0x30, BPDUFilter: bits&0xc0 == 0xc0,
		RootGuard: more&3 == 3, TCNGuard: more&4 != 0, LoopGuard: more&8 != 0,
		Priority: more & 0xf0, Cost: uint32(p.byte()), RecoverAfter: uint32(p.byte() & 7), PointToPoint: PointToPoint(p.byte() % 3),
	}
}

func (p *program) config() Config {
	cfg := DefaultConfig(self)
	bits := p.byte()
	cfg.ID.Priority = uint16(bits&0xf0) << 8
	cfg.Mode = Mode(bits & 1)
	cfg.TxHold = 1 + int(bits>>1&7)
	switch p.byte() & 3 {
	case 1:
		cfg.Hello, cfg.MaxAge, cfg.ForwardDelay = 1, 6, 4
	case 2:
		cfg.Hello, cfg.MaxAge, cfg.ForwardDelay = 10, 40, 30
	}
	return cfg
}

// run makes the calls, and checks after each that the bridge is sound.
func (p *program) run(t *testing.T) {
	b, err := New(p.config())
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, b: b, state: map[uint16]SetState{}, sent: map[uint16]int{}}
	w.check()
	for calls := 0; len(p.b) > 0 && calls < 500; calls++ {
		op := p.byte()
		num := uint16(op>>4&7) + 1
		switch op & 15 {
		case 0, 1:
			if err := b.SetPort(num, p.portConfig()); err != nil {
				t.Fatal(err)
			}
		case 2:
			if err := b.RemovePort(num); err == nil {
				w.check() // the removed port's last outputs
				delete(w.state, num)
				delete(w.sent, num)
			} else if !errors.Is(err, ErrNoPort) {
				t.Fatal(err)
			}
		case 3:
			clear(w.sent) // a new hold count, or a new mode, forgets what was sent
			if err := b.SetConfig(p.config()); err != nil {
				t.Fatal(err)
			}
		case 4:
			_ = b.Recover(num)
		case 5:
			_ = b.Mcheck(num)
		case 6:
			n := min(int(p.byte()), len(p.b))
			_ = b.Receive(num, p.b[:n])
			p.b = p.b[n:]
		case 7, 8, 9:
			for range p.byte()&7 + 1 {
				b.Tick()
				w.ticked()
				w.check()
			}
		default:
			_ = b.Receive(num, p.bpdu().Append(nil))
		}
		w.check()
	}
	if st := b.Status(); len(st.Ports) != len(b.ports) {
		t.Fatalf("%d ports in the status, want %d", len(st.Ports), len(b.ports))
	}
}

// watcher is a datapath that trusts nothing.
type watcher struct {
	t     *testing.T
	b     *Bridge
	state map[uint16]SetState
	sent  map[uint16]int // since the last Tick
}

func (w *watcher) ticked() { clear(w.sent) }

func (w *watcher) check() {
	t, b := w.t, w.b
	stage := 0
	for _, o := range b.Outputs() {
		now := 0
		switch o := o.(type) {
		case SetState:
			was := w.state[o.Port]
			if o.Forwarding && !o.Learning {
				t.Fatalf("%+v forwards and does not learn", o)
			}
			if o.Learning && !was.Learning || o.Forwarding && !was.Forwarding {
				now = 1
			}
			w.state[o.Port] = o
		case Flush, SetAgeing:
			now = 2
		case SendBPDU:
			now = 3
			m, err := ParseBPDU(o.PDU)
			p := b.find(o.Port)
			if err != nil || p == nil || !p.cfg.Enabled || p.cfg.BPDUFilter || p.guard.kind == GuardBPDU {
				t.Fatalf("port %d sends % x: %v", o.Port, o.PDU, err)
			}
			if !b.rstpVersion() && m.Type == TypeRST {
				t.Fatalf("mode stp sends %v", m)
			}
			// A BPDU tells of states in force.
			if s := w.state[o.Port]; m.Type == TypeRST && (m.Flags&FlagForwarding != 0) != s.Forwarding {
				t.Fatalf("port %d is told to be %+v and sends %v", o.Port, s, m)
			}
			if w.sent[o.Port]++; w.sent[o.Port] > b.cfg.TxHold {
				t.Fatalf("port %d sent %d BPDUs in a second, the hold count is %d", o.Port, w.sent[o.Port], b.cfg.TxHold)
			}
		case Event:
			now = 4
		}
		if now < stage {
			t.Fatalf("%T stands behind a later kind of output", o)
		}
		stage = now
	}
	if b.unsettled != 0 || b.deepest > maxPasses/2 {
		t.Fatalf("machines took %d passes, %d times too many", b.deepest, b.unsettled)
	}
	roots := 0
	for _, p := range b.ports {
		w.checkPort(p)
		if p.role == RoleRoot {
			roots++
			if p != b.rootPort {
				t.Fatalf("port %d is root port, and the bridge has another", p.num)
			}
		}
	}
	if roots > 1 || (roots == 1) != (b.rootPort != nil) {
		t.Fatalf("%d root ports", roots)
	}
	if own := b.bridgePriority(); b.rootPriority.compare(&own) > 0 {
		t.Fatalf("root %+v is worse than the bridge itself", b.rootPriority)
	}
}

func (w *watcher) checkPort(p *port) {
	t := w.t
	fail := func(what string) {
		t.Helper()
		t.Fatalf("port %d %s: role %v, infoIs %d, learn %v, forward %v, guard %v, edge %v, %+v",
			p.num, what, p.role, p.infoIs, p.learn, p.forward, p.guard, p.operEdge, p.cfg)
	}
	s := w.state[p.num]
	switch {
	case p.rcvdBPDU || p.rcvdMsg || p.fdbFlush || p.reselect:
		fail("has work left")
	case !p.selected || p.updtInfo || p.role != p.selectedRole || p.infoIs == infoAged:
		fail("is not settled")
	case p.learning != p.learn || p.forwarding != p.forward || p.forwarding && !p.learning:
		fail("is not in the state it wants")
	case s.Learning != p.learning || s.Forwarding != p.forwarding || s.Guard != p.guard.kind:
		fail("was not told to the datapath")
	case p.forwarding && p.role != RoleRoot && p.role != RoleDesignated:
		fail("forwards")
	case p.role == RoleDesignated && p.guard.inconsistent() && (p.learn || p.forward):
		fail("forwards against its guard")
	case (p.role == RoleDisabled) != !p.portEnabled || (p.infoIs == infoDisabled) != !p.portEnabled:
		fail("is disabled in part")
	case p.portEnabled != (p.cfg.Enabled && p.guard.kind != GuardBPDU):
		fail("is enabled wrongly")
	case p.infoIs == infoReceived && p.cfg.RootGuard:
		fail("believes what root guard keeps from it")
	case p.infoIs == infoMine && (p.portPriority != p.designatedPriority || p.portTimes != p.designatedTimes):
		fail("announces what is not so")
	case p.txCount > uint32(MaxTxHold):
		fail("has sent too much")
	}
}

// FuzzBridge makes random calls. No sequence of them may panic, leave the
// machines unsettled, or the datapath in another state than the machines.
func FuzzBridge(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		b := make([]byte, 200)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { (&program{b}).run(t) })
}

// TestRandomCalls is FuzzBridge with more seeds than a corpus holds.
func TestRandomCalls(t *testing.T) {
	n := 4000
	if testing.Short() || raceEnabled {
		n = 400
	}
	for seed := range uint64(n) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := make([]byte, 50+r.IntN(1500))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		(&program{b}).run(t)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
