package daemon

import (
	"strconv"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// stations are the kinds of interface with an end station behind them, not a
// network: what VMs and containers hang on.
var stations = map[string]bool{"tun": true, "tuntap": true, "veth": true, "netkit": true, "dummy": true, "macvtap": true, "ipvtap": true}

// isUplink reports whether a port leads to other switches although nobody said
// so: a NIC, a bond, a VLAN. Such a port must not be taken for a VM's, whose
// first BPDU would cut it off.
func (o *opener) isUplink(s config.Spec) bool {
	if s.Kind != config.UplinkKind {
		return false
	}
	link, err := o.link(s.Name)
	return err == nil && !stations[link.Kind]
}

// complete fills in what a port is by nature and nobody said. An uplink carries
// everybody's flows, so it has a receive queue for each worker.
func (o *opener) complete(p *config.Port, workers int) {
	p.Uplink = p.Uplink || o.isUplink(p.Spec)
	if p.Uplink && workers > 1 && p.Kind == config.UplinkKind && p.Value("queues") == "" {
		p.Device = append(p.Device, config.KeyValue{Key: "queues", Value: strconv.Itoa(workers)})
	}
}

// completeAll completes every port of a configuration.
func (o *opener) completeAll(c *config.Config) {
	for i := range c.Ports {
		o.complete(&c.Ports[i], c.Switch.Workers)
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
