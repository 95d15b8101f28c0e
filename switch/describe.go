package vswitch

import (
	"fmt"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// Status is the switch at this moment.
func (s *Switch) Status() Status {
	st := s.status()
	for i := range st.Ports {
		st.Ports[i].addDetail()
	}
	if st.HostPort != nil {
		st.HostPort.addDetail()
	}
	return st
}

// addDetail asks the port itself. Called without s.mu: how long a port takes to
// answer may depend on its peer, for which the switch doesn't stand still.
func (ps *PortStatus) addDetail() {
	if ps.detailer != nil {
		ps.Detail = ps.detailer.Detail()
	}
}

func (s *Switch) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	tree := s.treeStatus()
	st := Status{
		Name:          s.cfg.Name,
		BridgeID:      s.bridgeID().String(),
		MAC:           s.cfg.MAC,
		AgeingS:       float64(s.cfg.ageing()),
		VLANFiltering: s.cfg.VLANFiltering,
		Workers:       s.cfg.Workers,
		BusyPoll:      busyPollText(s.cfg.BusyPoll),
		InKernel:      map[bool]string{true: "auto", false: "off"}[s.cfg.Follower != nil],
		UptimeS:       s.uptime().Round(time.Millisecond).Seconds(),
		FDB:           s.describeTable(),
		STP: STPSummary{
			Mode:            s.cfg.STP.Mode.String(),
			RootID:          tree.RootID.String(),
			RootPathCost:    tree.RootPathCost,
			TopologyChanges: tree.TopologyChanges,
		},
		Ports: []PortStatus{},
	}
	if p := s.at(tree.RootPort); p != nil && tree.RootPort != hostPort {
		st.STP.RootPort = p.name
	}
	for _, p := range s.slots {
		switch {
		case p == nil:
		case p.id == hostPort:
			host := s.describe(p, &tree)
			st.Host, st.HostPort = p.name, &host
		default:
			st.Ports = append(st.Ports, s.describe(p, &tree))
		}
	}
	return st
}

// describeTable tells how full the table is. Only learned entries count against
// its limit.
func (s *Switch) describeTable() FDBSummary {
	learned := s.table.Learned()
	return FDBSummary{Entries: learned, Max: s.cfg.MaxEntries, Fixed: max(s.table.Len()-learned, 0)}
}

// PortStatus is one port at this moment, the host interface included.
func (s *Switch) PortStatus(name string) (PortStatus, error) {
	ps, err := s.portStatus(name)
	ps.addDetail()
	return ps, err
}

func (s *Switch) portStatus(name string) (PortStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(name)
	if p == nil {
		return PortStatus{}, s.noPort(name)
	}
	tree := s.treeStatus()
	return s.describe(p, &tree), nil
}

// treeStatus is the tree's own status, or with mode off that of a bridge alone.
func (s *Switch) treeStatus() stp.Status {
	if s.tree != nil {
		return s.tree.Status()
	}
	id := s.bridgeID()
	c := &s.cfg.STP
	hello, age, delay := seconds(c.Hello), seconds(c.MaxAge), seconds(c.ForwardDelay)
	return stp.Status{BridgeID: id, RootID: id, Ports: []stp.PortStatus{}, TxHold: uint32(c.TxHold),
		Hello: hello, MaxAge: age, ForwardDelay: delay, BridgeHello: hello, BridgeMaxAge: age, BridgeForwardDelay: delay}
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }

// describe is a port's status. Called with s.mu held.
func (s *Switch) describe(p *port, tree *stp.Status) PortStatus {
	sums, carried := s.sums(p)
	ps := PortStatus{
		Name: p.name, Kind: p.cfg.Kind, ID: p.id,
		MAC: p.state.MAC, MTU: p.state.MTU, SpeedBps: p.state.Speed,
		Link: "up", Uplink: p.cfg.Uplink,
		STP:      s.describeSTP(p, tree),
		VLAN:     describeVLAN(&p.cfg.VLAN),
		Offloads: p.state.Offloads,
		Config:   p.cfg,
		InKernel: InKernelStatus{carried.Active, carried.Why, carried.RxFrames, carried.TxFrames},
		Learned:  s.table.PortLen(uint16(p.id)),
		RX:       Traffic{Frames: sums.RxFrames, Bytes: sums.RxBytes},
		TX:       Traffic{Frames: sums.TxFrames, Bytes: sums.TxBytes},
		Drops:    map[string]uint64{relay.EgressFull.String(): sums.Drops[relay.EgressFull]},
	}
	if p.asked != p.name {
		ps.AskedFor = p.asked
	}
	ps.AltNames = p.others
	if !p.state.Up {
		ps.Link, ps.LinkReason = "down", p.state.Reason
	}
	for i, n := range sums.Drops {
		if n == 0 {
			continue
		}
		why := relay.Reason(i)
		ps.Drops[why.String()] = n
		if why.OnEgress() {
			ps.TX.Dropped += n
		} else {
			ps.RX.Dropped += n
		}
	}
	own := p.dev.Counters()
	ps.RX.Dropped += own.RxDropped + own.RxErrors
	ps.TX.Dropped += own.TxErrors
	for name, n := range map[string]uint64{DropRxFull: own.RxDropped, DropRxError: own.RxErrors, DropTxError: own.TxErrors} {
		if n > 0 {
			ps.Drops[name] = n
		}
	}
	ps.Warnings = s.warnings(p)
	if r, ok := p.dev.(frame.Ringer); ok {
		ps.Rings = r.RingCounters()
	}
	ps.detailer, _ = p.dev.(frame.Detailer)
	return ps
}

