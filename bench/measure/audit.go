package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
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
func check(s *trial.Session) []Stage {
	spec := topo.Spec{Ports: 2}
	switch s.Path {
	case "vm":
		return nil
	case "veth":
		spec.Ports = bystander + 1
	}
	return []Stage{{s.Entrants, spec, []Measurement{&audit{}}}}
}

// audit finds out what the contenders do to frames, before anything is said about
// how fast they do it.
type audit struct {
	// stream is the first sequence number of the latest stream.
	stream uint32
}

// auditedSizes are those of the frames.
var auditedSizes = []string{"64", "imix", "1518"}

func (a *audit) Expect(s *trial.Settings, n int) time.Duration {
	return time.Duration(n*len(auditedSizes)) * (3*s.Length + 2*perTrial)
}

func (a *audit) Measure(ctx context.Context, s *trial.Session, g rig.Grid) error {
	for i, r := range g {
		for j, name := range auditedSizes {
			s.Line.Part(i*len(auditedSizes)+j, len(g)*len(auditedSizes))
			s.Line.Step("checking every frame: %s, %s bytes", r.Kind.Name, name)
			size, err := probe.ParseSize(name)
			if err != nil {
				return err
			}
			err = s.Turns.Once(ctx, r, func() error {
				fault, err := a.inspect(ctx, s, r, size)
				if fault != "" {
					s.Results.Fault(r.Kind.Name, fault)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", r.Kind.Name, err)
			}
		}
	}
	return nil
}

// inspect audits one contender with one size: at a low rate, at which loss
// counts, and at full speed, at which it doesn't.
func (a *audit) inspect(ctx context.Context, s *trial.Session, r *rig.Rig, size probe.Size) (fault string, err error) {
	err = r.Awake(func() error {
		fault, err = a.slowly(ctx, s, r, size)
		if err != nil || fault != "" {
			return err
		}
		o, _, err := a.trial(ctx, s, r, size, gen.Load{Length: s.Length / 2})
		if f := o.Fault(false); err == nil && f != "" {
			fault = fmt.Sprintf("%s of %s at full load", f, size)
		}
		return err
	})
	return fault, err
}

// slowly audits at the low rate.
func (a *audit) slowly(ctx context.Context, s *trial.Session, r *rig.Rig, size probe.Size) (fault string, err error) {
	load := gen.Load{Rate: auditRate, Frames: uint64(auditRate * 2 * s.Length.Seconds()), Sleep: true}
	lossy := 0 // undisturbed attempts in a row that lost frames
	for range 2 * auditTries {
		o, u, err := a.trial(ctx, s, r, size, load)
		if err != nil {
			return "", err
		}
		if f := o.Fault(false); f != "" {
			return fmt.Sprintf("%s of %s at %d frames/s", f, size, auditRate), nil
		}
		if fault = o.Fault(true); fault == "" {
			return "", nil
		}
		if s.Referee.Accept(u) {
			lossy++
		}
		if lossy == auditTries {
			return fmt.Sprintf("%s of %s at %d frames/s, %d times in a row", fault, size, auditRate, auditTries), nil
		}
	}
	s.Results.Note("%s lost frames of %s at %d frames/s, but the machine was too busy to blame it", r.Kind.Name, size, auditRate)
	return "", nil
}

// streamSpace is the distance of the first sequence numbers of two audited
// streams: more than any of them sends, so that frames which a stalled contender
// delivers late are not taken for copies.
const streamSpace = 1 << 24

// trial sends one load from port 0 and has every frame at port 1 checked.
func (a *audit) trial(ctx context.Context, s *trial.Session, r *rig.Rig, size probe.Size, load gen.Load) (o sink.Outcome, u machine.Usage, err error) {
	a.stream += streamSpace
	flows := probe.OneWay(10)
	check := a.devices
	if r.Userland() {
		check = a.guests
	}
	u, err = s.Referee.Observe(func() (err error) {
		o, err = check(ctx, r, size, flows, load)
		return err
	})
	return o, u, err
}

func (a *audit) devices(ctx context.Context, r *rig.Rig, size probe.Size, flows probe.Flows, load gen.Load) (o sink.Outcome, err error) {
	sender, err := gen.NewSender(r.Top, size, flows)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, sender.Close()) }()
	auditor, err := sink.NewAuditor(r.Top, 1, size.MaxLength())
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, auditor.Close()) }()
	var spy *sink.Counter
	if len(r.Top.Ports) > bystander {
		if err := rig.Speak(ctx, r, flows.Lesson(1), 1000); err != nil {
			return o, err
		}
		time.Sleep(rig.Still)
		if spy, err = sink.NewCounter(r.Top, []int{bystander}, false); err != nil {
			return o, err
		}
		defer func() { err = errors.Join(err, spy.Close()) }()
	}
	sender.Renumber(a.stream)
	o, err = auditor.Audit(ctx, sink.NewLedger(0, 1, a.stream), func() (uint64, error) {
		sent, err := sender.Send(ctx, load)
		return sent.Frames, err
	})
	if err == nil && spy != nil {
		var n sink.Counts
		n, err = spy.Read()
		o.Flooded = n.Astray
	}
	return o, err
}

func (a *audit) guests(ctx context.Context, r *rig.Rig, size probe.Size, flows probe.Flows, load gen.Load) (o sink.Outcome, err error) {
	d, err := rig.OpenGuests(ctx, r.Top, size, flows)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	d.Renumber(a.stream)
	return d.Audit(sink.NewLedger(0, 1, a.stream), func() (uint64, error) {
		sent, err := d.Send(ctx, load)
		return sent.Frames, err
	})
}
