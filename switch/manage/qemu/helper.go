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
// ports of the switch, so many to each user. A tap's port goes when nobody holds
// the tap any more, and the tap with it when its holder does more than hold it.
type Helper struct {
	cfg    HelperConfig
	listen *net.UnixListener
	file   *sockfile.File
	slots  chan struct{} // one for each request under way
	peers  *peers
	unwind func() // stops following the taps
	work   sync.WaitGroup

	mu    sync.Mutex
	loans map[int]*loan  // by interface index
	taps  map[uint32]int // how many each user has, those in the making among them
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

// maxRequests is how many taps may be in the making at once. The next ones wait;
// users who may not have one never get this far.
const maxRequests = 8

// ListenHelper starts to serve. Close ends it.
func ListenHelper(cfg HelperConfig) (*Helper, error) {
	if cfg.ACL == nil {
		cfg.ACL = ACLFiles()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Helper{cfg: cfg, slots: make(chan struct{}, maxRequests), peers: newPeers(), loans: map[int]*loan{}, taps: map[uint32]int{}}
	var err error
	if h.listen, h.file, err = sockfile.Listen("unixpacket", cfg.Path, sockfile.Options{Perm: 0o666}); err != nil {
		return nil, fmt.Errorf("listen for bridge helpers: %w", err)
	}
	if !cfg.Links.Do(func() { h.unwind = cfg.Links.Follow(h.linkChanged) }) {
		h.listen.Close()
		h.file.Remove()
		return nil, fmt.Errorf("listen for bridge helpers: %w", errStopping)
	}
	h.work.Go(h.serve)
	return h, nil
}

// errBusy is the answer to whoever has no place.
var errBusy = errors.New("too many requests at once: try again")

// errStopping is the answer to whoever asks while the switch stops.
var errStopping = errors.New("the switch is stopping")

// Close stops serving, ends requests under way and waits for them. Taps given out
// stay, and so do their ports, which are the switch's to close. A second Close
// does nothing.
func (h *Helper) Close() error {
	err := h.listen.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	h.file.Remove()
	h.peers.close()
	h.cfg.Links.Do(func() { h.unwind() })
	h.work.Wait()
	return err
}

// serve accepts, and does nothing else: whatever may take its time, or another's,
// is done beside it. (What it tells those whom it turns away finds room in an
// empty socket.)
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
		p, uid, err := h.peers.enter(c)
		switch {
		case err != nil:
			h.cfg.Log.Warn("bridge helper is not served", "error", fmt.Errorf("ask who is there: %w", err))
			c.Close()
		case p == nil:
			h.cfg.Log.Warn("bridge helper is turned away", "uid", uid, "error", errBusy)
			refuse(c, errBusy)
			c.Close()
		default:
			h.work.Go(func() {
				defer h.peers.leave(p)
				h.meet(p)
			})
		}
	}
}

// meet gives a peer what it asks for or says why not.
func (h *Helper) meet(p *peer) {
	// Who may not have a tap is told so before anything is read, and so takes no
	// place from those who may.
	h.peers.judge(p)
	limit, err := h.admit(p)
	if err == nil {
		h.peers.acquit(p)
		if err = h.serveOne(p, limit); err == nil {
			return
		}
		h.peers.accuse(p)
	}
	h.cfg.Log.Warn("bridge helper is refused", "uid", p.uid, "pid", p.pid, "error", err)
	refuse(p.UnixConn, err)
	h.peers.pause(p)
}

// serveOne answers when there is room.
func (h *Helper) serveOne(p *peer, limit int) error {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-h.peers.closed:
		return errStopping
	}
	p.SetDeadline(time.Now().Add(requestTimeout))
	return h.answer(p, limit)
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
	c.CloseWrite() // nothing else comes, though the place is kept for a while
}

// admit checks the peer against the list and returns how many taps it may have.
func (h *Helper) admit(p *peer) (limit int, err error) {
	rules, err := readACL(h.cfg.ACL, lookUpUser(p.uid, p.gid))
	if err == nil && !rules.permits(h.cfg.Switch) {
		err = errDenied
	}
	return rules.limit, err
}

// answer reads a request and passes a tap. When that fails nothing is left.
func (h *Helper) answer(p *peer, limit int) error {
	b := make([]byte, bridgehelper.MaxRequest+1)
	n, err := p.Read(b)
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
	if err := h.reserve(p.uid, limit); err != nil {
		return err
	}
	tap, err := h.give(p, a.UseVNet)
	if err != nil {
		h.unreserve(p.uid)
		return err
	}
	h.cfg.Log.Info("bridge helper was given a tap", "port", tap, "uid", p.uid)
	return nil
}

// give makes a tap, attaches it and passes it.
func (h *Helper) give(p *peer, vnet bool) (name string, err error) {
	tap, err := makeTap(1, vnet)
	if err != nil {
		return "", err
	}
	defer tap.close()
	mtu := 0
	if h.cfg.MTU != nil {
		mtu = h.cfg.MTU()
	}
	if err := tap.configure(mtu); err != nil {
		return "", err
	}
	l := h.lend(tap, p.uid)
	// The port comes before the link: once that is up, the host's own stack
	// would speak on the tap until the port shields it.
	if err := h.cfg.Ports.AddPort(config.Spec{Kind: config.NetdevKind, Name: tap.name}); err != nil {
		h.forget(l)
		return "", err
	}
	err = setLink(tap.name, true)
	if err == nil {
		err = h.awaitSeen(l)
	}
	if err == nil {
		err = h.pass(p.UnixConn, tap)
	}
	if err != nil {
		h.forget(l)
		return "", errors.Join(err, h.cfg.Ports.DelPort(tap.name))
	}
	return tap.name, nil
}

// reserve takes a place in a user's quota. It is given back when the tap has come
// to nothing, or to its end.
func (h *Helper) reserve(uid uint32, limit int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.taps[uid]; uid != 0 && n >= limit {
		return fmt.Errorf("user %d has %d taps and may have %d: end a machine, or write a line such as \"limit %d\" into the acl file", uid, n, limit, 2*max(limit, 1))
	}
	h.taps[uid]++
	return nil
}

func (h *Helper) unreserve(uid uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	drop(h.taps, uid)
}

func (h *Helper) pass(c *net.UnixConn, tap *tapDevice) error {
	rights := unix.UnixRights(int(tap.queues[0].Fd()))
	if _, _, err := c.WriteMsgUnix(bridgehelper.AppendDone(nil, tap.name), rights, nil); err != nil {
		return fmt.Errorf("pass tap %s to the helper: %w", tap.name, err)
	}
	return nil
}
