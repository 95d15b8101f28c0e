package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/port/netdev"
	"github.com/kvswitch/kvswitch/switch/port/pair"
	"github.com/kvswitch/kvswitch/switch/port/tap"
)

// The host interface carries what the host's administrator gave it: addresses,
// routes, a place in firewall rules. With Options.KeepHost it stays when the
// switch stops, and all that with it. A mark, which says whose it is, is how the
// next one finds it, whatever kind of device it is.

// hostMark is the alias of a switch's host interface, as `ip link` shows it.
func hostMark(name string) string { return hostMarks + name }

const hostMarks = "host interface of kvswitch "

// hostInterface says how the host interface of the switch is found and left.
type hostInterface struct {
	mark string
	keep bool
}

// OpenHost is config.Opener's. A host interface that was kept is used as it is,
// whether today's would be of its kind or not.
func (o *opener) OpenHost(name string, mac frame.MAC) (frame.Port, error) {
	switch kind := o.hostKind(name); {
	case kind == "tun", kind == "tuntap", kind != "veth" && o.tier == nil:
		return tap.Open(o.watcher, name, tap.Options{MAC: mac, MTU: o.tapMTU, Alias: o.host.mark, Keep: o.host.keep})
	}
	// Only a pair has its place in what the kernel forwards.
	return pair.Open(o.watcher, name, pair.Options{MAC: mac, MTU: o.tapMTU, Alias: o.host.mark, Keep: o.host.keep,
		Netdev: netdev.Options{Tier: o.tier}})
}

// hostKind is the kind of the device that has the host interface's name, if it is
// one that can be it: any tap, which somebody may have made for this, or a pair of
// ours.
func (o *opener) hostKind(name string) string {
	l, err := o.link(name)
	if err != nil {
		return ""
	}
	return l.Kind
}

// dropOldHosts removes what an earlier run of this switch kept and this one does
// not use, its configuration having changed.
func (d *Daemon) dropOldHosts() error {
	var used string
	if st := d.sw.Status(); st.HostPort != nil {
		used = st.Host
	}
	var gone []string
	err := d.opener.within(func(h *netlink.Handle) (err error) {
		gone, err = dropHosts(h, d.opener.host.mark, used)
		return err
	})
	for _, name := range gone {
		d.log.Info("an earlier host interface is removed", "interface", name)
	}
	return err
}

// within runs f on the watcher's goroutine, in its namespace.
func (o *opener) within(f func(*netlink.Handle) error) error {
	err := errors.New("the switch is stopping")
	o.watcher.Do(func() { err = f(o.watcher.Handle()) })
	return err
}

// dropHosts removes every host interface with that mark but one, and says which.
func dropHosts(h *netlink.Handle, mark, but string) (gone []string, err error) {
	links, err := marked(h, func(alias string) bool { return alias == mark })
	for _, l := range links {
		name := l.Attrs().Name
		if name == but || isFarEnd(l, links, but) {
			continue
		}
		var missing netlink.LinkNotFoundError
		switch err := h.LinkDel(l); {
		case err == nil:
			gone = append(gone, name)
		case errors.As(err, &missing), errors.Is(err, unix.ENODEV): // it went with its other end
		default:
			return gone, fmt.Errorf("remove host interface %s: %w", name, err)
		}
	}
	return gone, err
}

// isFarEnd reports whether l is the other end of the pair called name.
func isFarEnd(l netlink.Link, links []netlink.Link, name string) bool {
	return slices.ContainsFunc(links, func(o netlink.Link) bool {
		return o.Attrs().Name == name && o.Attrs().ParentIndex == l.Attrs().Index
	})
}

// marked lists host interfaces, those of pairs before their far ends.
func marked(h *netlink.Handle, ours func(alias string) bool) ([]netlink.Link, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return !ours(l.Attrs().Alias) })
	slices.SortStableFunc(links, func(a, b netlink.Link) int {
		return strings.Compare(a.Attrs().Name, b.Attrs().Name) // NAME before NAME-sw
	})
	return links, nil
}

// Restore removes what switches that run no more have left on this host: host
// interfaces that were kept. name is a switch's, "" means all of them. It returns
// a line for each, of what was done or, with dry set, would be.
func Restore(runDir, name string, dry bool) ([]string, error) {
	running, err := ctl.Running(runDir)
	if err != nil {
		return nil, err
	}
	if slices.Contains(running, name) {
		return nil, fmt.Errorf("switch %s is running: stop it first", name)
	}
	h, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	links, err := marked(h, func(alias string) bool {
		owner, ours := strings.CutPrefix(alias, hostMarks)
		return ours && (name == "" || owner == name) && !slices.Contains(running, owner)
	})
	if err != nil {
		return nil, err
	}
	done := []string{}
	for _, l := range links {
		a := l.Attrs()
		verb := "would remove"
		if !dry {
			verb = "removed"
			err := h.LinkDel(l)
			if errors.Is(err, unix.ENODEV) || errors.As(err, &netlink.LinkNotFoundError{}) {
				continue // it went with its other end
			}
			if err != nil {
				return done, fmt.Errorf("remove %s: %w", a.Name, err)
			}
		}
		done = append(done, fmt.Sprintf("%s %s, %s", verb, a.Name, a.Alias))
	}
	return done, nil
}
