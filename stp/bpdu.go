package stp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Why ParseBPDU refuses bytes, and so does Receive.
var (
	ErrTooShort   = errors.New("BPDU is too short")
	ErrProtocol   = errors.New("protocol identifier is not 0")
	ErrType       = errors.New("unknown BPDU type")
	ErrVersion    = errors.New("RST BPDU of a protocol version below 2")
	ErrMessageAge = errors.New("message age is not below max age")
)

// BPDUType is the fourth octet of every BPDU (9.2.3).
type BPDUType uint8

const (
	TypeConfig BPDUType = 0x00 // Configuration BPDU (9.3.1)
	TypeRST    BPDUType = 0x02 // Rapid Spanning Tree BPDU (9.3.3)
	TypeTCN    BPDUType = 0x80 // Topology Change Notification BPDU (9.3.2)
)

// Flags is the fifth octet of Configuration and RST BPDUs (figure 9-4). A
// Configuration BPDU has only the first and the last.
type Flags uint8

const (
	FlagTopologyChange Flags = 1 << 0
	FlagProposal       Flags = 1 << 1
	FlagLearning       Flags = 1 << 4
	FlagForwarding     Flags = 1 << 5
	FlagAgreement      Flags = 1 << 6
	FlagTCAck          Flags = 1 << 7

	roleShift       = 2
	roleMask  Flags = 3 << roleShift
)

// The two bits of Port Role (9.2.9); 0 is unknown.
const (
	roleCodeAlternateBackup = 1
	roleCodeRoot            = 2
	roleCodeDesignated      = 3
)

// Lengths of the BPDUs in octets (9.3).
const (
	LenTCN    = 4
	LenConfig = 35
	LenRST    = 36
)

// second is a BPDU's unit of time: it counts in 1/256 s (9.2.8).
const second = 256

// BPDU is a decoded BPDU. Of a TCN only Version and Type mean anything. Times
// are as on the wire, in 1/256 s.
type BPDU struct {
	Version      uint8
	Type         BPDUType
	Flags        Flags
	Root         BridgeID
	RootPathCost uint32
	Bridge       BridgeID // who sends
	Port         PortID   // and on which port
	MessageAge   uint16
	MaxAge       uint16
	HelloTime    uint16
	ForwardDelay uint16
}

// ParseBPDU decodes and validates what follows the LLC header 42 42 03 (9.3.4):
// protocol identifier 0, a known type, as many octets as the type has, and in a
// Configuration BPDU a message age below max age. Octets beyond are ignored, as
// later versions of the protocol add to a BPDU's end. The error wraps
// ErrTooShort, ErrProtocol, ErrType, ErrVersion or ErrMessageAge.
func ParseBPDU(b []byte) (BPDU, error) {
	if len(b) < LenTCN {
		return BPDU{}, fmt.Errorf("parse BPDU: %w: %d octets, want at least %d", ErrTooShort, len(b), LenTCN)
	}
	if id := binary.BigEndian.Uint16(b); id != 0 {
		return BPDU{}, fmt.Errorf("parse BPDU: %w: %#04x", ErrProtocol, id)
	}
	m := BPDU{Version: b[2], Type: BPDUType(b[3])}
	want := LenConfig
	switch m.Type {
	case TypeTCN:
		return m, nil
	case TypeConfig:
	case TypeRST:
		if m.Version < 2 {
			return BPDU{}, fmt.Errorf("parse BPDU: %w: %d", ErrVersion, m.Version)
		}
		want = LenRST
	default:
		return BPDU{}, fmt.Errorf("parse BPDU: %w: %#02x", ErrType, b[3])
	}
	if len(b) < want {
		return BPDU{}, fmt.Errorf("parse BPDU: %w: %d octets, want at least %d", ErrTooShort, len(b), want)
	}
	m.Flags = Flags(b[4])
	m.Root = readBridgeID(b[5:13])
	m.RootPathCost = binary.BigEndian.Uint32(b[13:])
	m.Bridge = readBridgeID(b[17:25])
	m.Port = PortID(binary.BigEndian.Uint16(b[25:]))
	m.MessageAge = binary.BigEndian.Uint16(b[27:])
	m.MaxAge = binary.BigEndian.Uint16(b[29:])
	m.HelloTime = binary.BigEndian.Uint16(b[31:])
	m.ForwardDelay = binary.BigEndian.Uint16(b[33:])
	if m.Type == TypeConfig && m.MessageAge >= m.MaxAge {
		return BPDU{}, fmt.Errorf("parse BPDU: %w: %.2f s of %.2f s", ErrMessageAge,
			float64(m.MessageAge)/second, float64(m.MaxAge)/second)
	}
	return m, nil
}

