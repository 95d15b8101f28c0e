package qemu

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/sockfile"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/qemu/bridgehelper"
)

// Helper is the switch's side of the bridge helper: it listens on a socket that
// every user may connect to, asks the kernel who is there (SO_PEERCRED), looks
// the user's rights up in the access control list, and gives out taps that are
// ports of the switch. A tap's port goes when nobody holds the tap any more.
type Helper struct {
	cfg    HelperConfig
	listen *net.UnixListener
	file   *sockfile.File
	slots  chan struct{} // one for each request under way
	unwind func()        // stops following the taps
	work   sync.WaitGroup

	mu    sync.Mutex
	loans map[int]*loan // by interface index
}

// HelperConfig is what a Helper needs of its switch.
type HelperConfig struct {
	Path   string        // of the socket, see bridgehelper.SocketPath
	Switch string        // its name, as QEMU's br= and the list have it
	ACL    []string      // files, nil is ACLFiles()
	MTU    func() int    // of new taps; nil or 0 leaves the kernel's 1500
	Ports  Ports         // where the taps become ports
	Links  *link.Watcher // of the namespace that the process is in
	Log    *slog.Logger  // nil is silence
}

// requestTimeout is how long a peer may take to send its request and to make
// room for the answer: a helper does both at once.
const requestTimeout = 2 * time.Second

// maxRequests is how many taps may be in the making at once. The next ones wait
// in the listen queue; users who may not have one never get this far.
const maxRequests = 8

// ListenHelper starts to serve. Close ends it.
func ListenHelper(cfg HelperConfig) (*Helper, error) {
	if cfg.ACL == nil {
		cfg.ACL = ACLFiles()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Helper{cfg: cfg, slots: make(chan struct{}, maxRequests), loans: map[int]*loan{}}
	var err error
	if h.listen, h.file, err = sockfile.Listen("unixpacket", cfg.Path, sockfile.Options{Perm: 0o666}); err != nil {
		return nil, fmt.Errorf("listen for bridge helpers: %w", err)
	}
	if !cfg.Links.Do(func() { h.unwind = cfg.Links.Follow(h.linkChanged) }) {
		h.listen.Close()
		h.file.Remove()
		return nil, errors.New("listen for bridge helpers: the switch is stopping")
	}
	h.work.Go(h.serve)
	return h, nil
}

// Close stops serving and waits for requests under way. Taps given out stay, and
// so do their ports, which are the switch's to close. A second Close does
// nothing.
func (h *Helper) Close() error {
	err := h.listen.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	h.file.Remove()
	h.cfg.Links.Do(func() { h.unwind() })
	h.work.Wait()
	return err
}

func (h *Helper) serve() {
	for {
		c, err := h.listen.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: wait for some to be closed.
			h.cfg.Log.Warn("bridge helper is not served", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		// Who may not have a tap is told so before anything is read, and so
		// takes no place from those who may.
		if err := h.admit(c); err != nil {
			refuse(c, err)
			c.Close()
			continue
		}
		h.slots <- struct{}{}
		h.work.Go(func() {
			defer func() { <-h.slots }()
			defer c.Close()
			c.SetDeadline(time.Now().Add(requestTimeout))
			if err := h.answer(c); err != nil {
				h.cfg.Log.Warn("bridge helper is refused", "error", err)
				refuse(c, err)
			}
		})
	}
}

// refuse tells the peer why. Closing a unix socket with something left to read
// makes the other end's next read fail, so that is taken away first, and the
// peer kept from sending more.
func refuse(c *net.UnixConn, why error) {
	c.CloseRead()
	if rc, err := c.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) {
			var b [1]byte
			for range 16 { // packets; a helper sends one
				if n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT); n == 0 || err != nil {
					break
				}
			}
		})
	}
	c.SetWriteDeadline(time.Now().Add(requestTimeout)) // the old one may be over
	c.Write(bridgehelper.AppendRefusal(nil, why.Error()))
}

// admit checks the peer against the list.
func (h *Helper) admit(c *net.UnixConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if cerr := rc.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("ask who is there: %w", err)
	}
	rules, err := readACL(h.cfg.ACL, lookUpUser(cred.Uid, cred.Gid))
	if err == nil && !rules.permits(h.cfg.Switch) {
		err = errDenied
	}
	if err != nil {
		h.cfg.Log.Warn("bridge helper is refused", "uid", cred.Uid, "pid", cred.Pid, "error", err)
	}
	return err
}

// answer reads a request and passes a tap. When that fails nothing is left.
func (h *Helper) answer(c *net.UnixConn) error {
	b := make([]byte, bridgehelper.MaxRequest+1)
	n, err := c.Read(b)
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	a, err := bridgehelper.ParseRequest(b[:n])
	if err != nil {
		return err
	}
	if a.Bridge != h.cfg.Switch {
		return fmt.Errorf("this is switch %s, not %s", h.cfg.Switch, a.Bridge)
	}
	tap, err := makeTap(1, a.UseVNet)
	if err != nil {
		return err
	}
	defer tap.close()
	mtu := 0
	if h.cfg.MTU != nil {
		mtu = h.cfg.MTU()
	}
	if err := tap.configure(mtu); err != nil {
		return err
	}
	// The port comes before the link: once that is up, the host's own stack
	// would speak on the tap until the port shields it.
	if err := h.cfg.Ports.AddPort(config.Spec{Kind: config.NetdevKind, Name: tap.name}); err != nil {
		return err
	}
	l := h.lend(tap)
	err = setLink(tap.name, true)
	if err == nil {
		err = l.awaitSeen()
	}
	if err == nil {
		err = h.pass(c, tap)
	}
	if err != nil {
		h.takeBack(tap)
		return errors.Join(err, h.cfg.Ports.DelPort(tap.name))
	}
	h.cfg.Log.Info("bridge helper was given a tap", "port", tap.name)
	return nil
}

// loan is a tap that is somebody else's to keep or to drop.
type loan struct {
	name string
	seen chan struct{} // closed when the Watcher has noticed the tap
}

func (h *Helper) lend(tap *tapDevice) *loan {
	l := &loan{name: tap.name, seen: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loans[tap.index] = l
	return l
}

func (h *Helper) takeBack(tap *tapDevice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.loans, tap.index)
}

// awaitSeen waits until the Watcher knows the tap: of a device that came and
// went before it looked, it would never say that it is gone.
func (l *loan) awaitSeen() error {
	select {
	case <-l.seen:
		return nil
	case <-time.After(requestTimeout):
		return fmt.Errorf("tap %s: the kernel has not announced it", l.name)
	}
}

func (h *Helper) pass(c *net.UnixConn, tap *tapDevice) error {
	rights := unix.UnixRights(int(tap.queues[0].Fd()))
	if _, _, err := c.WriteMsgUnix(bridgehelper.AppendDone(nil, tap.name), rights, nil); err != nil {
		return fmt.Errorf("pass tap %s to the helper: %w", tap.name, err)
	}
	return nil
}

// linkChanged removes the port of a tap that has vanished. It runs on the
// Watcher's goroutine, which the port's Close may need.
func (h *Helper) linkChanged(link link.Link, gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.loans[link.Index]
	if l == nil {
		return
	}
	if !gone {
		select {
		case <-l.seen:
		default:
			close(l.seen)
		}
		return
	}
	delete(h.loans, link.Index)
	h.work.Go(func() {
		if err := h.cfg.Ports.DelPort(l.name); err != nil {
			h.cfg.Log.Warn("port of a vanished tap is not removed", "port", l.name, "error", err)
			return
		}
		h.cfg.Log.Info("tap of a bridge helper is gone", "port", l.name)
	})
}
