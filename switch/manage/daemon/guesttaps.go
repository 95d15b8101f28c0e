package daemon

import (
	"errors"
	"fmt"
	"sync"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// guestGrace is how long a guest's port outlives its tap: a guest that is
// restarted by a script finds it again, and none that ended without a word
// (QEMU killed, no downscript) leaves one for good.
const guestGrace = 5 * time.Second

// guestTaps are the ports that were made for guests' taps, by a script, the
// bridge helper, hot plug or libvirt's hook. Ports that the file, the options or
// somebody by hand made are not among them: those wait for their device.
type guestTaps struct {
	remove func(name string)                             // takes the port away if it is still without a tap
	after  func(d time.Duration, f func()) (stop func()) // time.AfterFunc

	mu     sync.Mutex
	taps   map[string]*guestTap // by port
	closed bool
}

// guestTap is the tap that a port was made for.
type guestTap struct {
	index int
	stop  func() // ends the wait; nil while the tap is there
}

func newGuestTaps(remove func(name string)) *guestTaps {
	return &guestTaps{remove: remove, taps: map[string]*guestTap{}, after: func(d time.Duration, f func()) func() {
		t := time.AfterFunc(d, f)
		return func() { t.Stop() }
	}}
}

// add notes that a port was made for the tap with that index.
func (g *guestTaps) add(name string, index int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(name)
	g.taps[name] = &guestTap{index: index}
}

// index is that of the tap that the port was made for.
func (g *guestTaps) index(name string) (index int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.taps[name]; t != nil {
		return t.index, true
	}
	return 0, false
}

// del notes that a port is no guest's any more.
func (g *guestTaps) del(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(name)
}

func (g *guestTaps) forget(name string) {
	if t := g.taps[name]; t != nil && t.stop != nil {
		t.stop()
	}
	delete(g.taps, name)
}

// linkChanged begins to wait when a tap goes, and ends it when a device of that
// name comes, which is the port's from then on. It runs on the Watcher's
// goroutine and waits for nothing.
func (g *guestTaps) linkChanged(l link.Link, gone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	if !gone {
		if t := g.taps[l.Name]; t != nil {
			if t.stop != nil {
				t.stop()
			}
			t.index, t.stop = l.Index, nil
		}
		return
	}
	for name, t := range g.taps {
		if t.index == l.Index && t.stop == nil {
			t.stop = g.after(guestGrace, func() { g.remove(name) })
		}
	}
}

// close ends every wait.
func (g *guestTaps) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for name := range g.taps {
		g.forget(name)
	}
}

// isGuests reports whether a port was made for a guest, and is not the file's
// since a reload. Called with d.mu held.
func (d *Daemon) isGuests(port string) bool {
	_, guests := d.taps.index(port)
	return guests && d.last.Port(port) == nil
}

// AddGuestPort is ctl.Daemon's.
//
// A port of that name is there already when the end of an earlier guest was
// never told, and when somebody made it for this one. What was made for a guest
// is made anew, so that no guest inherits settings, or a guard's hold, from
// another; the rest keeps what the file says of it, and spec's settings go over
// that.
func (d *Daemon) AddGuestPort(spec config.Spec) error { return d.addGuestPort(spec, true) }

// addGuestPort is AddGuestPort. A tap whose name the kernel chose must not lend
// itself a port that somebody made for another.
func (d *Daemon) addGuestPort(spec config.Spec, lend bool) error {
	p := config.Port{Spec: spec}
	d.opener.complete(&p, d.started.Switch.Workers, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, err := d.opener.link(spec.Name)
	if err != nil {
		return fmt.Errorf("add port %s: %w", spec.Name, err)
	}
	cfg, err := d.sw.PortConfig(spec.Name)
	if err == nil {
		index, _ := d.taps.index(spec.Name)
		switch {
		case !d.isGuests(spec.Name) && !lend:
			return fmt.Errorf("add port %s: %w", spec.Name, vswitch.ErrPortExists)
		case !d.isGuests(spec.Name):
			return d.lendPort(p, cfg)
		case index == dev.Index: // the same tap, with or without the same guest
			if cfg, err = spec.PortConfig(); err != nil {
				return err
			}
			return d.sw.SetPort(spec.Name, cfg)
		}
		d.taps.del(spec.Name)
		if err := d.sw.RemovePort(spec.Name); err != nil && !errors.Is(err, vswitch.ErrNoPort) {
			return err
		}
	}
	if err := config.Attach(d.sw, d.opener, p); err != nil {
		return err
	}
	d.taps.add(spec.Name, dev.Index)
	return nil
}

// lendPort gives a port that was not made for a guest the settings that the
// guest brings. Those of an earlier guest end with what the file says.
func (d *Daemon) lendPort(p config.Port, cfg vswitch.PortConfig) error {
	if cfg.Kind != config.NetdevKind && cfg.Kind != config.TapKind {
		return fmt.Errorf("add port %s: %w, of kind %s", p.Name, vswitch.ErrPortExists, cfg.Kind)
	}
	if own := d.last.Port(p.Name); own != nil {
		var err error
		if cfg, err = own.PortConfig(); err != nil {
			return err
		}
		cfg.Uplink = own.Uplink
	}
	if err := config.SetPort(&cfg, p.Settings...); err != nil {
		return err
	}
	return d.sw.SetPort(p.Name, cfg)
}

// DelGuestPort is ctl.Daemon's.
func (d *Daemon) DelGuestPort(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isGuests(name) {
		d.taps.del(name)
		return d.sw.RemovePort(name)
	}
	cfg, err := d.sw.PortConfig(name)
	if own := d.last.Port(name); err == nil && own != nil {
		return d.lendPort(config.Port{Spec: config.Spec{Name: name}}, cfg)
	}
	return err
}

// dropGuestPort takes away a guest's port whose tap has not come back.
func (d *Daemon) dropGuestPort(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isGuests(name) {
		return
	}
	if _, err := d.opener.link(name); !errors.Is(err, link.ErrNotFound) {
		return // it is there again, or the switch is stopping
	}
	d.taps.del(name)
	switch err := d.sw.RemovePort(name); {
	case err == nil:
		d.log.Info("port of a guest is removed: its tap is gone", "port", name)
	case !errors.Is(err, vswitch.ErrNoPort):
		d.log.Warn("port of a guest is not removed", "port", name, "error", err)
	}
}