// Append encodes the BPDU behind b: 4, 35 or 36 octets by its type.
func (m BPDU) Append(b []byte) []byte {
	b = append(b, 0, 0, m.Version, byte(m.Type))
	if m.Type == TypeTCN {
		return b
	}
	b = append(b, byte(m.Flags))
	b = appendBridgeID(b, m.Root)
	b = binary.BigEndian.AppendUint32(b, m.RootPathCost)
	b = appendBridgeID(b, m.Bridge)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Port))
	b = binary.BigEndian.AppendUint16(b, m.MessageAge)
	b = binary.BigEndian.AppendUint16(b, m.MaxAge)
	b = binary.BigEndian.AppendUint16(b, m.HelloTime)
	b = binary.BigEndian.AppendUint16(b, m.ForwardDelay)
	if m.Type == TypeRST {
		b = append(b, 0) // Version 1 Length: there is no version 1 information
	}
	return b
}

// String writes the BPDU in a line, times in seconds.
func (m BPDU) String() string {
	switch m.Type {
	case TypeTCN:
		return "TCN"
	case TypeConfig, TypeRST:
	default:
		return fmt.Sprintf("BPDU type %#02x", uint8(m.Type))
	}
	var s strings.Builder
	kind := "Config"
	if m.Type == TypeRST {
		kind = "RST " + [...]string{"unknown", "alternate", "root", "designated"}[m.Flags&roleMask>>roleShift]
	}
	fmt.Fprintf(&s, "%s root %v cost %d bridge %v port %v age %g/%g hello %g delay %g", kind, m.Root, m.RootPathCost,
		m.Bridge, m.Port, float64(m.MessageAge)/second, float64(m.MaxAge)/second,
		float64(m.HelloTime)/second, float64(m.ForwardDelay)/second)
	for _, f := range []struct {
		flag Flags
		name string
	}{
		{FlagLearning, " learning"}, {FlagForwarding, " forwarding"}, {FlagProposal, " proposal"},
		{FlagAgreement, " agreement"}, {FlagTopologyChange, " tc"}, {FlagTCAck, " tcack"},
	} {
		if m.Flags&f.flag != 0 {
			s.WriteString(f.name)
		}
	}
	return s.String()
}

// role is the Port Role that the BPDU conveys. A Configuration BPDU comes from
// a designated port, and an RST BPDU whose role is unknown is taken as a
// Configuration BPDU (9.2.9). Alternate and Backup share a code.
func (m *BPDU) role() Role {
	if m.Type == TypeRST {
		switch m.Flags & roleMask >> roleShift {
		case roleCodeRoot:
			return RoleRoot
		case roleCodeAlternateBackup:
			return RoleAlternate
		}
	}
	return RoleDesignated
}

// roleFlags encodes a Port Role.
func roleFlags(r Role) Flags {
	switch r {
	case RoleRoot:
		return roleCodeRoot << roleShift
	case RoleDesignated:
		return roleCodeDesignated << roleShift
	case RoleAlternate, RoleBackup:
		return roleCodeAlternateBackup << roleShift
	}
	return 0
}

func readBridgeID(b []byte) BridgeID {
	return BridgeID{Priority: binary.BigEndian.Uint16(b), Addr: [6]byte(b[2:8])}
}

func appendBridgeID(b []byte, id BridgeID) []byte {
	return append(binary.BigEndian.AppendUint16(b, id.Priority), id.Addr[:]...)
}
