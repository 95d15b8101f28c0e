package netdev

import (
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/putback"
)

// What a port changes about its device for longer than the process lives, as
// Options.Keep has it. Promiscuity, fanout, ring memory and tcx programs end with
// the process's sockets and links, and need none of this.
const (
	settingAddrGen = "addr_gen_mode" // a number of the kernel's
	settingUp      = "up"            // off: Options.Up set it up
	settingClsact  = "clsact"        // off: the shield made the qdisc
)

func upText(up bool) string {
	if up {
		return "on"
	}
	return "off"
}

// keeping remembers that a setting is about to be changed, and returns what is to
// be put back, "" for nothing. See putback.Store.
type keeping func(setting, now, ours string) (before string)

func (p *Port) keeping(a *attachment, l link.Link) keeping {
	return func(setting, now, ours string) string {
		before, err := p.opt.Keep.Change(&l, setting, now, ours)
		if err != nil {
			a.warnings = append(a.warnings, fmt.Sprintf("%s: %v: if this process is killed nobody puts %s back", l.Name, err, setting))
		}
		return before
	}
}

// putBack puts back what the port has changed about its device, but for what hangs
// on descriptors, and forgets about it.
func (p *Port) putBack(a *attachment) {
	l, err := p.watcher.ByIndex(a.index)
	if err != nil {
		_ = p.opt.Keep.Done(&p.link, "") // it is gone, and its settings with it
		return
	}
	h := p.watcher.Handle()
	if a.upped {
		setDown(h, a.index)
	}
	if mode, err := strconv.Atoi(a.before); err == nil {
		_ = setAddrGen(h, l, mode)
	}
	_ = p.opt.Keep.Done(&l, "")
}

// PutBack does for the devices that nobody has as a port what a port does when it
// is closed: what a process that was killed has left is put back. It returns a
// line for each device, of what was done or why it could not be.
func PutBack(w *link.Watcher, keep *putback.Store) (lines []string) {
	w.Do(func() {
		records, err := keep.Left()
		if err != nil {
			lines = append(lines, err.Error())
		}
		for i := range records {
			if line := putBack(w, keep, &records[i]); line != "" {
				lines = append(lines, line)
			}
		}
	})
	return lines
}

func putBack(w *link.Watcher, keep *putback.Store, r *putback.Record) string {
	l, err := w.ByIndex(r.Index)
	if err != nil || !r.Is(&l) {
		_ = keep.Forget(r) // it is gone, and its settings with it
		return ""
	}
	m, _, err := claim(l.Index, 0)
	if err != nil {
		return "" // a port; it will be put back when it is none
	}
	defer unix.Close(m.fd)
	h := w.Handle()
	if r.Settings[settingClsact] != "" {
		removeFilters(h, l.Index)
		dropClsact(h, l.Index)
	}
	if r.Settings[settingUp] != "" {
		setDown(h, l.Index)
	}
	if mode, err := strconv.Atoi(r.Settings[settingAddrGen]); err == nil {
		_ = setAddrGen(h, l, mode)
	}
	if err := keep.Forget(r); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s: put back what a switch that was killed had changed", l.Name)
}

func setDown(h *netlink.Handle, index int) {
	_ = h.LinkSetDown(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
}

// dropClsact removes the qdisc if nobody's filters hang there.
func dropClsact(h *netlink.Handle, index int) {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if filters, err := h.FilterList(device, parent); err != nil || len(filters) > 0 {
			return
		}
	}
	_ = h.QdiscDel(clsact(index))
}
