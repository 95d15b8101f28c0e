package stp

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestRows has every row of the project's conformance tables for spanning tree,
// by its number: S for 802.1D-1998's behaviour (mode=stp, or a neighbour that
// speaks it), R for RSTP. What a row asks of the switch around this package, the
// source address of BPDUs (S5), is tested there.
func TestRows(t *testing.T) {
	script := func(names ...string) func(*testing.T) {
		return func(t *testing.T) {
			for _, name := range names {
				t.Run(name, func(t *testing.T) { runScript(t, "testdata/"+name+".txt") })
			}
		}
	}
	for _, row := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"S1 initialisation: its own root, all ports designated", rowS1},
		{"S2 fields of a Configuration BPDU", rowS2},
		{"S3 root selection by root, cost, bridge, port", script("election", "ties")},
		{"S4 topology change: TCN, acknowledgement, flag, short ageing", rowS4},
		{"S4 topology change across bridges", script("tc-stp")},
		{"S5 no learning and no forwarding while listening", rowS5},
		{"S6 link failure, repeated network, initialisation, topology change", script("stp-interop", "1998-example")},
		{"S7 bad BPDUs and one's own are ignored", script("malformed")},
		{"S8 root lost without a loss of link", rowS8},
		{"S9 a loop from the beginning", rowS9},
		{"S10 BPDU flood", rowS10},
		{"R1 version, type, length and role of an RST BPDU", rowR1},
		{"R2 legacy neighbour", rowR2},
		{"R2 legacy neighbour across bridges", script("migration")},
		{"R3 auto edge", rowR3},
		{"R3 losing the edge", script("edge")},
		{"R4 no agreement: only the timers open", rowR4},
		{"R5 proposal and agreement", rowR5},
		{"R5 proposal and agreement across bridges", script("proposal")},
		{"R6 hello time", rowR6},
		{"R7 topology change: two BPDUs", rowR7},
		{"R7 topology change across bridges", script("tc-rstp")},
		{"R8 transmit hold count", rowR8},
		{"R9 ageing by time and by message age", rowR9},
		{"R9 ageing across bridges", script("timers")},
		{"R10 roles: alternate, backup, link failure, double failure", script("fig17-4", "fig17-6", "fig17-7", "link-failure", "double-failure", "backup")},
		{"R11 failover: alternate to root at once", rowR11},
		{"R12 MakeRootPortConfig, MakeRootPortRST", rowR12MakeRootPort},
		{"R12 AlternatePort, BackupPort", rowR12AlternateBackup},
		{"R12 Proposing, RootAgreement", rowR5},
		{"R12 MigratePort2STP, MigratePort2RSTP", rowR2},
		{"R12 NotifyTC", rowR12NotifyTC},
		{"R12 BigMsgTimes, SmallMsgTimes, BadMsgTimes, HelloTimeZero", rowR12Times},
	} {
		t.Run(row.name, row.run)
	}
}

func rowS1(t *testing.T) {
	p := newProbe(t, STP, 3)
	st := p.b.Status()
	if st.RootID != self || st.RootPathCost != 0 || st.RootPort != 0 || st.TopologyChange || st.TopologyChangeDetected {
		t.Errorf("a new bridge is %+v", st)
	}
	for num := uint16(1); num <= 3; num++ {
		p.want(num, RoleDesignated, StateListening)
		if m := p.last(num); m.Type != TypeConfig || m.Flags != 0 {
			t.Errorf("port %d's first BPDU is %v", num, m)
		}
	}
}

func rowS2(t *testing.T) {
	p := newProbe(t, STP, 2)
	want := BPDU{
		Version: 0, Type: TypeConfig, Root: self, Bridge: self, Port: 0x8002,
		MaxAge: 20 * second, HelloTime: 2 * second, ForwardDelay: 15 * second,
	}
	if got := p.last(2); got != want {
		t.Errorf("as the root: %+v\nwant %+v", got, want)
	}
	// Below a root, the fields are the root's, one second and one cost on.
	p.forget()
	m := config(better, 7, worse, 0x8003, 0)
	m.MessageAge, m.MaxAge, m.ForwardDelay = 3*second, 18*second, 12*second
	p.receive(1, m)
	want.Root, want.RootPathCost = better, 7+PathCost(0)
	want.MessageAge, want.MaxAge, want.ForwardDelay = 4*second, 18*second, 12*second
	if got := p.last(2); got != want {
		t.Errorf("below a root: %+v\nwant %+v", got, want)
	}
}

