package vhostuser

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sockfile"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// Mode says who connects to whom.
type Mode uint8

const (
	// Server: the port listens, the front end connects, and may do so again.
	Server Mode = iota
	// Client: the port connects, again and again, to a front end that listens.
	// It outlives a restart of the switch: QEMU with server=on,wait=off.
	Client
)

// String is the word for it in a port's SPEC.
func (m Mode) String() string {
	if m == Client {
		return "client"
	}
	return "server"
}

// MaxQueuePairs is the most queue pairs of a port: a ring's number must fit into
// the eight bits that KICK and CALL have for it.
const MaxQueuePairs = 128

// DefaultReconnect is the time between two attempts of a Client.
const DefaultReconnect = time.Second

// maxPath is the longest path of a Unix socket, without its final zero.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// Options of a port. Only Path is required.
type Options struct {
	Path       string // of the Unix socket
	Mode       Mode
	QueuePairs int // 1 to MaxQueuePairs; 0 is 1
	MTU        int // bytes: the largest that a front end may set, and what State says until it does; 0: no limit

	// Server: the socket file's permissions, 0660 if 0, and its owner and group,
	// which 0 leaves as they are.
	Perm     fs.FileMode
	UID, GID int

	// Client: the time between two attempts, DefaultReconnect if 0.
	Reconnect time.Duration
}

func (o *Options) check() error {
	if o.QueuePairs == 0 {
		o.QueuePairs = 1
	}
	if o.Perm == 0 {
		o.Perm = 0o660
	}
	if o.Reconnect == 0 {
		o.Reconnect = DefaultReconnect
	}
	switch {
	case o.Path == "":
		return errors.New("no socket path")
	case len(o.Path) > maxPath:
		return fmt.Errorf("socket path %s: longer than %d bytes", o.Path, maxPath)
	case o.Mode > Client:
		return fmt.Errorf("mode %d: want server or client", o.Mode)
	case o.QueuePairs < 1 || o.QueuePairs > MaxQueuePairs:
		return fmt.Errorf("%d queue pairs: want 1 to %d", o.QueuePairs, MaxQueuePairs)
	case o.MTU != 0 && (o.MTU < leastMTU || o.MTU > frame.MaxMTU):
		return fmt.Errorf("MTU %d: want %d to %d", o.MTU, leastMTU, frame.MaxMTU)
	case o.Perm&^0o777 != 0:
		return fmt.Errorf("socket permissions %o: want 0 to 777", o.Perm)
	case o.Reconnect < 0:
		return fmt.Errorf("reconnect after %v: want more than 0", o.Reconnect)
	}
	return nil
}

// file is the socket file's mode and owner.
func (o *Options) file() sockfile.Options {
	f := sockfile.Options{Perm: uint32(o.Perm)}
	if o.UID > 0 {
		f.Owner = strconv.Itoa(o.UID)
	}
	if o.GID > 0 {
		f.Owner += ":" + strconv.Itoa(o.GID)
	}
	return f
}

// Port is a vhost-user back end.
type Port struct {
	opts   Options
	queues []*queue // what guests send with: rings 1, 3, …
	sinks  []*ring  // what they receive with: rings 0, 2, …

	egress    atomic.Pointer[[]*ring] // sinks in use; nil if none
	steer     *steering               // nil: there is one pair
	state     atomic.Pointer[frame.State]
	taken     atomic.Bool   // the switch takes the port for up
	settling  atomic.Bool   // it is, or may be in a moment; stored with mu held
	attention chan struct{} // a worker found a ring broken
	done      chan struct{} // closed by Close
	running   sync.WaitGroup
	listen    *net.UnixListener // Server
	file      *sockfile.File    // Server: the socket's

	mu       sync.Mutex // the control side's; no worker takes it
	notify   func()
	closed   bool
	alarm    sysio.Signal
	dev      *device // of the connection; nil if there is none
	conn     *net.UnixConn
	peer     *unix.Ucred
	gone     chan struct{} // closed when conn's end is over
	ended    error         // why the last connection ended
	refused  atomic.Pointer[refusals]
	sessions uint64
}

var (
	_ frame.Port     = (*Port)(nil)
	_ frame.Detailer = (*Port)(nil)
	_ frame.Warner   = (*Port)(nil)
	_ frame.Waiter   = (*Port)(nil)
	_ frame.Ringer   = (*Port)(nil)
	_ frame.Refuser  = (*Port)(nil)
	_ frame.Queue    = (*queue)(nil)
	_ frame.Faulter  = (*queue)(nil)
)

