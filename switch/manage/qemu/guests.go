package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/digitalocean/go-qemu/qmp/raw"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// Guests are the machines with network devices that a switch plugged in over
// QMP. It keeps a monitor open to each of them and follows what they do: an
// address that a guest sets is made known at once, a guest that shuts down
// takes its ports' links down, and a device or a QEMU that goes away takes its
// ports along.
type Guests struct {
	ports     Ports
	cfg       GuestsConfig
	openVHost func(n int) ([]*os.File, error)
	setLink   func(tap string, up bool) error

	mu      sync.Mutex
	guests  map[string]*guest        // by path of the monitor socket
	dialing map[string]chan struct{} // closed when the attempt to connect is over
	closed  bool
}

// GuestsConfig is what Guests may use of the switch beyond its ports. All of it
// may be nil.
type GuestsConfig struct {
	MTU func() int // of new taps; 0 leaves the kernel's 1500
	// Learn is told an address that a guest's driver has set, before any frame
	// comes from it.
	Learn func(port string, mac frame.MAC)
	Log   *slog.Logger
}

// NewGuests has no guests yet.
func NewGuests(ports Ports, cfg GuestsConfig) *Guests {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	openVHost := func(n int) ([]*os.File, error) { return openVHosts(vhostPath, n) }
	return &Guests{ports: ports, cfg: cfg, openVHost: openVHost, setLink: setLink,
		guests: map[string]*guest{}, dialing: map[string]chan struct{}{}}
}

// guest is one machine.
type guest struct {
	mon        *Monitor
	name, uuid string
	ended      chan struct{} // closed when follow has tidied up

	change sync.Mutex // one attachment at a time
	mu     sync.Mutex // guards nics
	nics   []*plugged
}

// plugged is a device in a guest. refused carries what the guest says when it
// will not let go of it.
type plugged struct {
	NIC
	deleted chan struct{}
	refused chan string
}

// GuestNIC is one device of one guest, as `vm list` shows it. Of one that was not
// plugged in by the switch it is not known what QEMU knows: monitor, version, the
// device's id, model and address are empty.
type GuestNIC struct {
	Guest string `json:"name"` // QEMU's -name; may be empty
	UUID  string `json:"uuid"`
	PID   int    `json:"pid,omitempty"` // of QEMU, if the device was not plugged in by the switch
	QMP   string `json:"qmp"`
	QEMU  string `json:"qemu"` // version
	NIC
	GuestMACs []string `json:"guest_macs"` // what the guest's driver listens to
}

// ErrNotAttached is returned for a guest or device that Guests does not know.
var ErrNotAttached = errors.New("not attached by this switch")

// Attach plugs a device into the machine whose monitor is at o.QMP. When it
// fails nothing is left: no tap, no port, no descriptor in QEMU or here.
func (g *Guests) Attach(ctx context.Context, o AttachOptions) (*NIC, error) {
	if err := o.Complete(); err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	vm, err := g.guest(ctx, o.QMP)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	defer vm.change.Unlock()
	defer vm.releaseIfUnused()
	var taken map[string]bool // nil if the id is the caller's choice
	if o.ID == "" {
		taken = vm.devices()
	}
	for {
		if taken != nil {
			o.ID = freeID(taken)
		}
		n, err := g.attach(ctx, vm, o)
		if err == nil {
			return n, nil
		}
		// A backend whose device has gone can't be asked for: QEMU only says so
		// when its id is to be used again.
		var refusal *CommandError
		if taken == nil || len(taken) > maxTaken || !errors.As(err, &refusal) ||
			refusal.Command != "netdev_add" || !strings.Contains(refusal.Desc, "Duplicate ID") {
			return nil, fmt.Errorf("attach %s: %w", o.ID, err)
		}
		taken[o.ID] = true
	}
}

// maxTaken is more devices than a machine has room for.
const maxTaken = 256

func (g *Guests) attach(ctx context.Context, vm *guest, o AttachOptions) (*NIC, error) {
	mtu := 0
	if g.cfg.MTU != nil {
		mtu = g.cfg.MTU()
	}
	n, err := plug(ctx, vm.mon, g.ports, o, mtu, g.openVHost)
	if err != nil {
		return nil, err
	}
	vm.mu.Lock()
	vm.nics = append(vm.nics, &plugged{NIC: *n, deleted: make(chan struct{}), refused: make(chan string, 1)})
	vm.mu.Unlock()
	g.cfg.Log.Info("guest attached", "vm", vm.name, "id", n.ID, "port", n.Port, "mac", n.MAC, "vhost", n.VHost)
	g.learn(vm, n.ID)
	select {
	case <-vm.mon.Done(): // QEMU has ended, and follow may have looked too early
		g.drop(vm, n.ID)
		return nil, vm.mon.err
	default:
	}
	return n, nil
}

// guest returns the machine with that monitor, with its change locked, and
// connects to it if need be.
func (g *Guests) guest(ctx context.Context, path string) (*guest, error) {
	for {
		vm, err := g.known(ctx, path)
		if err != nil {
			return nil, err
		}
		vm.change.Lock()
		select {
		case <-vm.mon.Done(): // it went while we waited: look again
			vm.change.Unlock()
			<-vm.ended
		default:
			return vm, nil
		}
	}
}

