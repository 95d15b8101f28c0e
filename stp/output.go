package stp

// Output is something the bridge asks of its owner or tells it: a SetState,
// Flush, SetAgeing, SendBPDU or Event. See Bridge.Outputs for their order.
type Output interface{ isOutput() }

// SetState says what the datapath may do with a port's data frames from now on.
// A port that neither learns nor forwards discards them; BPDUs come in and go
// out whatever the state.
type SetState struct {
	Port       uint16
	Learning   bool // source addresses may enter the filtering database
	Forwarding bool // frames may be relayed from and to the port; implies Learning
	// Guard is not NoGuard while a guard keeps the port from forwarding. With
	// GuardBPDU the port is disabled: the owner may stop reading BPDUs from it.
	Guard Guard
}

// Flush says to forget every dynamic address learned on the port (fdbFlush,
// 17.19.7).
type Flush struct{ Port uint16 }

// SetAgeing says how long dynamic addresses live: Seconds, or the owner's own
// ageing time when it is 0. It is sent in mode STP only, whose topology changes
// shorten the ageing time to the forward delay for a while instead of flushing
// (17.19.1).
type SetAgeing struct{ Seconds uint32 }

// SendBPDU asks for a BPDU to leave from a port: PDU is what follows the LLC
// header 42 42 03, in a frame from the port's own MAC address to
// 01:80:c2:00:00:00, with an 802.3 length field of 3+len(PDU). The bytes are
// valid until the next call of Outputs.
type SendBPDU struct {
	Port uint16
	PDU  []byte
}

// Event tells what happened, for people and logs. Nothing needs to be done
// about it.
type Event struct {
	Kind EventKind `json:"kind"`
	// Port is the port concerned; for RootChanged the new root port, 0 if this
	// bridge is the root.
	Port  uint16 `json:"port"`
	Role  Role   `json:"role"`  // the port's role now
	State State  `json:"state"` // the port's state now
	// Root is the root bridge now (RootChanged).
	Root BridgeID `json:"root"`
	// Bridge is the other bridge concerned: the sender of the BPDU that tripped a
	// guard or told of a topology change, the new root port's designated bridge;
	// zero if there is none.
	Bridge BridgeID `json:"bridge"`
	Guard  Guard    `json:"guard"` // GuardTripped, GuardCleared
	// Reason says more in a few words. GuardTripped: why. TopologyChanged:
	// "detected" or "received". VersionChanged: what the port sends now, "rstp" or
	// "stp". EdgeChanged: "edge" or "not edge".
	Reason string `json:"reason"`
}

// EventKind says what an Event is about.
type EventKind uint8

const (
	// RoleChanged: Port has another Role.
	RoleChanged EventKind = iota + 1
	// StateChanged: Port has another State.
	StateChanged
	// RootChanged: another root bridge, or another root port (Port, 0 for none).
	RootChanged
	// TopologyChanged: the active topology changed. Port detected it, or was
	// told of it by Bridge.
	TopologyChanged
	// GuardTripped: Guard keeps Port from forwarding, for Reason; Bridge sent
	// the BPDU that tripped it, if one did.
	GuardTripped
	// GuardCleared: Guard no longer does.
	GuardCleared
	// VersionChanged: Port now speaks another protocol version to its
	// neighbours (17.24).
	VersionChanged
	// EdgeChanged: Port became an edge port or ceased to be one (17.25).
	EdgeChanged
)

func (SetState) isOutput()  {}
func (Flush) isOutput()     {}
func (SetAgeing) isOutput() {}
func (SendBPDU) isOutput()  {}
func (Event) isOutput()     {}
