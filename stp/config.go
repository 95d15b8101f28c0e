package stp

import (
	"errors"
	"fmt"
)

// Mode is the bridge's Force Protocol Version (17.13.4).
type Mode uint8

const (
	// RSTP is the Rapid Spanning Tree Protocol. It turns to STP by itself, port
	// by port, where it hears a neighbour that speaks nothing newer (17.24).
	RSTP Mode = iota
	// STP behaves as IEEE 802.1D-1998 does on every port: Configuration and
	// TCN BPDUs only, two forward delays before a port forwards (except
	// ports configured as edge ports), short ageing instead of flushes.
	STP
)

// Limits of the parameters: table 17-1 for the times, in seconds, 17.13.12 for
// the hold count, 9.2.7 for the port number.
const (
	MinHello, MaxHello               = 1, 10
	MinMaxAge, MaxMaxAge             = 6, 40
	MinForwardDelay, MaxForwardDelay = 4, 30
	MinTxHold, MaxTxHold             = 1, 10
	MinPort, MaxPort                 = 1, 4095
	MaxPathCost                      = 200_000_000
)

// ErrConfig is wrapped by every error about a value that Config or PortConfig
// can't take. Nothing has changed when it is returned.
var ErrConfig = errors.New("invalid spanning tree parameter")

// Config holds a bridge's parameters (17.13). Times are whole seconds.
type Config struct {
	Mode Mode
	// ID is the bridge's identifier. 802.1D-2004 gives management the upper
	// four bits of its priority (steps of 4096); any sixteen bits are accepted
	// here, as 802.1D-1998 and brctl have it. The address must not be zero or a
	// group address, and no other bridge may have it.
	ID BridgeID
	// Hello is the Bridge Hello Time (17.13.6), 1–10: how often designated
	// ports send. Neighbours give the bridge up after three of them.
	Hello int
	// MaxAge is the Bridge Max Age (17.13.8), 6–40: as root, how many bridges
	// its information may pass before it is worthless.
	MaxAge int
	// ForwardDelay is the Bridge Forward Delay (17.13.5), 4–30: as root, how
	// long a port spends listening, and then learning, when nothing quicker
	// says that it may forward.
	ForwardDelay int
	// TxHold is the Transmit Hold Count (17.13.12), 1–10: BPDUs that a port may
	// send at once; after that it sends one a second.
	TxHold int
}

// DefaultConfig is table 17-1's recommended values for a bridge with this
// identifier: RSTP, hello 2 s, max age 20 s, forward delay 15 s, hold count 6.
func DefaultConfig(id BridgeID) Config {
	return Config{Mode: RSTP, ID: id, Hello: 2, MaxAge: 20, ForwardDelay: 15, TxHold: 6}
}

// Validate reports the first value out of its range. The error wraps ErrConfig.
// Values whose relation the standard doesn't have are taken: see Warning.
func (c Config) Validate() error {
	if c.Mode > STP {
		return fmt.Errorf("check mode %d: %w: want rstp or stp", c.Mode, ErrConfig)
	}
	if c.ID.Addr == ([6]byte{}) || c.ID.Addr[0]&1 != 0 {
		return fmt.Errorf("check bridge id %v: %w: its address must be a station's own", c.ID, ErrConfig)
	}
	for _, v := range []struct {
		name       string
		value      int
		low, high  int
		unitPlural string
	}{
		{"hello", c.Hello, MinHello, MaxHello, " seconds"},
		{"max-age", c.MaxAge, MinMaxAge, MaxMaxAge, " seconds"},
		{"forward-delay", c.ForwardDelay, MinForwardDelay, MaxForwardDelay, " seconds"},
		{"tx-hold", c.TxHold, MinTxHold, MaxTxHold, ""},
	} {
		if v.value < v.low || v.value > v.high {
			return fmt.Errorf("check %s %d: %w: want %d to %d%s", v.name, v.value, ErrConfig, v.low, v.high, v.unitPlural)
		}
	}
	return nil
}

// Warning is what there is to be said against values that Validate takes, "" if
// nothing: a relation of 17.14 that does not hold. The kernel's bridge takes such
// values, and its users have them.
func (c Config) Warning() string {
	const relation = "IEEE 802.1D wants 2×(forward-delay−1) ≥ max-age ≥ 2×(hello+1)"
	switch {
	case 2*(c.ForwardDelay-1) < c.MaxAge:
		return fmt.Sprintf("max-age %ds is more than 2×(forward-delay−1) = %ds: %s, or a port may forward before all bridges know of a change: frames may loop",
			c.MaxAge, 2*(c.ForwardDelay-1), relation)
	case c.MaxAge < 2*(c.Hello+1):
		return fmt.Sprintf("max-age %ds is less than 2×(hello+1) = %ds: %s, or one lost BPDU makes the root seem gone",
			c.MaxAge, 2*(c.Hello+1), relation)
	}
	return ""
}

