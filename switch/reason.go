package vswitch

// Reason says why a frame was dropped. Every exit of the forwarding decision
// has one, and every one has a counter per port.
type Reason uint8

// The reasons up to DropEgressVLAN are counted on the port a frame came in by,
// the rest on the port it would have left by.
const (
	DropRunt          Reason = iota // shorter than its headers, or a checksum that starts within them
	DropGroupSource                 // the source is a group address
	DropZeroSource                  // the source is 00:00:00:00:00:00
	DropOwnSource                   // the source is the host interface's own address
	DropLinkLocal                   // to 01:80:c2:00:00:00–0f and not for this switch
	DropBPDURate                    // more BPDUs than the port's allowance
	DropPortState                   // the port is discarding or learning
	DropLocked                      // the port is locked and the source unknown
	DropVLANTagged                  // a tagged frame on an access port
	DropVLANUntagged                // an untagged frame on a port without PVID
	DropVLANReserved                // VLAN id 4095
	DropVLANMember                  // the ingress port is no member of the VLAN
	DropSamePort                    // the destination is where the frame came from
	DropNoEgress                    // no other port to flood to
	DropIsolated                    // between isolated ports
	DropEgressState                 // the destination's port is not forwarding
	DropEgressVLAN                  // the destination's port is no member of the VLAN
	DropEgressMTU                   // longer than the egress port's MTU
	DropEgressFull                  // no room at the egress port
	DropEgressOffload               // offload header that cannot be honoured
	numReasons

	firstEgressReason = DropEgressMTU // from here on counted on the egress port
)

var reasonNames = [numReasons]string{
	"runt", "group-source", "zero-source", "own-source", "link-local", "bpdu-rate",
	"port-state", "locked", "vlan-tagged", "vlan-untagged", "vlan-reserved", "vlan-member",
	"same-port", "no-egress", "isolated", "egress-state", "egress-vlan", "egress-mtu",
	"egress-full", "egress-offload",
}

// Names of drops that ports count themselves; they stand beside the Reasons
// wherever drops are shown.
const (
	DropRxFull  = "rx-full"  // lost before the switch could take it
	DropRxError = "rx-error" // refused by the port: malformed
	DropTxError = "tx-error" // refused by the kernel or the peer
)

// String is the reason's name in Status, stats and metrics.
func (r Reason) String() string { return reasonNames[r] }
