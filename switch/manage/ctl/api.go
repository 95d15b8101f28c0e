package ctl

import (
	"fmt"

	"github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"
)

// Documents that are neither vswitch's nor a mere mapping of words.

// NewPort is the body of POST /v1/ports.
//
// A Guest's port is one for the tap of a virtual machine. It goes by itself some
// seconds after the tap, and a port that is left of an earlier guest is made
// anew. One of that name that was not made for a guest stays, and has the
// settings of the spec besides its own.
type NewPort struct {
	Spec   string `json:"spec"`
	Uplink bool   `json:"uplink,omitempty"`
	Guest  bool   `json:"guest,omitempty"`
}

// NewEntry is the body of POST /v1/fdb. VLAN 0 is the port's own.
type NewEntry struct {
	MAC    frame.MAC `json:"mac"`
	VLAN   uint16    `json:"vlan,omitempty"`
	Port   string    `json:"port"`
	Static bool      `json:"static,omitempty"`
}

// NewVLANs is the body of POST /v1/vlans.
type NewVLANs struct {
	Port     string `json:"port"`
	VIDs     string `json:"vids"` // "10", "10-20+30"
	PVID     bool   `json:"pvid,omitempty"`
	Untagged bool   `json:"untagged,omitempty"`
}

// Set is VIDs as a set, checked.
func (v *NewVLANs) Set() (vswitch.VIDSet, error) {
	vids, err := config.ParseVIDs(v.VIDs)
	if err == nil && v.PVID && vids.Len() > 1 {
		err = fmt.Errorf("add VLANs %s to %s: a port has one PVID; name one VLAN", v.VIDs, v.Port)
	}
	return vids, err
}

// NewNIC is the body of POST /v1/vms: a network card for the machine whose QMP
// socket is at QMP. What is empty is chosen by the switch.
type NewNIC struct {
	QMP      string    `json:"qmp"`
	ID       string    `json:"id,omitempty"`
	MAC      frame.MAC `json:"mac,omitzero"`
	Model    string    `json:"model,omitempty"`
	Bus      string    `json:"bus,omitempty"`
	Queues   int       `json:"queues,omitempty"`
	VHost    string    `json:"vhost,omitempty"`    // auto, on, off
	Settings string    `json:"settings,omitempty"` // words of a SPEC for its port: "vlan=10,isolated=on"
}

// Options are what n says, in values.
func (n *NewNIC) Options(kinds config.Kinds) (qemu.AttachOptions, error) {
	o := qemu.AttachOptions{QMP: n.QMP, ID: n.ID, MAC: n.MAC, Model: n.Model, Bus: n.Bus,
		Queues: n.Queues, VHost: qemu.VHost(n.VHost)}
	if n.Settings == "" {
		return o, nil
	}
	var err error
	o.Port, err = kinds.ParseSpec(config.NetdevKind + ":tap," + n.Settings) // no name yet: the kernel gives one
	return o, err
}

// Check says what is wrong with n before any machine is asked.
func (n *NewNIC) Check(kinds config.Kinds) error {
	o, wrong := n.Options(kinds)
	if err := o.Complete(); err != nil {
		return err
	}
	return wrong
}

// PortVLANs is an element of GET /v1/vlans.
type PortVLANs struct {
	Port string `json:"port"`
	vswitch.PortVLANStatus
}

// PortStats is an element of GET /v1/stats. Drops has every reason that is not
// zero.
type PortStats struct {
	Name  string            `json:"name"`
	RX    vswitch.Traffic   `json:"rx"`
	TX    vswitch.Traffic   `json:"tx"`
	Drops map[string]uint64 `json:"drops"`

	Rings []frame.RingCounters `json:"rings,omitempty"` // of a port that has rings
}

type flushed struct {
	Flushed int `json:"flushed"`
}

type reloaded struct {
	Changes []string `json:"changes"`
}

type failure struct {
	Error string `json:"error"`
}

// maxBody is the longest request body, in bytes: all keys of a port fit in a
// fraction of it.
const maxBody = 64 << 10

// stats is the part of a port's status that counts.
func stats(p *vswitch.PortStatus) PortStats {
	s := PortStats{Name: p.Name, RX: p.RX, TX: p.TX, Drops: map[string]uint64{}, Rings: p.Rings}
	for reason, n := range p.Drops {
		if n > 0 {
			s.Drops[reason] = n
		}
	}
	return s
}

// withHost lists every port of a status, the host interface first. The list is
// never nil, which JSON would have as null.
func withHost(st *vswitch.Status) []*vswitch.PortStatus {
	ports := []*vswitch.PortStatus{}
	if st.HostPort != nil {
		ports = append(ports, st.HostPort)
	}
	for i := range st.Ports {
		ports = append(ports, &st.Ports[i])
	}
	return ports
}
