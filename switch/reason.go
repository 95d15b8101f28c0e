package vswitch

import "github.com/kvswitch/kvswitch/switch/relay"

// Port numbers: the host interface has number 0 and is no part of the spanning
// tree; the others get the lowest free number.
const (
	hostPort = relay.HostPort
	maxPorts = relay.MaxPorts
)

// Names of drops that ports count themselves; they stand beside the names of
// relay.Reason wherever drops are shown.
const (
	DropRxFull  = "rx-full"  // lost before the switch could take it
	DropRxError = "rx-error" // refused by the port: malformed
	DropTxError = "tx-error" // refused by the kernel or the peer
)

// DropReasons are all names that PortStatus.Drops may have.
func DropReasons() []string {
	names := []string{DropRxFull, DropRxError, DropTxError}
	for r := relay.Pass + 1; r < relay.NumReasons; r++ {
		names = append(names, r.String())
	}
	return names
}
