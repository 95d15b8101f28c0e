package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/sockfile"
)

// Stream is a port whose peer is at the other end of a unix or TCP stream: each
// frame behind its length.
type Stream struct {
	opts   StreamOptions
	listen net.Listener   // nil in a client
	file   *sockfile.File // only a server with a path has one
	wake   *wake
	rx     streamRx
	tx     streamTx
	count  counters
	lost   chan string // why the connection ended; from Rx and Tx to run
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned; nil before Start

	mu     sync.Mutex // guards what State and Detail show
	notify func()
	shown  streamShown
}

type streamShown struct {
	up       bool
	reason   string // why not up
	peer     string
	connects uint64
	lastLoss string
}

// counters are frame.Counters while they are being counted.
type counters struct{ rxErrors, txErrors atomic.Uint64 }

func (c *counters) load() frame.Counters {
	return frame.Counters{RxErrors: c.rxErrors.Load(), TxErrors: c.txErrors.Load()}
}

// StreamDetail is what a Stream shows beyond its State.
type StreamDetail struct {
	Mode      string `json:"mode"` // server, client
	Address   string `json:"address"`
	Peer      string `json:"peer"`     // empty when there is none
	Connects  uint64 `json:"connects"` // connections since the port was made
	LastLoss  string `json:"last_loss,omitempty"`
	TxBacklog int    `json:"tx_backlog_bytes"` // accepted, not yet read by the kernel
}

var (
	_ frame.Port     = (*Stream)(nil)
	_ frame.Detailer = (*Stream)(nil)
	_ frame.Waiter   = (*Stream)(nil)
)

// OpenStream makes the port. A server's address is bound when it returns, so
// that a guest may be started next; a client's peer need not be there yet. On
// error nothing is left behind.
func OpenStream(opts StreamOptions) (*Stream, error) {
	if err := opts.Check(); err != nil {
		return nil, fmt.Errorf("open stream port: %w", err)
	}
	w, err := newWake()
	if err != nil {
		return nil, fmt.Errorf("open stream port: %w", err)
	}
	s := &Stream{opts: opts, wake: w, lost: make(chan string, 1), notify: func() {}}
	s.rx.init(s)
	s.tx.init(s)
	s.shown.reason = "waiting for a peer to connect"
	if !opts.Client {
		if s.listen, s.file, err = listenStream(opts); err != nil {
			w.close()
			return nil, fmt.Errorf("open stream port: %w", err)
		}
	}
	return s, nil
}

// TCP peers that vanish without a word (a host that lost power) are noticed
// within half a minute, whether the line was idle or data was under way.
const tcpDead = 30 * time.Second

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: tcpDead / 2, Interval: tcpDead / 6, Count: 3}

func tcpUserTimeout(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(tcpDead.Milliseconds()))
	}); cerr != nil {
		return cerr
	}
	return err
}

func listenStream(opts StreamOptions) (net.Listener, *sockfile.File, error) {
	if opts.Path == "" {
		lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: tcpUserTimeout}
		l, err := lc.Listen(context.Background(), "tcp", opts.Addr)
		return l, nil, err
	}
	return sockfile.Listen("unix", opts.Path, opts.File)
}

// Start begins to accept or connect.
func (s *Stream) Start(notify func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	s.mu.Lock()
	s.notify = notify
	s.mu.Unlock()
	s.cancel, s.done = cancel, make(chan struct{})
	go s.run(ctx)
	return nil
}

// run opens one connection after the other and waits for the end of each.
func (s *Stream) run(ctx context.Context) {
	defer close(s.done)
	for {
		fd, peer, err := s.connect(ctx)
		if ctx.Err() != nil {
			if err == nil {
				unix.Close(fd)
			}
			return
		}
		if err != nil {
			s.show(func(v *streamShown) { v.reason = err.Error() })
			if !sleep(ctx, reconnectPause(s.opts.Reconnect)) {
				return
			}
			continue
		}
		if err := s.attach(fd); err != nil {
			unix.Close(fd)
			s.show(func(v *streamShown) { v.reason = err.Error() })
			if !sleep(ctx, reconnectPause(s.opts.Reconnect)) {
				return
			}
			continue
		}
		s.show(func(v *streamShown) { v.up, v.reason, v.peer, v.connects = true, "", peer, v.connects+1 })
		var why string
		select {
		case why = <-s.lost:
		case <-ctx.Done():
			why = "port closed"
		}
		s.detach(fd)
		why = "peer gone: " + why
		s.show(func(v *streamShown) { v.up, v.reason, v.peer, v.lastLoss = false, why, "", why })
		if s.opts.Client && !sleep(ctx, reconnectPause(s.opts.Reconnect)) {
			return
		}
	}
}

