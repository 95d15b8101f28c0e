package stp

import "fmt"

// Role is a port role (17.7).
type Role uint8

const (
	RoleDisabled Role = iota
	RoleRoot
	RoleDesignated
	RoleAlternate
	RoleBackup
)

// State is a port state as it is shown (17.7, table 17-2). In mode STP the
// names are those of 802.1D-1998: a port that discards is listening if its role
// is root or designated, blocking otherwise.
type State uint8

const (
	StateDisabled State = iota
	StateDiscarding
	StateLearning
	StateForwarding
	StateListening // mode STP
	StateBlocking  // mode STP
)

// Guard says which guard keeps a port from forwarding.
type Guard uint8

const (
	NoGuard Guard = iota
	// GuardBPDU: a BPDU came in on a port with PortConfig.BPDUGuard, and the
	// port was disabled.
	GuardBPDU
	// GuardRoot: superior BPDUs come in on a port with PortConfig.RootGuard.
	GuardRoot
	// GuardLoop: a port with PortConfig.LoopGuard fell silent.
	GuardLoop
	// GuardSelfLoop: the port hears its own BPDUs: its LAN is looped, or
	// reflects. It lets go after three hello times without one.
	GuardSelfLoop
)

var (
	modeNames  = [...]string{RSTP: "rstp", STP: "stp"}
	roleNames  = [...]string{RoleDisabled: "disabled", RoleRoot: "root", RoleDesignated: "designated", RoleAlternate: "alternate", RoleBackup: "backup"}
	stateNames = [...]string{StateDisabled: "disabled", StateDiscarding: "discarding", StateLearning: "learning",
		StateForwarding: "forwarding", StateListening: "listening", StateBlocking: "blocking"}
	guardNames = [...]string{NoGuard: "", GuardBPDU: "bpdu-guard", GuardRoot: "root-guard", GuardLoop: "loop-guard", GuardSelfLoop: "self-loop"}
	p2pNames   = [...]string{P2PAuto: "auto", P2POn: "on", P2POff: "off"}
	kindNames  = [...]string{RoleChanged: "role", StateChanged: "state", RootChanged: "root", TopologyChanged: "topology-change",
		GuardTripped: "guard-trip", GuardCleared: "guard-clear", VersionChanged: "version", EdgeChanged: "edge"}
)

// name looks a value's name up; a value without one shows its number.
func name[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%d", uint8(v))
}

// parse is name's inverse.
func parse[T ~uint8](what string, names []string, b []byte, v *T) error {
	for i, n := range names {
		if n == string(b) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("parse %s %q: %w", what, b, ErrConfig)
}

// The words of the command line and of JSON.

func (m Mode) String() string         { return name(modeNames[:], m) }
func (r Role) String() string         { return name(roleNames[:], r) }
func (s State) String() string        { return name(stateNames[:], s) }
func (g Guard) String() string        { return name(guardNames[:], g) }
func (p PointToPoint) String() string { return name(p2pNames[:], p) }
func (k EventKind) String() string    { return name(kindNames[:], k) }

func (m Mode) MarshalText() ([]byte, error)         { return []byte(m.String()), nil }
func (r Role) MarshalText() ([]byte, error)         { return []byte(r.String()), nil }
func (s State) MarshalText() ([]byte, error)        { return []byte(s.String()), nil }
func (g Guard) MarshalText() ([]byte, error)        { return []byte(g.String()), nil }
func (p PointToPoint) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
func (k EventKind) MarshalText() ([]byte, error)    { return []byte(k.String()), nil }

func (m *Mode) UnmarshalText(b []byte) error         { return parse("mode", modeNames[:], b, m) }
func (r *Role) UnmarshalText(b []byte) error         { return parse("role", roleNames[:], b, r) }
func (s *State) UnmarshalText(b []byte) error        { return parse("state", stateNames[:], b, s) }
func (g *Guard) UnmarshalText(b []byte) error        { return parse("guard", guardNames[:], b, g) }
func (p *PointToPoint) UnmarshalText(b []byte) error { return parse("p2p", p2pNames[:], b, p) }
func (k *EventKind) UnmarshalText(b []byte) error    { return parse("event", kindNames[:], b, k) }