// Open makes a port. In Server mode the socket is there, and front ends can
// connect to it, when Open returns; they are served from Start on.
func Open(o Options) (*Port, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open vhost-user port: %w", err)
	}
	p, err := newPort(o)
	if err != nil {
		return nil, fmt.Errorf("open vhost-user port: %w", err)
	}
	if o.Mode == Server {
		if p.listen, p.file, err = sockfile.Listen("unix", o.Path, o.file()); err != nil {
			if bind := (*os.SyscallError)(nil); errors.As(err, &bind) && bind.Syscall == "bind" {
				err = fmt.Errorf("bind socket to %s: %w", o.Path, bind.Err)
			}
			p.free()
			return nil, fmt.Errorf("open vhost-user port: %w", err)
		}
	}
	p.update()
	return p, nil
}

// piecesPerBatch is how many buffers beyond the first of each chain a batch
// holds; as many as one message to the kernel may have (UIO_MAXIOV).
const piecesPerBatch = 1024

func newPort(o Options) (*Port, error) {
	sysio.PrepareSignals() // if it fails, signals are writes: see Warnings
	p := &Port{opts: o, attention: make(chan struct{}, 1), done: make(chan struct{}), notify: func() {}}
	p.refused.Store(new(refusals))
	p.state.Store(new(frame.State))
	if o.QueuePairs > 1 {
		p.steer = new(steering)
	}
	for i := range o.QueuePairs {
		batch := virtq.NewBatch(frame.BatchSize, piecesPerBatch)
		p.sinks = append(p.sinks, &ring{port: p, index: 2 * i, batch: batch})
		batch = virtq.NewBatch(frame.BatchSize, piecesPerBatch)
		q := &queue{ring: ring{port: p, index: 2*i + 1, batch: batch}}
		var err error
		if q.bell, err = newBell(); err != nil {
			p.free()
			return nil, err
		}
		p.queues = append(p.queues, q)
	}
	return p, nil
}

// free closes what newPort opened.
func (p *Port) free() {
	for _, q := range p.queues {
		q.bell.close()
	}
}

// ring is ring i as the protocol counts: the guest receives with 0 and sends with
// 1, and so on for the next pair.
func (p *Port) ring(i int) *ring {
	if i%2 == 0 {
		return p.sinks[i/2]
	}
	return &p.queues[i/2].ring
}

// setKick makes fd the descriptor that ring i's worker sleeps on.
func (p *Port) setKick(i, fd int) error {
	if i%2 == 0 {
		return nil // what the guest receives with is looked at when there is something to send
	}
	return p.queues[i/2].bell.setKick(fd)
}

// Start implements frame.Port.
func (p *Port) Start(notify func()) error {
	p.mu.Lock()
	p.notify = notify
	p.mu.Unlock()
	p.running.Go(p.attendBroken)
	if p.opts.Mode == Client {
		p.running.Go(p.connect)
	} else {
		p.running.Go(p.accept)
	}
	return nil
}

// Queues implements frame.Port.
func (p *Port) Queues() []frame.Queue {
	list := make([]frame.Queue, len(p.queues))
	for i, q := range p.queues {
		list[i] = q
	}
	return list
}

// Close implements frame.Port.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.done)
	if p.conn != nil {
		p.conn.Close()
	}
	p.mu.Unlock()
	var err error
	if p.listen != nil {
		err = p.listen.Close()
		p.file.Remove()
	}
	p.running.Wait()
	p.free()
	return err
}

// State implements frame.Port.
func (p *Port) State() frame.State { return *p.state.Load() }

// Acted implements frame.Waiter. A guest may send as soon as its rings run; until
// the switch has acted on that, its frames stay in the ring.
func (p *Port) Acted(on frame.State) { p.taken.Store(on.Up) }

// early reports that what a guest sends now would only be dropped.
func (p *Port) early() bool { return !p.taken.Load() && p.settling.Load() }

// Counters implements frame.Port.
func (p *Port) Counters() (c frame.Counters) {
	for i := range p.queues {
		c.RxErrors += p.queues[i].errors.Load()
		c.TxErrors += p.sinks[i].errors.Load()
	}
	return c
}
