package link

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socketBuffer is what the kernel may keep for a Watcher that is busy, in bytes:
// some thousand messages. When it overflows, the Watcher asks for everything.
const socketBuffer = 1 << 20

// Watcher listens to one network namespace.
//
// Do may be called from any goroutine but the Watcher's own; the other methods
// only inside Do and inside a function given to Follow.
type Watcher struct {
	netns  int // descriptor of the namespace
	calls  chan call
	closed chan struct{} // closed when Close begins
	once   sync.Once
	ended  sync.WaitGroup

	// Only the Watcher's goroutine uses these.
	handle    *netlink.Handle
	sock      *nl.NetlinkSocket
	known     map[int]Link // as last told
	followers []*follower
	lookers   []*looker
	ticker    *time.Ticker // stopped while there are no lookers
}

type call struct {
	f    func()
	done chan struct{}
}

type looker struct{ f func() }

// lookEvery is how often functions given to Every are called: what they look for
// shall not wait long, and an idle host shall sleep.
const lookEvery = 2 * time.Second

type follower struct{ f func(l Link, gone bool) }

// hint is what the receiving goroutine passes on: look at this device, or at all
// of them. What a message says is not used, for it may be older than an answer
// that the Watcher has had since.
type hint struct {
	index int
	gone  bool // the device has left, whatever has its index now
	all   bool
}

// NewWatcher starts listening in the calling thread's network namespace.
func NewWatcher() (*Watcher, error) {
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watch network devices: open network namespace: %w", err)
	}
	w := &Watcher{
		netns:  ns,
		calls:  make(chan call),
		closed: make(chan struct{}),
		known:  make(map[int]Link),
	}
	started := make(chan error)
	w.ended.Add(1)
	go w.run(started)
	if err := <-started; err != nil {
		w.ended.Wait()
		unix.Close(ns)
		return nil, fmt.Errorf("watch network devices: %w", err)
	}
	return w, nil
}

// Close ends the Watcher's goroutines and waits for them. Followers hear nothing
// more. Only the first call does anything.
func (w *Watcher) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.ended.Wait()
		unix.Close(w.netns)
	})
	return nil
}

// Do runs f on the Watcher's goroutine, in its network namespace, and returns
// when f has. It reports false, without running f, once the Watcher is closed.
func (w *Watcher) Do(f func()) bool {
	c := call{f, make(chan struct{})}
	select {
	case w.calls <- c:
		<-c.done
		return true
	case <-w.closed:
		w.ended.Wait()
		return false
	}
}

// Follow makes the Watcher call f with what a device is like after the kernel has
// said that something about it changed, or about tc's filters on it, and with gone
// set after it has left the namespace, until stop is called. Several changes may
// come as one, and some concern nothing in Link: the caller compares. f must not
// wait for anything that waits for the Watcher.
func (w *Watcher) Follow(f func(l Link, gone bool)) (stop func()) {
	fl := &follower{f}
	w.followers = append(w.followers, fl)
	return func() {
		w.followers = slices.DeleteFunc(slices.Clone(w.followers), func(x *follower) bool { return x == fl })
	}
}

// Every makes the Watcher call f every two seconds, all such functions together,
// until stop is called: for what the kernel tells nobody of.
func (w *Watcher) Every(f func()) (stop func()) {
	if len(w.lookers) == 0 {
		w.ticker.Reset(lookEvery)
	}
	l := &looker{f}
	w.lookers = append(w.lookers, l)
	return func() {
		w.lookers = slices.DeleteFunc(slices.Clone(w.lookers), func(x *looker) bool { return x == l })
		if len(w.lookers) == 0 {
			w.ticker.Stop()
		}
	}
}

// ErrNotFound says that there is no such device in the namespace.
var ErrNotFound = errors.New("no such interface")

// ByName asks the kernel for the device of that name.
func (w *Watcher) ByName(name string) (Link, error) {
	l, err := w.handle.LinkByName(name)
	return found(l, err)
}

// ByIndex asks the kernel for the device with that index.
func (w *Watcher) ByIndex(index int) (Link, error) {
	l, err := w.handle.LinkByIndex(index)
	return found(l, err)
}

func found(l netlink.Link, err error) (Link, error) {
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return Link{}, ErrNotFound
	case err != nil:
		return Link{}, err
	}
	return fromNetlink(l), nil
}

// dumpAtMost is how many devices there may be for Above to ask the kernel for all of
// them, some 10 µs each, every time that a port is attached.
const dumpAtMost = 512

// Above lists the devices that stand on device index: VLANs, macvlans and such. Of
// a namespace with many devices one that was made a moment ago may be missing.
func (w *Watcher) Above(index int) (list []Link) {
	if len(w.known) <= dumpAtMost {
		if links, err := w.handle.LinkList(); err == nil {
			for _, l := range links {
				if l := fromNetlink(l); l.StandsOn(index) {
					list = append(list, l)
				}
			}
			return list
		}
	}
	for _, l := range w.known {
		if l.StandsOn(index) {
			list = append(list, l)
		}
	}
	return list
}

