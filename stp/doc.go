// Package stp is the spanning tree protocol entity of one bridge: IEEE 802.1D-2004
// clause 17, the Rapid Spanning Tree Protocol, with its compatibility with the
// Spanning Tree Protocol of 802.1D-1998, and guards for ports that lead to
// somebody else's equipment.
//
// It is a library of calls and values. A Bridge takes BPDUs (Receive), seconds
// (Tick) and configuration (SetConfig, SetPort), and what is to be done about them
// comes out of Outputs: states for the datapath, addresses to flush, BPDUs to send,
// events to log. It refuses to do anything itself: it has no clock, no goroutine,
// no lock, no callback, no logger, and it never sees a frame. Frames, MAC
// addresses, VLAN tags and the rate at which BPDUs are taken in are its owner's.
//
// One goroutine at a time may use a Bridge. Different bridges have nothing in
// common.
//
// # What it does
//
// Bridges that are connected in loops agree on a tree, so that frames can't go
// round. Each bridge has an identifier; the lowest is the root. In BPDUs each
// bridge tells which root it knows, at what path cost, and who it is itself: a
// priority vector (vector.go), of which the lower is the better. A port that hears
// something better than what the bridge itself could announce there keeps silent;
// one that does not is the designated port of its LAN. So every port has a role:
//
//	root        the bridge's way to the root
//	designated  the LAN's way to the root
//	alternate   hears of another way to the root, and stands by for the root port
//	backup      hears its own bridge, and stands by for a designated port
//	disabled    is down
//
// Root and designated ports forward; alternate and backup ports discard. What takes
// care is the time between: a port must not begin to forward before those that
// would make it a loop have stopped. A new root port may once the old one has
// stopped. A designated port proposes, and may once its neighbour has stopped all
// its own that are not in step with the new tree, and has agreed; that goes from
// bridge to bridge down the tree, in the time that BPDUs take. Where nobody can
// agree (several bridges on one LAN, or bridges of 1998), it waits for timers.
// testdata has transcripts to watch that in: begin with proposal.golden.
//
// # Where it is
//
// The machines, each in a file of its own, in the order in which information flows
// through figure 17-12:
//
//	BPDU in
//	  │
//	  ▼           rcvdRSTP, rcvdSTP
//	Port Receive ──────────────────► Port Protocol Migration ──► sendRSTP: which BPDUs go out
//	  │ rcvdMsg
//	  ▼                reselect, infoIs
//	Port Information ──────────────────► Port Role Selection, one for the bridge
//	  │ │            ◄──────────────────   │
//	  │ │                  updtInfo        │
//	  │ │ proposed, agreed, disputed       │ selectedRole
//	  │ ▼                                  ▼
//	  │ Port Role Transitions ◄────────────┘
//	  │ │ │            ▲
//	  │ │ │ proposing  │ operEdge
//	  │ │ └──────► Bridge Detection
//	  │ │ learn, forward
//	  │ ▼
//	  │ Port State Transition ──► SetState out
//	  │ │
//	  │ rcvdTc, rcvdTcn, rcvdTcAck
//	  ▼ ▼
//	Topology Change ──► Flush out
//	  │ tcWhile
//	  ▼
//	Port Transmit ──► BPDU out, when newInfo is set by any of them or helloWhen expires
//
// and Port Timers counts every timer down once a second.
//
//	port_receive.go       17.23  Port Receive
//	port_migration.go     17.24  Port Protocol Migration
//	port_information.go   17.27  Port Information
//	role_selection.go     17.28  Port Role Selection
//	role_transitions.go   17.29  Port Role Transitions, and role_root.go, role_designated.go, role_alternate.go
//	state_transition.go   17.30  Port State Transition
//	bridge_detection.go   17.25  Bridge Detection
//	topology_change.go    17.31  Topology Change
//	port_transmit.go      17.26  Port Transmit
//	port_timers.go        17.22  Port Timers
//
// In each file, the conditions of all transitions are in one function, such as ptxRun,
// and each state has a function, like ptxToIdle, with the contents of its box in the
// standard's figure. Variables, states, procedures and conditions have the
// standard's names, and stand with their clause numbers in port.go and bridge.go.
//
//	run.go                       how the machines are run, and what is published when they rest
//	strict.go                    where and why this package waits when the standard does not
//	guard.go                     BPDU guard, root guard, loop guard, self-loop
//	vector.go     17.5, 17.6     priority vectors
//	bpdu.go       9.2, 9.3       BPDUs
//	config.go     17.13, 17.14   parameters
//	bridge.go                    the calls
//	output.go, status.go, names.go, id.go
//
// # What it does not do
//
// One tree for all VLANs: no MSTP, no per-VLAN trees. No shift of addresses from an
// old root port to a new one (17.11 makes that optional): they are flushed. No
// 802.1X, no link aggregation below it; a port is what SetPort says.
package stp
