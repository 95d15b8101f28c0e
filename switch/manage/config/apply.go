package config

import (
	"fmt"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Apply takes the steps, all of them or none: when one fails, those before it
// are taken back in reverse order, and the error says so. running is what the
// steps were made from.
//
// Every new device is opened before anything is touched, so that a name that
// does not exist costs no running port a frame.
func Apply(sw *vswitch.Switch, kinds Kinds, running *Config, steps []Step) error {
	t := &transaction{sw: sw, kinds: kinds, running: running, opened: map[string]frame.Port{}}
	defer t.closeUnused()
	for _, s := range steps {
		if s.open == nil {
			continue
		}
		dev, err := kinds.Open(s.open.Spec)
		if err != nil {
			return fmt.Errorf("%s: %w; nothing was changed", s, err)
		}
		t.opened[s.open.Name] = dev
	}
	for i, s := range steps {
		err := s.do(t)
		if err == nil {
			continue
		}
		var left error
		for j := i - 1; j >= 0; j-- {
			if undo := steps[j].undo(t); undo != nil {
				left = fmt.Errorf("take back %q: %w", steps[j], undo)
			}
		}
		if left != nil {
			return fmt.Errorf("%s: %w; and not all could be put back: %w", s, err, left)
		}
		return fmt.Errorf("%s: %w; nothing was changed", s, err)
	}
	return nil
}

// transaction is the work of one Apply.
type transaction struct {
	sw      *vswitch.Switch
	kinds   Kinds
	running *Config
	opened  map[string]frame.Port // by port name, not yet attached
}

func (t *transaction) closeUnused() {
	for _, dev := range t.opened {
		dev.Close()
	}
}

// attach gives the switch a port whose device is open, or opens it.
func (t *transaction) attach(p *Port) error {
	cfg, err := p.config()
	if err != nil {
		return err
	}
	dev := t.opened[p.Name]
	if dev == nil {
		if dev, err = t.kinds.Open(p.Spec); err != nil {
			return err
		}
	}
	delete(t.opened, p.Name)
	if _, err := t.sw.AddPort(p.Name, dev, cfg); err != nil {
		dev.Close()
		return err
	}
	return nil
}

func (t *transaction) remove(p *Port) error { return t.sw.RemovePort(p.Name) }

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
