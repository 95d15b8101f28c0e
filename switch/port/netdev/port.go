// Package netdev makes a port of the switch out of any Ethernet network
// device: a NIC, a veth, the tap that QEMU holds the other end of, a macvtap.
//
// Frames are copied into shared memory where they come in, by a BPF program or,
// where the kernel can't do that, by a packet socket (packet(7)), and are lent
// from there. They go out by packet sockets, with sendmmsg, from wherever they
// lie. Both ways the virtio-net header goes with
// them, so unfinished checksums stay unfinished and 64 KiB TSO frames whole. The
// host's own stack is shut out of the device while it is a port. The device may
// go down, lose carrier, be renamed, deleted and made again: the port follows.
//
// It does not learn, forward or judge frames, does not move addresses off the
// device, and retries nothing that the kernel refused.
//
// A Port's methods may be called from any goroutine, its queues' by one worker
// each. Everything else happens on the Watcher's goroutine.
package netdev

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/putback"
	"github.com/kvswitch/kvswitch/switch/inkernel"
)

// Options of a port. The zero value will do.
type Options struct {
	// Watcher tells of changes to the device; all ports of a network namespace
	// can share one. Without one the port makes its own, in the calling
	// thread's network namespace.
	Watcher *link.Watcher
	// Queues is the number of receive rings that share the device's frames,
	// flow by flow (PACKET_FANOUT_HASH), and of transmit sockets: one for each
	// worker. 0 is 1; at most MaxQueues.
	Queues int
	// RingBytes is the size of each receive ring; an intake is twice as large,
	// as it holds super-frames, too. 0 is DefaultRingBytes.
	RingBytes int
	// Up sets the device up, as QEMU's ifup script does. Otherwise the port
	// waits until somebody else does.
	Up bool
	// LeaveUp leaves it up when the port is closed, else it is set down again.
	LeaveUp bool
	// CutOff takes a device on which others stand, VLANs and macvlans, which hear
	// nothing while it is a port.
	CutOff bool
	// Keep remembers what the device was like, for who comes after a crash; see
	// PutBack. nil: it is remembered in memory only.
	Keep *putback.Store
	// Tier is the memory by which the port's program forwards by itself what it
	// can. nil leaves all to the queues.
	Tier *inkernel.Tier

	noIntake bool // tests of what older kernels get
}

const (
	// MaxQueues is the most receive rings that a port may have.
	MaxQueues = 64
	// DefaultRingBytes holds 640 frames of an Ethernet MTU, or 1024 where an
	// intake takes their place: a burst of up to a millisecond at a million
	// frames a second. A larger ring forgives longer
	// absences of the worker, but what passes through it leaves the
	// second-level cache.
	DefaultRingBytes = 1 << 20
	// MaxRingBytes keeps a slip of the pen from locking up the host's memory.
	MaxRingBytes = 256 << 20
)

// Port is a network device as a port. It implements frame.Port.
type Port struct {
	name    string
	opt     Options
	watcher *link.Watcher
	own     bool // watcher is the port's own

	queues  []*queue // the control queue, then the rings'
	lanes   []*lane
	refused atomic.Uint64
	state   atomic.Pointer[frame.State]
	view    atomic.Pointer[view]
	target  atomic.Pointer[frame.Target]
	number  atomic.Uint32 // the switch's number of the port plus one; 0 = none
	closed  atomic.Bool
	uplink  atomic.Bool
	freeing sync.WaitGroup // sockets and programs on their way out

	// Only the Watcher's goroutine uses these.
	notify   func()
	unfollow func()
	link     link.Link   // as last heard of
	unmarked uint64      // the last mark, which may still be on its way out
	at       *attachment // nil while the device is not there, or not to be had
	reason   string      // why it is nil
	wanted   int         // index of a device that is the port's and could not be had
}

// view is what the port's side has to say to others.
type view struct {
	detail   Detail
	names    []string // the device's, its own first
	warnings []string
}

// Detail is what a port has to show beyond its State.
type Detail struct {
	Interface string     `json:"interface"` // its name now
	Index     int        `json:"index"`
	Kind      string     `json:"kind"`              // "veth", "tun", …; "device" for hardware
	Receive   string     `json:"receive"`           // "bpf", or "packet-mmap" where that can't be
	NotBPF    string     `json:"not_bpf,omitempty"` // why it can't
	Rings     int        `json:"rings"`
	Slots     int        `json:"slots"`                // frames that each ring holds at most
	SlotBytes int        `json:"slot_bytes,omitempty"` // of packet-mmap: a longer frame comes as a copy
	Shield    shieldKind `json:"shield"`               // tcx, clsact or none
}

// Words of Detail.Receive.
const (
	receiveIntake = "bpf"
	receiveRing   = "packet-mmap"
)

var _ frame.Port = (*Port)(nil)
var _ frame.Redirector = (*Port)(nil)
var _ frame.Detailer = (*Port)(nil)
var _ frame.Namer = (*Port)(nil)
var _ frame.Uplinker = (*Port)(nil)

