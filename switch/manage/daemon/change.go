package daemon

import (
	"errors"
	"fmt"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// change makes the switch, which is what running says, what want says, all of it
// or nothing, and returns the steps that were taken. It is how a switch starts
// and how it reloads. Called with d.mu held, or before anybody else knows d.
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
	d.mu.Lock()
	defer d.mu.Unlock()
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
	d.mu.Lock()
	defer d.mu.Unlock()
	// Asked before the device is opened: to open one twice may disturb the first.
	if _, err := d.sw.PortConfig(p.Name); err == nil {
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
