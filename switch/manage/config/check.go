package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	vswitch "github.com/kvswitch/kvswitch/switch"

	"github.com/goccy/go-yaml/token"
)

// Report is what CheckFile found, each with its place in the file, in the order of
// the file as far as it goes.
type Report struct {
	Mistakes []error // with which no switch starts
	Warnings []error // with which one does, not as meant
}

// CheckFile reads a file into c as Parse does, goes on after a mistake, and also looks
// at what words say together. Nothing of the host is looked at: whether an
// interface or a directory is there is known when the switch starts.
func (c *Config) CheckFile(kinds Kinds, name string, data []byte) (r Report) {
	if err := checkShape(name, data); err != nil {
		return Report{Mistakes: []error{err}}
	}
	f := &file{name: name, kinds: kinds, config: c, all: true, places: map[string]*token.Token{}}
	if err := f.parse(data); err != nil {
		f.mistakes = append(f.mistakes, err)
	}
	r.Mistakes = f.mistakes
	legible := len(r.Mistakes) == 0
	wrong := func(where string, err error) {
		if err != nil {
			r.Mistakes = append(r.Mistakes, f.atToken(f.places[where], err))
		}
	}
	wrong(f.hostsPlace(), c.Check())
	warnings, err := c.checkSwitch()
	wrong(f.timesPlace(), err)
	for _, w := range warnings {
		r.Warnings = append(r.Warnings, f.atToken(f.places[f.timesPlace()], errors.New(w.Text)))
	}
	for i := range c.Ports {
		p := &c.Ports[i]
		where := "port " + p.Name
		if k, err := kinds.Find(p.Kind); err == nil && k.Check != nil {
			wrong(where, k.Check(p.Spec))
		}
		cfg, err := p.config()
		if err == nil && !c.Switch.VLANFiltering && cfg.VLAN != vswitch.DefaultVLAN() {
			text := Advise(vswitch.WarnUnfiltered, &cfg)
			r.Warnings = append(r.Warnings, f.atToken(f.places[where], fmt.Errorf("%s: %s", p.Name, text)))
		}
	}
	for _, e := range c.Static {
		if legible { // else its port may be one that could not be read
			wrong("entry "+e.String(), c.checkStatic(e))
		}
	}
	return r
}

// checkSwitch has a switch made of what the file says of it, and asks what there is
// to be warned of.
func (c *Config) checkSwitch() ([]vswitch.Warning, error) {
	cfg := c.Switch
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.MaxEntries = 0 // checked when it was set, and what costs memory
	sw, err := vswitch.New(cfg)
	if err != nil {
		return nil, err
	}
	return sw.Warnings(), sw.Close()
}

// checkStatic looks at an entry's port and VLAN.
func (c *Config) checkStatic(e Static) error {
	var cfg vswitch.PortConfig
	var err error
	switch p := c.Port(e.Port); {
	case p != nil:
		cfg, err = p.config()
	case e.Port == c.HostName():
		cfg, err = c.HostConfig()
	default:
		return fmt.Errorf("fdb entry %v: the file has no port %s", e, e.Port)
	}
	switch {
	case err != nil:
		return err
	case !c.Switch.VLANFiltering && e.VLAN != vswitch.DefaultVID:
		return fmt.Errorf("fdb entry %v: the switch does not filter VLANs, all frames are in VLAN %d", e, vswitch.DefaultVID)
	case c.Switch.VLANFiltering && !cfg.VLAN.Member.Has(e.VLAN):
		return fmt.Errorf("fdb entry %v: %w", e, &vswitch.NotMemberError{Port: e.Port, VLAN: e.VLAN})
	}
	return nil
}

// hostsPlace is where the file gives the host interface its name, or takes it for
// a port.
func (f *file) hostsPlace() string {
	return f.last("port "+f.config.HostName(), "word host", "word name")
}

// timesPlace is where the file says something of the tree's times.
func (f *file) timesPlace() string {
	return f.last("word hello", "word max-age", "word forward-delay", "word mac")
}

// last is the last in the file of these places that it has: the one by which a
// reader knows that something is wrong.
func (f *file) last(places ...string) string {
	return slices.MaxFunc(places, func(a, b string) int { return f.offset(a) - f.offset(b) })
}

func (f *file) offset(place string) int {
	if t := f.places[place]; t != nil && t.Position != nil {
		return t.Position.Offset
	}
	return -1
}

// Lines are what the report says, mistakes first, each in one line.
func (r *Report) Lines() (lines []string) {
	for _, err := range r.Mistakes {
		lines = append(lines, OneLine(err))
	}
	for _, err := range r.Warnings {
		place, text, ok := cutPlace(OneLine(err))
		if !ok {
			lines = append(lines, "warning: "+text)
			continue
		}
		lines = append(lines, place+" warning: "+text)
	}
	return lines
}

// cutPlace takes FILE:LINE:COL: off a line.
func cutPlace(line string) (place, text string, ok bool) {
	i := strings.Index(line, ": ")
	if i < 0 {
		return "", line, false
	}
	return line[:i+1], line[i+2:], true
}
