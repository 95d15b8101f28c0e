package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/guest"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
)

const (
	// auditRate is a load that every switch carries without loss, frames/s.
	auditRate = 10_000
	// auditTries is how often loss must show before it is held against a
	// contender: the machine may have stalled. What no stall can cause — a
	// changed, doubled, reordered or made-up frame — counts at once.
	auditTries = 3
)

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
			fault, err := b.inspect(ctx, r, size)
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
	slow := gen.Load{Rate: auditRate, Length: 2 * b.trialLength, Sleep: true}
	for range auditTries {
		o, err := audited(ctx, r, size, slow)
		if err != nil {
			return "", err
		}
		if f := o.Fault(false); f != "" {
			return fmt.Sprintf("%s of %s at %d frames/s", f, sizeWord(size), auditRate), nil
		}
		if fault = o.Fault(true); fault == "" {
			break
		}
		fault = fmt.Sprintf("%s of %s at %d frames/s, %d times in a row", fault, sizeWord(size), auditRate, auditTries)
	}
	if fault != "" {
		return fault, nil
	}
	o, err := audited(ctx, r, size, gen.Load{Length: b.trialLength / 2})
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

// audited sends one load from port 0 and has every frame at port 1 checked.
func audited(ctx context.Context, r *rig, size probe.Size, load gen.Load) (sink.Outcome, error) {
	const stations = 10
	flows := probe.Flows{From: 0, To: []int{1}, Count: stations}
	if r.userland() {
		d, err := guest.Open(r.top, size, flows)
		if err != nil {
			return sink.Outcome{}, err
		}
		defer d.Close()
		if err := passes(ctx, d); err != nil {
			return sink.Outcome{}, err
		}
		return d.Audit(sink.NewLedger(0, 1, d.Sequence()), func() (uint64, error) {
			sent, err := d.Send(ctx, load)
			return sent.Frames, err
		})
	}
	s, err := gen.NewSender(r.top, size, flows)
	if err != nil {
		return sink.Outcome{}, err
	}
	defer s.Close()
	a, err := sink.NewAuditor(r.top, 1, size.MaxLength())
	if err != nil {
		return sink.Outcome{}, err
	}
	defer a.Close()
	return a.Audit(ctx, sink.NewLedger(0, 1, 0), func() (uint64, error) {
		sent, err := s.Send(ctx, load)
		return sent.Frames, err
	})
}
