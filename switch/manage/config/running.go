package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"

	"github.com/goccy/go-yaml"
)

// Running describes what runs. What the switch itself doesn't know (the address
// for metrics) is taken from started, which it was started from. Ports that no
// SPEC describes, as a program that embeds the switch may add, are left out.
func Running(sw *vswitch.Switch, kinds Kinds, started *Config) (*Config, error) {
	c := Default()
	c.Switch = sw.Config()
	c.Switch.Logger, c.Switch.Clock, c.Switch.Follower, c.Switch.Memory = nil, nil, nil, nil
	c.Group, c.Metrics, c.InKernel = started.Group, started.Metrics, started.InKernel
	status := sw.Status()
	c.Host, c.MTU = HostOff, started.MTU
	if status.HostPort != nil {
		c.Host, c.MTU = cmp.Or(status.HostPort.AskedFor, status.Host), status.HostPort.MTU
		if cfg, err := sw.PortConfig(status.Host); err == nil {
			c.HostSet = PortWords(&cfg)
		}
	}
	for _, p := range status.Ports {
		cfg, err := sw.PortConfig(p.Name)
		if err != nil || cfg.Spec == "" {
			continue // it has just gone, or has no description
		}
		spec, err := kinds.ParseSpec(cfg.Spec)
		if err != nil {
			return nil, err
		}
		spec.Settings = PortWords(&cfg)
		// What it was asked for under, as long as that leads to its device.
		if p.AskedFor != "" && !slices.Contains(p.AltNames, p.AskedFor) {
			spec.Name = p.Name
		}
		also := append([]string{p.Name, p.AskedFor}, p.AltNames...)
		if err := c.AddPort(Port{Spec: spec, Uplink: cfg.Uplink, Network: cfg.Network, also: also}); err != nil {
			return nil, err
		}
	}
	err := sw.EachFDB("", 0, func(e vswitch.FDBEntry) error {
		if e.Type != "static" {
			return nil
		}
		name := e.Port
		if p := c.Port(name); p != nil {
			name = p.Name
		} else if status.HostPort == nil || name != status.Host {
			return nil
		} else {
			name = c.HostName()
		}
		c.Static = append(c.Static, Static{e.MAC, e.VLAN, name})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, k := range scalars {
		c.said[k.name] = true
	}
	return c, nil
}

// Nothing describes a switch that was just made from want.Switch and has no host
// interface yet: all words that have one value are as want says, and there is
// nothing else.
func Nothing(want *Config) *Config {
	c := *want
	c.Host, c.HostSet, c.Ports, c.Static = HostOff, nil, nil, nil
	c.unstarted = true
	return &c
}

// Port is the port called name, or nil. One that runs also goes by what its
// device was or is called besides.
func (c *Config) Port(name string) *Port {
	i := slices.IndexFunc(c.Ports, func(p Port) bool { return p.Name == name })
	if i < 0 && name != "" {
		i = slices.IndexFunc(c.Ports, func(p Port) bool { return slices.Contains(p.also, name) })
	}
	if i < 0 {
		return nil
	}
	return &c.Ports[i]
}

// twin is what c says of a port that runs, by whatever name, or nil.
func (c *Config) twin(running *Port) *Port {
	for _, name := range append([]string{running.Name}, running.also...) {
		if p := c.Port(name); p != nil {
			return p
		}
	}
	return nil
}

// static is the entry of a station in a VLAN, or nil.
func (c *Config) static(mac frame.MAC, vlan uint16) *Static {
	i := slices.IndexFunc(c.Static, func(e Static) bool { return e.MAC == mac && e.VLAN == vlan })
	if i < 0 {
		return nil
	}
	return &c.Static[i]
}

// Dump writes c as the file that Parse reads back as c.
func (c *Config) Dump() ([]byte, error) {
	var doc yaml.MapSlice
	for _, k := range scalars {
		if v := k.get(c); v != "" {
			doc = append(doc, yaml.MapItem{Key: k.name, Value: unquoted(v)})
		}
	}
	var uplinks, ports []string
	for _, p := range c.Ports {
		if text := p.Spec.String(); p.Uplink {
			uplinks = append(uplinks, strings.TrimPrefix(text, UplinkKind+":"))
		} else {
			ports = append(ports, text)
		}
	}
	if uplinks != nil {
		doc = append(doc, yaml.MapItem{Key: "uplinks", Value: uplinks})
	}
	if ports != nil {
		doc = append(doc, yaml.MapItem{Key: "ports", Value: ports})
	}
	var static []yaml.MapSlice
	for _, e := range c.Static {
		static = append(static, yaml.MapSlice{{Key: "mac", Value: e.MAC.String()}, {Key: "vlan", Value: e.VLAN}, {Key: "port", Value: e.Port}})
	}
	if static != nil {
		doc = append(doc, yaml.MapItem{Key: "fdb", Value: static})
	}
	return yaml.MarshalWithOptions(doc, yaml.IndentSequence(true))
}

// unquoted is a word as the value that YAML writes without quotes. A number is
// one only as it would be written: the name 007 is not 7.
func unquoted(v string) any {
	if n, err := strconv.Atoi(v); err == nil && strconv.Itoa(n) == v {
		return n
	}
	return v
}
