// Package vswitch is the switch itself: ports, the workers that forward, the
// forwarding decision, and the calls that control it. (The folder is called
// switch, a keyword, hence the package's name.)
//
// It learns, forwards, floods and ages as IEEE 802.1Q bridges do, filters VLANs
// when told to, and runs the spanning tree of package stp over its ports. It
// does no I/O of its own: frames come and go through frame.Port values, and it
// knows nothing of netdevs, sockets, files or flags. It keeps no global state:
// any number of switches live in one process.
//
// Every exported method may be called from any goroutine, before, during and
// after Run. They serialise among themselves and never disturb forwarding for
// more than a batch.
package vswitch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvswitch/kvswitch/fdb"
	"github.com/kvswitch/kvswitch/stp"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/pump"
	"github.com/kvswitch/kvswitch/switch/relay"
)

// BusyPollAlways makes workers never sleep.
const BusyPollAlways = pump.Always

// Defaults of Config.
const (
	DefaultName     = "kvs0"
	DefaultAgeing   = 300 * time.Second // 802.1Q table 8-6
	DefaultBusyPoll = 20 * time.Microsecond
	MaxWorkers      = 64
)

// AgeingOff as Config.Ageing has the switch forget at once: it learns nothing and
// floods, as the kernel's bridge does with an ageing time of 0.
const AgeingOff time.Duration = -1

// Config is what a switch is made from. The zero value is a plain learning
// switch with RSTP and one worker that sleeps whenever it has nothing to do.
type Config struct {
	Name          string        // "" = DefaultName
	MAC           frame.MAC     // bridge identifier and host address; zero = made up, locally administered
	Ageing        time.Duration // whole seconds; 0 = DefaultAgeing, AgeingOff = nothing is learned
	MaxEntries    int           // dynamic FDB entries; 0 = 65536, at most 4194304
	VLANFiltering bool
	Workers       int           // forwarding threads, 1–64; 0 = 1
	BusyPoll      time.Duration // how long a worker polls after work before it sleeps; BusyPollAlways = for ever
	STP           STPConfig
	Logger        *slog.Logger   // nil = slog.Default()
	Words         Words          // for the log and events; nil = none
	Memory        *fdb.Memory    // where the table lies; nil = memory of its own
	Follower      relay.Follower // gets every view before the BPDUs that announce it leave; nil = none
	Clock         Clock          // of ageing, spanning tree and events; nil = the system's
}

// Clock says what time it is. A lab has one that is moved by hand.
type Clock interface{ Now() time.Time }

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

// Errors that callers tell apart. Those returned wrap one of them where it fits.
var (
	ErrNoPort     = errors.New("no such port")
	ErrPortExists = errors.New("there is a port of that name already")
	ErrTooMany    = errors.New("no port number is free")
	ErrHostPort   = errors.New("it is the host interface, which goes with the switch")
	ErrClosed     = errors.New("the switch has stopped")
	ErrRan        = errors.New("a switch runs once")
)

// NotMemberError refuses an entry in a VLAN that its port is not in.
type NotMemberError struct {
	Port string
	VLAN uint16
}

func (e *NotMemberError) Error() string {
	return fmt.Sprintf("port %s is not in VLAN %d", e.Port, e.VLAN)
}

// NoEntryError is that a station is not in the table.
type NoEntryError struct {
	VLAN    uint16
	Assumed bool // the caller named no VLAN, and the switch has others than this
}

func (e *NoEntryError) Error() string { return fmt.Sprintf("not in the table in VLAN %d", e.VLAN) }

// Switch is a learning switch. Make one with New.
type Switch struct {
	log     *slog.Logger
	started time.Time
	table   *fdb.Table
	feed    feed
	view    atomic.Pointer[relay.View]
	punts   chan relay.Punt
	poke    chan struct{} // some port's state changed
	trouble atomic.Bool   // some port's troubles have grown

	mu          sync.Mutex // all below, and the writing of view
	cfg         Config     // Workers, BusyPoll, VLANFiltering never change
	slots       []*port    // by port number
	seq         uint64     // of the published view
	tree        *stp.Bridge
	root        stp.BridgeID   // as last told
	leaving     *port          // on its way out: has no number any more, but news
	shortAgeing uint32         // seconds, while the tree asks for it; 0 = cfg.Ageing is in force
	ticked      uint32         // when tick was last called, by the coarse clock
	late        bool           // the follower missed a beat
	workers     []*pump.Worker // while Run runs
	hand        *Hand          // in place of Run
	closed      bool
}

// puntQueue is how many frames may wait for the control side.
const puntQueue = 1024

