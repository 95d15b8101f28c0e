package config

import (
	"fmt"
	"strings"
)

// Step is one change on the way from what runs to what a file asks for.
type Step struct {
	text     string
	open     *Port // its device is opened before the first step is taken
	do, undo func(*transaction) error
}

// String tells an operator what the step does: "add port vm1".
func (s Step) String() string { return s.text }

// Diff lists the steps from what runs to what a file wants. last is what the
// file wanted when it was read before: what it said then and no longer says goes
// (a port, an entry) or returns to its default (a word). What neither says is
// not the file's business and stays: ports of VMs that came later, settings made
// by hand.
//
// A start is the way from Nothing, with a last that wanted nothing.
//
// Removals come before additions, so that two ways to one segment are never
// open together. An error names a word that can't change while the switch runs.
func Diff(last, running, want *Config) ([]Step, error) {
	var d diff
	d.last, d.running, d.want = last, running, want
	d.removals()
	if running.unstarted {
		if err := d.makeHost(); err != nil {
			return nil, err
		}
	} else if err := d.words(); err != nil {
		return nil, err
	}
	for i := range want.Ports {
		if err := d.port(&want.Ports[i]); err != nil {
			return nil, err
		}
	}
	d.entries()
	return d.steps, nil
}

type diff struct {
	last, running, want *Config
	steps               []Step
}

func (d *diff) removals() {
	for i := range d.running.Ports {
		p := &d.running.Ports[i]
		if d.want.twin(p) == nil && d.last.twin(p) != nil {
			d.steps = append(d.steps, Step{
				text: "remove port " + p.Name,
				do:   func(t *transaction) error { return t.remove(p) },
				undo: func(t *transaction) error { return t.restore(p) },
			})
		}
	}
}

// words compares the words with one value.
func (d *diff) words() error {
	def := Default()
	def.Switch.Name = d.running.Switch.Name // what the host interface is called by default
	next := *d.running
	var tree []string // what changes of the tree: its times are checked against each other, so they change together
	for _, k := range scalars {
		source := d.want
		if !source.Said(k.name) {
			if !d.last.Said(k.name) {
				continue
			}
			source = def
		}
		have, want := k.get(d.running), k.get(source)
		if have == want || want == "" {
			continue // the same, or left to the switch to choose
		}
		if err := k.set(&next, want); err != nil {
			return err
		}
		text := fmt.Sprintf("%s from %s to %s", k.name, have, want)
		if !k.live || k.name == "host" && next.HostName() != d.running.HostName() {
			return fmt.Errorf("change %s: not while the switch runs: restart it", text)
		}
		if k.name == "host" {
			if err := d.host(&next, text); err != nil {
				return err
			}
			continue
		}
		if k.name != "ageing" {
			tree = append(tree, text)
			continue
		}
		old, ageing := d.running.Switch.Ageing, next.Switch.Ageing
		d.steps = append(d.steps, Step{
			text: "change " + text,
			do:   func(t *transaction) error { return t.sw.SetAgeing(ageing) },
			undo: func(t *transaction) error { return t.sw.SetAgeing(old) },
		})
	}
	if len(tree) > 0 {
		old, stp := d.running.Switch.STP, next.Switch.STP
		d.steps = append(d.steps, Step{
			text: "change " + strings.Join(tree, ", "),
			do:   func(t *transaction) error { return t.sw.SetSTP(stp) },
			undo: func(t *transaction) error { return t.sw.SetSTP(old) },
		})
	}
	return nil
}

// makeHost makes the host interface, if one is wanted. That is not taken back:
// a switch that can't start ends whole.
func (d *diff) makeHost() error {
	name := d.want.HostName()
	if name == "" {
		return nil
	}
	cfg, err := d.want.HostConfig()
	if err != nil {
		return err
	}
	d.steps = append(d.steps, Step{
		text: "make host interface " + name,
		do:   func(t *transaction) error { return t.makeHost(name, cfg) },
		undo: func(*transaction) error { return nil },
	})
	return nil
}

