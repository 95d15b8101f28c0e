package trial

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvswitch/kvswitch/bench/machine"
)

func TestDisturbedTrialsAreMadeAgainAndCounted(t *testing.T) {
	const stolen, quiet = 50 * time.Millisecond, 0
	for _, tc := range []struct {
		name     string
		steals   []time.Duration // in each attempt
		counts   bool
		rejected int
	}{
		{"quiet", []time.Duration{quiet}, true, 0},
		{"disturbed once", []time.Duration{stolen, quiet}, true, 1},
		{"disturbed throughout", []time.Duration{stolen, stolen, stolen}, false, 3},
	} {
		s := New(Settings{Path: "veth"}, "test", nil, io.Discard)
		// Every attempt takes two samples, a second apart.
		now := machine.Sample{At: time.Now(), CPUs: 2}
		samples := 0
		s.Referee.sample = func() (machine.Sample, error) {
			if samples%2 == 1 {
				now.At = now.At.Add(time.Second)
				now.Steal += tc.steals[samples/2]
			}
			samples++
			return now, nil
		}
		tries := 0
		_, counts, err := s.Referee.Judge("anybody", func() (machine.Usage, error) {
			return s.Referee.Observe(func() error { tries++; return nil })
		})
		if err != nil || counts != tc.counts || tries != len(tc.steals) {
			t.Errorf("%s: counts %v after %d tries, error %v", tc.name, counts, tries, err)
		}
		if s.Results.Trials.Made != tries || s.Results.Trials.Rejected != tc.rejected {
			t.Errorf("%s: %+v, want %d of %d rejected", tc.name, s.Results.Trials, tc.rejected, tries)
		}
		if tc.rejected > 0 && s.Results.Trials.Reasons["stolen by the hypervisor"] != tc.rejected {
			t.Errorf("%s: reasons %v", tc.name, s.Results.Trials.Reasons)
		}
	}
}

func TestABusyMachineIsNamedBeforeTheRun(t *testing.T) {
	for _, tc := range []struct {
		steal time.Duration
		notes int
	}{{0, 0}, {time.Second, 1}} {
		synctest.Test(t, func(t *testing.T) {
			s := New(Settings{Path: "veth"}, "test", nil, io.Discard)
			begin := time.Now()
			s.Referee.sample = func() (machine.Sample, error) {
				at := machine.Sample{At: time.Now(), CPUs: 2}
				if at.At.After(begin) {
					at.Steal = tc.steal
				}
				return at, nil
			}
			if err := s.LookAround(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := s.Results.Notes; len(n) != tc.notes || len(n) > 0 && !strings.Contains(n[0], "the hypervisor stole 50.0 %") {
				t.Errorf("%v stolen in a second of two processors: remarks %q", tc.steal, n)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.LookAround(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("when the run is over already: error %v", err)
			}
		})
	}
}
