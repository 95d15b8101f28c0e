package stp

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestConfigOutOfRangeIsRefusedAndChangesNothing(t *testing.T) {
	good := DefaultConfig(self)
	for _, c := range []struct {
		name   string
		change func(*Config)
		word   string // of the message; "" is valid
	}{
		{"default", func(*Config) {}, ""},
		{"any sixteen bits of priority", func(c *Config) { c.ID.Priority = 0x1234 }, ""},
		{"no address", func(c *Config) { c.ID.Addr = [6]byte{} }, "bridge id"},
		{"group address", func(c *Config) { c.ID.Addr[0] = 1 }, "bridge id"},
		{"mode", func(c *Config) { c.Mode = 2 }, "mode"},
		{"hello 0", func(c *Config) { c.Hello = 0 }, "hello"},
		{"hello 11", func(c *Config) { c.Hello = 11 }, "hello"},
		{"max age 5", func(c *Config) { c.MaxAge = 5 }, "max-age"},
		{"max age 41", func(c *Config) { c.MaxAge = 41 }, "max-age"},
		{"forward delay 3", func(c *Config) { c.ForwardDelay = 3 }, "forward-delay"},
		{"forward delay 31", func(c *Config) { c.ForwardDelay = 31 }, "forward-delay"},
		{"tx hold 0", func(c *Config) { c.TxHold = 0 }, "tx-hold"},
		{"tx hold 11", func(c *Config) { c.TxHold = 11 }, "tx-hold"},
		{"least of all", func(c *Config) { c.Hello, c.MaxAge, c.ForwardDelay = 2, 6, 4 }, ""},
		{"most of all", func(c *Config) { c.Hello, c.MaxAge, c.ForwardDelay = 10, 40, 30 }, ""},
	} {
		cfg := good
		c.change(&cfg)
		err := cfg.Validate()
		if (err == nil) != (c.word == "") || err != nil && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.word)) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := New(cfg); (err == nil) != (c.word == "") {
			t.Errorf("%s: New: %v", c.name, err)
		}
		if c.word == "" {
			continue
		}
		p := newProbe(t, RSTP, 1)
		before := p.b.Status()
		if err := p.b.SetConfig(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: SetConfig: %v", c.name, err)
		}
		if after := p.b.Status(); !reflect.DeepEqual(before, after) || len(p.b.Outputs()) != 0 {
			t.Errorf("%s: something changed", c.name)
		}
	}
}

// The kernel's bridge takes times whose relation the standard doesn't have, and so
// do we, with a word about it.
func TestTimesThatDoNotFitOneAnotherAreTakenWithAWarning(t *testing.T) {
	for _, c := range []struct {
		hello, maxAge, forwardDelay int
		words                       string // of the warning; "" = none
	}{
		{2, 20, 15, ""},
		{2, 6, 4, ""},
		{10, 40, 30, ""},
		{9, 20, 11, ""},
		{2, 20, 4, "max-age 20s is more than 2×(forward-delay−1) = 6s"},
		{2, 20, 10, "max-age 20s is more than 2×(forward-delay−1) = 18s"},
		{10, 20, 15, "max-age 20s is less than 2×(hello+1) = 22s"},
	} {
		cfg := DefaultConfig(BridgeID{Priority: 0x8000, Addr: [6]byte{2, 0, 0, 0, 0, 1}})
		cfg.Hello, cfg.MaxAge, cfg.ForwardDelay = c.hello, c.maxAge, c.forwardDelay
		b, err := New(cfg)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if err := b.SetConfig(cfg); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if s := b.Status(); int(s.BridgeForwardDelay) != c.forwardDelay || int(s.BridgeMaxAge) != c.maxAge {
			t.Errorf("%+v: in force are max age %d, forward delay %d", c, s.BridgeMaxAge, s.BridgeForwardDelay)
		}
		w := cfg.Warning()
		if (w == "") != (c.words == "") || !strings.HasPrefix(w, c.words) || w != "" && !strings.Contains(w, "2×(forward-delay−1) ≥ max-age ≥ 2×(hello+1)") || strings.Contains(w, "\n") {
			t.Errorf("%+v: warning %q", c, w)
		}
	}
}

