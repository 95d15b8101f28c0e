package relay

// Reason says why a frame was dropped; Pass, the zero value, says that it was
// not. Every exit of the decision has one, and every one has a counter per port.
type Reason uint8

// The reasons up to EgressVLAN are counted on the port a frame came in by, the
// rest on the port it would have left by.
const (
	Pass          Reason = iota // go on
	Runt                        // shorter than its headers, or a checksum that starts within them
	GroupSource                 // the source is a group address
	ZeroSource                  // the source is 00:00:00:00:00:00
	OwnSource                   // the source is the host interface's own address
	LinkLocal                   // to 01:80:c2:00:00:00–0f and not for this switch
	BPDURate                    // more BPDUs than the port's allowance
	PortState                   // the port is discarding or learning
	Locked                      // the port is locked and the source unknown
	VLANTagged                  // a tagged frame on an access port
	VLANUntagged                // an untagged frame on a port without PVID
	VLANReserved                // VLAN id 4095
	VLANMember                  // the ingress port is no member of the VLAN
	SamePort                    // the destination is where the frame came from
	NoEgress                    // no other port to flood to
	Isolated                    // between isolated ports
	EgressState                 // the destination's port is not forwarding
	EgressVLAN                  // the destination's port is no member of the VLAN
	EgressMTU                   // longer than the egress port's MTU
	EgressFull                  // no room at the egress port
	EgressOffload               // offload header that cannot be honoured
	NumReasons                  // how many values there are

	firstEgress = EgressMTU // from here on counted on the egress port
)

var reasonNames = [NumReasons]string{
	"pass", "runt", "group-source", "zero-source", "own-source", "link-local", "bpdu-rate",
	"port-state", "locked", "vlan-tagged", "vlan-untagged", "vlan-reserved", "vlan-member",
	"same-port", "no-egress", "isolated", "egress-state", "egress-vlan", "egress-mtu",
	"egress-full", "egress-offload",
}

// String is the reason's name in Status, stats, metrics and explanations.
func (r Reason) String() string { return reasonNames[r] }

// OnEgress reports whether the reason is counted on the port that a frame would
// have left by, rather than on the one it came in by.
func (r Reason) OnEgress() bool { return r >= firstEgress }
