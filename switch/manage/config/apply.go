package config

import (
	"fmt"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Opener opens the devices that a Config names.
type Opener interface {
	// Open makes a port's device. It must leave nothing behind when it fails.
	Open(Spec) (frame.Port, error)
	// OpenHost makes the host interface of a switch with this address.
	OpenHost(name string, mac frame.MAC) (frame.Port, error)
}

// Attach opens the port's device and adds the port to sw. On an error nothing
// is left of it.
func Attach(sw *vswitch.Switch, o Opener, p Port) error {
	cfg, err := p.config()
	if err != nil {
		return err
	}
	dev, err := o.Open(p.Spec)
	if err != nil {
		return err
	}
	return add(sw, p.Name, dev, cfg)
}

// add gives a switch an open device, which is closed on an error.
func add(sw *vswitch.Switch, name string, dev frame.Port, cfg vswitch.PortConfig) error {
	if _, err := sw.AddPort(name, dev, cfg); err != nil {
		dev.Close()
		return err
	}
	return nil
}

// Failure is why Apply changed nothing.
type Failure struct {
	Step Step  // the one that failed
	Err  error // why
	Left error // what could not be taken back of the steps before it; nil if all was
}

func (f *Failure) Error() string {
	if f.Left != nil {
		return fmt.Sprintf("%s: %v; and not all could be put back: %v", f.Step, f.Err, f.Left)
	}
	return fmt.Sprintf("%s: %v; nothing was changed", f.Step, f.Err)
}

func (f *Failure) Unwrap() error { return f.Err }

// Apply takes the steps, all of them or none: when one fails, those before it
// are taken back in reverse order, and the error is a Failure. running is what
// the steps were made from.
//
// Every new device is opened before anything is touched, so that a name that
// does not exist costs no running port a frame.
func Apply(sw *vswitch.Switch, o Opener, running *Config, steps []Step) error {
	t := &transaction{sw: sw, opener: o, running: running, opened: map[string]frame.Port{}}
	defer t.closeUnused()
	for _, s := range steps {
		if s.open == nil {
			continue
		}
		dev, err := o.Open(s.open.Spec)
		if err != nil {
			return &Failure{Step: s, Err: err}
		}
		t.opened[s.open.Name] = dev
	}
	for i, s := range steps {
		err := s.do(t)
		if err == nil {
			continue
		}
		f := &Failure{Step: s, Err: err}
		for j := i - 1; j >= 0; j-- {
			if undo := steps[j].undo(t); undo != nil {
				f.Left = fmt.Errorf("take back %q: %w", steps[j], undo)
			}
		}
		return f
	}
	return nil
}

// transaction is the work of one Apply.
type transaction struct {
	sw      *vswitch.Switch
	opener  Opener
	running *Config
	opened  map[string]frame.Port // by port name, not yet attached
}

func (t *transaction) closeUnused() {
	for _, dev := range t.opened {
		dev.Close()
	}
}

// attach gives the switch a port, whose device may be open already.
func (t *transaction) attach(p *Port) error {
	dev := t.opened[p.Name]
	if dev == nil {
		return Attach(t.sw, t.opener, *p)
	}
	cfg, err := p.config()
	if err != nil {
		return err
	}
	delete(t.opened, p.Name)
	return add(t.sw, p.Name, dev, cfg)
}

func (t *transaction) remove(p *Port) error { return t.sw.RemovePort(p.Name) }

// makeHost gives the switch its host interface.
func (t *transaction) makeHost(name string, cfg vswitch.PortConfig) error {
	dev, err := t.opener.OpenHost(name, t.sw.Config().MAC)
	if err != nil {
		return err
	}
	if err := t.sw.SetHost(name, dev); err != nil {
		dev.Close()
		return err
	}
	return t.sw.SetPort(name, cfg)
}

func (t *transaction) addStatic(e Static) error {
	return Hint(t.sw.AddFDB(e.MAC, e.VLAN, e.Port, true))
}

// restore attaches a port that ran, with the static entries it took along.
func (t *transaction) restore(p *Port) error {
	if err := t.attach(p); err != nil {
		return err
	}
	for _, e := range t.running.Static {
		if e.Port == p.Name {
			if err := t.addStatic(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace exchanges a port's device; when the new one can't be had the old one
// is put back.
func (t *transaction) replace(old, p *Port) error {
	if err := t.remove(old); err != nil {
		return err
	}
	err := t.restore(p)
	if err == nil {
		return nil
	}
	_ = t.remove(p) // it is there only if an entry failed
	if back := t.restore(old); back != nil {
		return fmt.Errorf("%w; and %s could not be put back: %w", err, old.Name, back)
	}
	return err
}
