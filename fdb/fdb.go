// Package fdb is the switch's filtering database: which station, in which
// VLAN, was last heard on which port (IEEE 802.1Q, 8.8).
//
// A Table is two atomic 64-bit words per slot. Workers look up and learn
// without a lock as long as the station is known; only a station that was not
// in the table takes the lock. Flushing a port is one addition, whatever the
// number of its stations, and ageing is a slice of the table at a time. In a full
// table a new station takes the place of an old one, of a port that has more than
// its share. The package has no clock and no goroutine: its owner tells it the
// second. Its memory may be shared with readers in C: a BPF program forwards by
// the same table (fdb.h).
//
// It refuses to decide: it does not know what a group address is, which VLAN a
// frame belongs to, whether a port may learn, or what to do with a frame whose
// station is unknown. Callers learn unicast sources only.
//
// Every method may be called by any number of goroutines at once, but for
// Advance, which belongs to one: the switch's control goroutine.
package fdb

import (
	"encoding/binary"
	"fmt"
)

// Bounds of a Table.
const (
	MaxPorts   = 4096    // port numbers are 0 to MaxPorts-1
	MaxEntries = 4 << 20 // most learned entries a Table can be made for
	DefaultMax = 65536

	DefaultAgeing = 300       // seconds: 802.1Q, table 8-6
	MaxAgeing     = 1_000_000 // seconds: 802.1Q, table 8-6
)

// Key is a station in a VLAN: bit 63 set, the VLAN id in bits 48 to 59, and the
// MAC address as a little-endian load of its six bytes below.
type Key uint64

const keyValid = 1 << 63

// MakeKey builds the key of a station; vid above 4095 is cut to 12 bits.
func MakeKey(mac [6]byte, vid uint16) Key {
	return Key(keyValid | uint64(vid&0xfff)<<48 |
		uint64(binary.LittleEndian.Uint16(mac[4:]))<<32 |
		uint64(binary.LittleEndian.Uint32(mac[:])))
}

// WordKey builds the key of a station from its address as a little-endian load
// of six bytes; bits above 47 must be clear, and vid below 4096.
func WordKey(mac uint64, vid uint16) Key { return Key(keyValid | uint64(vid)<<48 | mac) }

// MAC is the station's address.
func (k Key) MAC() (mac [6]byte) {
	binary.LittleEndian.PutUint32(mac[:], uint32(k))
	binary.LittleEndian.PutUint16(mac[4:], uint16(k>>32))
	return mac
}

// VID is the VLAN id.
func (k Key) VID() uint16 { return uint16(k>>48) & 0xfff }

// String is the address, and the VLAN if it is not 0.
func (k Key) String() string {
	m := k.MAC()
	s := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
	if vid := k.VID(); vid != 0 {
		s += fmt.Sprintf(" vlan %d", vid)
	}
	return s
}

// Dest is where a station is.
type Dest struct {
	Port uint16 // 0 to MaxPorts-1
	Gen  uint16 // the port's flush generation, see Table.Gen
}

// Kind says how an entry came and what may change it.
type Kind uint8

// The kinds of entry. Only dynamic ones age, move, fall to Flush, and count
// against the limits.
const (
	Dynamic Kind = iota + 1 // learned from traffic
	Static                  // set by management: stays on its port
	Local                   // an address of the switch itself
)

var kindNames = [...]string{"free", "dynamic", "static", "local"}

// String is the word the command line uses: dynamic, static or local.
func (k Kind) String() string { return kindNames[k&3] }

// Result is what Learn did.
type Result uint8

// The results of Learn.
const (
	Known    Result = iota // the station was on this port already
	Added                  // a new entry
	Moved                  // the station was on another port until now
	Full                   // not learned: the switch's limit is reached, and nothing gives way
	PortFull               // not learned or not moved: the port's limit is reached
	Fixed                  // not moved: a static or local entry says another port
	Stale                  // not learned: the generation is not the port's current one
	Off                    // not learned: the ageing time is 0
)

var resultNames = [...]string{"known", "added", "moved", "full", "port-full", "fixed", "stale", "off"}

// String is the result in lower case.
func (r Result) String() string { return resultNames[r&7] }

// Entry is a copy of one entry.
type Entry struct {
	MAC  [6]byte
	VID  uint16
	Port uint16
	Kind Kind
	Age  uint32 // seconds since the station was last heard; 0 unless dynamic
}
