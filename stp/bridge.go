package stp

import (
	"errors"
	"fmt"
)

// Errors of Receive: why a BPDU was not acted upon. None is fatal to anything;
// each is counted in the port's Counters. GuardTripped events tell what else
// came of it.
var (
	ErrNoPort     = errors.New("no such port")
	ErrTooShort   = errors.New("BPDU is too short")                              // 9.3.4
	ErrProtocol   = errors.New("protocol identifier is not 0")                   // 9.3.4
	ErrType       = errors.New("unknown BPDU type")                              // 9.3.4
	ErrMessageAge = errors.New("message age is not below max age")               // 9.3.4 a) 2)
	ErrOwn        = errors.New("BPDU is this port's own")                        // 9.3.4 a) 3)
	ErrDown       = errors.New("port is down")                                   // portEnabled FALSE
	ErrFiltered   = errors.New("port filters BPDUs")                             // PortConfig.BPDUFilter
	ErrGuarded    = errors.New("port does not expect BPDUs and is now disabled") // PortConfig.BPDUGuard
)

// Bridge is the spanning tree entity of one bridge. The zero value is not
// usable; New makes one. One goroutine at a time may call its methods.
type Bridge struct {
	cfg   Config
	ports map[uint16]PortConfig
}

// New makes a bridge without ports. It is its own root.
func New(cfg Config) (*Bridge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("new bridge: %w", err)
	}
	return &Bridge{cfg: cfg, ports: map[uint16]PortConfig{}}, nil
}

// SetConfig changes the bridge's parameters and acts on the change at once: a
// new identifier or new times reselect the roles (17.13), a new mode starts the
// state machines afresh. On an error nothing has changed.
func (b *Bridge) SetConfig(cfg Config) error { return cfg.Validate() }

// SetPort adds the port numbered port, 1–4095, or changes its parameters, and
// acts on the change at once: link up and down, cost, priority, edge, guards.
// On an error nothing has changed.
func (b *Bridge) SetPort(port uint16, cfg PortConfig) error { return cfg.Validate() }

// RemovePort takes the port away: others take over what it did. ErrNoPort if
// there is none.
func (b *Bridge) RemovePort(port uint16) error { return nil }

// Recover ends what BPDU guard did to the port. ErrNoPort if there is none; no
// effect on a port that is not guarded.
func (b *Bridge) Recover(port uint16) error { return nil }

// Mcheck makes the port speak RSTP again and find out anew what its neighbours
// speak (17.19.13). ErrNoPort if there is none.
func (b *Bridge) Mcheck(port uint16) error { return nil }

// Receive hands in a BPDU that came in on a port: pdu starts at the Protocol
// Identifier, the byte after the LLC header 42 42 03, and ends where the 802.3
// length field says (padding behind a short BPDU is not part of it; octets
// beyond those the BPDU's type defines are ignored). It is not kept.
//
// Everything that follows from the BPDU and need not wait for a timer happens
// before Receive returns, and is in Outputs. An error says why the BPDU was not
// acted upon: it wraps one of this package's errors.
func (b *Bridge) Receive(port uint16, pdu []byte) error { return nil }

// Tick tells the bridge that a second has passed (17.22). Call it once a second;
// when the owner was late, as often as seconds have passed.
func (b *Bridge) Tick() {}

// Outputs drains what the calls before it brought about. To be called after
// each of New's successors: SetConfig, SetPort, RemovePort, Recover, Mcheck,
// Receive and Tick.
//
// The outputs of one call stand in this order: SetState that close a port or
// stop it learning, other SetState, Flush and SetAgeing, SendBPDU, Event. No
// SendBPDU may leave before all that stands ahead of it is in force in the
// datapath: an Agreement tells a neighbour that this bridge has already
// blocked. An owner that publishes state changes together may therefore apply
// every SetState, Flush and SetAgeing of the slice first, in their order, and
// then send.
//
// The slice and the BPDUs in it are valid until the next call of Outputs.
func (b *Bridge) Outputs() []Output { return nil }

// Status copies out everything there is to show.
func (b *Bridge) Status() Status { return Status{Ports: []PortStatus{}} }
