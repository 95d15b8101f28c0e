package daemon

import (
	"github.com/kvswitch/kvswitch/switch/inkernel"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// makeTier makes the memory by which the kernel forwards what it can, unless that
// is not wanted. Where it can't be had the workers do it all.
func (d *Daemon) makeTier() {
	if d.started.InKernel != config.InKernelAuto {
		return
	}
	tier, err := inkernel.New(inkernel.Options{MaxEntries: d.started.Switch.MaxEntries, Filtering: d.started.Switch.VLANFiltering})
	if err != nil {
		d.log.Info("nothing is forwarded in the kernel", "err", err)
		return
	}
	d.opener.tier = tier
}