// Handle is the Watcher's own netlink handle, to change devices with.
func (w *Watcher) Handle() *netlink.Handle { return w.handle }

// run is the Watcher's goroutine. Its thread is never given back: it may have
// changed its network namespace.
func (w *Watcher) run(started chan<- error) {
	defer w.ended.Done()
	runtime.LockOSThread()
	hints := make(chan hint)
	if err := w.open(); err != nil {
		started <- err
		return
	}
	w.ticker = time.NewTicker(lookEvery)
	w.ticker.Stop()
	w.ended.Add(1)
	go w.receive(hints)
	defer w.handle.Close()
	defer w.sock.Close() // ends receive
	w.resync()
	started <- nil
	for {
		select {
		case h := <-hints:
			if h.all {
				w.resync()
			} else {
				w.look(h)
			}
		case <-w.ticker.C:
			for _, l := range w.lookers {
				l.f()
			}
		case c := <-w.calls:
			c.f()
			close(c.done)
		case <-w.closed:
			return
		}
	}
}

// open enters the namespace and makes the sockets there.
func (w *Watcher) open() (err error) {
	if err := enter(w.netns); err != nil {
		return err
	}
	if w.sock, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR); err != nil {
		return fmt.Errorf("subscribe to link messages: %w", err)
	}
	if w.sock.SetReceiveBufferSize(socketBuffer, true) != nil {
		_ = w.sock.SetReceiveBufferSize(socketBuffer, false) // an overflow is made good by resync
	}
	if w.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		w.sock.Close()
		return fmt.Errorf("open netlink: %w", err)
	}
	return nil
}

// enter moves the calling thread to namespace ns unless it is there.
func enter(ns int) error {
	var want, have unix.Stat_t
	if err := unix.Fstat(ns, &want); err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &have); err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if want.Ino == have.Ino && want.Dev == have.Dev {
		return nil
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// receive reads the subscription until it is closed.
func (w *Watcher) receive(hints chan<- hint) {
	defer w.ended.Done()
	send := func(h hint) bool {
		select {
		case hints <- h:
			return true
		case <-w.closed:
			return false
		}
	}
	lost := false
	for {
		// After an overflow the kernel drops in silence until the buffer has
		// been empty once. Only then is it worth asking for everything.
		if lost && !readable(w.sock.GetFd()) {
			lost = false
			if !send(hint{all: true}) {
				return
			}
		}
		msgs, from, err := w.sock.Receive()
		switch {
		case w.isClosed():
			return
		case err != nil: // ENOBUFS
			lost = true
			continue
		case lost, from.Pid != nl.PidKernel: // anyone may write to the group
			continue
		}
		for _, m := range msgs {
			if h, ok := hintOf(&m); ok && !send(h) {
				return
			}
		}
	}
}

// hintOf is which device a message is about, if it is one of those.
func hintOf(m *syscall.NetlinkMessage) (h hint, ok bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) < unix.SizeofIfInfomsg {
			return h, false
		}
		info := nl.DeserializeIfInfomsg(m.Data)
		// A bridge speaks of its port, not of the device.
		return hint{index: int(info.Index), gone: m.Header.Type == unix.RTM_DELLINK}, info.Family == unix.AF_UNSPEC
	case unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_DELQDISC: // a filter came or went, or all with their qdisc
		if len(m.Data) < nl.SizeofTcMsg {
			return h, false
		}
		return hint{index: int(nl.DeserializeTcMsg(m.Data).Ifindex)}, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR: // an address came or went
		if len(m.Data) < unix.SizeofIfAddrmsg {
			return h, false
		}
		return hint{index: int(nl.DeserializeIfAddrmsg(m.Data).Index)}, true
	}
	return h, false
}

func (w *Watcher) isClosed() bool {
	select {
	case <-w.closed:
		return true
	default:
		return false
	}
}

func readable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 || err != nil
}

// look asks for the device of a hint and tells the followers.
func (w *Watcher) look(h hint) {
	if l, had := w.known[h.index]; had && h.gone {
		w.tell(l, true)
	}
	l, err := w.ByIndex(h.index)
	switch {
	case err == nil:
		w.tell(l, false)
	case errors.Is(err, ErrNotFound):
		if l, had := w.known[h.index]; had {
			w.tell(l, true)
		}
	}
}

func (w *Watcher) tell(l Link, gone bool) {
	if gone {
		delete(w.known, l.Index)
	} else {
		w.known[l.Index] = l
	}
	for _, f := range w.followers {
		f.f(l, gone)
	}
}

// resync asks for every device and tells the followers of each, and of each that
// is no more: any of them may be what the lost messages were about.
func (w *Watcher) resync() {
	var links []netlink.Link
	var err error
	for range 4 { // a dump that a change interrupted may miss a device
		if links, err = w.handle.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return // the next change tells
	}
	present := make(map[int]bool, len(links))
	for _, l := range links {
		present[l.Attrs().Index] = true
	}
	for index, l := range w.known {
		if !present[index] {
			w.tell(l, true)
		}
	}
	for _, l := range links {
		w.tell(fromNetlink(l), false)
	}
}