// Open makes a port of the network device that has that name, or goes by it
// (altname), and of that device it stays, whatever it is called later. It refuses a device that
// can't be one: loopback, no Ethernet, part of a kernel bridge, already a port.
// A device that is down, or has no carrier, will do.
func Open(name string, o Options) (*Port, error) {
	p, err := open(name, o)
	if err != nil {
		return nil, fmt.Errorf("open port on %s: %w", name, err)
	}
	return p, nil
}

func open(name string, o Options) (*Port, error) {
	if err := link.CheckAnyName(name); err != nil {
		return nil, err
	}
	if o.Queues == 0 {
		o.Queues = 1
	}
	if o.RingBytes == 0 {
		o.RingBytes = DefaultRingBytes
	}
	switch {
	case o.Queues < 0 || o.Queues > MaxQueues:
		return nil, fmt.Errorf("%d queues: from 1 to %d are possible", o.Queues, MaxQueues)
	case o.RingBytes < 2*blockSize || o.RingBytes > MaxRingBytes:
		return nil, fmt.Errorf("ring of %d bytes: from %d to %d are possible", o.RingBytes, 2*blockSize, MaxRingBytes)
	}
	p := &Port{name: name, opt: o, watcher: o.Watcher}
	p.state.Store(&frame.State{})
	p.view.Store(&view{})
	p.target.Store(&frame.Target{Why: errTierOff.Error()})
	for range o.Queues {
		p.lanes = append(p.lanes, &lane{fd: -1})
	}
	var err error
	for i := 0; i <= o.Queues && err == nil; i++ {
		var q *queue
		if q, err = newQueue(i > 0); err == nil {
			p.queues = append(p.queues, q)
		}
	}
	if err == nil && p.watcher == nil {
		p.own = true
		p.watcher, err = link.NewWatcher()
	}
	if err == nil {
		if !p.watcher.Do(func() { err = p.begin() }) {
			err = errors.New("the watcher of network devices is closed")
		}
	}
	if err != nil {
		var other taken
		if errors.As(err, &other) {
			err = other.holder()
		}
		p.Close()
		return nil, err
	}
	return p, nil
}

// Name is the name that the port was opened with: the device's own, or one of its
// other names. A device must go by it to be taken back after it was deleted.
func (p *Port) Name() string { return p.name }

// Names implements frame.Namer.
func (p *Port) Names() []string { return p.view.Load().names }

// Start implements frame.Port.
func (p *Port) Start(notify func()) error {
	if !p.watcher.Do(func() { p.notify = notify }) {
		return fmt.Errorf("start port on %s: the watcher of network devices is closed", p.name)
	}
	return nil
}

// Queues implements frame.Port. The first is the one for BPDUs, so that a driver
// that goes through them in order sees those first.
func (p *Port) Queues() []frame.Queue {
	qs := make([]frame.Queue, len(p.queues))
	for i, q := range p.queues {
		qs[i] = q
	}
	return qs
}

// Tx implements frame.Port.
func (p *Port) Tx(hint int, out []frame.Out) int {
	return p.lanes[uint(hint)%uint(len(p.lanes))].send(out, &p.refused)
}

// State implements frame.Port.
func (p *Port) State() frame.State { return *p.state.Load() }

// Detail implements frame.Detailer; the value is a Detail.
func (p *Port) Detail() any { return p.view.Load().detail }

// Warnings are what the operator should know: one line for each thing that could
// not be had, and what follows.
func (p *Port) Warnings() []string { return p.view.Load().warnings }

// Counters implements frame.Port.
func (p *Port) Counters() frame.Counters {
	c := frame.Counters{TxErrors: p.refused.Load()}
	for _, q := range p.queues {
		lost, bad := q.dropped()
		c.RxDropped += lost
		c.RxErrors += bad
	}
	return c
}

// Close implements frame.Port. The device is left as it was found. The Watcher
// should still be open: without it the IPv6 setting, up, and a shield by clsact
// stay, for PutBack. Only the first call does anything.
func (p *Port) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	if p.watcher != nil && !p.watcher.Do(func() {
		if p.unfollow != nil {
			p.unfollow()
		}
		p.detach()
	}) {
		p.release() // the Watcher's goroutine has ended
	}
	for _, q := range p.queues {
		p.freeing.Go(q.close)
	}
	p.freeing.Wait()
	if p.own && p.watcher != nil {
		return p.watcher.Close()
	}
	return nil
}

// offloads is what a packet socket with an offload header takes. A device that
// can't do it gets the frame finished and segmented by the kernel. Segmenting
// UDP came to the header in Linux 6.2.
var offloads = frame.Offloads{Csum: true, TSO4: true, TSO6: true, USO: kernelAtLeast(6, 2)}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if unix.Uname(&u) != nil {
		return false
	}
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
