package vswitch

import (
	"slices"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Words says what a switch has only in values, and what to type about it, in the
// words of whoever runs it. It is called with the switch's lock held, rarely, and
// must not call the switch.
type Words interface {
	// Mend is what to do about a port that a guard holds, in one line; guard is
	// the guard's name, as PortSTPStatus.Held has it.
	Mend(port, guard string) string
	// PortChange lists the settings in which a port's two configurations differ,
	// as they were and as they are.
	PortChange(old, new *PortConfig) (from, to string)
	// SwitchChange is the same of a switch.
	SwitchChange(old, new *Config) (from, to string)
}

// noWords is for switches whose owner has none.
type noWords struct{}

func (noWords) Mend(string, string) string                        { return "" }
func (noWords) PortChange(*PortConfig, *PortConfig) (_, _ string) { return }
func (noWords) SwitchChange(*Config, *Config) (_, _ string)       { return }

// noteSwitch tells of settings of the switch that changed. Called with s.mu held.
func (s *Switch) noteSwitch(old Config) {
	if old.sameSettings(&s.cfg) {
		return
	}
	from, to := s.cfg.Words.SwitchChange(&old, &s.cfg)
	s.feed.publish(Event{Event: EventSwitchSet, From: from, To: to})
}

// sameSettings compares what can change while a switch runs.
func (c *Config) sameSettings(o *Config) bool {
	return c.MAC == o.MAC && c.Ageing == o.Ageing && c.STP == o.STP
}

// notePort is noteSwitch for a port.
func (s *Switch) notePort(p *port, old PortConfig) {
	if old == p.cfg {
		return
	}
	from, to := s.cfg.Words.PortChange(&old, &p.cfg)
	s.feed.publish(Event{Event: EventPortSet, Port: p.name, From: from, To: to})
}

// WarnUnfiltered is among the warnings of a port whose VLAN settings are not in
// force.
const WarnUnfiltered = "its VLAN settings have no effect: the switch does not filter VLANs, all its ports are on one segment"

// warnings are what is to be known of p: the device's, and the switch's own.
func (s *Switch) warnings(p *port) (list []string) {
	if w, ok := p.dev.(frame.Warner); ok {
		list = w.Warnings()
	}
	if s.unfiltered(p) {
		list = append(slices.Clone(list), WarnUnfiltered)
	}
	return list
}

// Warning is something to be known of a port, or of the switch.
type Warning struct {
	Port   string     // "" = the switch
	Config PortConfig // the port's
	Text   string     // one line
}

// Warnings are those of the switch and all ports at this moment.
func (s *Switch) Warnings() (list []Warning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text := s.warnTimes(); text != "" {
		list = append(list, Warning{Text: text})
	}
	for _, p := range s.slots {
		if p == nil {
			continue
		}
		for _, text := range s.warnings(p) {
			list = append(list, Warning{p.name, p.cfg, text})
		}
	}
	return list
}

// warnTimes is what is to be said against the spanning tree's times, "" if nothing.
func (s *Switch) warnTimes() string {
	if s.cfg.STP.Mode == ModeOff {
		return ""
	}
	cfg, err := s.cfg.STP.bridge(s.cfg.MAC)
	if err != nil {
		return ""
	}
	return cfg.Warning()
}

// unfiltered reports VLAN settings that are not in force.
func (s *Switch) unfiltered(p *port) bool {
	return !s.cfg.VLANFiltering && p.cfg.VLAN != DefaultVLAN()
}
