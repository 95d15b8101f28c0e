package topo

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

const (
	// limitBurst and limitQueue, in bytes, are what a limited port takes at once,
	// and what waits for it before anything is dropped.
	limitBurst = 16 << 10
	limitQueue = 64 << 10
)

// Limit has the switch's end of a cable send no more than so many frames/s of a
// length in bytes, by a token bucket, tc-tbf(8): a cable itself takes whatever it
// is given. A switch that goes past the kernel's queueing disciplines goes past
// this, too.
func (t *Topology) Limit(port int, frames float64, length int) error {
	nl := t.Switch.Netlink()
	l, err := nl.LinkByName(t.Ports[port].Name)
	if err != nil {
		return fmt.Errorf("limit port %d: %w", port, err)
	}
	rate := uint64(frames * float64(length))
	err = nl.QdiscReplace(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate, Limit: limitQueue, Buffer: uint32(netlink.Xmittime(rate, limitBurst)),
	})
	if err != nil {
		return fmt.Errorf("limit port %d: %w", port, err)
	}
	return nil
}