func TestPortConfigOutOfRangeIsRefused(t *testing.T) {
	p := newProbe(t, RSTP, 1)
	before := p.b.Status()
	for name, change := range map[string]func(*PortConfig){
		"cost":           func(c *PortConfig) { c.Cost = MaxPathCost + 1 },
		"priority":       func(c *PortConfig) { c.Priority = 129 },
		"point-to-point": func(c *PortConfig) { c.PointToPoint = 3 },
	} {
		cfg := DefaultPort()
		change(&cfg)
		for _, num := range []uint16{1, 2} {
			if err := p.b.SetPort(num, cfg); !errors.Is(err, ErrConfig) {
				t.Errorf("%s of port %d: %v", name, num, err)
			}
		}
	}
	for _, num := range []uint16{0, 4096} {
		if err := p.b.SetPort(num, DefaultPort()); !errors.Is(err, ErrConfig) {
			t.Errorf("port %d: %v", num, err)
		}
	}
	if after := p.b.Status(); !reflect.DeepEqual(before, after) {
		t.Error("something changed")
	}
	for name, err := range map[string]error{
		"RemovePort": p.b.RemovePort(7), "Recover": p.b.Recover(7), "Mcheck": p.b.Mcheck(7), "Receive": p.b.Receive(7, nil),
	} {
		if !errors.Is(err, ErrNoPort) {
			t.Errorf("%s of a port that isn't there: %v", name, err)
		}
	}
}

func TestPathCostIsTable17_3(t *testing.T) {
	const k, m, g = 1_000, 1_000_000, 1_000_000_000
	for speed, want := range map[uint64]uint32{
		0: 20_000, 1: 200_000_000, 100 * k: 200_000_000, m: 20_000_000, 10 * m: 2_000_000, 100 * m: 200_000,
		g: 20_000, 10 * g: 2_000, 100 * g: 200, 1_000 * g: 20, 10_000 * g: 2, 100_000 * g: 1, 40 * g: 500, 25 * g: 800,
	} {
		if got := PathCost(speed); got != want {
			t.Errorf("%d bit/s costs %d, want %d", speed, got, want)
		}
	}
	p := newProbe(t, RSTP, 0)
	cfg := DefaultPort()
	cfg.Speed = 100 * g
	p.setPort(1, cfg)
	if got := p.port(1).Cost; got != 200 {
		t.Errorf("a port at 100 Gbit/s costs %d", got)
	}
	cfg.Cost = 7
	p.setPort(1, cfg)
	if got := p.port(1).Cost; got != 7 {
		t.Errorf("its own cost is not taken: %d", got)
	}
}

func TestPathCostsAddUpWithoutWrapping(t *testing.T) {
	p := newProbe(t, RSTP, 2)
	p.receive(1, rst(better, 1<<32-10, better, 0x8001, 0))
	if got := p.b.Status().RootPathCost; got != 1<<32-1 {
		t.Errorf("root path cost %d, want the greatest there is", got)
	}
}

// TestStatesReachTheDatapathBeforeTheBPDUsThatTellOfThem: probe.drain checks the
// order of all outputs; here is the case that matters most, in one slice.
func TestStatesReachTheDatapathBeforeTheBPDUsThatTellOfThem(t *testing.T) {
	p := newProbe(t, RSTP, 3)
	p.receive(2, agreement(p.last(2)))
	if err := p.b.Receive(1, rst(better, 0, better, 0x8001, FlagProposal).Append(nil)); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, o := range p.b.Outputs() {
		switch o := o.(type) {
		case SetState:
			if o.Forwarding {
				order = append(order, "open")
			} else {
				order = append(order, "close")
			}
		case SendBPDU:
			if m, err := ParseBPDU(o.PDU); err == nil && m.Flags&FlagAgreement != 0 {
				order = append(order, "agree")
			}
		}
	}
	if want := []string{"close", "open", "agree"}; !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
}

