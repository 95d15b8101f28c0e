package daemon

import (
	"strconv"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// What is behind an interface, by its kind (IFLA_INFO_KIND). All others — a NIC,
// a bond, a VLAN — lead to other switches.
var behind = map[string]nature{
	// The other end is a program's: a VM's, as a rule.
	"tun": guest, "tuntap": guest, "macvtap": guest, "ipvtap": guest,
	// The other end is an interface again: a container's, or part of a bridge.
	"veth": network, "netkit": network, "dummy": network,
}

// nature is what a port leads to.
type nature uint8

const (
	uplink  nature = iota // other switches
	guest                 // an end station
	network               // either: the port finds out
)

// nature is what a port leads to when nobody says that it is an uplink: it goes
// by the device, whatever word attached it. What leads to other switches, or may,
// must not be taken for a VM's, whose first BPDU would cut it off. A device that
// is not there leaves it as it was: running is what runs under the port's name.
func (o *opener) nature(s config.Spec, running *vswitch.PortConfig) nature {
	if s.Kind != config.NetdevKind {
		return guest
	}
	link, err := o.link(s.Name)
	switch {
	case err == nil:
		return behind[link.Kind]
	case running == nil || running.Kind != s.Kind:
		return guest // it can't be opened, either
	case running.Uplink:
		return uplink
	case running.Network:
		return network
	}
	return guest
}

// complete fills in what a port is by nature and nobody said. An uplink carries
// everybody's flows, so it has a receive queue for each worker.
func (o *opener) complete(p *config.Port, workers int, running *vswitch.PortConfig) {
	if !p.Uplink {
		n := o.nature(p.Spec, running)
		p.Uplink, p.Network = n == uplink, n == network
	}
	if p.Uplink && workers > 1 && p.Kind == config.UplinkKind && p.Value("queues") == "" {
		p.Device = append(p.Device, config.KeyValue{Key: "queues", Value: strconv.Itoa(workers)})
	}
}

// completeAll completes every port of a configuration for sw, nil before there is
// one.
func (o *opener) completeAll(c *config.Config, sw *vswitch.Switch) {
	for i := range c.Ports {
		p := &c.Ports[i]
		var running *vswitch.PortConfig
		if sw != nil {
			if cfg, err := sw.PortConfig(p.Name); err == nil {
				running = &cfg
			}
		}
		o.complete(p, c.Switch.Workers, running)
	}
}

// early is an opener that has the first uplink open already.
type early struct {
	*opener
	name string
	dev  frame.Port // nil when it has been taken, and without uplinks
}

// openUplink opens the first uplink of a configuration, if it has one, and tells
// its state.
func (o *opener) openUplink(c *config.Config) (*early, frame.State, error) {
	for _, p := range c.Ports {
		if !p.Uplink {
			continue
		}
		dev, err := o.Open(p.Spec)
		if err != nil {
			return nil, frame.State{}, err
		}
		return &early{o, p.Name, dev}, dev.State(), nil
	}
	return &early{opener: o}, frame.State{}, nil
}

func (e *early) Open(s config.Spec) (frame.Port, error) {
	if e.dev != nil && s.Name == e.name {
		dev := e.dev
		e.dev = nil
		return dev, nil
	}
	return e.opener.Open(s)
}

// close closes the uplink if nobody has taken it.
func (e *early) close() {
	if e.dev != nil {
		e.dev.Close()
	}
}
