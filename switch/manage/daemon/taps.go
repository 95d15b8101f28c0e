package daemon

import (
	"errors"
	"fmt"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/port/netdev"
	"github.com/kvswitch/kvswitch/switch/port/tap"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tapAlias marks the taps that the switch made, as `ip link` shows it: one that
// a crash left behind is the switch's to delete, one that somebody else made is
// not.
const tapAlias = "made by kvswitch"

// openTap makes a tap for QEMU to open by name and attaches its netdev. A tap
// of that name that is there is used as it is.
func (o *opener) openTap(s config.Spec) (frame.Port, error) {
	opts, err := tapOptions(s)
	if err != nil {
		return nil, err
	}
	opts.MTU = o.tapMTU
	dev, err := o.link(s.Name)
	switch {
	case errors.Is(err, link.ErrNotFound):
		if err := tap.Create(o.watcher, s.Name, opts); err != nil {
			return nil, err
		}
		if err := o.mark(s.Name); err != nil {
			return nil, errors.Join(fmt.Errorf("open tap %s: %w", s.Name, err), tap.Delete(o.watcher, s.Name))
		}
	case err != nil:
		return nil, fmt.Errorf("open tap %s: %w", s.Name, err)
	case dev.Kind != "tun" && dev.Kind != "tuntap":
		return nil, fmt.Errorf("open tap %s: a %s device has that name: attach it as netdev:%s, or choose another name", s.Name, dev.Kind, s.Name)
	}
	// A guest that holds our own tap keeps its link, by which dropTap knows it.
	p, err := netdev.Open(s.Name, netdev.Options{Watcher: o.watcher, Keep: o.keep, LeaveUp: o.madeTap(s.Name), Up: true, Tier: o.tier})
	if err != nil {
		_ = o.dropTap(byName(s.Name))
		return nil, err
	}
	return &tapPort{p, o}, nil
}

func tapOptions(s config.Spec) (opts tap.Options, err error) {
	if opts.Queues, err = queuesOf(s, tap.MaxQueues); err != nil {
		return opts, err
	}
	if opts.Owner, opts.Group, err = owner(s.Value("owner")); err != nil {
		err = fmt.Errorf("open port %s: owner=%s: %w", s.Name, s.Value("owner"), err)
	}
	return opts, err
}

func checkTap(s config.Spec) error {
	_, err := tapOptions(s)
	return err
}

// tapPort is the port of a tap that goes with it.
type tapPort struct {
	*netdev.Port
	opener *opener
}

// Close also deletes the tap, unless a VM still holds it: that one keeps its
// network card, and is back on the segment when the switch is.
func (t *tapPort) Close() error {
	index := t.Port.Detail().(netdev.Detail).Index // whatever it is called by now
	return errors.Join(t.Port.Close(), t.opener.dropTap(byIndex(index)))
}

// madeTap reports whether a tap is one that a switch made.
func (o *opener) madeTap(name string) (made bool) {
	o.watcher.Do(func() {
		link, err := o.watcher.Handle().LinkByName(name)
		made = err == nil && link.Attrs().Alias == tapAlias
	})
	return made
}

// mark gives a tap its alias.
func (o *opener) mark(name string) (err error) {
	o.watcher.Do(func() {
		var link netlink.Link
		if link, err = o.watcher.Handle().LinkByName(name); err == nil {
			err = o.watcher.Handle().LinkSetAlias(link, tapAlias)
		}
	})
	return err
}

// finding says which device is meant.
type finding func(*netlink.Handle) (netlink.Link, error)

func byName(name string) finding {
	return func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByName(name) }
}

func byIndex(index int) finding {
	return func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByIndex(index) }
}

// dropTap deletes a tap that the switch made and that nobody holds the other
// end of: such a tap has no carrier.
func (o *opener) dropTap(find finding) (err error) {
	drop, name := false, ""
	o.watcher.Do(func() {
		var link netlink.Link
		if link, err = find(o.watcher.Handle()); err == nil {
			a := link.Attrs()
			name = a.Name
			drop = a.Alias == tapAlias && a.RawFlags&unix.IFF_RUNNING == 0
		}
	})
	if drop {
		return tap.Delete(o.watcher, name)
	}
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	return err
}

// canMakeTaps reports CAP_NET_ADMIN.
func canMakeTaps() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var set [2]unix.CapUserData
	return unix.Capget(&header, &set[0]) == nil && set[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}
