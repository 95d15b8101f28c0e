package vswitch

import (
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Status is the whole switch at one moment. Its JSON is the contract of
// `kvswitch show --json`.
type Status struct {
	Name          string       `json:"name"`
	BridgeID      string       `json:"bridge_id"`
	MAC           frame.MAC    `json:"mac"`
	STP           STPSummary   `json:"stp"`
	AgeingS       float64      `json:"ageing_s"`
	VLANFiltering bool         `json:"vlan_filtering"`
	Workers       int          `json:"workers"`
	BusyPoll      string       `json:"busy_poll"`
	InKernel      string       `json:"in_kernel"` // auto or off
	UptimeS       float64      `json:"uptime_s"`
	Host          string       `json:"host"`
	HostPort      *PortStatus  `json:"host_port,omitempty"`
	FDB           FDBSummary   `json:"fdb"`
	Ports         []PortStatus `json:"ports"`
}

// STPSummary is the tree in one line.
type STPSummary struct {
	Mode            string `json:"mode"` // rstp, stp, off
	RootID          string `json:"root_id"`
	RootPort        string `json:"root_port"` // name of the root port; "" on the root
	RootPathCost    uint32 `json:"root_path_cost"`
	TopologyChanges uint64 `json:"topology_changes"`
}

// FDBSummary is how full the table is.
type FDBSummary struct {
	Entries int `json:"entries"` // learned
	Max     int `json:"max"`     // of them
	Fixed   int `json:"fixed"`   // static and local ones
}

// InKernelStatus is a port's part in what is forwarded in the kernel.
type InKernelStatus struct {
	Active   bool   `json:"active"`
	Why      string `json:"why"` // not, when it is not
	RxFrames uint64 `json:"rx_frames"`
	TxFrames uint64 `json:"tx_frames"`
}

// PortStatus is one port.
type PortStatus struct {
	Name       string            `json:"name"`                // what its device is called today
	AskedFor   string            `json:"asked_for,omitempty"` // the name it was attached under, if that is another
	AltNames   []string          `json:"alt_names,omitempty"` // other names of its device; verbs understand all of them
	Kind       string            `json:"kind"`
	ID         int               `json:"id"`
	MAC        frame.MAC         `json:"mac"`
	MTU        int               `json:"mtu"`
	Link       string            `json:"link"` // up, down
	LinkReason string            `json:"link_reason,omitempty"`
	InKernel   InKernelStatus    `json:"in_kernel"`
	SpeedBps   uint64            `json:"speed_bps,omitempty"`
	Uplink     bool              `json:"uplink"`
	STP        PortSTPStatus     `json:"stp"`
	VLAN       PortVLANStatus    `json:"vlan"`
	Offloads   frame.Offloads    `json:"offloads"`
	Settings   map[string]string `json:"settings"` // Config in words, which the switch doesn't know: package config fills it in
	Learned    int               `json:"learned"`  // dynamic FDB entries
	RX         Traffic           `json:"rx"`
	TX         Traffic           `json:"tx"`
	Drops      map[string]uint64 `json:"drops"` // every reason that is not zero, and egress-full
	Warnings   []string          `json:"warnings,omitempty"`
	Detail     any               `json:"detail,omitempty"` // what this kind of port adds

	Config   PortConfig           `json:"-"` // in force
	Rings    []frame.RingCounters `json:"-"` // for stats; Detail has them, too
	detailer frame.Detailer
}

// Traffic counts frames and bytes (without FCS) in one direction. Dropped is
// the sum of the reasons that belong to it.
type Traffic struct {
	Frames  uint64 `json:"frames"`
	Bytes   uint64 `json:"bytes"`
	Dropped uint64 `json:"dropped"`
}

// PortSTPStatus is a port's place in the tree.
type PortSTPStatus struct {
	State  string `json:"state"`
	Role   string `json:"role"`
	Cost   uint32 `json:"cost"`
	PortID string `json:"port_id"` // priority and number, "8001"
	Edge   bool   `json:"edge"`
	// BPDUGuard is that a BPDU would make a guard hold the port.
	BPDUGuard bool   `json:"bpdu_guard"`
	Held      string `json:"held,omitempty"`  // the guard that holds the port, if one does: bpdu-guard, …
	Guard     string `json:"guard,omitempty"` // why it does
	Mend      string `json:"mend,omitempty"`  // what to do about it
}

// PortVLANStatus is a port's VLAN membership; meaningful with VLAN filtering.
type PortVLANStatus struct {
	PVID     uint16   `json:"pvid"`
	Tagged   []string `json:"tagged"` // ids and ranges
	Untagged []string `json:"untagged"`
	Mode     string   `json:"mode"` // access, trunk, tunnel
}

// FDBEntry is one row of `kvswitch fdb show --json`.
type FDBEntry struct {
	MAC  frame.MAC `json:"mac"`
	VLAN uint16    `json:"vlan"`
	Port string    `json:"port"`
	Type string    `json:"type"` // dynamic, static, local
	AgeS float64   `json:"age_s"`
}

// Event is one line of `kvswitch monitor`. Fields that an event has no use
// for are empty.
type Event struct {
	Time   time.Time  `json:"time"`
	Event  string     `json:"event"`
	Port   string     `json:"port,omitempty"`
	From   string     `json:"from,omitempty"` // fdb.move: the port it was on; stp: old state, role or root, who told; *.set: settings as they were
	To     string     `json:"to,omitempty"`   // stp: new state, role or root; *.set: settings as they are
	MAC    *frame.MAC `json:"mac,omitempty"`
	VLAN   uint16     `json:"vlan,omitempty"`
	Count  int        `json:"count,omitempty"` // fdb.flush: entries; fdb.full, port.own-source: times; monitor.lost: events; port.refuse: refusals
	Reason string     `json:"reason,omitempty"`
	Mend   string     `json:"mend,omitempty"` // guard.trip: what to do about it
}

// Names of events.
const (
	EventFDBLearn   = "fdb.learn"
	EventFDBMove    = "fdb.move"
	EventFDBAge     = "fdb.age"
	EventFDBFlush   = "fdb.flush"
	EventFDBFull    = "fdb.full" // Count times a station was not learned or gave way; Reason says which limit is reached
	EventPortUp     = "port.up"
	EventPortDown   = "port.down"
	EventPortRefuse = "port.refuse"     // what its peer asked for, Count times since the last such event; Reason is the last one's
	EventPortOwn    = "port.own-source" // Count frames came in that have the switch's own address as their source
	EventPortAdd    = "port.add"
	EventPortDel    = "port.del"
	EventPortRename = "port.rename" // its device is called To instead of From
	EventPortSet    = "port.set"    // settings of a port
	EventSwitchSet  = "switch.set"  // settings of the switch: ageing, tree, address
	EventSTPState   = "stp.state"
	EventSTPRole    = "stp.role"
	EventSTPRoot    = "stp.root"
	EventSTPChange  = "stp.topology-change"
	EventGuardTrip  = "guard.trip"
	EventGuardClear = "guard.clear"
	EventVMAttach   = "vm.attach"
	EventVMDetach   = "vm.detach"
	EventEventsLost = "monitor.lost" // the reader was too slow; Count events are missing
)