// PointToPoint is a port's adminPointToPointMAC (6.4.3).
type PointToPoint uint8

const (
	P2PAuto PointToPoint = iota // as the link is: full duplex is point-to-point
	P2POn                       // at most one other bridge is on the LAN
	P2POff                      // a shared medium: no quick transitions
)

// PortConfig holds one port's parameters. The zero value is a port that is
// down; DefaultPort is the place to start from.
type PortConfig struct {
	// Enabled is portEnabled (17.19.18): the port is administratively enabled
	// and its link is up.
	Enabled bool
	// Speed is the link's rate in bit/s, 0 if unknown. It matters only when
	// Cost is 0.
	Speed uint64
	// Cost is the PortPathCost (17.13.11), 1–200 000 000; 0 takes it from Speed
	// (see PathCost).
	Cost uint32
	// Priority is the upper part of the port's identifier (17.13.10), 0–240 in
	// steps of 16; 128 is the default. Lower is better.
	Priority uint8
	// AdminEdge is AdminEdgePort (17.13.1): the port forwards as soon as it is
	// up, until a BPDU comes in.
	AdminEdge bool
	// AutoEdge is AutoEdgePort (17.13.3): the port becomes an edge port after
	// three hello times without a BPDU in answer to its own (on a shared medium,
	// max age).
	AutoEdge bool
	// PointToPoint overrides what HalfDuplex says of the link.
	PointToPoint PointToPoint
	// HalfDuplex is what the link itself says: a shared medium.
	HalfDuplex bool

	// BPDUGuard disables the port when a valid BPDU comes in, until Recover or
	// until RecoverAfter has passed.
	BPDUGuard bool
	// BPDUFilter neither sends nor accepts BPDUs: the port takes no part in the
	// spanning tree and forwards, as an edge port. Whoever sets it must
	// prevent loops through the port. It wins over BPDUGuard.
	BPDUFilter bool
	// RootGuard never lets the port learn of a better designated bridge: while
	// superior BPDUs come in the port is designated and discards
	// ("root-inconsistent"), and it comes back by itself when they cease.
	RootGuard bool
	// TCNGuard is restrictedTcn of 802.1Q: topology changes that come in on the
	// port are neither acted upon nor passed on, and its own are not announced
	// through other ports.
	TCNGuard bool
	// LoopGuard distrusts silence, as bridge assurance does: a root, alternate or
	// backup port whose information ages out discards ("loop-inconsistent") until
	// a BPDU comes in, instead of becoming designated and then forwarding.
	LoopGuard bool
	// RecoverAfter is how many seconds BPDUGuard keeps the port disabled; 0 is
	// until Recover.
	RecoverAfter uint32
}

// DefaultPort is an enabled port of unknown speed with the standard's defaults:
// priority 128, cost from the speed, not an edge port but free to become one,
// point-to-point as the link says, no guards, recovery after 300 s.
func DefaultPort() PortConfig {
	return PortConfig{Enabled: true, Priority: 128, AutoEdge: true, RecoverAfter: 300}
}

// Validate reports the first value that a port can't take. The error wraps
// ErrConfig.
func (c PortConfig) Validate() error {
	if c.Cost > MaxPathCost {
		return fmt.Errorf("check cost %d: %w: want 1 to %d, or 0 to take it from the speed", c.Cost, ErrConfig, MaxPathCost)
	}
	if c.Priority&0x0f != 0 {
		return fmt.Errorf("check priority %d: %w: want 0 to 240 in steps of 16", c.Priority, ErrConfig)
	}
	if c.PointToPoint > P2POff {
		return fmt.Errorf("check p2p %d: %w: want auto, on or off", c.PointToPoint, ErrConfig)
	}
	return nil
}

// PathCost is the path cost that table 17-3 recommends for a link of this many
// bit/s: 20 Tbit/s divided by the speed, at least 1 and at most 200 000 000. An
// unknown speed (0) costs as 1 Gbit/s does, 20 000.
func PathCost(speed uint64) uint32 {
	const span = 20_000_000_000_000 // table 17-3: 20 000 at 1 Gbit/s
	if speed == 0 {
		return 20_000
	}
	return uint32(min(max(span/speed, 1), MaxPathCost))
}
