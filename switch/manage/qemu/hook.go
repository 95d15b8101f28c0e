package qemu

import (
	"errors"
	"fmt"
	"io"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// HookSwitch is what libvirt's hook asks of a running switch.
type HookSwitch interface {
	Ports
	// HasPort reports whether a port of that name is there.
	HasPort(name string) (bool, error)
	// Learn makes a station known on a port, as if a frame had come from it.
	Learn(port string, mac frame.MAC) error
}

// Hook does what libvirt's qemu hook is called for: operation is its second
// argument (libvirt's hooks page: prepare, start, started, stopped, release,
// migrate, restore, reconnect, attach), domain its standard input. find returns
// the switch of that name, "" for the default one; it is not called for domains
// without taps of ours.
//
// An error keeps libvirt from starting the guest. When a guest ends, the ports
// are taken away as far as possible, whatever is wrong with one of them.
func Hook(operation string, domain io.Reader, find func(name string) (HookSwitch, error)) error {
	attach := false
	switch operation {
	case "start", "reconnect":
		// start: the taps are there, the guest does not run yet. reconnect: the
		// daemon was restarted and looks after its guests again.
		attach = true
	case "release":
	default:
		return nil
	}
	ports, err := ParseDomain(domain)
	if err != nil {
		return err
	}
	var errs []error
	var done []TapPort
	for _, p := range ports {
		sw, err := find(p.Switch)
		switch {
		case err != nil:
		case attach:
			err = p.attach(sw)
		default:
			err = p.detach(sw)
		}
		if err == nil {
			done = append(done, p)
			continue
		}
		errs = append(errs, fmt.Errorf("interface %s: %w", p.Tap, err))
		if operation == "start" {
			break
		}
	}
	if operation == "start" && errs != nil { // the guest will not start
		for _, p := range done {
			if sw, err := find(p.Switch); err == nil {
				errs = append(errs, p.detach(sw))
			}
		}
	}
	return errors.Join(errs...)
}

func (p *TapPort) attach(sw HookSwitch) error {
	there, err := sw.HasPort(p.Tap)
	if err != nil {
		return err
	}
	if !there {
		if p.MTU != 0 {
			if err := setMTU(p.Tap, p.MTU); err != nil {
				return err
			}
		}
		if err := sw.AddPort(p.Spec()); err != nil {
			return err
		}
	}
	if p.MAC.IsUnicast() {
		return sw.Learn(p.Tap, p.MAC)
	}
	return nil
}

func (p *TapPort) detach(sw HookSwitch) error {
	there, err := sw.HasPort(p.Tap)
	if err != nil || !there {
		return err
	}
	return sw.DelPort(p.Tap)
}

func setMTU(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if link.Attrs().MTU == mtu {
		return nil
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU of %s to %d: %w", name, mtu, err)
	}
	return nil
}
