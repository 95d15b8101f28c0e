package tap

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// Offload flags of TUNSETOFFLOAD that say what the host's stack may leave
// undone. USO came with Linux 6.2.
const (
	offloadBasic = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUSO   = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// Port is the switch's own tap: what the switch sends, the host's IP stack
// receives. It implements frame.Port. The device lives as long as the Port,
// unless it is kept.
type Port struct {
	name    string
	watcher *link.Watcher
	queues  []*queue
	lanes   []*lane // one for each queue
	uso     bool
	errors  atomic.Uint64 // frames that the kernel refused
	state   atomic.Pointer[frame.State]
	names   atomic.Pointer[[]string] // the device's, its own first
	closed  atomic.Bool

	// Only the Watcher's goroutine uses these.
	index  int
	notify func()
	stop   func() // ends following
}

var _ frame.Port = (*Port)(nil)
var _ frame.Namer = (*Port)(nil)

// Open makes the tap name, sets it up, and opens it as the host's port. A
// persistent tap of that name that nobody has open is taken over and outlives
// the Port; one with the mark Options.Alias is ours, and does so only if it is
// kept.
func Open(w *link.Watcher, name string, o Options) (*Port, error) {
	if err := link.CheckName(name); err != nil {
		return nil, fmt.Errorf("open tap: %w", err)
	}
	if err := o.checkQueues(); err != nil {
		return nil, fmt.Errorf("open tap %s: %w", name, err)
	}
	p := &Port{name: name, watcher: w}
	p.state.Store(&frame.State{})
	p.names.Store(new([]string))
	if err := within(w, func() error { return p.open(o) }); err != nil {
		p.free()
		return nil, fmt.Errorf("open tap %s: %w", name, err)
	}
	return p, nil
}

// open runs in the watcher's namespace, which the device is made in.
func (p *Port) open(o Options) error {
	ours, err := p.isOurs(o)
	if err != nil {
		return err
	}
	for range max(o.Queues, 1) {
		if err := p.addQueue(o.Queues > 1); err != nil {
			return err
		}
	}
	if err := configure(p.watcher, p.name, o, true); err != nil {
		return err
	}
	if ours {
		if err := p.mark(o); err != nil {
			return err
		}
	}
	l, err := p.watcher.ByName(p.name)
	if err != nil {
		return err
	}
	p.index = l.Index
	p.called(l)
	p.state.Store(p.describe(l))
	return nil
}

// isOurs reports whether the device is not there yet, or has our mark.
func (p *Port) isOurs(o Options) (bool, error) {
	l, err := p.watcher.Handle().LinkByName(p.name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return true, nil
	}
	return err == nil && o.Alias != "" && l.Attrs().Alias == o.Alias, err
}

// mark marks the device, and decides whether it outlives its descriptors.
func (p *Port) mark(o Options) error {
	if o.Alias != "" {
		h := p.watcher.Handle()
		l, err := h.LinkByName(p.name)
		if err == nil && l.Attrs().Alias != o.Alias {
			err = h.LinkSetAlias(l, o.Alias)
		}
		if err != nil {
			return fmt.Errorf("set alias: %w", err)
		}
	}
	persist := 0
	if o.Keep {
		persist = 1
	}
	if err := unix.IoctlSetInt(p.lanes[0].fd, unix.TUNSETPERSIST, persist); err != nil {
		return fmt.Errorf("set whether it is kept: %w", err)
	}
	return nil
}

// addQueue opens the device once more, and makes it the first time.
func (p *Port) addQueue(multi bool) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return mend(fmt.Errorf("open /dev/net/tun: %w", err))
	}
	q, err := newQueue(fd)
	if err != nil {
		unix.Close(fd)
		return err
	}
	p.queues = append(p.queues, q)
	p.lanes = append(p.lanes, &lane{fd: fd})
	request, err := unix.NewIfreq(p.name)
	if err != nil {
		return err
	}
	// water knows no IFF_VNET_HDR, without which every 64 KiB frame would be
	// cut and checksummed in the kernel before it is read here.
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if multi {
		flags |= unix.IFF_MULTI_QUEUE
	}
	request.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return mend(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, frame.VnetHdrLen); err != nil {
		return fmt.Errorf("set header size: %w", err)
	}
	p.uso = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadBasic|offloadUSO) == nil
	if !p.uso {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadBasic); err != nil {
			return fmt.Errorf("set offloads: %w", err)
		}
	}
	return q.watch()
}

