package stp

// Status is a copy of everything there is to show of a bridge. Times and timers
// are whole seconds.
type Status struct {
	Mode     Mode     `json:"mode"`
	BridgeID BridgeID `json:"bridge_id"`

	RootID       BridgeID `json:"root_id"`
	RootPort     uint16   `json:"root_port"` // 0: this bridge is the root
	RootPathCost uint32   `json:"root_path_cost"`

	// The times in force, which are the root's, and how old the root's
	// information is.
	MaxAge       uint32 `json:"max_age"`
	Hello        uint32 `json:"hello"`
	ForwardDelay uint32 `json:"forward_delay"`
	MessageAge   uint32 `json:"message_age"`

	// The bridge's own times, which it imposes when it is the root.
	BridgeMaxAge       uint32 `json:"bridge_max_age"`
	BridgeHello        uint32 `json:"bridge_hello"`
	BridgeForwardDelay uint32 `json:"bridge_forward_delay"`
	TxHold             uint32 `json:"tx_hold"`

	TopologyChanges        uint64       `json:"topology_changes"`          // since the bridge was made
	TopologyChange         bool         `json:"topology_change"`           // one is being announced now (some tcWhile runs)
	TopologyChangeTimer    uint32       `json:"topology_change_timer"`     // the longest such timer
	TopologyChangeDetected bool         `json:"topology_change_detected"`  // in mode STP: TCNs go to the root and are not yet acknowledged
	SinceTopologyChange    uint64       `json:"since_topology_change"`     // seconds since the last, or since the bridge was made
	LastTopologyChangePort uint16       `json:"last_topology_change_port"` // 0: none yet
	LastTopologyChangeBy   string       `json:"last_topology_change_by"`   // "detected", "received" or ""
	ShortAgeing            bool         `json:"short_ageing"`              // SetAgeing is in force
	ShortAgeingTimer       uint32       `json:"short_ageing_timer"`        // and for how long
	Ports                  []PortStatus `json:"ports"`                     // by number; never nil
}

// PortStatus is a copy of everything there is to show of a port.
type PortStatus struct {
	Port    uint16 `json:"port"`
	ID      PortID `json:"port_id"`
	Enabled bool   `json:"enabled"` // up, and not disabled by BPDU guard
	Role    Role   `json:"role"`
	State   State  `json:"state"`
	Cost    uint32 `json:"cost"`

	// The port's priority vector (17.5), as it is or as the port announces it.
	DesignatedRoot   BridgeID `json:"designated_root"`
	DesignatedCost   uint32   `json:"designated_cost"`
	DesignatedBridge BridgeID `json:"designated_bridge"`
	DesignatedPort   PortID   `json:"designated_port"`

	Edge         bool `json:"edge"`           // operEdge (17.19.17)
	PointToPoint bool `json:"point_to_point"` // operPointToPointMAC (6.4.3)
	// Neighbour is the protocol version last heard on the port, "rstp" or "stp"
	// ("" before any BPDU), Sends the one the port speaks.
	Neighbour string `json:"neighbour"`
	Sends     string `json:"sends"`
	// TopologyChangeAck: the port will acknowledge a TCN in its next
	// Configuration BPDU (tcAck, 17.19.40).
	TopologyChangeAck bool `json:"topology_change_ack"`
	// ConfigPending: a BPDU waits for the hold count (newInfo, 17.19.16).
	ConfigPending bool `json:"config_pending"`
	// Disputed: an inferior neighbour claims to be designated and forwards
	// (17.19.6); the port waits for the quarrel to end.
	Disputed bool     `json:"disputed"`
	Timers   Timers   `json:"timers"`
	Counters Counters `json:"counters"`

	Guard       Guard    `json:"guard"` // the guard that keeps the port from forwarding
	GuardReason string   `json:"guard_reason"`
	GuardBridge BridgeID `json:"guard_bridge"` // the offender, zero if none
	RecoverIn   uint32   `json:"recover_in"`   // seconds until BPDU guard lets go by itself; 0: not by itself
}

// Timers are a port's timers (17.17), in seconds left; 0 is expired or not
// running. TxCount is the number of BPDUs counted against the hold count.
type Timers struct {
	EdgeDelayWhile uint32 `json:"edge_delay_while"` // 17.17.1
	FdWhile        uint32 `json:"fd_while"`         // 17.17.2, brctl's forward delay timer
	HelloWhen      uint32 `json:"hello_when"`       // 17.17.3
	MdelayWhile    uint32 `json:"mdelay_while"`     // 17.17.4
	RbWhile        uint32 `json:"rb_while"`         // 17.17.5
	RcvdInfoWhile  uint32 `json:"rcvd_info_while"`  // 17.17.6, brctl's message age timer, counting down
	RrWhile        uint32 `json:"rr_while"`         // 17.17.7
	TcWhile        uint32 `json:"tc_while"`         // 17.17.8
	TxCount        uint32 `json:"tx_count"`         // 17.19.44
}

