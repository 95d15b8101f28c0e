package daemon

import (
	"errors"
	"fmt"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// change makes the switch, which is what running says, what want says, all of it
// or nothing, and returns the steps that were taken. It is how a switch starts
// and how it reloads. Called with d.reloading held, or before anybody else knows d.
func (d *Daemon) change(o config.Opener, running, want *config.Config) ([]config.Step, error) {
	steps, err := config.Diff(d.last, running, want)
	if err != nil {
		return nil, fmt.Errorf("%w; nothing was changed", err)
	}
	if err := config.Apply(d.sw, o, running, steps); err != nil {
		return nil, err
	}
	d.last = want
	return steps, nil
}

// Reload is ctl.Daemon's: it reads the file anew.
func (d *Daemon) Reload() ([]string, error) {
	if d.options.File == "" {
		return nil, errors.New("reload: the switch was started without --config: there is no file to read")
	}
	d.reloading.Lock()
	defer d.reloading.Unlock()
	kinds := d.opener.kinds()
	want, err := d.options.load(kinds)
	if err != nil {
		return nil, fmt.Errorf("reload: %w; nothing was changed", err)
	}
	d.opener.completeAll(want, d.sw)
	running, err := config.Running(d.sw, kinds, d.started)
	if err != nil {
		return nil, err
	}
	release, err := d.reserve(portNames(running, want)...)
	if err != nil {
		return nil, fmt.Errorf("reload: %w; nothing was changed", err)
	}
	defer release()
	steps, err := d.change(d.opener, running, want)
	if err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	changes := make([]string, 0, len(steps))
	for _, s := range steps {
		d.log.Info("reload", "step", s.String())
		changes = append(changes, s.String())
	}
	return changes, nil
}

// reserve keeps everybody else from adding or changing ports of these names until
// release is called: to open a device may take its time, a name server's answer or
// an interface's driver, and nobody waits for that who has no business with it.
func (d *Daemon) reserve(names ...string) (release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		if d.busy[name] {
			return nil, fmt.Errorf("port %s is being added or changed: try again", name)
		}
	}
	if d.busy == nil {
		d.busy = make(map[string]bool)
	}
	for _, name := range names {
		d.busy[name] = true
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, name := range names {
			delete(d.busy, name)
		}
	}, nil
}

// portNames are the names of all ports of configurations.
func portNames(cs ...*config.Config) (names []string) {
	for _, c := range cs {
		for _, p := range c.Ports {
			names = append(names, p.Name)
		}
	}
	return names
}

// ReloadOnSignal is Reload for SIGHUP, whose sender hears of it in the log and
// from systemd.
func (d *Daemon) ReloadOnSignal() {
	notifyReloading()
	d.log.Info("reload", "file", d.options.File)
	switch changes, err := d.Reload(); { // logs what it changed
	case err != nil:
		d.log.Error("reload", "err", err)
	case len(changes) == 0:
		d.log.Info("reload", "step", "nothing to change")
	}
	notifyReloaded()
}

// Kinds is ctl.Daemon's.
func (d *Daemon) Kinds() config.Kinds { return d.opener.kinds() }

// AddPort is ctl.Daemon's.
func (d *Daemon) AddPort(p config.Port) error {
	d.opener.complete(&p, d.started.Switch.Workers, nil)
	release, err := d.reserve(p.Name)
	if err != nil {
		return fmt.Errorf("add port: %w", err)
	}
	defer release()
	// Asked before the device is opened: to open one twice may disturb the first.
	if d.sw.HasPort(p.Name) {
		return fmt.Errorf("add port %s: %w", p.Name, vswitch.ErrPortExists)
	}
	d.taps.del(p.Name)
	return config.Attach(d.sw, d.opener, p)
}

// Config is ctl.Daemon's.
func (d *Daemon) Config() ([]byte, error) {
	running, err := config.Running(d.sw, d.opener.kinds(), d.started)
	if err != nil {
		return nil, err
	}
	return running.Dump()
}