// host changes the settings of the host interface.
func (d *diff) host(next *Config, text string) error {
	cfg, err := next.HostConfig()
	if err != nil {
		return err
	}
	old, err := d.running.HostConfig()
	if err != nil || old == cfg {
		return err
	}
	name := next.HostName()
	d.steps = append(d.steps, Step{
		text: "change " + text,
		do:   func(t *transaction) error { return t.sw.SetPort(name, cfg) },
		undo: func(t *transaction) error { return t.sw.SetPort(name, old) },
	})
	return nil
}

// port brings one port about: a port that the file names is as the file says.
func (d *diff) port(p *Port) error {
	cfg, err := p.config()
	if err != nil {
		return err
	}
	was := d.running.Port(p.Name)
	if was == nil {
		d.steps = append(d.steps, Step{
			text: "add port " + p.Name,
			open: p,
			do:   func(t *transaction) error { return t.attach(p) },
			undo: func(t *transaction) error { return t.remove(p) },
		})
		return nil
	}
	renamed := *p
	renamed.Name = was.Name
	if was.Attachment() != renamed.Attachment() {
		// The old and the new device may want the same socket or name, so the
		// new one can be opened only when the old one has gone.
		d.steps = append(d.steps, Step{
			text: fmt.Sprintf("replace port %s (%s) by %s", p.Name, was.Attachment(), p.Attachment()),
			do:   func(t *transaction) error { return t.replace(was, p) },
			undo: func(t *transaction) error { return t.replace(p, was) },
		})
		return nil
	}
	old, err := was.config()
	if err != nil {
		return err
	}
	if old == cfg {
		return nil
	}
	d.steps = append(d.steps, Step{
		text: fmt.Sprintf("set port %s to %s", p.Name, orDefaults(p)),
		do:   func(t *transaction) error { return t.sw.SetPort(p.Name, cfg) },
		undo: func(t *transaction) error { return t.sw.SetPort(p.Name, old) },
	})
	return nil
}

func orDefaults(p *Port) string {
	text := strings.TrimPrefix(JoinWords(p.Settings), ",")
	if text == "" {
		text = "its defaults"
	}
	if p.Uplink {
		text += ", as an uplink"
	}
	return text
}

// entries compares the static forwarding entries.
func (d *diff) entries() {
	for _, e := range d.running.Static {
		if d.last.static(e.MAC, e.VLAN) != nil && d.want.static(e.MAC, e.VLAN) == nil && d.stays(e.Port) {
			d.steps = append(d.steps, Step{
				text: "delete fdb entry " + e.String(),
				do:   func(t *transaction) error { return t.sw.DelFDB(e.MAC, e.VLAN) },
				undo: func(t *transaction) error { return t.addStatic(e) },
			})
		}
	}
	for _, e := range d.want.Static {
		old := d.running.static(e.MAC, e.VLAN)
		if old != nil && d.samePort(old.Port, e.Port) && d.stays(e.Port) {
			continue
		}
		d.steps = append(d.steps, Step{
			text: "add fdb entry " + e.String(),
			do:   func(t *transaction) error { return t.addStatic(e) },
			undo: func(t *transaction) error {
				if old != nil && d.stays(old.Port) {
					return t.addStatic(*old)
				}
				return t.sw.DelFDB(e.MAC, e.VLAN)
			},
		})
	}
}

// stays reports whether a running port is still there after the removals; a
// port takes its entries along.
func (d *diff) stays(name string) bool {
	if p := d.running.Port(name); p != nil {
		return d.want.twin(p) != nil || d.last.twin(p) == nil
	}
	return d.want.Port(name) != nil || d.last.Port(name) == nil
}

// samePort reports whether two names are one running port's.
func (d *diff) samePort(a, b string) bool {
	return a == b || d.running.Port(a) != nil && d.running.Port(a) == d.running.Port(b)
}
