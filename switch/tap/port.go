package tap

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/netdev"
	"github.com/kvswitch/kvswitch/switch/sysio"
)

// Offload flags of TUNSETOFFLOAD that say what the host's stack may leave
// undone. USO came with Linux 6.2.
const (
	offloadBasic = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUSO   = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// Port is the switch's own tap: what the switch sends, the host's IP stack
// receives. It implements frame.Port with one queue. The device lives as long
// as the Port.
type Port struct {
	name    string
	fd      int
	watcher *netdev.Watcher
	queue   queue
	uso     bool

	mu       sync.Mutex // of Tx
	iov      [3 + maxPieces]unix.Iovec
	hdr      [frame.VnetHdrLen]byte
	tag      [frame.TagLen]byte
	rxErrors atomic.Uint64
	txErrors atomic.Uint64

	stateMu sync.Mutex
	state   frame.State
	notify  func()
	stop    func() // ends following, on the watcher's goroutine
}

var _ frame.Port = (*Port)(nil)

// maxPieces is the most pieces of a frame that one write gathers. Frames come in
// at most 1 + MAX_SKB_FRAGS pieces from a guest's stack.
const maxPieces = 32

// Open makes the tap name, sets it up, and opens it as the host's port. A
// persistent tap of that name that nobody has open is taken over and outlives
// the Port.
func Open(w *netdev.Watcher, name string, o Options) (*Port, error) {
	if err := netdev.CheckName(name); err != nil {
		return nil, fmt.Errorf("open tap: %w", err)
	}
	p := &Port{name: name, watcher: w, fd: -1}
	if err := within(w, func() error { return p.open(o) }); err != nil {
		p.closeFiles()
		return nil, fmt.Errorf("open tap %s: %w", name, err)
	}
	return p, nil
}

// open runs in the watcher's namespace, which the device is made in.
func (p *Port) open(o Options) error {
	var err error
	if p.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return mend(fmt.Errorf("open /dev/net/tun: %w", err))
	}
	ifr, err := unix.NewIfreq(p.name)
	if err != nil {
		return err
	}
	// water knows no IFF_VNET_HDR, without which every 64 KiB frame would be
	// cut and checksummed in the kernel before it is read here.
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(p.fd, unix.TUNSETIFF, ifr); err != nil {
		return mend(err)
	}
	if err := unix.IoctlSetPointerInt(p.fd, unix.TUNSETVNETHDRSZ, frame.VnetHdrLen); err != nil {
		return fmt.Errorf("set header size: %w", err)
	}
	p.uso = unix.IoctlSetInt(p.fd, unix.TUNSETOFFLOAD, offloadBasic|offloadUSO) == nil
	if !p.uso {
		if err := unix.IoctlSetInt(p.fd, unix.TUNSETOFFLOAD, offloadBasic); err != nil {
			return fmt.Errorf("set offloads: %w", err)
		}
	}
	if err := configure(p.watcher, p.name, o, true); err != nil {
		return err
	}
	link, err := p.watcher.ByName(p.name)
	if err != nil {
		return err
	}
	p.queue = queue{port: p, arena: make([]byte, arenaLen)}
	if p.queue.epoll, err = sysio.NewEpoll(); err != nil {
		return err
	}
	if err := p.queue.epoll.Add(p.fd, 0); err != nil {
		return err
	}
	p.state = p.describe(link)
	return nil
}

// describe is the state of the port when its device is as link says.
func (p *Port) describe(link netdev.Link) frame.State {
	s := frame.State{
		Up: link.Up && link.Running, MAC: link.MAC, MTU: link.MTU,
		Offloads: frame.Offloads{Csum: true, TSO4: true, TSO6: true, USO: p.uso},
	}
	if !link.Up {
		s.Reason = fmt.Sprintf("%s is set down; `ip link set %s up`", link.Name, link.Name)
	} else if !link.Running {
		s.Reason = "no carrier"
	}
	return s
}

// Name is the device's name when it was opened.
func (p *Port) Name() string { return p.name }

// Start implements frame.Port.
func (p *Port) Start(notify func()) error {
	return within(p.watcher, func() error {
		link, err := p.watcher.ByName(p.name)
		if err != nil {
			return fmt.Errorf("find %s: %w", p.name, err)
		}
		index := link.Index
		p.stateMu.Lock()
		p.notify, p.state = notify, p.describe(link)
		p.stateMu.Unlock()
		p.stop = p.watcher.Follow(func(l netdev.Link, gone bool) {
			if l.Index == index {
				p.follow(l, gone)
			}
		})
		return nil
	})
}

// follow takes over what became of the device.
func (p *Port) follow(l netdev.Link, gone bool) {
	s := p.describe(l)
	if gone {
		// A deleted tap's descriptor reports an error for ever, and would keep
		// the worker awake.
		_ = p.queue.epoll.Del(p.fd)
		s.Up, s.Gone, s.Reason = false, true, "the device was deleted"
	}
	p.stateMu.Lock()
	changed := s != p.state
	p.state = s
	p.stateMu.Unlock()
	if changed {
		p.notify()
	}
}

// Queues implements frame.Port.
func (p *Port) Queues() []frame.Queue { return []frame.Queue{&p.queue} }

// Tx implements frame.Port: one write a frame, which is what a tap has.
func (p *Port) Tx(_ int, out []frame.Out) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range out {
		switch _, errno := sysio.Writev(p.fd, p.gather(&out[i])); errno {
		case 0:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			return i
		default: // EIO: the device is down; EINVAL: a header the kernel refuses; EFAULT: memory that is gone
			p.txErrors.Add(1)
		}
	}
	return len(out)
}

// gather lists the pieces of a frame as it goes on the wire, header first.
func (p *Port) gather(o *frame.Out) []unix.Iovec {
	o.WireHdr().Put(p.hdr[:])
	iov := append(p.iov[:0], sysio.Piece(p.hdr[:]))
	if o.EgressTag == 0 && o.Strip == 0 {
		iov = append(iov, sysio.Piece(o.Data))
	} else {
		iov = append(iov, sysio.Piece(o.Data[:12]))
		if o.EgressTag != 0 {
			p.tag = [4]byte{byte(o.EgressTag >> 24), byte(o.EgressTag >> 16), byte(o.EgressTag >> 8), byte(o.EgressTag)}
			iov = append(iov, sysio.Piece(p.tag[:]))
		}
		iov = append(iov, sysio.Piece(o.Data[12+o.Strip:]))
	}
	for _, r := range o.Rest {
		iov = append(iov, sysio.Piece(r))
	}
	return iov
}

// State implements frame.Port.
func (p *Port) State() frame.State {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	return p.state
}

// Counters implements frame.Port.
func (p *Port) Counters() frame.Counters {
	return frame.Counters{RxErrors: p.rxErrors.Load(), TxErrors: p.txErrors.Load()}
}

// Close implements frame.Port. The device goes with it, unless it was
// persistent.
func (p *Port) Close() error {
	p.watcher.Do(func() {
		if p.stop != nil {
			p.stop()
		}
	})
	return p.closeFiles()
}

func (p *Port) closeFiles() (err error) {
	if p.queue.epoll != nil {
		err = p.queue.epoll.Close()
	}
	if p.fd >= 0 {
		err = errors.Join(err, unix.Close(p.fd))
	}
	return err
}
