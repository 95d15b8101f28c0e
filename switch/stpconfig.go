package vswitch

import (
	"fmt"
	"time"

	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// STPMode is which spanning tree protocol a switch speaks, if any.
type STPMode uint8

const (
	ModeRSTP STPMode = iota // 802.1D-2004, with STP where a neighbour speaks nothing newer
	ModeSTP                 // 802.1D-1998
	ModeOff                 // none: every port forwards
)

// String is the mode as Status has it: "rstp", "stp", "off".
func (m STPMode) String() string {
	switch m {
	case ModeRSTP:
		return "rstp"
	case ModeSTP:
		return "stp"
	case ModeOff:
		return "off"
	}
	return fmt.Sprintf("STPMode(%d)", uint8(m))
}

// STPConfig is the switch's part in the spanning tree. Zeros are the defaults
// of 802.1D-2004 table 17-1.
type STPConfig struct {
	Mode         STPMode
	Priority     uint16        // any 16 bits, as brctl has it; the standard's steps are 4096
	PrioritySet  bool          // Priority 0 is meant, not DefaultPriority
	Hello        time.Duration // whole seconds, stp.MinHello to stp.MaxHello
	MaxAge       time.Duration // whole seconds, stp.MinMaxAge to stp.MaxMaxAge
	ForwardDelay time.Duration // whole seconds, stp.MinForwardDelay to stp.MaxForwardDelay
	TxHold       int           // BPDUs, stp.MinTxHold to stp.MaxTxHold
}

// DefaultPriority is the bridge priority of 802.1D-2004 table 17-2.
const DefaultPriority = 32768

// DefaultSTP is the zero STPConfig with its defaults written out.
func DefaultSTP() STPConfig {
	var c STPConfig
	c.fill()
	return c
}

func (c *STPConfig) fill() {
	def := stp.DefaultConfig(stp.BridgeID{})
	if c.Priority == 0 && !c.PrioritySet {
		c.Priority = DefaultPriority
	}
	c.PrioritySet = true
	for _, t := range []struct {
		d   *time.Duration
		def int
	}{{&c.Hello, def.Hello}, {&c.MaxAge, def.MaxAge}, {&c.ForwardDelay, def.ForwardDelay}} {
		if *t.d == 0 {
			*t.d = time.Duration(t.def) * time.Second
		}
	}
	if c.TxHold == 0 {
		c.TxHold = def.TxHold
	}
}

// bridge is the configuration in package stp's terms.
func (c *STPConfig) bridge(mac frame.MAC) (stp.Config, error) {
	cfg := stp.Config{
		ID:     stp.BridgeID{Priority: c.Priority, Addr: mac},
		TxHold: c.TxHold,
	}
	switch c.Mode {
	case ModeRSTP, ModeOff:
		cfg.Mode = stp.RSTP
	case ModeSTP:
		cfg.Mode = stp.STP
	default:
		return cfg, fmt.Errorf("check spanning tree mode %d: there is no such mode", c.Mode)
	}
	for _, t := range []struct {
		name string
		d    time.Duration
		sec  *int
	}{{"hello time", c.Hello, &cfg.Hello}, {"max age", c.MaxAge, &cfg.MaxAge}, {"forward delay", c.ForwardDelay, &cfg.ForwardDelay}} {
		if t.d%time.Second != 0 {
			return cfg, fmt.Errorf("check %s %v: want whole seconds", t.name, t.d)
		}
		*t.sec = int(t.d / time.Second)
	}
	return cfg, cfg.Validate()
}

// leastDelay is the least forward delay, in seconds, that the standard has with a
// max age (802.1D-2004 17.14).
func leastDelay(maxAge int) int { return (maxAge+1)/2 + 1 }

// guest reports that an end station is behind the port unless told otherwise.
func (c *PortConfig) guest() bool { return !c.Uplink && !c.Network }

// edge is whether the port is one to an end station, or how that is found out.
func (c *PortConfig) edge() Choice {
	switch {
	case c.STP.Edge != Unset:
		return c.STP.Edge
	case c.guest():
		return On
	}
	return Auto
}

// bpduGuard reports whether no BPDU may come from the port.
func (c *PortConfig) bpduGuard() bool {
	if c.STP.BPDUGuard == Unset {
		return c.guest() && c.edge() == On
	}
	return c.STP.BPDUGuard == On
}

// stpPort is a port with configuration c in package stp's terms. Ports of VMs
// are edge ports with BPDU guard unless told otherwise: a guest forwards from
// its first frame, and one that bridges costs itself only. Others find out.
func (s *Switch) stpPort(p *port, c PortConfig) stp.PortConfig {
	edge := c.edge()
	p2p := stp.P2PAuto
	switch c.STP.P2P {
	case On:
		p2p = stp.P2POn
	case Off:
		p2p = stp.P2POff
	}
	return stp.PortConfig{
		Enabled:      p.state.Up,
		Speed:        p.state.Speed,
		HalfDuplex:   p.state.HalfDup,
		Cost:         c.STP.Cost,
		Priority:     c.STP.Priority,
		AdminEdge:    edge == On,
		AutoEdge:     edge == Auto,
		PointToPoint: p2p,
		BPDUGuard:    c.bpduGuard(),
		BPDUFilter:   c.STP.BPDUFilter,
		RootGuard:    c.STP.RootGuard,
		TCNGuard:     c.STP.TCNGuard,
		LoopGuard:    c.STP.LoopGuard,
		RecoverAfter: uint32(c.STP.Recover / time.Second),
	}
}