func (s *Stream) show(change func(*streamShown)) {
	s.mu.Lock()
	before := s.shown
	change(&s.shown)
	changed, notify := s.shown != before, s.notify
	s.mu.Unlock()
	if changed {
		notify()
	}
}

// connect waits for a peer (server) or tries once to reach it (client).
func (s *Stream) connect(ctx context.Context) (fd int, peer string, err error) {
	var c net.Conn
	if s.listen != nil {
		stop := context.AfterFunc(ctx, func() { s.listen.Close() })
		c, err = s.listen.Accept()
		stop()
	} else {
		d := net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: keepAlive}
		network, addr := "unix", s.opts.Path
		if s.opts.Path == "" {
			network, addr, d.Control = "tcp", s.opts.Addr, tcpUserTimeout
		}
		c, err = d.DialContext(ctx, network, addr)
	}
	if err != nil {
		return -1, "", err
	}
	defer c.Close()
	if fd, err = takeFD(c); err != nil {
		return -1, "", err
	}
	return fd, peerName(fd, c), nil
}

// takeFD duplicates a connection's descriptor. Once the connection is closed,
// the Go runtime's poller knows the duplicate no more; it would wake up for
// every frame, too.
func takeFD(c net.Conn) (fd int, err error) {
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := rc.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); cerr != nil {
		return -1, cerr
	}
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor: %w", err)
	}
	return fd, nil
}

// peerName says who is at the other end: the process of a unix socket (see
// SO_PEERCRED in unix(7)), the address of a TCP one.
func peerName(fd int, c net.Conn) string {
	if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && cred.Pid != 0 {
		return fmt.Sprintf("pid %d uid %d", cred.Pid, cred.Uid)
	}
	return c.RemoteAddr().String()
}

// attach hands a connection to Rx and Tx.
func (s *Stream) attach(fd int) error {
	if err := s.wake.add(fd); err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	s.rx.open(fd)
	s.tx.open(fd)
	return nil
}

// detach takes it away again and closes it. When it returns neither Rx nor Tx
// uses fd, and no word about its end is left in lost.
func (s *Stream) detach(fd int) {
	s.tx.close()
	s.rx.close()
	s.wake.remove(fd)
	unix.Close(fd)
	select {
	case <-s.lost:
	default:
	}
}

// end tells run that the connection is over. Rx and Tx may both say so.
func (s *Stream) end(why string) {
	select {
	case s.lost <- why:
	default:
	}
}

// Queues is the one receive queue.
func (s *Stream) Queues() []frame.Queue { return []frame.Queue{&s.rx} }

// Tx implements frame.Port. Frames that found no room are left to the caller to
// count; a frame that is not finished or too long is counted here.
func (s *Stream) Tx(_ int, out []frame.Out) int { return s.tx.send(out) }

// State implements frame.Port.
func (s *Stream) State() frame.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return frame.State{Up: s.shown.up, Reason: s.shown.reason}
}

// Acted implements frame.Waiter: a peer that connects may send at once.
func (s *Stream) Acted(on frame.State) { s.rx.acted(on.Up) }

// Counters implements frame.Port: RxErrors counts runts and half frames,
// TxErrors frames that could not be sent or were still waiting when the peer
// went.
func (s *Stream) Counters() frame.Counters { return s.count.load() }

// Detail implements frame.Detailer.
func (s *Stream) Detail() any {
	s.mu.Lock()
	v := s.shown
	s.mu.Unlock()
	d := StreamDetail{Mode: "server", Address: s.opts.Path, Peer: v.peer, Connects: v.connects,
		LastLoss: v.lastLoss, TxBacklog: s.tx.backlog()}
	if s.opts.Client {
		d.Mode = "client"
	}
	switch {
	case s.opts.Path != "":
	case s.listen != nil:
		d.Address = s.listen.Addr().String() // with the port the kernel chose, if it did
	default:
		d.Address = s.opts.Addr
	}
	return d
}

// Close implements frame.Port. It removes the socket file if it is still ours.
func (s *Stream) Close() error {
	if s.cancel != nil {
		s.cancel()
		<-s.done
	}
	var err error
	if s.listen != nil {
		// run may have closed it already, to get out of Accept.
		if err = s.listen.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
		s.file.Remove()
	}
	s.wake.close()
	return err
}

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
