package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/port/netdev"
	"github.com/kvswitch/kvswitch/switch/port/sock"
	"github.com/kvswitch/kvswitch/switch/port/tap"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// opener opens ports of every kind: the one place where kinds are known. Its
// methods may be called from any goroutine.
type opener struct {
	watcher *link.Watcher // of the network namespace that the program started in
	tapMTU  int           // of new taps; set before ports are opened from several goroutines
}

func newOpener() (*opener, error) {
	w, err := link.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &opener{watcher: w}, nil
}

func (o *opener) close() { o.watcher.Close() }

// kinds are the kinds of ports, with o's functions to open them.
func (o *opener) kinds() config.Kinds {
	return config.Kinds{
		{Name: "netdev", Netdev: true, Keys: []string{"queues"}, Open: o.openNetdev,
			Usage: "a network interface: a NIC, a veth, the tap of a VM; queues=N receive queues"},
		{Name: "tap", Netdev: true, Keys: []string{"queues", "owner"}, Open: o.openTap,
			Usage: "a tap that the switch makes for a VM (-netdev tap,id=n0,ifname=NAME,script=no,downscript=no); queues=N for a multi-queue guest, owner=USER[:GROUP] who may open it"},
		{Name: "vhost-user", Keys: vhostUserKeys, Open: openVHostUser,
			Usage: "a guest's rings, directly: path=SOCKET, mode=server|client, queues=N, mtu=N, perm=, owner=USER[:GROUP], reconnect="},
		{Name: "stream", Keys: sock.StreamKeys(), Open: openStream,
			Usage: "QEMU's -netdev stream: path=SOCKET or addr=HOST:PORT, mode=server|client"},
		{Name: "dgram", Keys: sock.DgramKeys(), Open: openDgram,
			Usage: "QEMU's -netdev dgram: local= and remote=, socket paths or HOST:PORT"},
	}
}

// queuesOf reads the key queues; 1 if it was not given.
func queuesOf(s config.Spec, most int) (int, error) {
	v := s.Value("queues")
	if v == "" {
		return 1, nil
	}
	n, err := number(v, 1, most)
	if err != nil {
		return 0, fmt.Errorf("open port %s: queues=%s: %w", s.Name, v, err)
	}
	return n, nil
}

func (o *opener) openNetdev(s config.Spec) (frame.Port, error) {
	n, err := queuesOf(s, netdev.MaxQueues)
	if err != nil {
		return nil, err
	}
	return netdev.Open(s.Name, netdev.Options{Watcher: o.watcher, Queues: n})
}

// tapAlias marks the taps that the switch made, as `ip link` shows it: one that
// a crash left behind is the switch's to delete, one that somebody else made is
// not.
const tapAlias = "made by kvswitch"

// openTap makes a tap for QEMU to open by name and attaches its netdev. A tap
// of that name that is there is used as it is.
func (o *opener) openTap(s config.Spec) (frame.Port, error) {
	opts, err := tapOptions(s)
	if err != nil {
		return nil, err
	}
	opts.MTU = o.tapMTU
	dev, err := o.link(s.Name)
	switch {
	case errors.Is(err, link.ErrNotFound):
		if err := tap.Create(o.watcher, s.Name, opts); err != nil {
			return nil, err
		}
		if err := o.mark(s.Name); err != nil {
			return nil, errors.Join(fmt.Errorf("open tap %s: %w", s.Name, err), tap.Delete(o.watcher, s.Name))
		}
	case err != nil:
		return nil, fmt.Errorf("open tap %s: %w", s.Name, err)
	case dev.Kind != "tun" && dev.Kind != "tuntap":
		return nil, fmt.Errorf("open tap %s: a %s device has that name: attach it as netdev:%s, or choose another name", s.Name, dev.Kind, s.Name)
	}
	p, err := netdev.Open(s.Name, netdev.Options{Watcher: o.watcher, Up: true})
	if err != nil {
		_ = o.dropTap(s.Name)
		return nil, err
	}
	return &tapPort{p, s.Name, o}, nil
}

func tapOptions(s config.Spec) (opts tap.Options, err error) {
	if opts.Queues, err = queuesOf(s, tap.MaxQueues); err != nil {
		return opts, err
	}
	if opts.Owner, opts.Group, err = owner(s.Value("owner")); err != nil {
		err = fmt.Errorf("open port %s: owner=%s: %w", s.Name, s.Value("owner"), err)
	}
	return opts, err
}

// tapPort is the port of a tap that goes with it.
type tapPort struct {
	*netdev.Port
	name   string
	opener *opener
}

// Close also deletes the tap, unless a VM still holds it: that one keeps its
// network card, and is back on the segment when the switch is.
func (t *tapPort) Close() error {
	return errors.Join(t.Port.Close(), t.opener.dropTap(t.name))
}

// mark gives a tap its alias.
func (o *opener) mark(name string) (err error) {
	o.watcher.Do(func() {
		var link netlink.Link
		if link, err = o.watcher.Handle().LinkByName(name); err == nil {
			err = o.watcher.Handle().LinkSetAlias(link, tapAlias)
		}
	})
	return err
}

// dropTap deletes a tap that the switch made and that nobody holds the other
// end of: such a tap has no carrier.
func (o *opener) dropTap(name string) (err error) {
	drop := false
	o.watcher.Do(func() {
		var link netlink.Link
		if link, err = o.watcher.Handle().LinkByName(name); err == nil {
			a := link.Attrs()
			drop = a.Alias == tapAlias && a.RawFlags&unix.IFF_RUNNING == 0
		}
	})
	if drop {
		return tap.Delete(o.watcher, name)
	}
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	return err
}

// link is what the kernel says of an interface now.
func (o *opener) link(name string) (l link.Link, err error) {
	if !o.watcher.Do(func() { l, err = o.watcher.ByName(name) }) {
		return l, errors.New("the switch is stopping")
	}
	return l, err
}

// canMakeTaps reports CAP_NET_ADMIN.
func canMakeTaps() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var set [2]unix.CapUserData
	return unix.Capget(&header, &set[0]) == nil && set[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

// openHost makes the host interface.
func (o *opener) openHost(name string, mac frame.MAC, mtu int) (frame.Port, error) {
	return tap.Open(o.watcher, name, tap.Options{MAC: mac, MTU: mtu})
}

func openStream(s config.Spec) (frame.Port, error) {
	var opts sock.StreamOptions
	for _, w := range s.Device {
		if err := opts.Set(w.Key, w.Value); err != nil {
			return nil, fmt.Errorf("open port %s: %w", s.Name, err)
		}
	}
	p, err := sock.OpenStream(opts)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", s.Name, err)
	}
	return p, nil
}

func openDgram(s config.Spec) (frame.Port, error) {
	var opts sock.DgramOptions
	for _, w := range s.Device {
		if err := opts.Set(w.Key, w.Value); err != nil {
			return nil, fmt.Errorf("open port %s: %w", s.Name, err)
		}
	}
	p, err := sock.OpenDgram(opts)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", s.Name, err)
	}
	return p, nil
}

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

// kindsHelp is a line for each kind.
func kindsHelp() []string {
	var lines []string
	for _, k := range new(opener).kinds() {
		lines = append(lines, fmt.Sprintf("%-10s %s", k.Name, k.Usage))
	}
	return lines
}