func TestOutputsStayValidUntilTheNextCall(t *testing.T) {
	p := newProbe(t, RSTP, 1)
	p.tick(10)
	if err := p.b.SetPort(2, DefaultPort()); err != nil {
		t.Fatal(err)
	}
	out := p.b.Outputs()
	i := slices.IndexFunc(out, func(o Output) bool { _, ok := o.(SendBPDU); return ok })
	if i < 0 {
		t.Fatal("a new port sends nothing")
	}
	held := out[i].(SendBPDU)
	want := string(held.PDU)
	for range 30 {
		p.b.Tick()
		if string(held.PDU) != want {
			t.Fatal("the bytes of a BPDU changed before the next call of Outputs")
		}
	}
	if len(p.b.Outputs()) == 0 || len(p.b.Outputs()) != 0 {
		t.Error("Outputs does not drain")
	}
}

func TestRemovedPortIsClosedFirst(t *testing.T) {
	p := newProbe(t, RSTP, 2)
	p.receive(1, rst(better, 0, better, 0x8001, 0))
	p.receive(2, rst(better, 0, better, 0x8002, 0))
	p.flush = nil
	if err := p.b.RemovePort(1); err != nil {
		t.Fatal(err)
	}
	p.drain()
	if s := p.state[1]; s.Learning || s.Forwarding {
		t.Errorf("the removed port's last state is %+v", s)
	}
	if !slices.Contains(p.flush, 1) {
		t.Errorf("flushed %v, want the removed port", p.flush)
	}
	p.want(2, RoleRoot, StateForwarding)
	if n := len(p.b.Status().Ports); n != 1 {
		t.Errorf("%d ports in the status", n)
	}
	// The same number again is a new port.
	p.setPort(1, DefaultPort())
	if c := p.port(1).Counters; c.RxRST != 0 || c.TxRST != 1 {
		t.Errorf("a new port begins with %+v", c)
	}
}

