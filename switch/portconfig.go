package vswitch

import "time"

// PortConfig is what can be chosen for a port. The zero value is a port that
// learns, floods and takes part in everything; NewPortConfig also gives it
// the default VLAN. Values of it can be compared.
type PortConfig struct {
	Kind   string // "netdev", "tap", "vhost-user", …: shown, not interpreted
	Spec   string // how its owner describes the device: kept, not interpreted; may be empty
	Uplink bool   // towards other switches, not a VM: auto edge, no BPDU guard
	// Network is that nobody knows what is behind the device, a station or other
	// switches, as with a veth: auto edge, no BPDU guard, as with an uplink.
	Network bool
	VLAN    VLANConfig

	NoLearning       bool // do not learn source addresses here
	NoFlood          bool // no unknown unicast leaves here
	NoMulticastFlood bool // no multicast leaves here
	NoBroadcastFlood bool // no broadcast leaves here
	Isolated         bool // no traffic to or from other isolated ports
	Locked           bool // frames from sources not in the table are dropped
	Hairpin          bool // frames may leave where they came in
	MaxLearned       int  // most dynamic entries learned here; 0 = what suits the port, GuestStations or none; NoLimit = none

	STP PortSTP
}

const (
	// NoLimit as MaxLearned is that only the table's size limits the port.
	NoLimit = -1
	// GuestStations are as many stations as a guest's port learns unless told
	// otherwise: no uplink, and nothing that may be a network. A guest has one
	// address for each card; one that has machines or containers of its own on a
	// bridge has some hundreds. A guest that makes addresses up gets a 64th of a
	// table of the default size with this, and then disturbs nobody but itself.
	GuestStations = 1024
)

// maxLearned is the limit in force, 0 for none.
func (c *PortConfig) maxLearned() int {
	switch {
	case c.MaxLearned > 0:
		return c.MaxLearned
	case c.MaxLearned == 0 && c.guest():
		return GuestStations
	}
	return 0
}

// limit puts a port's limit of stations in force. The host is no guest: it may
// have a bridge of its own behind it. Called with s.mu held.
func (s *Switch) limit(p *port) {
	n := p.cfg.maxLearned()
	if p.id == hostPort {
		n = max(p.cfg.MaxLearned, 0)
	}
	s.table.SetPortLimit(uint16(p.id), n)
}

// Choice is a parameter with a default that depends on the port, and that can
// also be chosen.
type Choice uint8

const (
	Unset Choice = iota // what suits the port
	On
	Off
	Auto // found out while the port runs
)

// PortSTP is a port's part in the spanning tree.
type PortSTP struct {
	Edge       Choice        // AdminEdge, or AutoEdge if Auto; Unset: On for VM ports, Auto for uplinks and networks
	P2P        Choice        // adminPointToPointMAC; Unset is Auto
	Cost       uint32        // 1–stp.MaxPathCost; 0 = by link speed, 802.1D-2004 table 17-3
	Priority   uint8         // 0–240 in steps of 16
	BPDUGuard  Choice        // On or Off; Unset: On for edge ports of VMs, else Off
	BPDUFilter bool          // neither send nor hear BPDUs
	RootGuard  bool          // never become a root port
	TCNGuard   bool          // do not pass topology changes on
	LoopGuard  bool          // no forwarding on a point-to-point link that lost its BPDUs
	Recover    time.Duration // whole seconds after which a guarded port comes back; 0 = only RecoverPort does it
}

// DefaultPortPriority is the port priority of 802.1D-2004 table 17-2.
const DefaultPortPriority = 128

// NewPortConfig is the configuration of a port with every default.
func NewPortConfig(kind string) PortConfig {
	return PortConfig{Kind: kind, VLAN: DefaultVLAN(), STP: PortSTP{Priority: DefaultPortPriority}}
}
