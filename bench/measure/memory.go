package measure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/machine"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/rig"
	"github.com/kvswitch/kvswitch/bench/trial"
	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

var metricMemory = report.Metric{
	Test: "throughput", Name: "memory", Unit: "frame/s",
	Title: "kvswitch's forwarding loop alone: one worker, ports in memory, no input or output",
}

// memoryName is the contender's name in the report.
const memoryName = "memory"

// memory measures the hot loop in this process: what is left when ports cost
// nothing. It stands in no comparison.
type memory struct{}

func (memory) Expect(s *trial.Settings, _ int) time.Duration {
	return trials(len(s.Flows)*s.Runs, s.Length*5/4)
}

func (memory) Measure(ctx context.Context, s *trial.Session, _ rig.Grid) error {
	if s.Results.Contender(memoryName) == nil {
		s.Results.Contenders = append(s.Results.Contenders, report.Contender{
			Name: memoryName, Family: "kvswitch", Version: s.Results.Program, Faults: []string{},
			About: "package vswitch in this process, one spinning worker, RSTP on, ports that lend the same frames again and again and swallow what they get",
		})
	}
	for i, flows := range s.Flows {
		c := report.Case{Size: "64", Flows: flows, Source: "memory", Load: "full"}
		for round := range s.Runs {
			s.Line.Part(i*s.Runs+round, len(s.Flows)*s.Runs)
			s.Line.Step("forwarding loop, %s: round %d of %d", c, round+1, s.Runs)
			var rate float64
			_, counts, err := s.Referee.Judge(memoryName, func() (machine.Usage, error) {
				return s.Referee.Observe(func() (err error) {
					rate, err = loop(ctx, flows, s.Length)
					return err
				})
			})
			if err != nil {
				return err
			}
			s.Results.File(metricMemory, c, memoryName, round, rate, counts)
		}
	}
	return nil
}

// loop runs a switch with two ports in memory and returns the frames/s that it
// forwards from one to the other.
func loop(ctx context.Context, flows int, length time.Duration) (rate float64, err error) {
	sw, err := vswitch.New(vswitch.Config{
		BusyPoll: vswitch.BusyPollAlways, MaxEntries: max(2*flows, 65536), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, err
	}
	there := probe.OneWay(flows)
	ports := []*mem.Endless{memoryPort(there), memoryPort(there.Lesson(1))}
	ctx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- sw.Run(ctx) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ran)
	}()
	cfg := vswitch.NewPortConfig(memoryName)
	cfg.MaxLearned = vswitch.NoLimit
	for i, p := range ports {
		if _, err := sw.AddPort(fmt.Sprintf("p%d", i), p, cfg); err != nil {
			return 0, err
		}
	}
	// Every destination speaks once, and is known.
	ports[1].Lend(int64(flows))
	for deadline := time.Now().Add(rig.Opening); ports[0].Taken.Load() < uint64(flows); {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return 0, errors.Join(ctx.Err(), fmt.Errorf("switch in memory forwarded %d of %d frames", ports[0].Taken.Load(), flows))
		}
		time.Sleep(time.Millisecond)
	}
	const endless = 1 << 60
	ports[0].Lend(endless)
	gen.Wait(ctx, length/4)
	begin, before := time.Now(), ports[1].Taken.Load()
	gen.Wait(ctx, length)
	rate = float64(ports[1].Taken.Load()-before) / time.Since(begin).Seconds()
	return rate, ctx.Err()
}

// memoryPort lends the frames of the flows in turn.
func memoryPort(f probe.Flows) *mem.Endless {
	const length = 60 // 64 with frame check sequence
	frames := make([]frame.Frame, max(f.Frames(), frame.BatchSize))
	for i := range frames {
		t := probe.Build(make([]byte, length), false, 0)
		dst, src := f.Address(uint32(i))
		t.Stamp(dst, src, uint32(i), 0)
		frames[i].Data = t.Bytes()
	}
	return mem.NewEndless(frames)
}
