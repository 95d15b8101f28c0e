package inkernel

import (
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// Bits of a row's state; the flush generation is in the lower 16. As in
// forward.h.
const (
	mayReceive = 1 << (16 + iota)
	maySend
	refreshes
	isolated
	untaggedOnly
	toPeer
	toStack
)

// port is what Follow last made of a port.
type port struct {
	device frame.Redirector // nil: none, or one that can't be redirected to
	state  uint64
	shape  shape
	why    string // it takes no part, or ""
}

// shape is what of a port programs may not see change.
type shape struct {
	ifindex uint32
	maxLen  uint32
	pvid    uint16
	vlans   vlans
}

// Follow implements vswitch.Follower: what v forbids is in force in every program
// when it returns.
//
// A row's state is one word. Where nothing but that changes, it is stored at once.
// Else the row is closed first, so that no program sees half a change. A change of
// a port that was open waits until every program that may have seen it as it was
// has ended, once for all ports; to open one waits for nothing.
func (t *Tier) Follow(v *relay.View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var changed []int
	forbids := false
	for n := range max(len(v.Ports), t.used) {
		have, want := &t.ports[n], port{}
		if n < len(v.Ports) {
			want = t.want(&v.Ports[n])
		}
		same := have.device == want.device && have.shape == want.shape
		state := want.state
		if !same {
			state = 0
			changed = append(changed, n)
		}
		if have.state != state {
			t.rows[n].state.Store(state)
			forbids = forbids || have.state&(mayReceive|maySend) != 0 && have.state|refreshes != state
		}
		if have.device != want.device {
			t.rebind(n, have.device, want.device)
		}
		*have = want
	}
	t.used = len(v.Ports)
	if forbids {
		t.wait()
	}
	for _, n := range changed {
		p := &t.ports[n]
		t.rows[n].ifindex, t.rows[n].maxLen, t.rows[n].pvid = p.shape.ifindex, p.shape.maxLen, p.shape.pvid
		if n < len(t.vlans) {
			t.vlans[n] = p.shape.vlans
		}
		t.rows[n].state.Store(p.state)
	}
}

// rebind gives number n to another port's programs.
func (t *Tier) rebind(n int, from, to frame.Redirector) {
	if from != nil {
		from.Bind(-1)
	}
	if to != nil {
		to.Bind(n)
	}
	for _, c := range t.counts {
		c[n] = count{}
	}
}

// want is what shall become of a port.
func (t *Tier) want(p *relay.Port) (w port) {
	if p.Tx == nil {
		return w
	}
	device, ok := p.Tx.(frame.Redirector)
	if !ok {
		w.why = "not a network device"
		return w
	}
	target := device.Target()
	w.device = device
	switch {
	case target.Why != "":
		w.why = target.Why
	case p.Tunnel:
		w.why = "a tunnel port's frames are re-tagged by the relay"
	case p.Extra&^relay.ExtraLocked != 0:
		w.why = "its frames take steps that only the relay knows"
	case !p.Forward:
		w.why = "not forwarding"
	}
	if w.why != "" {
		return w
	}
	w.shape = shape{ifindex: uint32(target.Index), maxLen: p.MaxLen, pvid: p.PVID}
	w.state = uint64(p.Gen) | mayReceive | maySend
	for _, f := range []struct {
		on  bool
		bit uint64
	}{{p.Learn, refreshes}, {p.Isolated, isolated}, {p.UntaggedOnly, untaggedOnly}, {target.Peer, toPeer}, {target.Stack, toStack}} {
		if f.on {
			w.state |= f.bit
		}
	}
	if t.sizes.Filtering != 0 {
		w.shape.vlans = vlans{member: *p.Member, untagged: *p.Untagged}
	}
	return w
}
