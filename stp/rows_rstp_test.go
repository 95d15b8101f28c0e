package stp

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func rowR1(t *testing.T) {
	b, err := New(DefaultConfig(self))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetPort(1, DefaultPort()); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, o := range b.Outputs() {
		if o, ok := o.(SendBPDU); ok {
			got = bytes.Clone(o.PDU)
		}
	}
	//                          id   v t  flags          root             cost     bridge           port age  max  hello delay v1
	want, err := hex.DecodeString("0000" + "0202" + "0e" + "8000020000000050" + "00000000" + "8000020000000050" + "8001" + "0000" + "1400" + "0200" + "0f00" + "00")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the first BPDU is\n%x, want\n%x", got, want)
	}
	p := newProbe(t, RSTP, 3)
	p.forget()
	m := rst(better, 0, better, 0x8001, FlagProposal)
	p.receive(1, m)
	m.Port = 0x8002
	p.receive(2, m)
	for num, want := range map[uint16]Flags{1: roleCodeRoot, 2: roleCodeAlternateBackup, 3: roleCodeDesignated} {
		if m := p.last(num); m.Version != 2 || m.Type != TypeRST || m.Flags&roleMask>>roleShift != want {
			t.Errorf("port %d sends %v, want role code %d", num, m, want)
		}
	}
}

func rowR2(t *testing.T) {
	p := newProbe(t, RSTP, 2)
	old := config(worse, 0, worse, 0x8001, 0)
	// Within the migration delay of the start nothing changes.
	p.receive(1, old)
	p.tick(2)
	if got := p.port(1).Sends; got != "rstp" {
		t.Fatalf("sends %s within the migration delay", got)
	}
	// After that, what is heard is answered in kind, with the next hello at the
	// latest.
	p.tick(1)
	p.receive(1, old)
	p.forget()
	p.tick(2)
	if m := p.last(1); m.Type != TypeConfig {
		t.Errorf("2 s after a Configuration BPDU it sends %v", m)
	}
	if m := p.last(2); m.Type != TypeRST {
		t.Errorf("the other port sends %v", m)
	}
	// For another migration delay RST BPDUs do not turn it back, then they do.
	p.receive(1, rst(worse, 0, worse, 0x8001, 0))
	if got := p.port(1).Sends; got != "stp" {
		t.Errorf("sends %s within the migration delay", got)
	}
	p.tick(1)
	p.receive(1, rst(worse, 0, worse, 0x8001, 0))
	if got := p.port(1).Sends; got != "rstp" {
		t.Errorf("sends %s after an RST BPDU", got)
	}
	// mcheck returns by hand.
	p.tick(3)
	p.receive(1, old)
	if got := p.port(1).Sends; got != "stp" {
		t.Fatalf("sends %s after a Configuration BPDU", got)
	}
	if err := p.b.Mcheck(1); err != nil {
		t.Fatal(err)
	}
	p.drain()
	p.forget()
	p.tick(2)
	if m := p.last(1); p.port(1).Sends != "rstp" || m.Type != TypeRST {
		t.Errorf("after mcheck it sends %v", m)
	}
	// As a root port it tells of topology changes by TCN until that is
	// acknowledged, and is silent when there are none.
	p.tick(3)
	p.receive(1, config(better, 0, better, 0x8001, 0))
	p.forget()
	p.tick(2)
	if m := p.last(1); m.Type != TypeTCN {
		t.Errorf("a new root port toward a legacy bridge sends %v", m)
	}
	p.receive(1, config(better, 0, better, 0x8001, FlagTCAck))
	p.forget()
	p.tick(4)
	if n := len(p.sent[1]); n != 0 {
		t.Errorf("after the acknowledgement it sends %v", p.sent[1])
	}
}

