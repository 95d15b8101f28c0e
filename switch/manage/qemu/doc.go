// Package qemu attaches QEMU's virtual machines to a switch in the ways their
// users know: the bridge helper (`-netdev bridge,helper=`), hot plug over QMP,
// and libvirt's hooks. (The scripts of `-netdev tap,script=` are no more than
// verbs of the command line and are not in here.)
//
// In all of them QEMU holds the tap's descriptors, with or without vhost_net,
// and the switch meets the guest at the tap's netdev. This package makes the
// taps (but libvirt's), hands their descriptors over, has the switch attach the
// netdevs, and takes everything back when a step fails or the machine ends.
// These taps are never persistent: one lives as long as a QEMU holds it, and one of
// the bridge helper's whose holder has it otherwise is taken from him.
//
// It is also where /dev/vhost-net is opened for QEMU, and where it is known why
// that can't be (VHostAvailable).
//
// It forwards no frame, starts no QEMU, and knows a switch only as Ports. The
// taps are made in the network namespace of the calling process, which needs
// CAP_NET_ADMIN; only the parsers work without. The helper's side that QEMU runs is
// package bridgehelper.
//
// Functions may be called from any goroutine unless they say otherwise.
package qemu

import "github.com/kvswitch/kvswitch/switch/manage/config"

// Ports is what this package asks of a switch. Both calls return when it is
// done.
type Ports interface {
	// AddPort attaches what spec describes: here always a netdev, with or
	// without settings.
	AddPort(spec config.Spec) error
	// DelPort detaches a port by name.
	DelPort(name string) error
}
