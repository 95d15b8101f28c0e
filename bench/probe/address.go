package probe

import "github.com/kvswitch/kvswitch/switch/frame"

// Stations are the made-up hosts behind each port of a topology. Their
// addresses are locally administered (second bit of the first octet) and carry
// the port and the station's number, so that a receiver can tell from a frame
// alone where it came from and where it belongs.
const (
	macOctet0 = 0x02
	macOctet1 = 0x6b // "k"
	// MaxPorts and MaxStations are what the address has room for.
	MaxPorts    = 256
	MaxStations = 1 << 24
)

// Station is the address of a station behind a port. port is below MaxPorts,
// station below MaxStations.
func Station(port, station int) frame.MAC {
	return frame.MAC{macOctet0, macOctet1, byte(port), byte(station >> 16), byte(station >> 8), byte(station)}
}

// IsStation reports an address that Station made, and what it was made of.
func IsStation(m frame.MAC) (port, station int, ok bool) {
	if m[0] != macOctet0 || m[1] != macOctet1 {
		return 0, 0, false
	}
	return int(m[2]), int(m[3])<<16 | int(m[4])<<8 | int(m[5]), true
}