// describe is the state of the port when its device is as l says.
func (p *Port) describe(l link.Link) *frame.State {
	s := &frame.State{
		Up: l.Up && l.Running, MAC: l.MAC, MTU: l.MTU,
		Offloads: frame.Offloads{Csum: true, TSO4: true, TSO6: true, USO: p.uso},
	}
	switch {
	case !l.Up:
		s.Reason = fmt.Sprintf("%s is set down; `ip link set %s up`", l.Name, l.Name)
	case !l.Running:
		s.Reason = "no carrier"
	}
	return s
}

// Name is the device's name when it was opened.
func (p *Port) Name() string { return p.name }

// Names implements frame.Namer.
func (p *Port) Names() []string { return *p.names.Load() }

// called takes over what the device is called, and reports whether that is new.
func (p *Port) called(l link.Link) bool {
	names := append([]string{l.Name}, l.AltNames...)
	return !slices.Equal(*p.names.Swap(&names), names)
}

// Start implements frame.Port.
func (p *Port) Start(notify func()) error {
	return within(p.watcher, func() error {
		p.notify = notify
		p.stop = p.watcher.Follow(p.follow)
		l, err := p.watcher.ByIndex(p.index)
		if err != nil {
			return fmt.Errorf("start tap %s: %w", p.name, err)
		}
		p.follow(l, false)
		return nil
	})
}

// follow takes over what became of the device.
func (p *Port) follow(l link.Link, gone bool) {
	if l.Index != p.index {
		return
	}
	s := p.describe(l)
	if gone {
		// A deleted tap's descriptor reports an error for ever, and would keep
		// the worker awake.
		for _, q := range p.queues {
			q.unwatch()
		}
		s.Up, s.Gone, s.Reason = false, true, "the device was deleted"
	}
	renamed := p.called(l)
	if old := p.state.Swap(s); *old != *s || renamed {
		p.notify()
	}
}

// Queues implements frame.Port.
func (p *Port) Queues() []frame.Queue {
	qs := make([]frame.Queue, len(p.queues))
	for i, q := range p.queues {
		qs[i] = q
	}
	return qs
}

// Tx implements frame.Port.
func (p *Port) Tx(hint int, out []frame.Out) int {
	return p.lanes[uint(hint)%uint(len(p.lanes))].send(out, &p.errors)
}

// State implements frame.Port.
func (p *Port) State() frame.State { return *p.state.Load() }

// Counters implements frame.Port.
func (p *Port) Counters() frame.Counters {
	c := frame.Counters{TxErrors: p.errors.Load()}
	for _, q := range p.queues {
		c.RxErrors += q.errors.Load()
	}
	return c
}

// Close implements frame.Port. The device goes with it, unless it is kept or was
// persistent before. Only the first call does anything.
func (p *Port) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	p.watcher.Do(func() {
		if p.stop != nil {
			p.stop()
		}
	})
	return p.free()
}

func (p *Port) free() (err error) {
	for _, q := range p.queues {
		err = errors.Join(err, q.close())
	}
	return err
}

// lane is the sending side of one descriptor. The lock keeps callers with the
// same hint apart; there is a lane for each worker when the tap has as many
// queues.
type lane struct {
	mu   sync.Mutex
	fd   int
	head [frame.MaxHead]byte
	iov  [maxPieces]unix.Iovec
}

// maxPieces is the most pieces of a frame that one write gathers: more than the
// descriptors in any virtqueue that guests' drivers make.
const maxPieces = 2 + 256

// send sends out in order and reports how many it took care of. A tap takes one
// frame at a write.
func (l *lane) send(out []frame.Out, refused *atomic.Uint64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range out {
		iov := l.gather(&out[i])
		if iov == nil {
			refused.Add(1)
			continue
		}
		_, errno := sysio.Writev(l.fd, iov)
		for errno == unix.EINTR {
			_, errno = sysio.Writev(l.fd, iov)
		}
		clear(iov) // keep no hold on the frame
		switch errno {
		case 0:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			return i
		default: // EIO: the device is down; EINVAL: a header that makes no sense; EFAULT: memory that is gone
			refused.Add(1)
		}
	}
	return len(out)
}

// gather lists the pieces of a frame as it goes on the wire, header first; nil if
// they are too many.
func (l *lane) gather(o *frame.Out) []unix.Iovec {
	if len(o.Rest) > maxPieces-2 {
		return nil
	}
	head, data := o.Head(l.head[:0])
	l.iov[0], l.iov[1] = sysio.Piece(head), sysio.Piece(data)
	for i, r := range o.Rest {
		l.iov[2+i] = sysio.Piece(r)
	}
	return l.iov[:2+len(o.Rest)]
}
