package sock

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sockfile"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

// Dgram is a port whose frames are datagrams between two fixed addresses. It
// implements frame.Port and frame.Detailer.
type Dgram struct {
	opts   DgramOptions
	file   *sockfile.File // nil with UDP
	set    *sysio.Epoll
	rx     dgramRx
	tx     dgramTx
	count  counters
	poke   chan struct{} // run should look whether the peer is there
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned; nil before Start

	mu     sync.Mutex // guards what State shows
	notify func()
	up     bool
	reason string
}

// DgramDetail is what a Dgram shows beyond its State.
type DgramDetail struct {
	Local  string `json:"local"`
	Remote string `json:"remote"`
}

var (
	_ frame.Port     = (*Dgram)(nil)
	_ frame.Detailer = (*Dgram)(nil)
)

// sockBuf is asked for as send and receive buffer: room for some thousand
// ordinary frames. The kernel gives what net.core.{r,w}mem_max allow.
const sockBuf = 4 << 20

// OpenDgram makes the port. Its local address is bound when it returns, so that
// a guest may be started next. On error nothing is left behind.
func OpenDgram(opts DgramOptions) (_ *Dgram, err error) {
	if err := opts.Check(); err != nil {
		return nil, fmt.Errorf("open dgram port: %w", err)
	}
	p := &Dgram{opts: opts, poke: make(chan struct{}, 1), notify: func() {}}
	defer func() {
		if err != nil {
			p.free()
			err = fmt.Errorf("open dgram port: %w", err)
		}
	}()
	p.rx.fd, p.tx.fd = -1, -1
	if IsPath(opts.Local) {
		err = p.openUnix()
	} else {
		err = p.openUDP()
	}
	if err != nil {
		return nil, err
	}
	if p.set, err = sysio.NewEpoll(); err != nil {
		return nil, err
	}
	if err = p.set.Add(p.rx.fd, 0); err != nil {
		return nil, err
	}
	if err = p.rx.init(p); err != nil {
		return nil, err
	}
	p.tx.init(p)
	return p, nil
}

// openUnix receives on the bound socket and sends from another one. A connected
// unix datagram socket refuses everybody but its peer, even the same guest started
// again at the same path, until we notice that the first one is dead; an
// unconnected one would look the path up for every frame.
func (p *Dgram) openUnix() (err error) {
	if p.rx.fd, err = socket(unix.AF_UNIX); err != nil {
		return err
	}
	if p.file, err = sockfile.Bind(p.rx.fd, p.opts.Local, p.opts.File); err != nil {
		return err
	}
	if p.tx.fd, err = socket(unix.AF_UNIX); err != nil {
		return err
	}
	p.reason = "waiting for " + p.opts.Remote
	return nil
}

// openUDP uses one connected socket: the kernel drops what others send.
func (p *Dgram) openUDP() error {
	local, err := net.ResolveUDPAddr("udp", p.opts.Local)
	if err != nil {
		return err
	}
	remote, err := net.ResolveUDPAddr("udp", p.opts.Remote)
	if err != nil {
		return err
	}
	if remote.IP == nil || remote.IP.IsUnspecified() || remote.IP.IsMulticast() || remote.Port == 0 {
		return fmt.Errorf("remote %s: want the unicast address and port of one peer", p.opts.Remote)
	}
	c, err := net.DialUDP("udp", local, remote)
	if err != nil {
		return err
	}
	defer c.Close()
	p.opts.Local, p.opts.Remote = c.LocalAddr().String(), c.RemoteAddr().String()
	if p.rx.fd, err = takeFD(c); err != nil {
		return err
	}
	setBuffers(p.rx.fd)
	p.tx.fd = p.rx.fd
	p.up = true
	return nil
}

func socket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	setBuffers(fd)
	return fd, nil
}

// setBuffers asks for more; the kernel's own size will do, too.
func setBuffers(fd int) {
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, sockBuf)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sockBuf)
}

// Start begins to look for the peer.
func (p *Dgram) Start(notify func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	p.mu.Lock()
	p.notify = notify
	p.mu.Unlock()
	p.cancel, p.done = cancel, make(chan struct{})
	go p.run(ctx)
	return nil
}

// run keeps a unix socket connected to a peer that comes and goes. UDP has
// nobody to look for.
func (p *Dgram) run(ctx context.Context) {
	defer close(p.done)
	if p.file == nil {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		if err := unix.Connect(p.tx.fd, &unix.SockaddrUnix{Name: p.opts.Remote}); err != nil {
			p.show(false, fmt.Sprintf("waiting for %s: %v", p.opts.Remote, err))
			// Frames from the peer mean that it is there now.
			p.wait(ctx, reconnectPause(p.opts.Reconnect))
			continue
		}
		p.tx.connected.Store(true)
		p.show(true, "")
		for ctx.Err() == nil && p.tx.connected.Load() {
			p.wait(ctx, 0)
		}
	}
}

// wait returns after d (0 is never), or when poked or ended.
func (p *Dgram) wait(ctx context.Context, d time.Duration) {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
	case <-p.poke:
	case <-after:
	}
}

// look makes run look at once.
func (p *Dgram) look() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

func (p *Dgram) show(up bool, reason string) {
	p.mu.Lock()
	changed := p.up != up || p.reason != reason
	p.up, p.reason = up, reason
	notify := p.notify
	p.mu.Unlock()
	if changed {
		notify()
	}
}

// Queues is the one receive queue.
func (p *Dgram) Queues() []frame.Queue { return []frame.Queue{&p.rx} }

// Tx implements frame.Port. Frames that find the peer's queue full are left to
// the caller to count; what can't be sent at all is counted here.
func (p *Dgram) Tx(_ int, out []frame.Out) int { return p.tx.send(out) }

// State implements frame.Port. A unix peer is up while its socket is there; a
// UDP peer always, since nothing says otherwise.
func (p *Dgram) State() frame.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return frame.State{Up: p.up, Reason: p.reason}
}

// Counters implements frame.Port: RxErrors counts runts and datagrams longer
// than any frame.
func (p *Dgram) Counters() frame.Counters { return p.count.load() }

// Detail implements frame.Detailer.
func (p *Dgram) Detail() any { return DgramDetail{Local: p.opts.Local, Remote: p.opts.Remote} }

// Close implements frame.Port. It removes the socket file if it is still ours.
func (p *Dgram) Close() error {
	if p.cancel != nil {
		p.cancel()
		<-p.done
	}
	return p.free()
}

func (p *Dgram) free() error {
	p.file.Remove()
	if p.tx.fd >= 0 && p.tx.fd != p.rx.fd {
		unix.Close(p.tx.fd)
	}
	if p.rx.fd >= 0 {
		unix.Close(p.rx.fd)
	}
	if p.set != nil {
		p.set.Close()
	}
	return p.rx.free()
}
