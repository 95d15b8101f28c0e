package vswitch

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/pump"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// port is an attachment as the control side keeps it. All but counters, punts
// and changed belong to it and are read and written with Switch.mu held.
type port struct {
	id                   int
	name                 string   // what it is called today; see names.go
	asked                string   // what AddPort was told
	names                []string // its device's, as last heard
	others               []string // those of them that are not name
	dev                  frame.Port
	queues               []pump.Queue
	cfg                  PortConfig
	vlan                 *VLANConfig // of cfg, never written to: views point at it
	state                frame.State // the device's, as last acted upon
	learning, forwarding bool        // what the tree allows
	guard                string      // the guard that holds the port, "" if none does
	role                 stp.Role    // as last told
	shown                stp.State   // the same

	bpduFrom frame.MAC     // source of the last BPDU that came in
	spoke    time.Duration // uptime when the last one left

	counters []relay.Counters // by worker
	punts    relay.Allowance
	troubles relay.Troubles
	told     [relay.NumTroubles]reported
	changed  atomic.Bool // the device says its state changed

	refused reported // of a frame.Refuser
}

// sums adds up the counters of a port: the workers' and the follower's.
func (s *Switch) sums(p *port) (t relay.Totals, c relay.Carried) {
	for i := range p.counters {
		p.counters[i].AddTo(&t)
	}
	if s.cfg.Follower != nil {
		c = s.cfg.Follower.Carried(p.id)
		t.RxFrames += c.RxFrames
		t.RxBytes += c.RxBytes
		t.TxFrames += c.TxFrames
		t.TxBytes += c.TxBytes
	}
	return t, c
}

// AddPort attaches dev under name, which must be unused, and starts it. The
// port is the switch's from then on: it closes it on RemovePort and when Run
// ends. On an error it is still the caller's, and nothing has changed. The
// number it returns is the lowest one free, and the STP port number.
func (s *Switch) AddPort(name string, dev frame.Port, cfg PortConfig) (int, error) {
	return s.attach(name, dev, cfg, false)
}

// SetHost attaches the host interface: the port by which the host's own IP
// stack is on the segment. It has number 0, takes no part in the spanning tree,
// always forwards, and its address is the switch's own.
func (s *Switch) SetHost(name string, dev frame.Port) error {
	_, err := s.attach(name, dev, NewPortConfig("host"), true)
	return err
}

