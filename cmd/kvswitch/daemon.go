package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"
)

// daemon is a running switch and what surrounds it: the control socket, the
// opener of ports, the configuration it was started from. It is ctl's Daemon.
type daemon struct {
	options  runOptions
	log      *slog.Logger
	listener *ctl.Listener
	opener   *opener
	sw       *vswitch.Switch
	guests   *qemu.Guests
	helper   *qemu.Helper   // nil without the right to make taps
	started  *config.Config // as the switch was started

	mu   sync.Mutex     // held by changes that take more than one call
	last *config.Config // what file and flags asked for when they were last read
}

var _ ctl.Daemon = (*daemon)(nil)

// newDaemon claims the name and makes the switch with all its ports. On an
// error nothing is left of it.
func newDaemon(runDir string, o runOptions, log *slog.Logger) (_ *daemon, err error) {
	opener, err := newOpener()
	if err != nil {
		return nil, err
	}
	d := &daemon{options: o, log: log, opener: opener}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.started, err = o.load(opener.kinds()); err != nil {
		return nil, err
	}
	opener.completeAll(d.started)
	d.last = d.started
	// The name first: a second daemon must not touch the first one's interfaces.
	if d.listener, err = ctl.Listen(runDir, d.started.Switch.Name); err != nil {
		return nil, err
	}
	if err = d.build(runDir); err != nil {
		return nil, err
	}
	d.guests = qemu.NewGuests(qemuPorts{d}, qemu.GuestsConfig{MTU: d.guestMTU, Learn: d.learn, Log: log})
	if canMakeTaps() {
		name := d.started.Switch.Name
		d.helper, err = qemu.ListenHelper(qemu.HelperConfig{Path: qemu.HelperPath(runDir, name), Switch: name,
			MTU: d.guestMTU, Ports: qemuPorts{d}, Links: opener.watcher, Log: log})
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// build opens the ports and makes the switch. The uplinks come first: the
// switch's own address, and the MTU of the host interface and of new taps, are
// the first one's.
func (d *daemon) build(runDir string) (err error) {
	cfg := d.started
	opened := map[string]frame.Port{}
	defer func() {
		for _, dev := range opened { // those that the switch has not taken
			dev.Close()
		}
	}()
	open := func(uplinks bool) error {
		for _, p := range cfg.Ports {
			if p.Uplink != uplinks {
				continue
			}
			dev, err := d.opener.kinds().Open(p.Spec)
			if err != nil {
				return err
			}
			opened[p.Name] = dev
		}
		return nil
	}
	if err := open(true); err != nil {
		return err
	}
	var first frame.State // of the first uplink
	if i := slices.IndexFunc(cfg.Ports, func(p config.Port) bool { return p.Uplink }); i >= 0 {
		first = opened[cfg.Ports[i].Name].State()
	}
	d.opener.tapMTU = cmp.Or(cfg.MTU, first.MTU)
	if err := open(false); err != nil {
		return err
	}
	sc := cfg.Switch
	sc.Logger = d.log
	if sc.MAC.IsZero() {
		if sc.MAC = first.MAC; !sc.MAC.IsUnicast() {
			sc.MAC = ownMAC(sc.Name, runDir)
		}
	}
	if d.sw, err = vswitch.New(sc); err != nil {
		return err
	}
	if name := cfg.HostName(); name != "" {
		host, err := d.opener.openHost(name, sc.MAC, d.opener.tapMTU)
		if err != nil {
			return err
		}
		if err := d.sw.SetHost(name, host); err != nil {
			host.Close()
			return err
		}
		hostConfig, err := cfg.HostConfig()
		if err != nil {
			return err
		}
		if err := d.sw.SetPort(name, hostConfig); err != nil {
			return err
		}
	}
	for _, p := range cfg.Ports {
		if err := d.addPort(p, opened[p.Name]); err != nil {
			return err
		}
		delete(opened, p.Name)
	}
	for _, e := range cfg.Static {
		if err := d.sw.AddFDB(e.MAC, e.VLAN, e.Port, true); err != nil {
			return err
		}
	}
	return nil
}

// addPort attaches an open device; it stays the caller's on error.
func (d *daemon) addPort(p config.Port, dev frame.Port) error {
	cfg, err := p.Spec.PortConfig()
	if err != nil {
		return err
	}
	cfg.Uplink = p.Uplink
	_, err = d.sw.AddPort(p.Name, dev, cfg)
	return err
}

// qemuPorts lets package qemu attach and detach ports.
type qemuPorts struct{ *daemon }

func (p qemuPorts) AddPort(spec string) error {
	_, err := p.daemon.AddPort(spec, false)
	return err
}

func (p qemuPorts) DelPort(name string) error { return p.sw.RemovePort(name) }

// guestMTU is the MTU that taps of guests get: the host interface's, which may
// have changed, else what the switch was started with; 0 leaves it to the kernel.
func (d *daemon) guestMTU() int {
	if host := d.sw.Status().HostPort; host != nil {
		return host.MTU
	}
	return d.opener.tapMTU
}

// learn makes an address known that a guest's driver has set.
func (d *daemon) learn(port string, mac frame.MAC) {
	if err := d.sw.AddFDB(mac, 0, port, false); err != nil {
		d.log.Debug("learn a guest's address", "port", port, "mac", mac.String(), "err", err)
	}
}

// close undoes newDaemon.
func (d *daemon) close() {
	d.closeGuests()
	if d.sw != nil {
		// A switch whose time is over when it starts only closes its ports.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := d.sw.Run(ctx); err != nil {
			d.log.Warn("stop switch", "err", err)
		}
	}
	if d.listener != nil {
		d.listener.Close()
	}
	d.opener.close()
}

// closeGuests lets go of virtual machines; they keep their taps.
func (d *daemon) closeGuests() {
	if d.helper != nil {
		d.helper.Close()
	}
	if d.guests != nil {
		d.guests.Close()
	}
}

// run forwards and answers until ctx ends, and leaves nothing behind.
func (d *daemon) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := ctl.NewServer(d.sw, d, d.guests, d.log)
	var parts sync.WaitGroup
	errs := make(chan error, 2)
	part := func(f func() error) {
		parts.Go(func() {
			if err := f(); err != nil {
				errs <- err
				cancel()
			}
		})
	}
	stopMetrics := func() {}
	if addr := d.started.Metrics; addr != "" {
		m, err := listenMetrics(addr, d.sw)
		if err != nil {
			d.close()
			return err
		}
		stopMetrics = func() { m.Close() }
		part(m.serve)
	}
	part(func() error { return server.Serve(d.listener) })
	d.log.Info("switch is running", "switch", d.sw.Config().Name, "mac", d.sw.Config().MAC.String(), "socket", d.listener.Addr().String())
	stopWatchdog := notifyReady(d.sw)
	err := d.sw.Run(ctx)
	stopWatchdog()
	server.Close()
	stopMetrics()
	d.closeGuests()
	parts.Wait()
	d.listener.Close()
	d.opener.close()
	select {
	case e := <-errs:
		err = errors.Join(err, e)
	default:
	}
	return err
}

