package stp

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"strconv"
)

// BridgeID is a Bridge Identifier (9.2.5): sixteen bits of priority, of which
// 802.1D-2004 reserves the lower twelve for a system id extension, and then the
// bridge's own MAC address. The lower of two identifiers is the better one.
type BridgeID struct {
	Priority uint16
	Addr     [6]byte
}

// String writes the identifier as brctl does: 8000.eef79549afe7.
func (id BridgeID) String() string {
	return fmt.Sprintf("%04x.%x", id.Priority, id.Addr[:])
}

// Compare is negative if id is better (lower) than other, positive if it is
// worse, and 0 if they are the same.
func (id BridgeID) Compare(other BridgeID) int {
	if c := cmp.Compare(id.Priority, other.Priority); c != 0 {
		return c
	}
	return bytes.Compare(id.Addr[:], other.Addr[:])
}

// MarshalText makes an identifier a string in JSON and YAML.
func (id BridgeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what String writes.
func (id *BridgeID) UnmarshalText(b []byte) error {
	v, err := ParseBridgeID(string(b))
	if err == nil {
		*id = v
	}
	return err
}

// ParseBridgeID reads four hexadecimal digits of priority, a dot, and twelve of
// address.
func ParseBridgeID(s string) (BridgeID, error) {
	var id BridgeID
	bad := fmt.Errorf("parse bridge id %q: want a priority and an address such as 8000.eef79549afe7", s)
	if len(s) != 17 || s[4] != '.' {
		return id, bad
	}
	prio, err := strconv.ParseUint(s[:4], 16, 16)
	if err != nil {
		return id, bad
	}
	if _, err := hex.Decode(id.Addr[:], []byte(s[5:])); err != nil {
		return BridgeID{}, bad
	}
	id.Priority = uint16(prio)
	return id, nil
}

// PortID is a Port Identifier (9.2.7): four bits of priority above a twelve-bit
// port number. The lower of two is the better one.
type PortID uint16

// MakePortID joins a port's priority, of which the upper four bits count, and
// its number, of which the lower twelve do.
func MakePortID(priority uint8, port uint16) PortID {
	return PortID(priority&0xf0)<<8 | PortID(port&MaxPort)
}

// Priority is the port's priority, in steps of 16.
func (id PortID) Priority() uint8 { return uint8(id>>8) & 0xf0 }

// Port is the port's number.
func (id PortID) Port() uint16 { return uint16(id) & MaxPort }

// String writes the identifier as brctl does: 8001.
func (id PortID) String() string { return fmt.Sprintf("%04x", uint16(id)) }

// MarshalText makes an identifier a string in JSON and YAML.
func (id PortID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what String writes.
func (id *PortID) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 16)
	if err != nil || len(b) != 4 {
		return fmt.Errorf("parse port id %q: want four hexadecimal digits such as 8001", b)
	}
	*id = PortID(v)
	return nil
}
