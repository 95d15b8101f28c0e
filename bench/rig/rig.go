// Package rig is one contender of the race, set up and ready: a Rig is a switch
// attached to a topology of its own, a Lane is a generator and a counter on it,
// and VMs are two real guests at its ports.
//
// It sends loads and counts what arrives. Whose turn it is, whether a trial
// counts and what its figures mean is for its callers, packages trial and
// measure. Everything here is used by one goroutine; nothing of it is left once
// its Close has returned, or once the process has ended in any other way.
package rig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/guest"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// Rig is one contender in its topology, ready to run. All rigs of a test stand
// ready at once; those whose turn it is not are stopped (SIGSTOP), so that a
// contender that polls does not take the processor from the others.
type Rig struct {
	Kind subject.Kind
	Top  *topo.Topology
	VMs  *VMs // on path vm, else nil
	// Gone is set when the contender has ended or failed, and takes no further
	// turn.
	Gone bool

	sub subject.Subject
	// outstanding are frames of all loads so far that may still come: it outlives
	// lanes, as the contender's queues do.
	outstanding uint64
	// number is the first sequence number of the next lane.
	number uint32
}

// Opening is how long a contender may take until frames pass: longer than
// spanning tree's two forward delays.
const Opening = 35 * time.Second

// New builds a topology for a path and attaches the contender. It returns when
// frames pass, with the contender stopped.
func New(ctx context.Context, k subject.Kind, path string, spec topo.Spec) (*Rig, error) {
	spec.Direct, spec.Bare = k.Direct, k.Bare
	if k.Direct {
		spec.Ports = 2 // whatever others have
	}
	spec.Sockets = path == "vhost-user" || path == "vm" && k.VhostUser
	spec.Taps = path == "tap" || path == "vm" && !k.VhostUser
	top, err := topo.Build(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	r := &Rig{Kind: k, Top: top, sub: k.New()}
	err = r.sub.Attach(top)
	if err == nil && path == "vm" {
		r.VMs, err = boot(top, k.VhostUser)
	}
	if err == nil {
		err = errors.Join(r.await(ctx), r.Pause())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s: %w", k.Name, err), r.Close())
	}
	return r, nil
}

// Userland reports that the far ends are no devices: package guest holds them.
func (r *Rig) Userland() bool { return r.Top.Spec.Sockets || r.Top.Spec.Taps }

// await returns when frames pass from every port to another.
func (r *Rig) await(ctx context.Context) error {
	switch {
	case r.VMs != nil:
		return r.VMs.await()
	case !r.Userland():
		return r.awaitDevices(ctx)
	}
	d, err := OpenGuests(ctx, r.Top, probe.Smallest(), probe.OneWay(1))
	if err != nil {
		return err
	}
	return d.Close()
}

// OpenGuests has package guest play both ends, and returns when frames pass
// between them. The contender must be awake.
func OpenGuests(ctx context.Context, top *topo.Topology, size probe.Size, flows probe.Flows) (*guest.Duplex, error) {
	d, err := guest.Open(top, size, flows)
	if err != nil {
		return nil, err
	}
	if err := passes(ctx, d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// passes teaches and sends until something arrives. A guest that has just come
// is not there for the switch at once.
func passes(ctx context.Context, d *guest.Duplex) error {
	for deadline := time.Now().Add(Opening); ; {
		if err := errors.Join(d.Reset(), d.Teach(ctx)); err != nil {
			return err
		}
		if _, err := d.Send(ctx, gen.Load{Rate: 20_000, Frames: 20, Sleep: true}); err != nil {
			return err
		}
		n, err := d.Read()
		switch {
		case err != nil || n.Frames > 0:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("no frames between the guests after %v", Opening)
		}
	}
}

// awaitDevices sends probes from every port until its neighbour receives them.
func (r *Rig) awaitDevices(ctx context.Context) error {
	all := make([]int, r.Top.Spec.Ports)
	for i := range all {
		all[i] = i
	}
	c, err := sink.NewCounter(r.Top, all, false)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := gen.NewSender(r.Top, probe.Smallest(), probe.Ring(len(all))...)
	if err != nil {
		return err
	}
	defer s.Close()
	for deadline := time.Now().Add(Opening); ; {
		if err := c.Reset(); err != nil {
			return err
		}
		burst := gen.Load{Rate: 20_000, Length: time.Duration(len(all)) * time.Second / 5000, Sleep: true}
		if _, err := s.Send(ctx, burst); err != nil {
			return err
		}
		closed := slices.IndexFunc(all, func(i int) bool {
			n, err := c.ReadPort(i)
			return err != nil || n.Frames == 0
		})
		switch {
		case closed < 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("no frames to port %d after %v", closed, Opening)
		}
	}
}

// ErrGone says that a contender's process has ended by itself.
var ErrGone = errors.New("a process of it has ended")

func (r *Rig) signal(sig unix.Signal) error {
	for _, pid := range r.sub.Processes() {
		if err := unix.Kill(pid, sig); errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("%s: %w", r.Kind.Name, ErrGone)
		} else if err != nil {
			return fmt.Errorf("%s: signal process %d: %w", r.Kind.Name, pid, err)
		}
	}
	return nil
}

// Alive is ErrGone when a process of the contender has ended.
func (r *Rig) Alive() error { return r.signal(0) }

// Pause stops the contender's processes; ErrGone if one has ended.
func (r *Rig) Pause() error { return r.signal(unix.SIGSTOP) }

// rouse is what a contender gets to come to itself after SIGCONT: programs that
// notice that time has jumped have something to say or to catch up with.
const rouse = 10 * time.Millisecond

// Resume lets the contender's processes go on, and gives them a moment to find
// out that they were stopped; ErrGone if one has ended.
func (r *Rig) Resume() error {
	err := r.signal(unix.SIGCONT)
	if err == nil && len(r.sub.Processes()) > 0 {
		time.Sleep(rouse)
	}
	return err
}

// Close detaches the contender and removes the topology.
func (r *Rig) Close() error {
	err := r.signal(unix.SIGCONT)
	if errors.Is(err, ErrGone) { // which was said when it was noticed
		err = nil
	}
	return errors.Join(err, r.sub.Detach(), r.Top.Close())
}

// Awake does something while the contender is awake.
func (r *Rig) Awake(do func() error) error {
	if err := r.Resume(); err != nil {
		return err
	}
	return errors.Join(do(), r.Pause())
}

// Grid are the rigs of one test, in the order of subject.Kinds.
type Grid []*Rig

// Close closes all rigs.
func (g Grid) Close() error {
	var errs []error
	for _, r := range g {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}
