package daemon

import (
	"errors"
	"fmt"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// change makes the switch what want says, all of it or nothing, and returns the
// steps that were taken. It is how a switch starts and how it reloads. opened
// are devices that are open already, by port; they are change's to close. Called
// with d.mu held, or before anybody else knows d.
func (d *Daemon) change(want *config.Config, opened map[string]frame.Port) ([]config.Step, error) {
	kinds := d.opener.kinds()
	running, err := config.Running(d.sw, kinds, d.started)
	var steps []config.Step
	if err == nil {
		steps, err = config.Diff(d.last, running, want)
	}
	if err != nil {
		for _, dev := range opened {
			dev.Close()
		}
		return nil, fmt.Errorf("%w; nothing was changed", err)
	}
	if err := config.Apply(d.sw, kinds, running, steps, opened); err != nil {
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
	want, err := d.options.load(d.opener.kinds())
	if err != nil {
		return nil, fmt.Errorf("reload: %w; nothing was changed", err)
	}
	d.opener.completeAll(want)
	steps, err := d.change(want, nil)
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
	if _, err := d.Reload(); err != nil {
		d.log.Error("reload", "err", err)
	}
	notifyReloaded()
}

// Kinds is ctl.Daemon's.
func (d *Daemon) Kinds() config.Kinds { return d.opener.kinds() }

// AddPort is ctl.Daemon's, and what package qemu attaches ports with.
func (d *Daemon) AddPort(p config.Port) error {
	d.opener.complete(&p, d.started.Switch.Workers)
	d.mu.Lock()
	defer d.mu.Unlock()
	// Asked before the device is opened: to open one twice may disturb the first.
	if _, err := d.sw.PortConfig(p.Name); err == nil {
		return fmt.Errorf("add port %s: %w", p.Name, vswitch.ErrPortExists)
	}
	return config.Attach(d.sw, d.opener.kinds(), p)
}

// Config is ctl.Daemon's.
func (d *Daemon) Config() ([]byte, error) {
	running, err := config.Running(d.sw, d.opener.kinds(), d.started)
	if err != nil {
		return nil, err
	}
	return running.Dump()
}