// known returns the machine with that monitor, and connects to it if nobody has
// yet.
func (g *Guests) known(ctx context.Context, path string) (*guest, error) {
	for {
		g.mu.Lock()
		vm, dialing := g.guests[path], g.dialing[path]
		switch {
		case g.closed:
			g.mu.Unlock()
			return nil, errors.New("the switch is stopping")
		case vm != nil:
			g.mu.Unlock()
			return vm, nil
		case dialing == nil:
			dialing = make(chan struct{})
			g.dialing[path] = dialing
			g.mu.Unlock()
			return g.meet(ctx, path, dialing)
		}
		g.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// meet connects to a machine, for all who wait on dialing.
func (g *Guests) meet(ctx context.Context, path string, dialing chan struct{}) (*guest, error) {
	m, err := Dial(ctx, path)
	var vm *guest
	if err == nil {
		vm = &guest{mon: m, ended: make(chan struct{})}
		api := raw.NewMonitor(m)
		if name, err := api.QueryName(); err == nil && name.Name != nil {
			vm.name = *name.Name
		}
		if id, err := api.QueryUUID(); err == nil {
			vm.uuid = id.UUID
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.dialing, path)
	close(dialing)
	if err != nil {
		return nil, err
	}
	if g.closed {
		m.Disconnect()
		return nil, errors.New("the switch is stopping")
	}
	g.guests[path] = vm
	go g.follow(vm)
	return vm, nil
}

// releaseIfUnused leaves the monitor to others when no device of ours is left;
// follow does the rest. vm.change must be locked.
func (vm *guest) releaseIfUnused() {
	if len(vm.all()) == 0 {
		vm.mon.Disconnect()
	}
}

// devices are the ids that the machine's devices have, ours and others': those
// it was started with, and those of a switch that ran before.
func (vm *guest) devices() map[string]bool {
	taken := map[string]bool{}
	for _, n := range vm.all() {
		taken[n.ID] = true
	}
	var list []struct {
		Name string `json:"name"`
	}
	// A QEMU that does not say refuses an id that is taken.
	_ = vm.mon.Do("qom-list", map[string]string{"path": "/machine/peripheral"}, &list)
	for _, d := range list {
		taken[d.Name] = true
	}
	return taken
}

func freeID(taken map[string]bool) string {
	for i := 1; ; i++ {
		if id := fmt.Sprintf("net%d", i); !taken[id] {
			return id
		}
	}
}

func (vm *guest) find(id string) *plugged {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	for _, n := range vm.nics {
		if n.ID == id {
			return n
		}
	}
	return nil
}

func (vm *guest) all() []*plugged {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return slices.Clone(vm.nics)
}

// List shows every device of every guest, sorted by socket and id.
func (g *Guests) List() []GuestNIC {
	g.mu.Lock()
	vms := make([]*guest, 0, len(g.guests))
	for _, vm := range g.guests {
		vms = append(vms, vm)
	}
	g.mu.Unlock()
	slices.SortFunc(vms, func(a, b *guest) int { return strings.Compare(a.mon.path, b.mon.path) })
	list := []GuestNIC{}
	for _, vm := range vms {
		nics := vm.all()
		slices.SortFunc(nics, func(a, b *plugged) int { return strings.Compare(a.ID, b.ID) })
		for _, n := range nics {
			list = append(list, GuestNIC{Guest: vm.name, UUID: vm.uuid, QMP: vm.mon.path, QEMU: vm.mon.version.String(),
				NIC: n.NIC, GuestMACs: vm.listensTo(n.ID)})
		}
	}
	return list
}

// listensTo asks for the addresses that a guest's driver has set. Devices other
// than virtio-net do not say.
func (vm *guest) listensTo(id string) []string {
	macs := []string{}
	filters, err := raw.NewMonitor(vm.mon).QueryRxFilter(&id)
	if err != nil {
		return macs
	}
	for _, f := range filters {
		macs = append(macs, f.MainMac)
		macs = append(macs, f.UnicastTable...)
	}
	return macs
}

// learn tells the switch a device's addresses.
func (g *Guests) learn(vm *guest, id string) {
	n := vm.find(id)
	if n == nil || g.cfg.Learn == nil {
		return
	}
	for _, s := range vm.listensTo(id) {
		if mac, err := frame.ParseMAC(s); err == nil && mac.IsUnicast() {
			g.cfg.Learn(n.Port, mac)
		}
	}
}

// Close lets go of every guest. Their devices stay plugged in and their taps
// alive: `kvswitch ifup` attaches such a tap to a switch again. The ports are the
// switch's own to close.
func (g *Guests) Close() {
	g.mu.Lock()
	g.closed = true
	vms := make([]*guest, 0, len(g.guests))
	for _, vm := range g.guests {
		vms = append(vms, vm)
	}
	g.mu.Unlock()
	for _, vm := range vms {
		vm.mu.Lock()
		vm.nics = nil
		vm.mu.Unlock()
		vm.mon.Disconnect()
		<-vm.ended
	}
}
