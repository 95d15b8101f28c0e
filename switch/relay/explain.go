package relay

import (
	"fmt"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Verdict is what becomes of a frame.
type Verdict string

// The verdicts.
const (
	VerdictForward Verdict = "forward" // to the port of a known station
	VerdictFlood   Verdict = "flood"   // to every other port of its VLAN that may have it
	VerdictDrop    Verdict = "drop"    // nowhere; Reason says why
	VerdictPeer    Verdict = "peer"    // to the switch itself
)

// Explanation is what Forward would do with a frame, and why.
type Explanation struct {
	Verdict Verdict
	VLAN    uint16   // 0 if it got no further than its addresses
	Out     []uint16 // ports it leaves by, as far as their devices have room
	Reason  Reason   // of a drop
	Steps   []Step   // in the order they are taken
}

// Step is one step of the decision, in words.
type Step struct {
	Step   string // admit, vlan, state, learn, lookup, egress
	Clause string // of the standard
	What   string // one line
}

// Explain says what Forward would do with one frame that came in by port in, and
// why. It takes the same steps by the same code, but it learns, counts, punts and
// sends nothing. f is the caller's; its bytes are not written to.
//
// It says nothing of what depends on the moment of sending: whether the egress
// port has room.
func (r *Relay) Explain(in uint16, f frame.Frame) Explanation {
	r.trace = &trace{relay: r}
	r.void = Counters{}
	defer func() { r.trace = nil }()
	e := &r.trace.e
	r.Forward(in, []frame.Frame{f})
	switch {
	case e.Verdict == VerdictPeer:
	case len(e.Out) == 0:
		e.Verdict = VerdictDrop
	case e.Verdict == "":
		e.Verdict = VerdictForward
	}
	if len(e.Out) > 0 {
		e.Reason = Pass // one of several ports refused it
	}
	return *e
}

// trace collects an explanation. The functions of the decision call its methods
// where it is not nil.
type trace struct {
	relay *Relay
	e     Explanation
	at    fdb.Dest // where the source would be once it was learned
}

func (t *trace) step(step, clause, format string, args ...any) {
	t.e.Steps = append(t.e.Steps, Step{step, clause, fmt.Sprintf(format, args...)})
}

// reasonSteps say where in the decision a frame is dropped for each reason, and
// in what words.
var reasonSteps = [NumReasons]Step{
	Runt:          {"admit", "802.3 3.1.1", "the frame is shorter than its headers, or its checksum starts within them"},
	GroupSource:   {"admit", "802.3 3.2.3", "the source is a group address, which no station has"},
	ZeroSource:    {"admit", "802.3 3.2.3", "the source is 00:00:00:00:00:00, which no station has"},
	OwnSource:     {"admit", "802.1Q 8.8", "the source is this switch's own address: the frame came back, or somebody pretends"},
	LinkLocal:     {"admit", "802.1Q table 8-1", "a reserved address: no bridge forwards it, and it is not for this one"},
	BPDURate:      {"admit", "802.1D-2004 17.13.12", "more BPDUs than the port may hand to the spanning tree"},
	PortState:     {"state", "802.1Q 8.6.1", "the port is not forwarding"},
	Locked:        {"learn", "802.1Q 8.8.1", "the port is locked, and the source is not known to be on it"},
	VLANTagged:    {"vlan", "802.1Q 6.9", "an access port admits untagged and priority-tagged frames only"},
	VLANUntagged:  {"vlan", "802.1Q 6.9", "untagged, and the port has no PVID"},
	VLANReserved:  {"vlan", "802.1Q table 9-2", "VLAN id 4095 is reserved"},
	VLANMember:    {"vlan", "802.1Q 8.6.2", "the port is no member of the frame's VLAN"},
	SamePort:      {"egress", "802.1Q 8.6.1", "the destination is where the frame came from"},
	NoEgress:      {"egress", "802.1Q 8.6.3", "no other port may have it"},
	Isolated:      {"egress", "802.1Q 8.6.3", "both ports are isolated"},
	EgressState:   {"egress", "802.1Q 8.6.1", "the port is not forwarding"},
	EgressVLAN:    {"egress", "802.1Q 8.6.4", "the port is no member of the frame's VLAN"},
	EgressMTU:     {"egress", "802.1Q 6.5.8", "the frame is longer than the port's MTU"},
	EgressFull:    {"egress", "802.1Q 8.6.6", "the port has no room"},
	EgressOffload: {"egress", "virtio 1.2 5.1.6", "the offload header asks for what can't be done"},
}

// drop notes why the frame, or its copy for one port, goes no further.
func (t *trace) drop(why Reason) {
	t.e.Reason = why
	t.e.Steps = append(t.e.Steps, reasonSteps[why])
}

// peer notes that the frame is the control side's.
func (t *trace) peer(clause, what string) {
	t.e.Verdict = VerdictPeer
	t.step("admit", clause, "%s", what)
}

// source notes what learning would do.
func (t *trace) source(key fdb.Key, to fdb.Dest, r *Relay) {
	t.e.VLAN, t.at = key.VID(), to
	mac := frame.MAC(key.MAC())
	switch d, ok := r.table.Lookup(key); {
	case ok && d == to:
		t.step("learn", "802.1Q 8.7", "%v is known to be on %s in VLAN %d", mac, r.view.PortName(to.Port), key.VID())
	case ok && d.Port != to.Port:
		t.step("learn", "802.1Q 8.7", "%v is known on %s in VLAN %d, and would move to %s", mac, r.view.PortName(d.Port), key.VID(), r.view.PortName(to.Port))
	default:
		t.step("learn", "802.1Q 8.7", "%v would be learned on %s in VLAN %d", mac, r.view.PortName(to.Port), key.VID())
	}
}

// found notes where the destination is.
func (t *trace) found(key fdb.Key, d fdb.Dest, r *Relay) {
	t.e.VLAN = key.VID()
	t.step("lookup", "802.1Q 8.8.9", "%v is on %s in VLAN %d", frame.MAC(key.MAC()), r.view.PortName(d.Port), key.VID())
}

// flood notes that the frame goes wherever it may.
func (t *trace) flood(key fdb.Key, class Class, r *Relay) {
	t.e.VLAN, t.e.Verdict = key.VID(), VerdictFlood
	what := [NumClasses]string{Unknown: "is not in the table", Multicast: "is a group", Broadcast: "is everybody"}[class]
	t.step("lookup", "802.1Q 8.8.9", "%v %s: to every other port of VLAN %d that forwards", frame.MAC(key.MAC()), what, key.VID())
}

// refuse notes a port that a flood passes by.
func (t *trace) refuse(n uint16, why Reason) {
	if why != SamePort { // which goes without saying
		s := reasonSteps[why]
		t.step(s.Step, s.Clause, "not by %s: %s", t.relay.view.PortName(n), s.What)
	}
}

// emit notes that the frame leaves by port n.
func (t *trace) emit(n uint16, out *Port, f *frame.Frame, tag frame.Tag) {
	t.e.Out = append(t.e.Out, n)
	how := "untagged"
	if tag != 0 {
		how = fmt.Sprintf("with tag %04x, VLAN %d", tag.TPID(), tag.VID())
	}
	if needs(f.Hdr)&^out.offers != 0 {
		how += ", its checksum and segments finished first"
	}
	t.step("egress", "802.1Q 8.6.4", "by %s, %s", out.Name, how)
}
