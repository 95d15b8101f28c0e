package qemu

import (
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/host/link"
)

// A tap that the helper gives out is the switch's, and lent for as long as its
// holder holds the descriptor. The kernel lets whoever holds that do more: make
// the tap persistent and his own, let go of it, and come back later, whatever the
// list says by then. So every loan is watched, and a tap with which any of this
// was done is taken back.

// loan is a tap that is somebody else's to keep or to drop.
type loan struct {
	tap   string
	index int
	uid   uint32
	seen  chan struct{} // closed when the Watcher has noticed the tap

	terms  terms // once it is watched
	watch  bool
	broken bool // it is being ended

	once sync.Once
}

// terms are what may not change about a tap while it is lent.
type terms struct {
	persist      bool
	owner, group string // "" = none
	// carriers counts how often the tap got and lost its carrier: it loses it with
	// its last holder. The count never goes back, so that it tells, too, of what
	// was done and undone before we looked.
	carriers uint32
}

// broke says what is different now, or "".
func (t terms) broke(now terms) string {
	switch {
	case now.persist != t.persist:
		return "its holder made it persistent"
	case now.owner != t.owner, now.group != t.group:
		return "its holder made it somebody's own"
	case now.carriers != t.carriers:
		return "it was let go of and opened again"
	}
	return ""
}

// termsOf asks the kernel about a tap (rtnetlink(7), if_link.h). What a kernel
// does not tell is always the same.
func termsOf(index int) (t terms, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	about := nl.NewIfInfomsg(unix.AF_UNSPEC)
	about.Index = int32(index)
	req.AddData(about)
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return t, fmt.Errorf("look at tap %d: %w", index, err)
	}
	if len(messages) != 1 || len(messages[0]) < about.Len() {
		return t, fmt.Errorf("look at tap %d: %d answers", index, len(messages))
	}
	attrs, err := nl.ParseRouteAttrAsMap(messages[0][about.Len():])
	if err != nil {
		return t, fmt.Errorf("look at tap %d: %w", index, err)
	}
	if a, ok := attrs[unix.IFLA_CARRIER_CHANGES]; ok && len(a.Value) >= 4 {
		t.carriers = nl.NativeEndian().Uint32(a.Value)
	}
	info, err := nl.ParseRouteAttrAsMap(attrs[unix.IFLA_LINKINFO].Value)
	if err != nil {
		return t, fmt.Errorf("look at tap %d: %w", index, err)
	}
	tun, err := nl.ParseRouteAttrAsMap(info[unix.IFLA_INFO_DATA].Value)
	if err != nil {
		return t, fmt.Errorf("look at tap %d: %w", index, err)
	}
	t.persist = len(tun[unix.IFLA_TUN_PERSIST].Value) > 0 && tun[unix.IFLA_TUN_PERSIST].Value[0] != 0
	t.owner, t.group = string(tun[unix.IFLA_TUN_OWNER].Value), string(tun[unix.IFLA_TUN_GROUP].Value)
	return t, nil
}

// lend notes that uid is about to get a tap. Of an earlier tap of the same name,
// which is gone if there is another now, it waits for the port to go.
func (h *Helper) lend(tap *tapDevice, uid uint32) *loan {
	l := &loan{tap: tap.name, index: tap.index, uid: uid, seen: make(chan struct{})}
	h.mu.Lock()
	var old []*loan
	for _, o := range h.loans {
		if o.tap == l.tap && o.index != l.index {
			old = append(old, o)
		}
	}
	h.loans[tap.index] = l
	h.mu.Unlock()
	for _, o := range old {
		h.end(o, "")
	}
	return l
}

// awaitSeen waits until the Watcher knows the tap: of a device that came and
// went before it looked, it would never say that it is gone. The tap is watched
// from then on.
func (h *Helper) awaitSeen(l *loan) error {
	select {
	case <-l.seen:
	case <-time.After(requestTimeout):
		return fmt.Errorf("tap %s: the kernel has not announced it", l.tap)
	case <-h.peers.closed:
		return errStopping
	}
	t, err := termsOf(l.index)
	h.mu.Lock()
	defer h.mu.Unlock()
	l.terms, l.watch = t, err == nil
	return err
}

// end removes the port of a tap that is no more, or whose holder broke the terms,
// which why says. It returns when that is done, whoever does it.
func (h *Helper) end(l *loan, why string) {
	l.once.Do(func() {
		if why != "" {
			h.cfg.Log.Warn("tap of a bridge helper is taken back", "port", l.tap, "uid", l.uid, "reason", why)
			// The device first: no frame of its holder crosses any more.
			if err := netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}); err != nil && !gone(l.index) {
				h.cfg.Log.Warn("tap is not removed", "port", l.tap, "error", err)
			}
		}
		if err := h.cfg.Ports.DelPort(l.tap); err != nil {
			h.cfg.Log.Warn("port of a vanished tap is not removed", "port", l.tap, "error", err)
		} else if why == "" {
			h.cfg.Log.Info("tap of a bridge helper is gone", "port", l.tap)
		}
		h.forget(l)
		h.unreserve(l.uid)
	})
}

// forget takes the loan out of the books.
func (h *Helper) forget(l *loan) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loans[l.index] == l {
		delete(h.loans, l.index)
	}
}

// gone reports whether there is no such device any more.
func gone(index int) bool {
	_, err := netlink.LinkByIndex(index)
	return err != nil
}

// linkChanged looks after loans. It runs on the Watcher's goroutine, which the
// port's Close may need.
func (h *Helper) linkChanged(link link.Link, gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.loans[link.Index]
	if l == nil || l.broken {
		return
	}
	if gone {
		l.broken = true
		h.work.Go(func() { h.end(l, "") })
		return
	}
	select {
	case <-l.seen:
	default:
		close(l.seen)
	}
	if !l.watch {
		return
	}
	now, err := termsOf(l.index)
	if err != nil {
		return // it is about to be gone, or else the next news tell
	}
	if why := l.terms.broke(now); why != "" {
		l.broken = true
		h.work.Go(func() { h.end(l, why) })
	}
}
