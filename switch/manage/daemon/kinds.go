package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/putback"
	"github.com/kvswitch/kvswitch/switch/inkernel"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/port/netdev"
	"github.com/kvswitch/kvswitch/switch/port/sock"
)

// opener opens ports of every kind: the one place where kinds are known. Its
// methods may be called from any goroutine.
type opener struct {
	watcher *link.Watcher  // of the network namespace that the program started in
	tier    *inkernel.Tier // nil: ports leave every frame to the workers
	keep    *putback.Store // what devices were like; nil: nobody remembers
	host    hostInterface  // set before it is opened
	tapMTU  int            // of new taps; set before ports are opened from several goroutines
}

func newOpener(runDir string) (*opener, error) {
	w, err := link.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &opener{watcher: w, keep: putback.New(filepath.Join(runDir, "devices"))}, nil
}

// putBack puts back what a switch that was killed has changed about devices that
// nobody has as a port.
func (o *opener) putBack(log *slog.Logger) {
	for _, line := range netdev.PutBack(o.watcher, o.keep) {
		log.Info(line)
	}
}

func (o *opener) close() {
	o.watcher.Close()
	if o.tier != nil {
		o.tier.Close()
	}
}

// Open is config.Opener's.
func (o *opener) Open(s config.Spec) (frame.Port, error) { return o.kinds().Open(s) }

// Kinds are the kinds of ports, for those who parse SPECs or write help: none of
// them opens anything without a daemon.
func Kinds() config.Kinds {
	ks := new(opener).kinds()
	for i := range ks {
		ks[i].Open = nil
	}
	return ks
}

// kinds are the kinds of ports, with o's functions to open them.
func (o *opener) kinds() config.Kinds {
	return config.Kinds{
		{Name: config.NetdevKind, Netdev: true, Alt: true, Keys: []string{"queues", "cut-off"}, Check: checkNetdev, Open: o.openNetdev,
			Usage: "a network interface, by its name or an altname: a NIC, a veth, the tap of a VM; queues=N receive queues, cut-off=on if VLANs and macvlans on it may go deaf"},
		{Name: config.TapKind, Netdev: true, Keys: []string{"queues", "owner"}, Check: checkTap, Open: o.openTap,
			Usage: "a tap that the switch makes for a VM (-netdev tap,id=n0,ifname=NAME,script=no,downscript=no); queues=N for a multi-queue guest, owner=USER[:GROUP] who may open it"},
		{Name: "vhost-user", Keys: vhostUserKeys, Check: checkVHostUser, Open: openVHostUser,
			Usage: "a guest's rings, directly: path=SOCKET, mode=server|client, queues=N, mtu=N, perm=, owner=USER[:GROUP], reconnect="},
		{Name: "stream", Keys: sock.StreamKeys(), Check: checkStream, Open: openStream,
			Usage: "QEMU's -netdev stream: path=SOCKET or addr=HOST:PORT, mode=server|client"},
		{Name: "dgram", Keys: sock.DgramKeys(), Check: checkDgram, Open: openDgram,
			Usage: "QEMU's -netdev dgram: local= and remote=, socket paths or HOST:PORT"},
	}
}

// queuesOf reads the key queues; 1 if it was not given.
func queuesOf(s config.Spec, most int) (int, error) {
	v := s.Value("queues")
	if v == "" {
		return 1, nil
	}
	n, err := config.Number(v, 1, most)
	if err != nil {
		return 0, fmt.Errorf("open port %s: queues=%s: %w", s.Name, v, err)
	}
	return n, nil
}

func (o *opener) openNetdev(s config.Spec) (frame.Port, error) {
	n, err := queuesOf(s, netdev.MaxQueues)
	if err != nil {
		return nil, err
	}
	opts := netdev.Options{Watcher: o.watcher, Keep: o.keep, Queues: n, Tier: o.tier}
	if v := s.Value("cut-off"); v != "" {
		if opts.CutOff, err = config.Flag(v); err != nil {
			return nil, fmt.Errorf("open port %s: cut-off=%s: %w", s.Name, v, err)
		}
	}
	return netdev.Open(s.Name, opts)
}

// link is what the kernel says of an interface now.
func (o *opener) link(name string) (l link.Link, err error) {
	if !o.watcher.Do(func() { l, err = o.watcher.ByName(name) }) {
		return l, errors.New("the switch is stopping")
	}
	return l, err
}

func checkNetdev(s config.Spec) error {
	_, err := queuesOf(s, netdev.MaxQueues)
	return err
}

func streamOptions(s config.Spec) (opts sock.StreamOptions, err error) {
	for _, w := range s.Device {
		if err := opts.Set(w.Key, w.Value); err != nil {
			return opts, fmt.Errorf("open port %s: %w", s.Name, err)
		}
	}
	if err := opts.Check(); err != nil {
		return opts, fmt.Errorf("open port %s: %w", s.Name, err)
	}
	return opts, nil
}

func checkStream(s config.Spec) error {
	_, err := streamOptions(s)
	return err
}

func openStream(s config.Spec) (frame.Port, error) {
	opts, err := streamOptions(s)
	if err != nil {
		return nil, err
	}
	p, err := sock.OpenStream(opts)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", s.Name, err)
	}
	return p, nil
}

func dgramOptions(s config.Spec) (opts sock.DgramOptions, err error) {
	for _, w := range s.Device {
		if err := opts.Set(w.Key, w.Value); err != nil {
			return opts, fmt.Errorf("open port %s: %w", s.Name, err)
		}
	}
	if err := opts.Check(); err != nil {
		return opts, fmt.Errorf("open port %s: %w", s.Name, err)
	}
	return opts, nil
}

func checkDgram(s config.Spec) error {
	_, err := dgramOptions(s)
	return err
}

func openDgram(s config.Spec) (frame.Port, error) {
	opts, err := dgramOptions(s)
	if err != nil {
		return nil, err
	}
	p, err := sock.OpenDgram(opts)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", s.Name, err)
	}
	return p, nil
}