func rowS4(t *testing.T) {
	p := newProbe(t, STP, 2)
	p.tick(2 * 15)
	p.want(1, RoleDesignated, StateForwarding)
	p.tick(20 + 15) // its own topology change is over
	p.forget()
	if p.ageing != 0 {
		t.Fatalf("addresses age in %d s", p.ageing)
	}
	// A TCN: acknowledged in the next Configuration BPDU, and announced through
	// all ports for max age plus forward delay; addresses age in forward delay.
	p.receive(1, BPDU{Type: TypeTCN})
	if p.ageing != 15 {
		t.Errorf("addresses age in %d s, want 15", p.ageing)
	}
	flagged, acks := 0, 0
	for i := range 40 {
		p.forget()
		p.tick(1)
		for _, m := range p.sent[1] {
			if m.Flags&FlagTCAck != 0 {
				acks++
			}
			if m.Flags&FlagTopologyChange != 0 {
				flagged = i + 1
			}
		}
	}
	if acks != 1 || flagged < 33 || flagged > 35 {
		t.Errorf("%d acknowledgements, want 1; the flag was set for %d s, want 35 or the hello before", acks, flagged)
	}
	if p.ageing != 0 {
		t.Errorf("addresses still age in %d s", p.ageing)
	}
	// As a bridge below the root: a TCN every hello time until it is acknowledged.
	p.receive(1, config(better, 0, better, 0x8001, 0))
	for range 12 { // long enough for port 1 to be root port, and port 2 to fail
		p.tick(2)
		p.receive(1, config(better, 0, better, 0x8001, 0))
	}
	port := DefaultPort()
	port.Enabled = false
	p.setPort(2, port)
	port.Enabled = true
	p.setPort(2, port)
	tcns := 0
	for range 34 {
		p.forget()
		p.tick(1)
		p.receive(1, config(better, 0, better, 0x8001, 0))
		for _, m := range p.sent[1] {
			if m.Type == TypeTCN {
				tcns++
			}
		}
	}
	if tcns < 2 || tcns > 3 || !p.b.Status().TopologyChangeDetected {
		t.Errorf("%d TCNs in the 4 s since port 2 forwards, want one every hello time", tcns)
	}
	p.receive(1, config(better, 0, better, 0x8001, FlagTCAck))
	p.forget()
	p.tick(4)
	if len(p.sent[1]) != 0 || p.b.Status().TopologyChangeDetected {
		t.Errorf("after the acknowledgement it sends %v", p.sent[1])
	}
}

func rowS5(t *testing.T) {
	p := newProbe(t, STP, 1)
	for range 14 {
		p.want(1, RoleDesignated, StateListening)
		p.tick(1)
	}
	p.tick(1)
	for range 14 {
		p.want(1, RoleDesignated, StateLearning)
		p.tick(1)
	}
	p.tick(1)
	p.want(1, RoleDesignated, StateForwarding)
}

func rowS8(t *testing.T) {
	p := newProbe(t, STP, 2)
	root := config(better, 0, better, 0x8001, 0)
	for range 40 {
		p.receive(1, root)
		p.receive(2, config(better, 0, better, 0x8002, 0))
		p.tick(1)
	}
	p.want(1, RoleRoot, StateForwarding)
	p.want(2, RoleAlternate, StateBlocking)
	// Silence. Max age is the limit for the information, max age and two forward
	// delays for the blocked port to forward.
	gone, open := 0, 0
	for i := 1; i <= 60 && open == 0; i++ {
		p.tick(1)
		if gone == 0 && p.b.Status().RootID == self {
			gone = i
		}
		if p.state[2].Forwarding {
			open = i
		}
	}
	if gone == 0 || gone > 20 || open == 0 || open > 20+2*15 {
		t.Errorf("the root is gone after %d s and the port forwards after %d s", gone, open)
	}
}