// AddPort is ctl.Daemon's.
func (d *daemon) AddPort(text string, uplink bool) (string, error) {
	kinds := d.opener.kinds()
	spec, err := kinds.ParseSpec(text)
	if err != nil {
		return "", err
	}
	p := config.Port{Spec: spec, Uplink: uplink}
	d.opener.complete(&p, d.started.Switch.Workers)
	d.mu.Lock()
	defer d.mu.Unlock()
	// Asked before the device is opened: to open one twice may disturb the first.
	if _, err := d.sw.PortConfig(spec.Name); err == nil {
		return "", fmt.Errorf("add port %s: %w", spec.Name, vswitch.ErrPortExists)
	}
	dev, err := kinds.Open(p.Spec)
	if err != nil {
		return "", err
	}
	if err := d.addPort(p, dev); err != nil {
		dev.Close()
		return "", err
	}
	return spec.Name, nil
}

// Config is ctl.Daemon's.
func (d *daemon) Config() ([]byte, error) {
	running, err := config.Running(d.sw, d.opener.kinds(), d.started)
	if err != nil {
		return nil, err
	}
	return running.Dump()
}

// Reload is ctl.Daemon's.
func (d *daemon) Reload() ([]string, error) {
	if d.options.file == "" {
		return nil, errors.New("reload: the switch was started without --config: there is no file to read")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	kinds := d.opener.kinds()
	want, err := d.options.load(kinds)
	if err != nil {
		return nil, fmt.Errorf("reload: %w; nothing was changed", err)
	}
	d.opener.completeAll(want)
	running, err := config.Running(d.sw, kinds, d.started)
	if err != nil {
		return nil, err
	}
	steps, err := config.Diff(d.last, running, want)
	if err != nil {
		return nil, fmt.Errorf("reload: %w; nothing was changed", err)
	}
	if err := config.Apply(d.sw, kinds, running, steps); err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	d.last = want
	changes := make([]string, 0, len(steps))
	for _, s := range steps {
		d.log.Info("reload", "step", s.String())
		changes = append(changes, s.String())
	}
	return changes, nil
}

// reloadOnSignal is Reload for SIGHUP, whose sender hears of it in the log.
func (d *daemon) reloadOnSignal() {
	notifyReloading()
	if _, err := d.Reload(); err != nil {
		d.log.Error("reload", "err", err)
	}
	notifyReloaded()
}
