package daemon

import (
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"
	"github.com/kvswitch/kvswitch/switch/manage/qemu/bridgehelper"
)

// ports lets package qemu attach and detach ports.
type ports struct{ *Daemon }

func (p ports) AddPort(spec config.Spec) error { return p.addGuestPort(spec, false) }
func (p ports) DelPort(name string) error      { return p.DelGuestPort(name) }

// meetGuests makes ready for virtual machines: hot plug, and the bridge helper
// where taps can be made.
func (d *Daemon) meetGuests() (err error) {
	d.opener.watcher.Do(func() { d.opener.watcher.Follow(d.taps.linkChanged) })
	d.guests = qemu.NewGuests(ports{d}, qemu.GuestsConfig{MTU: d.guestMTU, Learn: d.learn, Log: d.log})
	if canMakeTaps() {
		name := d.started.Switch.Name
		d.helper, err = qemu.ListenHelper(qemu.HelperConfig{Path: bridgehelper.SocketPath(d.options.RunDir, name), Switch: name,
			MTU: d.guestMTU, Ports: ports{d}, Links: d.opener.watcher, Log: d.log})
	}
	return err
}

// leaveGuests lets go of virtual machines; they keep their taps.
func (d *Daemon) leaveGuests() {
	if d.helper != nil {
		d.helper.Close()
	}
	if d.guests != nil {
		d.guests.Close()
	}
	d.taps.close()
}

// guestMTU is the MTU that taps of guests get: the host interface's, which may
// have changed, else what the switch was started with; 0 leaves it to the kernel.
func (d *Daemon) guestMTU() int {
	if host := d.sw.Status().HostPort; host != nil {
		return host.MTU
	}
	return d.opener.tapMTU
}

// learn makes an address known that a guest's driver has set.
func (d *Daemon) learn(port string, mac frame.MAC) {
	if err := d.sw.AddFDB(mac, 0, port, false); err != nil {
		d.log.Debug("learn a guest's address", "port", port, "mac", mac.String(), "err", err)
	}
}
