package qemu

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// HookSwitch is what libvirt's hook asks of a running switch.
type HookSwitch interface {
	// Ports are those of guests: AddPort makes what is left of an earlier guest
	// anew, DelPort leaves alone what was not made for a guest.
	Ports
	// Name is the switch's.
	Name() string
	// HasPort reports whether a port of that name is there. A switch that does
	// not run has none.
	HasPort(name string) (bool, error)
	// Learn makes a station known on a port, as if a frame had come from it.
	Learn(port string, mac frame.MAC) error
}

// Hook is one call of libvirt's qemu hook.
//
// What libvirt says at a guest's end can't be relied on: by then it has
// forgotten the names of taps that it chose itself, and at the very end all
// names. So what was attached is remembered by the guest's UUID and its cards'
// addresses, in a file, and at the end that is what counts.
type Hook struct {
	Guest     string    // the guest's name, the hook's first argument
	Operation string    // its second: prepare, start, started, stopped, release, migrate, restore, reconnect, attach
	Domain    io.Reader // its standard input
	Dir       string    // where to remember, HookDir; made if need be
	// Find returns the switch of that name, "" for the default one. It is not
	// called for guests without taps of ours.
	Find func(name string) (HookSwitch, error)
}

// Run does what libvirt calls for. An error keeps libvirt from starting the
// guest. When a guest ends, its ports are taken away as far as possible,
// whatever is wrong with one of them and whatever libvirt says of the guest.
func (h *Hook) Run() error {
	switch h.Operation {
	case "migrate", "start", "reconnect":
		d, err := ParseDomain(h.Domain)
		if err != nil {
			return err
		}
		old := h.recall(d.UUID)
		if old == nil && len(d.Taps) == 0 {
			return nil
		}
		if !uuidForm.MatchString(d.UUID) {
			return fmt.Errorf("domain XML: <uuid> %q is none", d.UUID)
		}
		if old == nil {
			old = &remembered{}
		}
		now := &remembered{UUID: d.UUID, Name: h.Guest, Ports: old.Ports}
		switch h.Operation {
		case "migrate": // it will come from another host; start is next
			now.Incoming = true
			return h.keep(now)
		case "start": // the taps are there, the guest does not run yet
			return h.start(d, old, now)
		}
		return h.reconnect(d, now)
	case "stopped", "release":
		d, err := ParseDomain(h.Domain)
		if err != nil { // it has a name all the same
			d = &Domain{}
		}
		return h.end(h.recall(d.UUID))
	}
	return nil
}

// start makes ports of a guest's taps, of all or of none. What an earlier start
// left whose end libvirt never told of goes.
func (h *Hook) start(d *Domain, old, now *remembered) error {
	now.Ports = nil
	for _, p := range d.Taps {
		if p.Script {
			continue // libvirt runs it
		}
		a, err := h.attach(&p, true)
		// A guest that comes from another host still speaks there: it is not
		// known here before its first frame.
		if err == nil && !old.Incoming {
			err = a.learn()
		}
		if a != nil {
			now.Ports = append(now.Ports, *a)
		}
		if err != nil {
			_, left := h.detach(now.Ports)
			return errors.Join(fmt.Errorf("interface %s: %w", p.label(), err), left, h.drop(now))
		}
	}
	started := len(now.Ports)
	kept, _ := h.detach(slices.DeleteFunc(old.Ports, now.has))
	now.Ports = append(now.Ports, kept...)
	if err := h.keep(now); err != nil { // nobody would know of them at its end
		_, left := h.detach(now.Ports[:started])
		return errors.Join(err, left)
	}
	return nil
}

// reconnect sees that a running guest has its ports, after libvirt's daemon was
// restarted: the switch may have been, too. A port that is there stays as it is.
func (h *Hook) reconnect(d *Domain, now *remembered) error {
	var errs []error
	for _, p := range d.Taps {
		a, err := h.attach(&p, false)
		if err == nil {
			err = a.learn()
		}
		if a != nil && !now.has(*a) {
			now.Ports = append(now.Ports, *a)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", p.label(), err))
		}
	}
	return errors.Join(append(errs, h.keep(now))...)
}

// end takes a guest's ports away and forgets it. What fails at stopped is tried
// again at release.
func (h *Hook) end(old *remembered) error {
	if old == nil {
		return nil
	}
	kept, err := h.detach(old.Ports)
	if kept == nil {
		return h.drop(old)
	}
	old.Ports = kept
	return errors.Join(err, h.keep(old))
}

// attach makes a tap a port with the settings that the domain has for it; one
// that is there is made so if renew is set.
func (h *Hook) attach(p *TapPort, renew bool) (*attached, error) {
	if p.Tap == "" {
		return nil, errors.New("libvirt does not say which tap it has")
	}
	sw, err := h.Find(p.Switch)
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(p.Tap)
	if err != nil {
		return nil, fmt.Errorf("find tap: %w", err)
	}
	there, err := sw.HasPort(p.Tap)
	if err != nil {
		return nil, err
	}
	if !there || renew {
		if p.MTU != 0 && p.MTU != link.Attrs().MTU {
			if err := netlink.LinkSetMTU(link, p.MTU); err != nil {
				return nil, fmt.Errorf("set MTU to %d: %w", p.MTU, err)
			}
		}
		if err := sw.AddPort(p.Spec()); err != nil {
			return nil, err
		}
	}
	return &attached{MAC: p.MAC, Switch: sw.Name(), Tap: p.Tap, Index: link.Attrs().Index, sw: sw}, nil
}

// learn makes the card's address known on its port.
func (a *attached) learn() error {
	if !a.MAC.IsUnicast() {
		return nil
	}
	return a.sw.Learn(a.Tap, a.MAC)
}

// detach takes ports away, and returns those that could not be. One whose name
// another tap has by now is that tap's.
func (h *Hook) detach(ports []attached) (kept []attached, err error) {
	var errs []error
	for _, a := range ports {
		if link, err := netlink.LinkByName(a.Tap); err == nil && link.Attrs().Index != a.Index {
			continue
		}
		if err := h.detachOne(&a); err != nil {
			kept = append(kept, a)
			errs = append(errs, fmt.Errorf("interface %s: %w", a.Tap, err))
		}
	}
	return kept, errors.Join(errs...)
}

func (h *Hook) detachOne(a *attached) error {
	sw, err := h.Find(a.Switch)
	if err != nil {
		return err
	}
	there, err := sw.HasPort(a.Tap)
	if err != nil || !there {
		return err
	}
	return sw.DelPort(a.Tap)
}