func rowR3(t *testing.T) {
	p := newProbe(t, RSTP, 0)
	p.setPort(1, DefaultPort())
	for range 5 {
		p.want(1, RoleDesignated, StateDiscarding)
		p.tick(1)
	}
	p.tick(1)
	p.want(1, RoleDesignated, StateForwarding)
	if !p.port(1).Edge {
		t.Error("not an edge port after 6 s of silence")
	}
	p.receive(1, rst(worse, 0, worse, 0x8001, 0))
	if p.port(1).Edge {
		t.Error("still an edge port after a BPDU")
	}
}

func rowR4(t *testing.T) {
	p := newProbe(t, RSTP, 1)
	opened := 0
	for i := 1; i <= 60 && opened == 0; i++ {
		p.tick(1)
		// A neighbour that is a bridge, hears, and never agrees.
		p.receive(1, rst(worse, 0, worse, 0x8001, 0))
		if p.state[1].Forwarding {
			opened = i
		}
	}
	if opened < 20 || opened > 30 {
		t.Errorf("forwards after %d s, want max age and the delays", opened)
	}
}

func rowR5(t *testing.T) {
	p := newProbe(t, RSTP, 3)
	edge := DefaultPort()
	edge.AdminEdge = true
	p.setPort(4, edge)
	// As designated bridge: proposal out, agreement in, forwarding at once.
	if m := p.last(2); m.Flags&FlagProposal == 0 {
		t.Fatalf("port 2 sends %v, want a proposal", m)
	}
	p.receive(2, agreement(p.last(2)))
	p.want(2, RoleDesignated, StateForwarding)
	// An agreement on a shared medium is one bridge's, and opens nothing.
	shared := DefaultPort()
	shared.HalfDuplex = true
	p.setPort(3, shared)
	p.receive(3, agreement(p.last(3)))
	p.want(3, RoleDesignated, StateDiscarding)
	// An agreement to something else opens nothing, be it better or worse.
	for _, root := range []BridgeID{better, worse} {
		m := agreement(p.last(1))
		m.Root = root
		p.receive(1, m)
		p.want(1, RoleDesignated, StateDiscarding)
	}
	// As root port: the proposal of a better bridge closes port 2, not the edge
	// port, and then the agreement leaves.
	p.forget()
	p.receive(1, rst(better, 0, better, 0x8001, FlagProposal))
	p.want(1, RoleRoot, StateForwarding)
	p.want(2, RoleDesignated, StateDiscarding)
	p.want(4, RoleDesignated, StateForwarding)
	if m := p.last(1); m.Flags&FlagAgreement == 0 || m.role() != RoleRoot {
		t.Errorf("the answer is %v, want an agreement from the root port", m)
	}
	if m := p.last(2); m.Flags&FlagProposal == 0 || m.Root != better {
		t.Errorf("port 2 sends %v, want a proposal of the new root", m)
	}
	p.receive(2, agreement(p.last(2)))
	p.want(2, RoleDesignated, StateForwarding)
}

func rowR6(t *testing.T) {
	p := newProbe(t, RSTP, 2)
	m := rst(better, 0, better, 0x8001, 0)
	m.HelloTime = 7 * second
	p.receive(1, m)
	p.forget()
	for range 5 {
		p.tick(2)
		p.receive(1, m)
	}
	if n := len(p.sent[2]); n != 5 {
		t.Errorf("%d BPDUs in 10 s, want 5", n)
	}
	if got := p.last(2).HelloTime; got != 2*second {
		t.Errorf("hello time %d/256 s in its BPDUs, want its own 2 s", got)
	}
	// The root's hello time counts for how long its information lives.
	p.tick(20)
	p.want(1, RoleRoot, StateForwarding)
	p.tick(1)
	p.want(1, RoleDesignated, StateForwarding)
}

