package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// VHost says whether the kernel's vhost_net serves a guest's rings.
type VHost string

// VHostAuto uses vhost_net when the host has it and the model is a virtio one.
const (
	VHostAuto VHost = "auto"
	VHostOn   VHost = "on"
	VHostOff  VHost = "off"
)

// DefaultModel is the device that a guest gets.
const DefaultModel = "virtio-net-pci"

// AttachOptions describe a network device to plug into a running machine.
type AttachOptions struct {
	QMP    string      // path of the machine's monitor socket
	ID     string      // of the device; empty is the first of net1, net2, … that the machine has not
	MAC    frame.MAC   // zero is one made up, 52:54:00:…
	Model  string      // empty is DefaultModel
	Bus    string      // where it is plugged; empty is QEMU's choice, which q35 has not
	Queues int         // queue pairs, 1 to MaxQueues; 0 is 1
	VHost  VHost       // empty is auto
	Port   config.Spec // the port's settings; its kind and name are chosen here
}

// NIC is a network device that was plugged in.
type NIC struct {
	ID          string    `json:"id"`
	Port        string    `json:"port"` // of the switch, and the tap's name
	Model       string    `json:"model"`
	MAC         frame.MAC `json:"mac,omitzero"`
	Queues      int       `json:"queues"`
	VHost       bool      `json:"vhost"`
	VHostReason string    `json:"vhost_reason,omitempty"` // why not
}

// netdev is the id of the backend in QEMU, which must differ from other
// backends' but not from devices'.
func (n *NIC) netdev() string { return "kvs-" + n.ID }

// Complete fills in what was left to be chosen, all but the id, and says what is
// wrong with the rest.
func (o *AttachOptions) Complete() error {
	if o.Model == "" {
		o.Model = DefaultModel
	}
	if o.Queues == 0 {
		o.Queues = 1
	}
	if o.VHost == "" {
		o.VHost = VHostAuto
	}
	if o.MAC.IsZero() {
		o.MAC = frame.MAC{0x52, 0x54, 0x00}
		rand.Read(o.MAC[3:])
	}
	switch {
	case o.QMP == "":
		return errors.New("want the path of a QMP socket")
	case o.ID != "" && !wellFormedID(o.ID):
		return fmt.Errorf("id %q: want a letter, then letters, digits and - . _", o.ID)
	case !o.MAC.IsUnicast():
		return fmt.Errorf("MAC %v is no station's address", o.MAC)
	case o.Queues < 1 || o.Queues > MaxQueues:
		return fmt.Errorf("%d queues: want 1 to %d", o.Queues, MaxQueues)
	case o.Queues > 1 && !o.virtio():
		return fmt.Errorf("%s has one queue; want a virtio-net model for %d", o.Model, o.Queues)
	case o.VHost != VHostAuto && o.VHost != VHostOn && o.VHost != VHostOff:
		return fmt.Errorf("vhost %q: want auto, on or off", o.VHost)
	case o.VHost == VHostOn && !o.virtio():
		return fmt.Errorf("vhost on: %s is no virtio-net model", o.Model)
	}
	return nil
}

func (o *AttachOptions) virtio() bool { return strings.HasPrefix(o.Model, "virtio-net") }

// wellFormedID is QEMU's rule for the ids that users give.
func wellFormedID(id string) bool {
	for i, r := range id {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || !(r >= '0' && r <= '9' || strings.ContainsRune("-._", r))) {
			return false
		}
	}
	return id != ""
}

// undo is what takes back the steps of an attachment, in reverse.
type undo []func()

func (u *undo) add(f func()) { *u = append(*u, f) }

func (u undo) run() {
	for i := len(u) - 1; i >= 0; i-- {
		u[i]()
	}
}

// plug gives the machine behind m a network device on a new tap, and the switch
// a port at the tap's netdev. When a step fails those before it are taken back.
func plug(ctx context.Context, m *Monitor, ports Ports, o AttachOptions, mtu int, openVHost func(int) ([]*os.File, error)) (_ *NIC, err error) {
	n := &NIC{ID: o.ID, Model: o.Model, MAC: o.MAC, Queues: o.Queues}
	var back undo
	defer func() {
		if err != nil {
			back.run()
		}
	}()

	tap, err := makeTap(o.Queues, true)
	if err != nil {
		return nil, err
	}
	// Ours are closed in any case: from netdev_add on QEMU's copies keep it.
	defer tap.close()
	n.Port = tap.name
	if err := tap.configure(mtu); err != nil {
		return nil, err
	}

	var vhost []*os.File
	switch {
	case o.VHost == VHostOff:
		n.VHostReason = "off by request"
	case !o.virtio():
		n.VHostReason = o.Model + " is no virtio-net model"
	default:
		vhost, err = openVHost(o.Queues)
		if err != nil && o.VHost == VHostOn {
			return nil, fmt.Errorf("vhost on: %w", err)
		}
		if err != nil {
			n.VHostReason = err.Error()
		}
		n.VHost = err == nil
		defer closeAll(vhost)
	}

	// getfd stores a descriptor under a name, netdev_add takes it from there.
	backend := map[string]any{"type": "tap", "id": n.netdev()}
	if backend["fds"], err = sendAll(m, &back, n.netdev()+"-tap", tap.queues); err != nil {
		return nil, err
	}
	if n.VHost {
		backend["vhost"] = true
		if backend["vhostfds"], err = sendAll(m, &back, n.netdev()+"-vhost", vhost); err != nil {
			return nil, err
		}
	}
	if err := m.Do("netdev_add", backend, nil); err != nil {
		return nil, err
	}
	back.add(func() { m.Do("netdev_del", map[string]string{"id": n.netdev()}, nil) })

	// The port comes before the link: once that is up, the host's own stack
	// would speak on the tap until the port shields it. And both come before the
	// device, so that the guest's very first frame passes.
	spec := o.Port
	spec.Kind, spec.Name = config.NetdevKind, n.Port
	if err := ports.AddPort(spec); err != nil {
		return nil, err
	}
	back.add(func() { ports.DelPort(n.Port) })
	if err := setLink(n.Port, true); err != nil {
		return nil, err
	}

	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.Do("device_add", o.device(n), nil); err != nil {
		return nil, err
	}
	return n, nil
}

// device is the argument of device_add.
func (o *AttachOptions) device(n *NIC) map[string]any {
	d := map[string]any{"driver": o.Model, "id": n.ID, "netdev": n.netdev(), "mac": n.MAC.String()}
	if o.Bus != "" {
		d["bus"] = o.Bus
	}
	if o.Queues > 1 {
		d["mq"] = true
		if strings.HasSuffix(o.Model, "-pci") {
			// A vector for each ring, one for the configuration, one for control.
			d["vectors"] = 2*o.Queues + 2
		}
	}
	return d
}

// sendAll passes files to QEMU and returns their names as netdev_add wants them.
func sendAll(m *Monitor, back *undo, prefix string, files []*os.File) (string, error) {
	var names []string
	for i, f := range files {
		name := fmt.Sprintf("%s%d", prefix, i)
		if err := m.SendFile(name, f); err != nil {
			return "", err
		}
		// Fails, as it should, once netdev_add has taken the descriptor.
		back.add(func() { m.Do("closefd", map[string]string{"fdname": name}, nil) })
		names = append(names, name)
	}
	return strings.Join(names, ":"), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
