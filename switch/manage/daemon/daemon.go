package daemon

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/host/loglimit"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"
)

// Daemon is a switch and what surrounds it: the control socket, the opener of
// ports, the configuration it was started from. Make one with New; Run ends
// with nothing left of it. Other methods may be called from any goroutine.
type Daemon struct {
	options  Options
	log      *slog.Logger      // no outsider fills it, and nobody waits for it
	lines    *loglimit.Handler // before queue
	queue    *loglimit.Queue
	listener *ctl.Listener
	opener   *opener
	sw       *vswitch.Switch
	guests   *qemu.Guests
	taps     *guestTaps
	helper   *qemu.Helper   // nil without the right to make taps
	started  *config.Config // as the switch was started

	reloading sync.Mutex     // one reload at a time
	last      *config.Config // what file and options asked for when they were last read

	mu   sync.Mutex      // never held while anybody else is waited for
	busy map[string]bool // ports that are being added, or that a reload is about
}

var _ ctl.Daemon = (*Daemon)(nil)

// New claims the name and makes the switch with all its ports. On an error,
// which is an OptionError if the options are to blame, nothing is left of it.
func New(o Options) (_ *Daemon, err error) {
	opener, err := newOpener(o.RunDir)
	if err != nil {
		return nil, err
	}
	queue := loglimit.NewQueue(cmp.Or(o.Log, slog.Default()).Handler())
	lines := loglimit.New(queue)
	d := &Daemon{options: o, log: slog.New(lines), lines: lines, queue: queue, opener: opener}
	d.taps = newGuestTaps(d.dropGuestPort)
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.started, err = o.load(opener.kinds()); err != nil {
		return nil, err
	}
	opener.completeAll(d.started, nil)
	opener.host = hostInterface{mark: hostMark(d.started.Switch.Name), keep: o.KeepHost}
	// The name first: a second daemon must not touch the first one's interfaces.
	if d.listener, err = ctl.ListenGroup(o.RunDir, d.started.Switch.Name, d.started.Group); err != nil {
		return nil, err
	}
	if err = d.start(); err != nil {
		return nil, err
	}
	if err = d.dropOldHosts(); err != nil {
		return nil, err
	}
	if err = d.meetGuests(); err != nil {
		return nil, err
	}
	opener.putBack(d.log) // now that ports have their devices, which stay quiet
	return d, nil
}

// start makes the switch and has it changed from nothing to what file and
// options ask for. The uplinks come first: the switch's own address, and the MTU
// of the host interface and of new taps, are the first one's.
func (d *Daemon) start() (err error) {
	want := d.started
	sc := want.Switch
	sc.Logger, sc.Words = d.log, config.Words{}
	d.makeTier(&sc) // before any port that is to be part of it
	early, first, err := d.opener.openUplink(want)
	if err != nil {
		return err
	}
	defer early.close()
	d.opener.tapMTU = cmp.Or(want.MTU, first.MTU)
	if sc.MAC.IsZero() {
		if sc.MAC = first.MAC; !sc.MAC.IsUnicast() {
			sc.MAC = ownMAC(sc.Name, d.options.RunDir)
		}
	}
	if d.sw, err = vswitch.New(sc); err != nil {
		return err
	}
	d.last = config.Default()
	_, err = d.change(early, config.Nothing(want), want)
	var f *config.Failure
	if errors.As(err, &f) {
		return f.Err // which step it was, and that it was taken back, helps nobody here
	}
	return err
}

// close undoes New.
func (d *Daemon) close() {
	d.leaveGuests()
	if d.sw != nil {
		if err := d.sw.Close(); err != nil {
			d.log.Warn("stop switch", "err", err)
		}
	}
	if d.listener != nil {
		d.listener.Close()
		d.opener.putBack(d.log)
	}
	d.opener.close()
	d.endLog()
}

// logPatience is how long the end of the log waits for whoever reads it.
const logPatience = 500 * time.Millisecond

func (d *Daemon) endLog() {
	d.lines.Flush()
	d.queue.Close(logPatience)
}

// Log is the daemon's log: lines that come faster than they are read, or again and
// again from one cause, are counted in it and left out.
func (d *Daemon) Log() *slog.Logger { return d.log }

// Run forwards and answers until ctx ends, and leaves nothing behind. It is
// called once.
func (d *Daemon) Run(ctx context.Context) error {
	provision(d.started.Switch.Workers)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := ctl.NewServer(d.sw, d, d.guests, d.log)
	var parts sync.WaitGroup
	errs := make(chan error, 2)
	part := func(f func() error) {
		parts.Go(func() {
			if err := f(); err != nil {
				errs <- err
				cancel()
			}
		})
	}
	stopMetrics := func() {}
	if addr := d.started.Metrics; addr != "" {
		m, err := listenMetrics(addr, d.sw, d.options.Version)
		if err != nil {
			d.close()
			return err
		}
		stopMetrics = func() { m.Close() }
		part(m.serve)
	}
	part(func() error { return server.Serve(d.listener) })
	d.log.Info("switch is running", "switch", d.sw.Config().Name, "mac", d.sw.Config().MAC.String(), "socket", d.listener.Addr().String())
	stopWatchdog := notifyReady(d.sw)
	err := d.sw.Run(ctx)
	stopWatchdog()
	server.Close()
	stopMetrics()
	d.leaveGuests()
	parts.Wait()
	d.listener.Close()
	d.opener.putBack(d.log)
	// The tier's memory goes with the process: a request or a reload that is still
	// under way may read the table, which lies in it.
	d.opener.watcher.Close()
	d.endLog()
	select {
	case e := <-errs:
		err = errors.Join(err, e)
	default:
	}
	return err
}

// heapShare is the heap's part of the control group's memory limit. The other half
// is for what the runtime does not know: rings, intakes, the table.
const heapShare = 0.5

// provision fits the Go runtime to the work. Each worker holds a processor of
// the runtime while it polls, and one more serves the control side. The heap is
// small and steady — frames are never allocated — so collecting it at four times
// its size costs some megabytes and saves the workers most interruptions; GOGC
// in the environment decides otherwise. Where the control group has a memory limit
// (systemd's MemoryMax, a container's), the collector works harder before the heap
// comes near it; GOMEMLIMIT in the environment is taken as it is.
func provision(workers int) {
	if n := workers + 1; runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	limitHeap(memlimit.FromCgroup)
}

// limitHeap gives the heap its share of the limit. No limit, or none that can be
// found out, is no limit.
func limitHeap(limit memlimit.Provider) {
	_, _ = memlimit.Set(memlimit.WithProvider(limit), memlimit.WithRatio(heapShare))
}
