// Package pair gives the host a port made of two devices that are joined
// (veth(4)): one is the host's interface, as br0 is a kernel bridge's; the other,
// its far end, is a port of the switch like any network device.
//
// That is how the host is on the segment where the kernel forwards: frames
// between it and others never leave the kernel, and the interface's own counters
// and whoever captures on it see both directions. The host's tap (package tap)
// does the same without BPF.
//
// The pair goes when the port is closed, unless it is to be kept. One that was
// kept, or that a crash left behind, is known by its alias and taken over, with all
// the addresses it has. A device of that name that is anything else is refused.
//
// A Port's methods may be called from any goroutine. Devices are made in the
// network namespace of the Watcher that is handed in.
package pair

import (
	"cmp"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/port/netdev"
)

// Options say how the host's end is set up. What is zero is left to the kernel.
type Options struct {
	MAC    frame.MAC
	MTU    int            // bytes
	Alias  string         // marks both ends; "" = one made of the name
	Keep   bool           // the pair stays when the port is closed
	Netdev netdev.Options // of the far end; Watcher and Up are Open's
}

// Port is the host's port. It implements frame.Port.
type Port struct {
	*netdev.Port // the far end
	name, alias  string
	keeps        bool // Options.Keep
	watcher      *link.Watcher
	index        int // of the host's end
	closed       atomic.Bool
	host         atomic.Pointer[host]

	// Only the Watcher's goroutine uses these.
	notify func()
	stop   func() // ends following
}

// host is the host's end as last heard of.
type host struct {
	link link.Link
	gone bool
}

var (
	_ frame.Port       = (*Port)(nil)
	_ frame.Redirector = (*Port)(nil)
)

// alias marks both ends, as `ip link` shows it.
func (o *Options) alias(name string) string {
	return cmp.Or(o.Alias, "host interface "+name+" of kvswitch")
}

// farName is what the far end of name is called.
func farName(name string) string {
	const suffix = "-sw"
	if most := unix.IFNAMSIZ - 1 - len(suffix); len(name) > most {
		name = name[:most]
	}
	return name + suffix
}

// Open makes the pair, sets both ends up, and opens the far one as the host's port.
func Open(w *link.Watcher, name string, o Options) (*Port, error) {
	if err := link.CheckName(name); err != nil {
		return nil, fmt.Errorf("open host interface: %w", err)
	}
	p := &Port{name: name, alias: o.alias(name), keeps: o.Keep, watcher: w}
	var far string
	var made bool
	err := p.within(func() (err error) {
		far, made, err = p.take(o)
		return err
	})
	if err == nil {
		o.Netdev.Watcher, o.Netdev.Up = w, true
		if p.Port, err = netdev.Open(far, o.Netdev); err == nil {
			return p, nil
		}
		if made { // else it may be that of a switch that runs
			_ = p.within(p.remove)
		}
	}
	return nil, fmt.Errorf("open host interface %s: %w", name, err)
}

// take finds the pair or makes it, and sets it up. It returns the name of the far
// end.
func (p *Port) take(o Options) (name string, made bool, err error) {
	h := p.watcher.Handle()
	host, err := h.LinkByName(p.name)
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}):
		if host, err = p.make(); err != nil {
			return "", false, err
		}
		made = true
	case err != nil:
		return "", false, err
	case host.Type() != "veth" || host.Attrs().Alias != p.alias:
		return "", false, fmt.Errorf("a %s device has that name: `ip link del %s` if it is a leftover, or choose another name", host.Type(), p.name)
	}
	far, err := h.LinkByIndex(host.Attrs().ParentIndex)
	if err == nil {
		err = p.configure(host, far, o)
	}
	if err != nil && made {
		err = errors.Join(err, h.LinkDel(host))
	}
	if err != nil {
		return "", made, err
	}
	l, err := p.watcher.ByIndex(host.Attrs().Index)
	if err != nil {
		return "", made, err
	}
	p.index = l.Index
	p.keep(l, false)
	return far.Attrs().Name, made, nil
}

