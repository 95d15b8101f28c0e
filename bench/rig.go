package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/gen"
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
}

// newRig builds the topology and attaches the contender, stopped.
func newRig(ctx context.Context, k subject.Kind, spec topo.Spec) (*rig, error) {
	spec.Direct, spec.Bare = k.Direct, k.Bare
	top, err := topo.Build(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	r := &rig{kind: k, sub: k.New(), top: top}
	if err := r.sub.Attach(top); err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s: %w", k.Name, err), r.close())
	}
	if err := errors.Join(r.await(ctx), r.pause()); err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s: %w", k.Name, err), r.close())
	}
	return r, nil
}

// opening is how long a contender may take until frames pass: longer than
// spanning tree's two forward delays.
const opening = 35 * time.Second

// await sends probes from every port until its neighbour receives them.
func (r *rig) await(ctx context.Context) error {
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

func (r *rig) signal(sig unix.Signal) error {
	for _, pid := range r.sub.Processes() {
		if err := unix.Kill(pid, sig); err != nil {
			return fmt.Errorf("%s: signal process %d: %w: it has ended", r.kind.Name, pid, err)
		}
	}
	return nil
}

func (r *rig) pause() error  { return r.signal(unix.SIGSTOP) }
func (r *rig) resume() error { return r.signal(unix.SIGCONT) }

// close detaches the contender and removes the topology.
func (r *rig) close() error {
	return errors.Join(r.resume(), r.sub.Detach(), r.top.Close())
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