func rowS9(t *testing.T) {
	// A triangle and a double link, closed before the bridges start.
	for _, mode := range []Mode{STP, RSTP} {
		s := newSim(9)
		for i := range 3 {
			cfg := DefaultConfig(BridgeID{0x8000, [6]byte{2, 0, 0, 0, 0, byte(i)}})
			cfg.Mode = mode
			s.addBridge("b", cfg, time.Duration(i)*300*time.Millisecond)
		}
		for _, e := range [][2]int{{0, 1}, {1, 2}, {2, 0}, {0, 1}} {
			l := s.addLAN("", time.Millisecond)
			s.bridges[e[0]].addPort(l, DefaultPort())
			s.bridges[e[1]].addPort(l, DefaultPort())
		}
		opened := time.Duration(-1)
		s.onEvent = func(_ *simBridge, o Output) {
			if set, ok := o.(SetState); ok && set.Forwarding && opened < 0 {
				opened = s.now
			}
		}
		for _, br := range s.bridges {
			for _, p := range br.ports {
				p.apply()
			}
		}
		s.run(60 * time.Second)
		s.checkLoop()
		if len(s.loops) > 0 {
			t.Errorf("mode %v: frames could go round: %v", mode, s.loops)
		}
		if err := s.verify(); err != nil {
			t.Errorf("mode %v: %v", mode, err)
		}
		if mode == STP && opened < 28*time.Second {
			t.Errorf("a port forwards at %v, before two forward delays", opened)
		}
	}
}

func rowS10(t *testing.T) {
	// Ten thousand BPDUs a second, each a new claim, valid and not: the bridge's
	// own rate stays within the hold count on every port, the work of each BPDU
	// is bounded, and the port that gets none of it keeps its neighbour.
	for _, mode := range []Mode{STP, RSTP} {
		p := newProbe(t, mode, 3)
		r := rand.New(rand.NewPCG(10, uint64(mode)))
		top := BridgeID{0, [6]byte{2, 0, 0, 0, 0, 1}}
		for sec := range 20 {
			for i := range 10_000 {
				m := rst(BridgeID{uint16(r.IntN(16)) << 12, [6]byte{2, 1, 1, byte(i), byte(sec), byte(r.Int())}},
					r.Uint32(), BridgeID{uint16(r.Int()), [6]byte{2, 2, 2, 0, 0, byte(r.Int())}}, PortID(r.Int()), Flags(r.Int()))
				if r.IntN(3) == 0 {
					m.Type, m.Version = TypeConfig, 0
				}
				m.MessageAge = uint16(r.Int())
				pdu := m.Append(nil)
				_ = p.b.Receive(2, pdu[:len(pdu)-r.IntN(2)])
				p.drain()
				if i%2_500 == 0 {
					_ = p.b.Receive(1, config(top, 0, top, 0x8001, 0).Append(nil))
				}
			}
			if got := p.b.Received(2); got != 10_000 {
				t.Fatalf("%d BPDUs counted on the port, want 10000", got)
			}
			for num, sent := range p.sent {
				if len(sent) > p.cfg.TxHold+1 {
					t.Fatalf("mode %v: port %d sent %d BPDUs in a second", mode, num, len(sent))
				}
			}
			p.forget()
			p.tick(1)
		}
		if p.b.Received(2) != 0 {
			t.Error("the rate was not reset by Tick")
		}
		if st := p.b.Status(); st.RootID != top || st.RootPort != 1 {
			t.Errorf("mode %v: the root is %v by port %d: the flood drowned port 1's neighbour", mode, st.RootID, st.RootPort)
		}
		if p.b.deepest > maxPasses/4 {
			t.Errorf("a BPDU took %d passes", p.b.deepest)
		}
	}
}