// make makes the two devices.
func (p *Port) make() (netlink.Link, error) {
	h := p.watcher.Handle()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.name
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: farName(p.name)}); err != nil {
		return nil, fmt.Errorf("make veth pair with %s: %w", farName(p.name), err)
	}
	return h.LinkByName(p.name)
}

// configure sets up both ends. The far one is as long as the host's, so that
// nothing is lost between them.
func (p *Port) configure(host, far netlink.Link, o Options) error {
	h := p.watcher.Handle()
	if !o.MAC.IsZero() {
		if err := h.LinkSetHardwareAddr(host, o.MAC[:]); err != nil {
			return fmt.Errorf("set address %v: %w", o.MAC, err)
		}
	}
	for _, end := range []netlink.Link{far, host} {
		if o.MTU != 0 {
			if err := h.LinkSetMTU(end, o.MTU); err != nil {
				return fmt.Errorf("set MTU %d: %w", o.MTU, err)
			}
		}
		if err := h.LinkSetAlias(end, p.alias); err != nil {
			return fmt.Errorf("set alias: %w", err)
		}
	}
	if err := h.LinkSetUp(host); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// Name is the host interface's name when it was opened.
func (p *Port) Name() string { return p.name }

// Start implements frame.Port.
func (p *Port) Start(notify func()) error {
	if err := p.Port.Start(notify); err != nil {
		return err
	}
	return p.within(func() error {
		p.notify = notify
		p.stop = p.watcher.Follow(p.follow)
		l, err := p.watcher.ByIndex(p.index)
		if err != nil {
			return fmt.Errorf("start host interface %s: %w", p.name, err)
		}
		p.follow(l, false)
		return nil
	})
}

// follow takes over what became of the host's end.
func (p *Port) follow(l link.Link, gone bool) {
	if l.Index != p.index {
		return
	}
	before := p.host.Load().link.MTU
	p.keep(l, gone)
	if !gone && l.MTU != before {
		// As somebody sets the host interface's, so is what can be sent to it.
		device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: p.Port.State().Device}}
		_ = p.watcher.Handle().LinkSetMTU(device, l.MTU)
	}
	p.notify()
}

func (p *Port) keep(l link.Link, gone bool) { p.host.Store(&host{l, gone}) }

// Names implements frame.Namer: those of the host interface.
func (p *Port) Names() []string {
	h := p.host.Load()
	if h.gone {
		return nil
	}
	return append([]string{h.link.Name}, h.link.AltNames...)
}

// State implements frame.Port: address and MTU are the host interface's.
func (p *Port) State() frame.State {
	s, h := p.Port.State(), p.host.Load()
	s.MAC, s.MTU = h.link.MAC, h.link.MTU
	switch {
	case h.gone:
		s.Up, s.Gone, s.Reason = false, true, "the device was deleted"
	case !h.link.Up:
		s.Up, s.Reason = false, fmt.Sprintf("%s is set down; `ip link set %s up`", h.link.Name, h.link.Name)
	}
	return s
}

// Close implements frame.Port. The pair goes with it unless it is kept. Only the first call does
// anything.
func (p *Port) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	p.watcher.Do(func() {
		if p.stop != nil {
			p.stop()
		}
	})
	err := p.Port.Close()
	if p.keeps {
		return err
	}
	return errors.Join(err, p.within(p.remove))
}

// remove deletes the host's end, and the far one with it.
func (p *Port) remove() error {
	l, err := p.watcher.Handle().LinkByIndex(p.index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil // somebody else did
	}
	if err == nil {
		err = p.watcher.Handle().LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("delete host interface %s: %w", p.name, err)
	}
	return nil
}

// within runs f on the watcher's goroutine, in its namespace.
func (p *Port) within(f func() error) (err error) {
	if !p.watcher.Do(func() { err = f() }) {
		return errors.New("the watcher of network devices is closed")
	}
	return err
}
