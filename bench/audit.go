package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/guest"
	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/topo"
)

const (
	// auditRate is a load that every switch carries without loss, frames/s.
	auditRate = 10_000
	// auditTries is how often loss must show before it is held against a
	// contender: the machine may have stalled. What no stall can cause — a
	// changed, doubled, reordered or made-up frame — counts at once.
	auditTries = 3
	// bystander is a port to which none of the frames belong.
	bystander = 2
)

// check audits all contenders before any test. Guests have no generator for it.
func (b *run) check(ctx context.Context) error {
	if b.Path == "vm" {
		return nil
	}
	spec := topo.Spec{Ports: 2}
	if b.Path == "veth" {
		spec.Ports = bystander + 1
	}
	g, err := b.assemble(ctx, b.entrants, spec)
	if err != nil {
		return err
	}
	return errors.Join(b.audit(ctx, g), g.close())
}

// audit checks what the contenders do to frames, before anything is said about
// how fast they do it.
func (b *run) audit(ctx context.Context, g grid) error {
	for _, r := range g {
		for _, name := range []string{"64", "imix", "1518"} {
			b.line.step("checking every frame: %s, %s bytes", r.kind.Name, name)
			size, err := probe.ParseSize(name)
			if err != nil {
				return err
			}
			fault := ""
			err = b.once(ctx, r, func() (err error) {
				fault, err = b.inspect(ctx, r, size)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", r.kind.Name, err)
			}
			if fault != "" {
				c := b.rep.Contender(r.kind.Name)
				c.Faults = append(c.Faults, fault)
				b.line.note("%s is FAULTY: %s", r.kind.Name, fault)
			}
		}
	}
	return nil
}

// inspect audits one contender with one size: at a low rate, at which loss
// counts, and at full speed, at which it doesn't.
func (b *run) inspect(ctx context.Context, r *rig, size probe.Size) (fault string, err error) {
	if err := r.resume(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.pause()) }()
	slow := gen.Load{Rate: auditRate, Frames: uint64(auditRate * 2 * b.trialLength.Seconds()), Sleep: true}
	lossy := 0 // undisturbed attempts in a row that lost frames
	for try := 0; try < 2*auditTries && lossy < auditTries; try++ {
		o, u, err := b.audited(ctx, r, size, slow)
		if err != nil {
			return "", err
		}
		if f := o.Fault(false); f != "" {
			return fmt.Sprintf("%s of %s at %d frames/s", f, sizeWord(size), auditRate), nil
		}
		fault = o.Fault(true)
		if fault == "" {
			break
		}
		if b.accept(u) {
			lossy++
		}
	}
	switch {
	case lossy == auditTries:
		return fmt.Sprintf("%s of %s at %d frames/s, %d times in a row", fault, sizeWord(size), auditRate, auditTries), nil
	case fault != "":
		b.note("%s lost frames of %s at %d frames/s, but the machine was too busy to blame it", r.kind.Name, sizeWord(size), auditRate)
	}
	o, _, err := b.audited(ctx, r, size, gen.Load{Length: b.trialLength / 2})
	if err != nil {
		return "", err
	}
	if f := o.Fault(false); f != "" {
		return fmt.Sprintf("%s of %s at full load", f, sizeWord(size)), nil
	}
	return "", nil
}

func sizeWord(s probe.Size) string {
	if s.Name == "imix" {
		return "mixed sizes"
	}
	return s.Name + " bytes"
}

// streamSpace is the distance of the first sequence numbers of two audited
// streams: more than any of them sends, so that frames which a stalled contender
// delivers late are not taken for copies.
const streamSpace = 1 << 24

// audited sends one load from port 0 and has every frame at port 1 checked.
func (b *run) audited(ctx context.Context, r *rig, size probe.Size, load gen.Load) (o sink.Outcome, u machine.Usage, err error) {
	b.stream += streamSpace
	const stations = 10
	flows := probe.Flows{From: 0, To: []int{1}, Count: stations}
	audit := b.auditDevices
	if r.userland() {
		audit = b.auditGuests
	}
	u, err = b.observed(func() (err error) {
		o, err = audit(ctx, r, size, flows, load)
		return err
	})
	return o, u, err
}

func (b *run) auditDevices(ctx context.Context, r *rig, size probe.Size, flows probe.Flows, load gen.Load) (o sink.Outcome, err error) {
	s, err := gen.NewSender(r.top, size, flows)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	a, err := sink.NewAuditor(r.top, 1, size.MaxLength())
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	var spy *sink.Counter
	if len(r.top.Ports) > bystander {
		if err := speak(ctx, r, flows.Lesson(1)); err != nil {
			return o, err
		}
		if spy, err = sink.NewCounter(r.top, []int{bystander}, false); err != nil {
			return o, err
		}
		defer func() { err = errors.Join(err, spy.Close()) }()
	}
	s.Renumber(b.stream)
	o, err = a.Audit(ctx, sink.NewLedger(0, 1, b.stream), func() (uint64, error) {
		sent, err := s.Send(ctx, load)
		return sent.Frames, err
	})
	if err == nil && spy != nil {
		var n sink.Counts
		n, err = spy.Read()
		o.Flooded = n.Astray
	}
	return o, err
}

// speak has every station of the flows send once, slowly, so that the contender
// knows them.
func speak(ctx context.Context, r *rig, flows probe.Flows) error {
	small, err := probe.ParseSize("64")
	if err != nil {
		return err
	}
	s, err := gen.NewSender(r.top, small, flows)
	if err != nil {
		return err
	}
	_, err = s.Send(ctx, gen.Load{Rate: 1000, Frames: uint64(flows.Frames())})
	time.Sleep(still)
	return errors.Join(err, s.Close())
}

func (b *run) auditGuests(ctx context.Context, r *rig, size probe.Size, flows probe.Flows, load gen.Load) (o sink.Outcome, err error) {
	d, err := guest.Open(r.top, size, flows)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := passes(ctx, d); err != nil {
		return o, err
	}
	d.Renumber(b.stream)
	return d.Audit(sink.NewLedger(0, 1, b.stream), func() (uint64, error) {
		sent, err := d.Send(ctx, load)
		return sent.Frames, err
	})
}