// Counters count a port's BPDUs and what came of them. They only grow.
type Counters struct {
	RxConfig    uint64 `json:"rx_config"` // valid BPDUs by kind
	RxTCN       uint64 `json:"rx_tcn"`
	RxRST       uint64 `json:"rx_rst"`
	RxTC        uint64 `json:"rx_tc"`        // of them, with the Topology Change flag
	RxDiscarded uint64 `json:"rx_discarded"` // valid, but the port was down, filtered or guarded

	RxTooShort   uint64 `json:"rx_too_short"`   // ErrTooShort
	RxProtocol   uint64 `json:"rx_protocol"`    // ErrProtocol
	RxType       uint64 `json:"rx_type"`        // ErrType
	RxVersion    uint64 `json:"rx_version"`     // ErrVersion
	RxMessageAge uint64 `json:"rx_message_age"` // ErrMessageAge
	RxOwn        uint64 `json:"rx_own"`         // ErrOwn: the port heard itself

	TxConfig uint64 `json:"tx_config"`
	TxTCN    uint64 `json:"tx_tcn"`
	TxRST    uint64 `json:"tx_rst"`
	TxTC     uint64 `json:"tx_tc"`   // of them, with the Topology Change flag
	TxHeld   uint64 `json:"tx_held"` // times a BPDU had to wait for the hold count

	RoleChanges     uint64 `json:"role_changes"`
	Forwarding      uint64 `json:"forwarding"`       // transitions to forwarding
	TopologyChanges uint64 `json:"topology_changes"` // detected on, or received from, this port
	Expired         uint64 `json:"expired"`          // times received information aged out
	GuardTrips      uint64 `json:"guard_trips"`
}

// Status copies out everything there is to show.
func (b *Bridge) Status() Status {
	s := Status{
		Mode: b.cfg.Mode, BridgeID: b.cfg.ID,
		RootID: b.rootPriority.root, RootPathCost: b.rootPriority.cost,
		MaxAge:       wholeSeconds(b.rootTimes.maxAge),
		Hello:        wholeSeconds(b.rootTimes.helloTime),
		ForwardDelay: wholeSeconds(b.rootTimes.forwardDelay),
		MessageAge:   wholeSeconds(b.rootTimes.messageAge),
		BridgeMaxAge: uint32(b.cfg.MaxAge), BridgeHello: uint32(b.cfg.Hello),
		BridgeForwardDelay: uint32(b.cfg.ForwardDelay), TxHold: uint32(b.cfg.TxHold),
		TopologyChanges:        b.topologyChanges,
		SinceTopologyChange:    b.clock - b.lastChange,
		LastTopologyChangePort: b.lastChangePort,
		LastTopologyChangeBy:   b.lastChangeBy,
		ShortAgeing:            b.ageing != 0,
		ShortAgeingTimer:       b.ageing,
		Ports:                  make([]PortStatus, 0, len(b.ports)),
	}
	if b.rootPort != nil {
		s.RootPort = b.rootPort.num
		s.TopologyChangeDetected = !b.rootPort.sendRSTP && b.rootPort.tcWhile != 0
	}
	for _, p := range b.ports {
		s.TopologyChangeTimer = max(s.TopologyChangeTimer, p.tcWhile)
		s.Ports = append(s.Ports, p.status())
	}
	s.TopologyChange = s.TopologyChangeTimer != 0
	return s
}

// status copies out everything there is to show of a port.
func (p *port) status() PortStatus {
	s := PortStatus{
		Port: p.num, ID: p.portID(), Enabled: p.portEnabled,
		Role: p.role, State: p.state(), Cost: p.portPathCost,
		DesignatedRoot: p.portPriority.root, DesignatedCost: p.portPriority.cost,
		DesignatedBridge: p.portPriority.bridge, DesignatedPort: p.portPriority.port,
		Edge: p.operEdge, PointToPoint: p.operPointToPoint(),
		Neighbour: p.neighbour, Sends: STP.String(),
		TopologyChangeAck: p.tcAck, ConfigPending: p.newInfo && p.held, Disputed: p.disputed,
		Timers: Timers{p.edgeDelayWhile, p.fdWhile, p.helloWhen, p.mdelayWhile, p.rbWhile,
			p.rcvdInfoWhile, p.rrWhile, p.tcWhile, p.txCount},
		Counters: p.counters,
		Guard:    p.guard.kind, GuardReason: p.guard.reason, GuardBridge: p.guard.bridge,
		RecoverIn: p.guard.while,
	}
	if p.sendRSTP {
		s.Sends = RSTP.String()
	}
	return s
}

// state is the port's state as it is shown.
func (p *port) state() State {
	switch {
	case p.role == RoleDisabled:
		return StateDisabled
	case p.forwarding:
		return StateForwarding
	case p.learning:
		return StateLearning
	case p.b.rstpVersion():
		return StateDiscarding
	case p.role == RoleRoot || p.role == RoleDesignated:
		return StateListening
	}
	return StateBlocking
}

// wholeSeconds rounds a time of a BPDU to what people read.
func wholeSeconds(t uint16) uint32 { return (uint32(t) + second/2) / second }