func rowR7(t *testing.T) {
	p := newProbe(t, RSTP, 2)
	p.receive(1, agreement(p.last(1)))
	p.tick(10)
	p.forget()
	p.receive(2, agreement(p.announces(2)))
	p.tick(10)
	for num := uint16(1); num <= 2; num++ {
		n := 0
		for _, m := range p.sent[num] {
			if m.Flags&FlagTopologyChange != 0 {
				n++
			}
		}
		if n != 2 {
			t.Errorf("port %d told of the change in %d BPDUs, want 2", num, n)
		}
	}
	if st := p.b.Status(); st.LastTopologyChangePort != 2 || st.LastTopologyChangeBy != "detected" || st.SinceTopologyChange != 10 {
		t.Errorf("the status says port %d, %s, %d s ago", st.LastTopologyChangePort, st.LastTopologyChangeBy, st.SinceTopologyChange)
	}
}

// announces is what the port announces now, whether it has sent it since forget or
// not.
func (p *probe) announces(num uint16) BPDU { return p.b.find(num).message(TypeRST, 2) }

func rowR8(t *testing.T) {
	for _, hold := range []int{1, 6, 10} {
		p := newProbe(t, RSTP, 2)
		p.cfg.TxHold = hold
		if err := p.b.SetConfig(p.cfg); err != nil {
			t.Fatal(err)
		}
		p.drain()
		p.tick(19)
		p.forget()
		p.tick(1) // a hello
		for sec := range 5 {
			for i := range 50 { // news on port 1 all the time
				p.receive(1, rst(better, uint32(i), better, 0x8001, FlagProposal))
			}
			limit := 1
			if sec == 0 {
				limit = hold
			}
			if n := len(p.sent[2]); n != limit {
				t.Errorf("hold count %d: %d BPDUs in second %d, want %d", hold, n, sec, limit)
			}
			p.forget()
			p.b.Tick() // what was held leaves in the next second
			p.drain()
		}
	}
}

func rowR9(t *testing.T) {
	// Three hello times.
	p := newProbe(t, RSTP, 1)
	p.receive(1, rst(better, 0, better, 0x8001, 0))
	p.tick(5)
	p.want(1, RoleRoot, StateForwarding)
	p.tick(1)
	p.want(1, RoleDesignated, StateForwarding)
	if n := p.port(1).Counters.Expired; n != 1 {
		t.Errorf("expired %d times, want 1", n)
	}
	// Message age: 19 of 20 s, plus one for the hop, is good; more is not.
	for _, c := range []struct {
		age  uint16
		root BridgeID
	}{{0, better}, {18 * second, better}, {19 * second, better}, {19*second + 127, better}, {19*second + 128, self}, {20 * second, self}, {255 * second, self}} {
		p := newProbe(t, RSTP, 1)
		m := rst(better, 0, better, 0x8001, 0)
		m.MessageAge = c.age
		p.receive(1, m)
		if got := p.b.Status().RootID; got != c.root {
			t.Errorf("message age %d/256 s: root %v, want %v", c.age, got, c.root)
		}
	}
	// What a designated bridge takes back is gone at once.
	p = newProbe(t, RSTP, 1)
	m := rst(better, 0, better, 0x8001, 0)
	p.receive(1, m)
	m.MessageAge = 20 * second
	p.receive(1, m)
	if got := p.b.Status().RootID; got != self {
		t.Errorf("root %v after its information was taken back, want its own", got)
	}
}

func rowR11(t *testing.T) {
	p := newProbe(t, RSTP, 2)
	p.receive(1, rst(better, 0, better, 0x8001, FlagLearning|FlagForwarding))
	p.receive(2, rst(better, 0, better, 0x8002, FlagLearning|FlagForwarding))
	p.want(1, RoleRoot, StateForwarding)
	p.want(2, RoleAlternate, StateDiscarding)
	down := DefaultPort()
	down.Enabled = false
	p.setPort(1, down) // no BPDU, no second passes
	p.want(1, RoleDisabled, StateDisabled)
	p.want(2, RoleRoot, StateForwarding)
}