func (s *Switch) attach(name string, dev frame.Port, cfg PortConfig, host bool) (int, error) {
	if name == "" {
		return 0, fmt.Errorf("add port: it has no name")
	}
	s.mu.Lock()
	_, err := s.place(name, host)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	p := &port{asked: name, dev: dev, cfg: cfg, vlan: &cfg.VLAN, counters: make([]relay.Counters, s.cfg.Workers)}
	// Without the lock: a device may take its time to start. What it says before the
	// port is in its place is in the state that is read below.
	if err := dev.Start(func() {
		p.changed.Store(true)
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}); err != nil {
		return 0, fmt.Errorf("add port %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.place(name, host) // somebody else may have been faster
	if err != nil {
		return 0, err
	}
	p.id = id
	if host {
		p.learning, p.forwarding = true, true
	}
	for _, q := range dev.Queues() {
		p.queues = append(p.queues, pump.NewQueue(q, uint16(id)))
	}
	p.state = dev.State()
	s.christen(p)
	p.setUplink()
	for len(s.slots) <= id {
		s.slots = append(s.slots, nil)
	}
	s.slots[id] = p
	s.table.Flush(uint16(id)) // whoever had this number before is not meant any more
	s.limit(p)
	if host {
		s.setLocal(p)
	}
	s.feed.publish(Event{Event: EventPortAdd, Port: p.name})
	s.treePort(p)
	s.settle()
	p.acted()
	s.announceLink(p)
	for _, line := range s.warnings(p) {
		s.log.Warn(line, "port", p.name)
	}
	return id, nil
}

// place is the number that a new port may have. Called with s.mu held.
func (s *Switch) place(name string, host bool) (id int, err error) {
	if s.closed {
		return 0, fmt.Errorf("add port %s: %w", name, ErrClosed)
	}
	if s.holder(name) != nil {
		return 0, fmt.Errorf("add port %s: %w", name, ErrPortExists)
	}
	if host {
		if s.slots[hostPort] != nil {
			return 0, fmt.Errorf("add host interface %s: %s is the host interface already", name, s.slots[hostPort].name)
		}
		return hostPort, nil
	}
	if id = s.freeNumber(); id >= maxPorts {
		return 0, fmt.Errorf("add port %s: %w: %d are in use", name, ErrTooMany, maxPorts-1)
	}
	return id, nil
}

// RemovePort detaches a port and closes it. Its stations are forgotten, static
// ones too. The host interface stays: nothing could bring it back while the
// switch runs.
func (s *Switch) RemovePort(name string) error {
	p, err := s.detach(name)
	if err != nil {
		return err
	}
	// Without the lock: with a port a guest's memory may go, which takes seconds.
	err = p.dev.Close()
	s.feed.publish(Event{Event: EventPortDel, Port: p.name})
	if err != nil {
		return fmt.Errorf("close port %s: %w", name, err)
	}
	return nil
}

// detach takes a port out of the switch: no worker uses it any more.
func (s *Switch) detach(name string) (*port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(name)
	if p == nil {
		return nil, s.noPort(name)
	}
	if p.id == hostPort {
		return nil, fmt.Errorf("remove port %s: %w", name, ErrHostPort)
	}
	s.slots[p.id], s.leaving = nil, p
	s.table.DropPort(uint16(p.id))
	s.treeRemove(p)
	s.settle()
	s.leaving = nil
	return p, nil
}

// PortConfig is a port's configuration; change a copy and hand it to SetPort.
func (s *Switch) PortConfig(name string) (PortConfig, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(name)
	if p == nil {
		return PortConfig{}, s.noPort(name)
	}
	return p.cfg, nil
}

// SetPort replaces a port's configuration. Kind, Spec and Uplink may differ,
// too, but change nothing about the device.
func (s *Switch) SetPort(name string, cfg PortConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(name)
	if p == nil {
		return s.noPort(name)
	}
	if s.tree != nil && p.id != hostPort {
		if err := s.tree.SetPort(uint16(p.id), s.stpPort(p, cfg)); err != nil {
			return fmt.Errorf("set port %s: %w", name, err)
		}
	}
	old := p.cfg
	p.cfg, p.vlan = cfg, &cfg.VLAN
	p.setUplink()
	s.limit(p)
	if p.id == hostPort {
		s.setLocal(p)
	}
	s.settle()
	s.notePort(p, old)
	if cfg.VLAN != old.VLAN && s.unfiltered(p) {
		s.log.Warn(WarnUnfiltered, "port", name)
	}
	if was := old.VLAN.Member; s.cfg.VLANFiltering && was != cfg.VLAN.Member {
		// Only now: no worker learns in the VLANs that the port left any more.
		// Static entries there would lead nowhere, and a dump with them could
		// not be loaded.
		s.table.FlushVLANs(uint16(p.id), func(vid uint16) bool { return was.Has(vid) && !cfg.VLAN.Member.Has(vid) })
	}
	return nil
}

// noPort says that there is no port called name, and which there are.
func (s *Switch) noPort(name string) error {
	var names []string
	for _, p := range s.slots {
		if p != nil {
			names = append(names, p.name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("find port %q: %w; the switch has none", name, ErrNoPort)
	}
	if len(names) > 8 {
		names = append(names[:8], "…")
	}
	return fmt.Errorf("find port %q: %w; there are %s", name, ErrNoPort, strings.Join(names, " "))
}

// freeNumber is the lowest port number that no port has.
func (s *Switch) freeNumber() int {
	for id := hostPort + 1; id < len(s.slots); id++ {
		if s.slots[id] == nil {
			return id
		}
	}
	return len(s.slots)
}

// setLocal makes the switch's own address an entry of its host interface, in
// every VLAN that the interface is in and in no other.
func (s *Switch) setLocal(p *port) {
	vids := VIDSet{}
	vids.Add(DefaultVID)
	if s.cfg.VLANFiltering {
		vids = p.cfg.VLAN.Member
	}
	for vid := range vids.All {
		if err := s.table.Set(fdb.MakeKey(s.cfg.MAC, vid), hostPort, fdb.Local); err != nil {
			s.log.Warn("set local address", "vlan", vid, "err", err)
		}
	}
	s.table.DropLocal(hostPort, func(k fdb.Key) bool { return frame.MAC(k.MAC()) != s.cfg.MAC || !vids.Has(k.VID()) })
}

// follow acts on what a port's device says of itself. Called with s.mu held.
func (s *Switch) follow(p *port) {
	old, renamed := p.state, s.rename(p)
	if p.state = p.dev.State(); p.state != old {
		s.act(p, old)
	} else if renamed {
		s.publish()
	}
	p.acted()
}

// act makes p's new state what the switch goes by.
func (s *Switch) act(p *port, old frame.State) {
	if old.Up && !p.state.Up {
		s.table.Flush(uint16(p.id))
	}
	s.treePort(p)
	s.settle()
	if old.Up != p.state.Up {
		s.announceLink(p)
	}
}

// setUplink tells p's device whether it is an uplink.
func (p *port) setUplink() {
	if u, ok := p.dev.(frame.Uplinker); ok {
		u.SetUplink(p.cfg.Uplink)
	}
}

// acted tells p's device that its state is in force.
func (p *port) acted() {
	if w, ok := p.dev.(frame.Waiter); ok {
		w.Acted(p.state)
	}
}

// announceLink tells of a port's link coming or going.
func (s *Switch) announceLink(p *port) {
	if p.state.Up {
		s.log.Info("port is up", "port", p.name, "number", p.id)
		s.feed.publish(Event{Event: EventPortUp, Port: p.name})
		return
	}
	s.log.Info("port is down", "port", p.name, "number", p.id, "reason", p.state.Reason)
	s.feed.publish(Event{Event: EventPortDown, Port: p.name, Reason: p.state.Reason})
}