func TestBPDUGuardDisablesOnlyItsPort(t *testing.T) {
	p := newProbe(t, RSTP, 1)
	guest := DefaultPort()
	guest.AdminEdge, guest.BPDUGuard, guest.RecoverAfter = true, true, 3
	p.setPort(2, guest)
	p.want(2, RoleDesignated, StateForwarding)
	p.forget()
	before := p.port(1)
	p.refuse(2, rst(better, 0, better, 0x8001, FlagProposal).Append(nil), ErrGuarded)
	p.want(2, RoleDisabled, StateDisabled)
	if p.state[2].Guard != GuardBPDU {
		t.Errorf("the datapath was told %+v", p.state[2])
	}
	if after := p.port(1); !reflect.DeepEqual(before, after) || p.b.Status().RootID != self {
		t.Errorf("port 1 was %+v, is %+v", before, after)
	}
	i := slices.IndexFunc(p.events, func(e Event) bool { return e.Kind == GuardTripped })
	if i < 0 {
		t.Fatalf("events %+v: no guard tripped", p.events)
	}
	if e := p.events[i]; e.Port != 2 || e.Guard != GuardBPDU || e.Bridge != better || !strings.Contains(e.Reason, better.String()) {
		t.Errorf("the event says %+v", e)
	}
	if len(p.sent) != 0 {
		t.Errorf("BPDUs were sent: %v", p.sent)
	}
	// A malformed BPDU is none, and an offender who goes on is not news.
	p.forget()
	p.refuse(2, []byte{0, 0, 0}, ErrTooShort)
	p.refuse(2, rst(worse, 0, worse, 0x8001, 0).Append(nil), ErrGuarded)
	p.tick(2)
	if len(p.events) != 0 || p.port(2).RecoverIn != 1 {
		t.Errorf("events %v, recovery in %d s", p.events, p.port(2).RecoverIn)
	}
	p.tick(1)
	p.want(2, RoleDesignated, StateForwarding)
	// A longer time, set while the guard is in force, counts from then.
	p.refuse(2, BPDU{Type: TypeTCN}.Append(nil), ErrGuarded)
	guest.RecoverAfter = 10
	p.setPort(2, guest)
	if got := p.port(2).RecoverIn; got != 10 {
		t.Errorf("recovery in %d s, want 10", got)
	}
	// Without a time, by hand only; and taking the guard away is that, too.
	guest.RecoverAfter = 0
	p.setPort(2, guest)
	p.tick(1000)
	p.want(2, RoleDisabled, StateDisabled)
	guest.BPDUGuard = false
	p.setPort(2, guest)
	p.want(2, RoleDesignated, StateForwarding)
	if c := p.port(2).Counters; c.GuardTrips != 2 || c.RxDiscarded != 3 || c.RxTooShort != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestRootGuardOnARootPortMovesTheRoot(t *testing.T) {
	p := newProbe(t, RSTP, 2)
	p.receive(1, rst(better, 0, better, 0x8001, 0))
	p.receive(2, rst(better, 10, worse, 0x8001, 0))
	p.want(1, RoleRoot, StateForwarding)
	guarded := DefaultPort()
	guarded.AutoEdge, guarded.RootGuard = false, true
	p.setPort(1, guarded)
	p.want(2, RoleRoot, StateForwarding)
	p.receive(1, rst(better, 0, better, 0x8001, 0))
	p.want(1, RoleDesignated, StateDiscarding)
	if p.port(1).Guard != GuardRoot {
		t.Errorf("guard %v", p.port(1).Guard)
	}
	// An inferior bridge is welcome.
	p.tick(6)
	p.receive(2, rst(better, 10, worse, 0x8001, 0))
	p.receive(1, agreement(p.announces(1)))
	p.want(1, RoleDesignated, StateForwarding)
}

func TestShownWordsAreReadBack(t *testing.T) {
	for _, m := range []Mode{RSTP, STP} {
		var back Mode
		if err := back.UnmarshalText([]byte(m.String())); err != nil || back != m {
			t.Errorf("mode %v is read back as %v, %v", m, back, err)
		}
	}
	var r Role
	if err := r.UnmarshalText([]byte("backup")); err != nil || r != RoleBackup {
		t.Errorf("role: %v, %v", r, err)
	}
	if err := r.UnmarshalText([]byte("chief")); err == nil {
		t.Error("an unknown role is read")
	}
	if got := State(77).String(); got != "77" {
		t.Errorf("an unknown state shows as %q", got)
	}
}

func TestStatusGoesThroughJSON(t *testing.T) {
	p := newProbe(t, RSTP, 0)
	if b, err := json.Marshal(p.b.Status()); err != nil || !strings.Contains(string(b), `"ports":[]`) {
		t.Errorf("without ports: %s, %v", b, err)
	}
	p = newProbe(t, STP, 2)
	p.receive(1, config(better, 5, better, 0x8001, FlagTopologyChange))
	p.tick(3)
	st := p.b.Status()
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"root_id":"8000.020000000010"`, `"port_id":"8001"`, `"role":"root"`, `"state":"listening"`, `"mode":"stp"`, `"sends":"stp"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	var back Status
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, st) {
		t.Errorf("read back as %+v, %v\nwas %+v", back, err, st)
	}
}

// TestRepeatedBPDUAllocatesNothing: what a port at rest hears every two seconds,
// or from a flood, costs no memory.
func TestRepeatedBPDUAllocatesNothing(t *testing.T) {
	p := newProbe(t, RSTP, 8)
	pdu := rst(better, 0, better, 0x8001, FlagLearning|FlagForwarding).Append(nil)
	receive := func() {
		if err := p.b.Receive(1, pdu); err != nil {
			t.Fatal(err)
		}
	}
	receive()
	p.b.Outputs()
	if n := testing.AllocsPerRun(100, receive); n != 0 {
		t.Errorf("%v allocations for a BPDU that says nothing new", n)
	}
}

func BenchmarkReceiveRepeated(b *testing.B) {
	for _, ports := range []uint16{2, 16, 128} {
		b.Run(fmt.Sprintf("ports=%d", ports), func(b *testing.B) {
			br, err := New(DefaultConfig(self))
			if err != nil {
				b.Fatal(err)
			}
			for num := range ports {
				if err := br.SetPort(num+1, DefaultPort()); err != nil {
					b.Fatal(err)
				}
			}
			pdu := rst(better, 0, better, 0x8001, FlagLearning|FlagForwarding).Append(nil)
			for b.Loop() {
				if err := br.Receive(1, pdu); err != nil {
					b.Fatal(err)
				}
				br.Outputs()
			}
		})
	}
}