func rowR12MakeRootPort(t *testing.T) {
	for _, m := range []BPDU{config(better, 0, better, 0x8001, 0), rst(better, 0, better, 0x8001, 0)} {
		p := newProbe(t, RSTP, 2)
		p.receive(1, m)
		p.want(1, RoleRoot, StateForwarding)
		if st := p.b.Status(); st.RootID != better || st.RootPort != 1 || st.RootPathCost != PathCost(0) {
			t.Errorf("%v: the root is %v by port %d at cost %d", m, st.RootID, st.RootPort, st.RootPathCost)
		}
	}
}

func rowR12AlternateBackup(t *testing.T) {
	p := newProbe(t, RSTP, 4)
	p.receive(1, rst(better, 0, better, 0x8001, 0))
	p.receive(2, rst(better, 0, better, 0x8002, 0))         // from the same bridge, a worse port
	p.receive(3, rst(better, 10, BridgeID{}, 0x8001, 0))    // another bridge, better than self on that LAN
	p.receive(4, rst(better, PathCost(0), self, 0x8003, 0)) // self, on a better port
	p.want(1, RoleRoot, StateForwarding)
	p.want(2, RoleAlternate, StateDiscarding)
	p.want(3, RoleAlternate, StateDiscarding)
	p.want(4, RoleBackup, StateDiscarding)
}

func rowR12NotifyTC(t *testing.T) {
	p := newProbe(t, RSTP, 3)
	for num := uint16(1); num <= 3; num++ {
		p.receive(num, agreement(p.last(num)))
	}
	p.tick(10)
	p.forget()
	before := p.b.Status().TopologyChanges
	m := agreement(p.announces(1))
	m.Flags |= FlagTopologyChange
	p.receive(1, m)
	p.receive(1, m) // twice, as bridges do: one change
	if len(p.flush) != 4 || p.flush[0] != 2 || p.flush[1] != 3 {
		t.Errorf("flushed %v, want ports 2 and 3 each time", p.flush)
	}
	st := p.b.Status()
	if st.TopologyChanges != before+1 || st.LastTopologyChangePort != 1 || st.LastTopologyChangeBy != "received" || !st.TopologyChange {
		t.Errorf("status: %d changes (%d before), the last by port %d, %s", st.TopologyChanges, before, st.LastTopologyChangePort, st.LastTopologyChangeBy)
	}
	if m := p.last(2); m.Flags&FlagTopologyChange == 0 {
		t.Errorf("port 2 sends %v, want a topology change", m)
	}
}

func rowR12Times(t *testing.T) {
	for _, c := range []struct {
		name               string
		age, max, hello    uint16 // seconds
		delay              uint16
		lives              int // seconds that the information lives
		maxAge, forwarding uint16
	}{
		{"BigMsgTimes", 0, 40, 10, 30, 30, 40, 30},
		{"SmallMsgTimes", 0, 6, 1, 4, 3, 6, 4},
		{"BadMsgTimes", 0, 255, 255, 255, 30, 255, 255}, // passed on as they are, used within limits
		{"HelloTimeZero", 0, 20, 0, 15, 3, 20, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProbe(t, RSTP, 2)
			m := rst(better, 0, better, 0x8001, 0)
			m.MessageAge, m.MaxAge, m.HelloTime, m.ForwardDelay = c.age*second, c.max*second, c.hello*second, c.delay*second
			p.receive(1, m)
			p.receive(1, m)
			if m := p.last(2); m.MaxAge != c.maxAge*second || m.ForwardDelay != c.forwarding*second || m.HelloTime != 2*second || m.MessageAge != second {
				t.Errorf("port 2 announces %v", m)
			}
			p.tick(c.lives - 1)
			p.want(1, RoleRoot, StateForwarding)
			p.tick(1)
			if p.b.Status().RootID != self {
				t.Errorf("the information lives longer than %d s", c.lives)
			}
		})
	}
}
