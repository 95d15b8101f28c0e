package stp

import (
	"errors"
	"slices"
	"testing"
)

// probe drives one bridge by hand, and keeps what it puts out.
type probe struct {
	t      *testing.T
	b      *Bridge
	cfg    Config
	sent   map[uint16][]BPDU // since the last forget
	state  map[uint16]SetState
	flush  []uint16
	events []Event
	ageing uint32
}

// self is the address of the probed bridge, better and worse are others'.
var (
	self   = BridgeID{0x8000, [6]byte{2, 0, 0, 0, 0, 0x50}}
	better = BridgeID{0x8000, [6]byte{2, 0, 0, 0, 0, 0x10}}
	worse  = BridgeID{0x8000, [6]byte{2, 0, 0, 0, 0, 0x90}}
)

// newProbe makes a bridge of this mode with n ports, up, none of which becomes
// an edge port by itself.
func newProbe(t *testing.T, mode Mode, n int) *probe {
	t.Helper()
	cfg := DefaultConfig(self)
	cfg.Mode = mode
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &probe{t: t, b: b, cfg: cfg, state: map[uint16]SetState{}}
	p.forget()
	for i := range n {
		port := DefaultPort()
		port.AutoEdge = false
		p.setPort(uint16(i+1), port)
	}
	return p
}

func (p *probe) setPort(num uint16, cfg PortConfig) {
	p.t.Helper()
	if err := p.b.SetPort(num, cfg); err != nil {
		p.t.Fatal(err)
	}
	p.drain()
}

func (p *probe) drain() {
	p.t.Helper()
	stage := 0
	for _, o := range p.b.Outputs() {
		now := 0
		switch o := o.(type) {
		case SetState:
			was := p.state[o.Port]
			if o.Learning && !was.Learning || o.Forwarding && !was.Forwarding {
				now = 1
			}
			p.state[o.Port] = o
		case Flush:
			now = 2
			p.flush = append(p.flush, o.Port)
		case SetAgeing:
			now = 2
			p.ageing = o.Seconds
		case SendBPDU:
			now = 3
			m, err := ParseBPDU(o.PDU)
			if err != nil {
				p.t.Errorf("port %d sends % x: %v", o.Port, o.PDU, err)
			}
			p.sent[o.Port] = append(p.sent[o.Port], m)
		case Event:
			now = 4
			p.events = append(p.events, o)
		}
		if now < stage {
			p.t.Errorf("%T stands behind a later kind of output", o)
		}
		stage = now
	}
	if p.b.unsettled != 0 {
		p.t.Fatalf("the machines did not come to rest %d times", p.b.unsettled)
	}
}

func (p *probe) forget() {
	p.sent = map[uint16][]BPDU{}
	p.flush, p.events = nil, nil
}

func (p *probe) tick(n int) {
	p.t.Helper()
	for range n {
		p.b.Tick()
		p.drain()
	}
}

// receive hands in a BPDU, which must be acted upon.
func (p *probe) receive(port uint16, m BPDU) {
	p.t.Helper()
	if err := p.b.Receive(port, m.Append(nil)); err != nil {
		p.t.Fatal(err)
	}
	p.drain()
}

// refuse hands in bytes that must be refused for this reason.
func (p *probe) refuse(port uint16, pdu []byte, want error) {
	p.t.Helper()
	if err := p.b.Receive(port, pdu); !errors.Is(err, want) {
		p.t.Errorf("got error %v, want %v", err, want)
	}
	p.drain()
}

func (p *probe) port(num uint16) PortStatus {
	p.t.Helper()
	st := p.b.Status()
	i := slices.IndexFunc(st.Ports, func(ps PortStatus) bool { return ps.Port == num })
	if i < 0 {
		p.t.Fatalf("no port %d in the status", num)
	}
	return st.Ports[i]
}

// want checks a port's role and state, and that the datapath was told so.
func (p *probe) want(num uint16, role Role, state State) {
	p.t.Helper()
	ps := p.port(num)
	if ps.Role != role || ps.State != state {
		p.t.Errorf("port %d is %v, %v; want %v, %v", num, ps.Role, ps.State, role, state)
	}
	s := p.state[num]
	if s.Forwarding != (state == StateForwarding) || s.Learning != (state == StateForwarding || state == StateLearning) {
		p.t.Errorf("port %d: the datapath was told %+v for %v", num, s, state)
	}
}

// rst and config are BPDUs of a designated port, with the standard's times.
func rst(root BridgeID, cost uint32, bridge BridgeID, port PortID, flags Flags) BPDU {
	return BPDU{
		Version: 2, Type: TypeRST, Flags: flags | roleFlags(RoleDesignated),
		Root: root, RootPathCost: cost, Bridge: bridge, Port: port,
		MaxAge: 20 * second, HelloTime: 2 * second, ForwardDelay: 15 * second,
	}
}

func config(root BridgeID, cost uint32, bridge BridgeID, port PortID, flags Flags) BPDU {
	m := rst(root, cost, bridge, port, 0)
	m.Version, m.Type, m.Flags = 0, TypeConfig, flags
	return m
}

// agreement is the answer of a root port to m.
func agreement(m BPDU) BPDU {
	m.Flags = roleFlags(RoleRoot) | FlagAgreement | FlagLearning | FlagForwarding
	return m
}

// last is the BPDU that a port sent last.
func (p *probe) last(num uint16) BPDU {
	p.t.Helper()
	if len(p.sent[num]) == 0 {
		p.t.Fatalf("port %d has sent nothing", num)
	}
	return p.sent[num][len(p.sent[num])-1]
}
