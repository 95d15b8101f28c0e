package daemon

import (
	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/inkernel"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/port/netdev"
)

// makeTier makes the memory by which the kernel forwards what it can, unless that
// is not wanted, and has the switch sc use it. Where it can't be had the workers
// do it all, and every port says why.
func (d *Daemon) makeTier(sc *vswitch.Config) {
	if d.started.InKernel != config.InKernelAuto {
		return
	}
	// Ports that receive by packet rings can't be part of it: then the host's has
	// no reason to be a pair, either.
	err := netdev.IntakeAvailable()
	var tier *inkernel.Tier
	if err == nil {
		tier, err = inkernel.New(inkernel.Options{MaxEntries: sc.MaxEntries, Filtering: sc.VLANFiltering})
	}
	if err != nil {
		d.log.Info("nothing is forwarded in the kernel", "err", err)
		sc.Follower = inkernel.Unavailable{Err: err}
		return
	}
	d.opener.tier = tier
	memory := tier.Memory()
	sc.Memory, sc.Follower = &memory, tier
}
