package bench

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

// rig is one contender in its topology, ready to run. All rigs of a test stand
// ready at once; those whose turn it is not are stopped (SIGSTOP), so that a
// contender that polls does not take the processor from the others.
type rig struct {
	kind subject.Kind
	sub  subject.Subject
	top  *topo.Topology
	vms  *machines // on path vm
	gone bool      // has ended or failed, and takes no further turn
}

// newRig builds the topology and attaches the contender, stopped.
func newRig(ctx context.Context, k subject.Kind, path string, spec topo.Spec) (*rig, error) {
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
	r := &rig{kind: k, sub: k.New(), top: top}
	if err := r.sub.Attach(top); err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s: %w", k.Name, err), r.close())
	}
	if path == "vm" {
		if r.vms, err = boot(top, k.VhostUser); err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s: %w", k.Name, err), r.close())
		}
	}
	if err := errors.Join(r.await(ctx), r.pause()); err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s: %w", k.Name, err), r.close())
	}
	return r, nil
}

// opening is how long a contender may take until frames pass: longer than
// spanning tree's two forward delays.
const opening = 35 * time.Second

// userland reports that the far ends are no devices: package guest holds them.
func (r *rig) userland() bool { return r.top.Spec.Sockets || r.top.Spec.Taps }

// await returns when frames pass from every port to another.
func (r *rig) await(ctx context.Context) error {
	switch {
	case r.vms != nil:
		return r.vms.await(ctx)
	case !r.userland():
		return r.awaitDevices(ctx)
	}
	size, err := probe.ParseSize("64")
	if err != nil {
		return err
	}
	d, err := guest.Open(r.top, size, oneWay(1))
	if err != nil {
		return err
	}
	return errors.Join(passes(ctx, d), d.Close())
}

// passes teaches and sends until something arrives. A guest that has just come
// is not there for the switch at once.
func passes(ctx context.Context, d *guest.Duplex) error {
	for deadline := time.Now().Add(opening); ; {
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
			return fmt.Errorf("no frames between the guests after %v", opening)
		}
	}
}

// awaitDevices sends probes from every port until its neighbour receives them.
func (r *rig) awaitDevices(ctx context.Context) error {
	all := make([]int, r.top.Spec.Ports)
	var flows []probe.Flows
	for i := range all {
		all[i] = i
		flows = append(flows, probe.Flows{From: i, To: []int{(i + 1) % len(all)}})
	}
	c, err := sink.NewCounter(r.top, all, false)
	if err != nil {
		return err
	}
	defer c.Close()
	size, err := probe.ParseSize("64")
	if err != nil {
		return err
	}
	s, err := gen.NewSender(r.top, size, flows...)
	if err != nil {
		return err
	}
	defer s.Close()
	for deadline := time.Now().Add(opening); ; {
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
			return fmt.Errorf("no frames to port %d after %v", closed, opening)
		}
	}
}

// errGone says that a contender's process has ended by itself.
var errGone = errors.New("a process of it has ended")

func (r *rig) signal(sig unix.Signal) error {
	for _, pid := range r.sub.Processes() {
		if err := unix.Kill(pid, sig); errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("%s: %w", r.kind.Name, errGone)
		} else if err != nil {
			return fmt.Errorf("%s: signal process %d: %w", r.kind.Name, pid, err)
		}
	}
	return nil
}

// alive is errGone when a process of the contender has ended.
func (r *rig) alive() error { return r.signal(0) }

func (r *rig) pause() error  { return r.signal(unix.SIGSTOP) }
func (r *rig) resume() error { return r.signal(unix.SIGCONT) }

// close detaches the contender and removes the topology.
func (r *rig) close() error {
	err := r.resume()
	if errors.Is(err, errGone) { // which was said when it was noticed
		err = nil
	}
	return errors.Join(err, r.sub.Detach(), r.top.Close())
}

// grid are the rigs of one test, in the order of subject.Kinds.
type grid []*rig

// close closes all rigs.
func (g grid) close() error {
	var errs []error
	for _, r := range g {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}