// describeSTP is a port's place in the tree.
func (s *Switch) describeSTP(p *port, tree *stp.Status) PortSTPStatus {
	for i := range tree.Ports {
		if t := &tree.Ports[i]; int(t.Port) == p.id {
			return PortSTPStatus{
				State: t.State.String(), Role: t.Role.String(), Cost: t.Cost,
				PortID: t.ID.String(), Edge: t.Edge, BPDUGuard: s.stpPort(p, p.cfg).BPDUGuard,
				Held: guardName(t.Guard), Guard: t.GuardReason, Mend: s.mend(p.name, t.Guard),
			}
		}
	}
	// No tree here: the port forwards whenever its link is up.
	st := PortSTPStatus{State: "forwarding", Role: "designated", Edge: true,
		Cost:   stp.PathCost(p.state.Speed),
		PortID: stp.MakePortID(p.cfg.STP.Priority, uint16(p.id)).String()}
	if p.cfg.STP.Cost != 0 {
		st.Cost = p.cfg.STP.Cost
	}
	if !p.state.Up {
		st.State, st.Role = "disabled", "disabled"
	}
	return st
}

func describeVLAN(v *VLANConfig) PortVLANStatus {
	ps := PortVLANStatus{PVID: v.PVID, Mode: "trunk"}
	switch {
	case v.Tunnel:
		ps.Mode = "tunnel"
	case v.UntaggedOnly:
		ps.Mode = "access"
	}
	tagged := v.Member
	for vid := range v.Untagged.All {
		tagged.Remove(vid)
	}
	ps.Tagged, ps.Untagged = ranges(&tagged), ranges(&v.Untagged)
	return ps
}

// ranges are a set's ids and ranges, never nil.
func ranges(v *VIDSet) []string {
	if *v == (VIDSet{}) {
		return []string{}
	}
	return strings.Split(v.String(), "+")
}

func busyPollText(d time.Duration) string {
	switch d {
	case BusyPollAlways:
		return "always"
	case 0:
		return "0"
	}
	return d.String()
}

// STPStatus is everything there is to show of the tree: package stp's own
// status with the ports' names. With mode off, Mode is "off" and there are no
// ports in it.
type STPStatus struct {
	stp.Status
	Mode                       string          `json:"mode"`
	RootPortName               string          `json:"root_port_name"`
	LastTopologyChangePortName string          `json:"last_topology_change_port_name"`
	AgeingS                    float64         `json:"ageing_s"`
	Ports                      []STPPortStatus `json:"ports"`
}

// STPPortStatus is a port of STPStatus.
type STPPortStatus struct {
	Name string `json:"name"`
	stp.PortStatus
	Mend string `json:"mend,omitempty"` // what to do about the guard that holds the port
}

// STPStatus describes the tree at this moment.
func (s *Switch) STPStatus() STPStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	tree := s.treeStatus()
	st := STPStatus{Status: tree, Mode: s.cfg.STP.Mode.String(), AgeingS: float64(s.cfg.ageing()), Ports: []STPPortStatus{}}
	name := func(n uint16) string {
		if p := s.at(n); p != nil && n != hostPort {
			return p.name
		}
		return ""
	}
	st.RootPortName, st.LastTopologyChangePortName = name(tree.RootPort), name(tree.LastTopologyChangePort)
	for _, p := range tree.Ports {
		st.Ports = append(st.Ports, STPPortStatus{name(p.Port), p, s.mend(name(p.Port), p.Guard)})
	}
	return st
}

// STP is the spanning tree's configuration in force.
func (s *Switch) STP() STPConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.STP
}

// RecoverPort ends what a guard did to a port.
func (s *Switch) RecoverPort(name string) error {
	return s.onTree(name, "recover", (*stp.Bridge).Recover)
}

// Mcheck makes a port find out anew which protocol version its neighbours
// speak (802.1D-2004 17.19.13).
func (s *Switch) Mcheck(name string) error {
	return s.onTree(name, "mcheck", (*stp.Bridge).Mcheck)
}

func (s *Switch) onTree(name, verb string, call func(*stp.Bridge, uint16) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(name)
	switch {
	case p == nil:
		return s.noPort(name)
	case s.tree == nil || p.id == hostPort:
		return fmt.Errorf("%s port %s: it takes no part in a spanning tree", verb, name)
	}
	if err := call(s.tree, uint16(p.id)); err != nil {
		return fmt.Errorf("%s port %s: %w", verb, name, err)
	}
	s.settle()
	return nil
}

// SetMAC changes the switch's own address: its bridge identifier and the
// address of its host interface. The device of the host interface is its
// owner's to change.
func (s *Switch) SetMAC(mac frame.MAC) error {
	if !mac.IsUnicast() {
		return fmt.Errorf("set MAC %v: it is no station's address", mac)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if mac == s.cfg.MAC {
		return nil
	}
	defer s.noteSwitch(s.cfg)
	s.cfg.MAC = mac
	if host := s.slots[hostPort]; host != nil {
		s.setLocal(host)
	}
	if s.tree != nil {
		cfg, err := s.cfg.STP.bridge(mac)
		if err != nil {
			return fmt.Errorf("set MAC %v: %w", mac, err)
		}
		if err := s.tree.SetConfig(cfg); err != nil {
			return fmt.Errorf("set MAC %v: %w", mac, err)
		}
	}
	s.settle()
	return nil
}