// New makes a switch with no ports.
func New(cfg Config) (*Switch, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	memory := fdb.NewMemory
	if cfg.Memory != nil {
		memory = func(int) fdb.Memory { return *cfg.Memory }
	}
	table, err := fdb.NewIn(memory(cfg.MaxEntries), cfg.MaxEntries, cfg.ageing())
	if err != nil {
		return nil, err
	}
	s := &Switch{
		log:     cfg.Logger.With("switch", cfg.Name),
		started: cfg.Clock.Now(),
		cfg:     cfg,
		table:   table,
		punts:   make(chan relay.Punt, puntQueue),
		poke:    make(chan struct{}, 1),
		slots:   make([]*port, 1), // number 0 is the host's
	}
	s.feed.clock = cfg.Clock
	table.OnEvict(s.evicted)
	if err := s.startTree(); err != nil {
		return nil, err
	}
	if text := s.warnTimes(); text != "" {
		s.log.Warn(text)
	}
	s.view.Store(s.buildView())
	return s, nil
}

// fill puts defaults in place of zeros and refuses what can't be.
func (c *Config) fill() error {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.Ageing == 0 {
		c.Ageing = DefaultAgeing
	}
	if err := checkAgeing(c.Ageing); err != nil {
		return err
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = fdb.DefaultMax
	}
	if c.MaxEntries < 1 || c.MaxEntries > fdb.MaxEntries {
		return fmt.Errorf("check FDB size %d: want 1 to %d entries", c.MaxEntries, fdb.MaxEntries)
	}
	if c.Workers == 0 {
		c.Workers = 1
	}
	if c.Workers < 1 || c.Workers > MaxWorkers {
		return fmt.Errorf("check workers %d: want 1 to %d", c.Workers, MaxWorkers)
	}
	if c.BusyPoll < BusyPollAlways {
		return fmt.Errorf("check BusyPoll %v: want 0 or more, or BusyPollAlways", c.BusyPoll)
	}
	if c.MAC.IsZero() {
		rand.Read(c.MAC[:])
		c.MAC[0] = c.MAC[0]&^3 | 2 // a station's own, locally administered
	}
	if c.MAC.IsGroup() {
		return fmt.Errorf("check MAC %v: it is a group address; a switch needs a station's", c.MAC)
	}
	c.STP.fill()
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Words == nil {
		c.Words = noWords{}
	}
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	return nil
}

// checkAgeing refuses ageing times that the coarse clock of the table can't tell apart.
func checkAgeing(d time.Duration) error {
	if d == AgeingOff {
		return nil
	}
	if d < time.Second || d > 1000000*time.Second {
		return fmt.Errorf("check ageing %v: want 1s to 1000000s", d)
	}
	return nil
}

// ageing is Ageing in seconds, 0 for AgeingOff.
func (c *Config) ageing() uint32 { return uint32(max(c.Ageing, 0) / time.Second) }

// Run forwards until ctx ends, then closes every port. It returns an error
// only when forwarding could not start; ports are closed then, too. A switch
// runs once: another call is an error and changes nothing.
func (s *Switch) Run(ctx context.Context) error {
	workers, err := s.makeWorkers()
	if errors.Is(err, ErrRan) {
		return err
	}
	if err == nil {
		var running sync.WaitGroup
		for _, w := range workers {
			running.Go(w.Run)
		}
		s.control(ctx)
		for _, w := range workers {
			w.Stop()
		}
		running.Wait()
	}
	s.shutdown()
	for _, w := range workers {
		w.Close()
	}
	return err
}

// mayRun is why the switch can't be run. Called with s.mu held.
func (s *Switch) mayRun() error {
	if s.closed || s.workers != nil || s.hand != nil {
		return fmt.Errorf("run switch %s: %w", s.cfg.Name, ErrRan)
	}
	return nil
}

// makeWorkers makes them and hands them the present view. Those it made it
// returns with an error, too.
func (s *Switch) makeWorkers() (workers []*pump.Worker, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayRun(); err != nil {
		return nil, err
	}
	loads := s.loads(s.view.Load())
	for i := range s.cfg.Workers {
		w, err := pump.New(i, relay.New(i, s.table, s), s.cfg.BusyPoll, s.log)
		if err != nil {
			return workers, err
		}
		w.Give(loads[i])
		workers = append(workers, w)
	}
	s.workers = workers
	return workers, nil
}

// shutdown closes the ports, which no worker uses any more.
func (s *Switch) shutdown() {
	s.mu.Lock()
	s.closed = true
	s.workers, s.hand = nil, nil
	ports := s.slots
	s.slots = make([]*port, 1)
	s.mu.Unlock()
	// Side by side: the kernel takes some 30 ms to let go of a packet socket,
	// nearly all of it waiting.
	var closing sync.WaitGroup
	room := make(chan struct{}, maxClosing)
	for _, p := range ports {
		if p == nil {
			continue
		}
		room <- struct{}{}
		closing.Go(func() {
			defer func() { <-room }()
			if err := p.dev.Close(); err != nil {
				s.log.Warn("close port", "port", p.name, "err", err)
			}
		})
	}
	closing.Wait()
}

// maxClosing is how many ports are closed at a time: each may hold a thread.
const maxClosing = 64

// Config is the configuration in force, defaults filled in.
func (s *Switch) Config() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg
}
